"""What a replay measured: two runs over one log, request by request, and the figures of both."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from llm_costopt.demo.log import LoggedRequest
from llm_costopt.types import CallRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One request as it was answered in one run."""

    request: LoggedRequest
    """What was asked."""
    records: tuple[CallRecord, ...]
    """Its calls and hits."""
    source: LoggedRequest | None
    """The request whose recorded answer was served; None if that is not known."""
    right: bool | None
    """Whether the answer was right; None if that is not known."""
    latency_ms: float
    """Time measured here plus the log's recorded model time."""
    error: str | None = None
    """What went wrong if there was no answer."""

    @property
    def cost(self) -> Decimal | None:
        """Add up what its calls cost; None if one of them has no known price."""
        costs = [r.cost for r in self.records]
        return None if not costs or None in costs else sum((c for c in costs if c is not None), Decimal(0))

    @property
    def hit(self) -> bool:
        """Tell whether no model was called."""
        return bool(self.records) and all(r.cache for r in self.records)

    @property
    def wrong_hit(self) -> bool:
        """Tell whether the cache served an answer to another question."""
        return self.hit and self.source is not None and self.source.same_as != self.request.same_as

    @property
    def escalated(self) -> bool:
        """Tell whether a draft was rejected."""
        return any(r.replaces for r in self.records)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Both runs."""

    before: Sequence[Served]
    """All requests to the strong model."""
    after: Sequence[Served]
    """The same requests through cache and router."""

    def to_dict(self) -> dict[str, Any]:
        """Give the figures as JSON values: US dollars, shares from 0 to 1, milliseconds, null where unknown."""
        hits = [s for s in self.after if s.hit]
        labelled = all(s.request.same_as is not None for s in self.after)
        return {
            "requests": len(self.before),
            "before": _figures(self.before),
            "after": {
                **_figures(self.after),
                "hit_rate": len(hits) / len(self.after),
                "wrong_hits": sum(s.wrong_hit for s in hits) if labelled else None,
                "escalations": sum(s.escalated for s in self.after),
                "models": _shares(self.after),
            },
            "saved": {"cache": _number(self._saved(True)), "router": _number(self._saved(False))},
        }

    def _saved(self, by_cache: bool) -> Decimal | None:
        """Add up the measured difference between the runs, over the requests that hit, or over the others."""
        differences = [
            None if b.cost is None or a.cost is None else b.cost - a.cost
            for b, a in zip(self.before, self.after, strict=True)
            if a.hit is by_cache
        ]
        return None if None in differences else sum((d for d in differences if d is not None), Decimal(0))


def _figures(run: Sequence[Served]) -> dict[str, Any]:
    costs = [s.cost for s in run]
    latencies = sorted(s.latency_ms for s in run)
    right = [s.right for s in run if s.right is not None]
    return {
        "cost_usd": None if None in costs else _number(sum((c for c in costs if c is not None), Decimal(0))),
        "failed": sum(s.error is not None for s in run),
        "right": sum(right) / len(right) if right else None,
        "latency_p50_ms": round(statistics.median(latencies), 1),
        "latency_p95_ms": round(latencies[round(0.95 * (len(latencies) - 1))], 1),
    }


def _shares(run: Sequence[Served]) -> dict[str, float]:
    """Tell which share of the requests each model answered."""
    models = [s.records[-1].model or "unknown" for s in run if s.records and not s.hit]
    return {m: models.count(m) / len(run) for m in sorted(set(models))}


def _number(money: Decimal | None) -> float | None:
    return None if money is None else round(float(money), 6)
