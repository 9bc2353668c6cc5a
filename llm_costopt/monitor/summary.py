"""The totals over the ledger's calls, from what each hour comes to."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal

from llm_costopt.monitor.rollup import BY_MODEL, COUNTS, span
from llm_costopt.types import CacheKind, Saved

# Money is kept as whole units of 1e-11 US dollars, so that sums are exact and made by SQLite: a price per
# million tokens has at most five decimals. A sum may reach 92 million dollars.
_DECIMALS = 11

CAUSES = tuple(cause.name for cause in fields(Saved))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What happened in a span of time. A rejected draft or a shadow call is a call, but no request of its own."""

    requests: int
    """Requests that ended, failed ones included."""
    calls: int
    """Real calls, drafts, shadow calls and failed ones included; cache hits are none."""
    shadow_calls: int
    """Calls that were made beside an answer, only to compare; hits among them included."""
    errors: int
    """Calls that failed, drafts and shadow calls included."""
    cost_usd: Decimal
    """US dollars paid, as far as known."""
    rejected_usd: Decimal
    """The part of it that was paid for rejected drafts."""
    shadow_usd: Decimal
    """The part of it that was paid for shadow calls."""
    cost_per_request: Decimal | None
    """US dollars per request whose cost is known; None if there is none."""
    hits: Mapping[CacheKind, int]
    """Requests that the cache answered, by how it found the answer."""
    hit_rate: float | None
    """The share of requests that the cache answered; None without a request."""
    escalation_rate: float | None
    """The share of escalated requests among those that a router decided; None if it decided none."""
    mean_latency: float | None
    """Seconds per request, its drafts included; without the Batch API, which waits by design; None if unknown."""
    cost_by_model: Mapping[str, Decimal]
    """US dollars paid for real calls, by model, the dearest first."""
    saved: Saved
    """US dollars not paid, by cause, as far as known."""
    saved_usd: Decimal
    """US dollars not paid, all causes together but the provider's prompt cache, which works without us."""
    unpriced: int
    """Calls that succeeded at an unknown cost; the amounts above lack them."""
    unpriced_models: tuple[str, ...]
    """Which models the unpriced calls went to."""


def summarise(db: sqlite3.Connection, since: float) -> Summary:
    """Sum up the calls that ended at *since* (seconds since the epoch) or later."""
    models = db.execute(BY_MODEL, span(since)).fetchall()
    totals = {name: sum(row[name] for row in models) for name in COUNTS}
    saved = Saved(**{cause: usd(totals[f"saved_{cause}"]) for cause in CAUSES})
    cost = usd(totals["cost"])
    return Summary(
        requests=totals["requests"],
        calls=totals["calls"],
        shadow_calls=totals["shadow_calls"],
        errors=totals["errors"],
        cost_usd=cost,
        rejected_usd=usd(totals["rejected_cost"]),
        shadow_usd=usd(totals["shadow_cost"]),
        cost_per_request=usd(units(cost / totals["priced"])) if totals["priced"] else None,
        hits={"exact": totals["exact"], "semantic": totals["semantic"]},
        hit_rate=_ratio(totals["exact"] + totals["semantic"], totals["requests"]),
        escalation_rate=_ratio(totals["escalated"], totals["routed"]),
        mean_latency=_ratio(totals["micros"] / 1e6, totals["timed"]),
        cost_by_model={
            row["model"]: usd(row["cost"]) for row in sorted(models, key=lambda row: -row["cost"]) if row["paid"]
        },
        saved=saved,
        saved_usd=saved.total,
        unpriced=totals["unpriced"],
        unpriced_models=tuple(row["model"] for row in models if row["unpriced"]),
    )


def units(amount: Decimal) -> int:
    """Turn US dollars into what the table holds."""
    return int(amount.scaleb(_DECIMALS).to_integral_value())


def usd(amount: int) -> Decimal:
    """Turn what the table holds into US dollars."""
    exact = Decimal(amount).scaleb(-_DECIMALS)
    # Without the zeros behind, and without the exponent that `normalize` alone gives round hundreds.
    return exact.to_integral_value() if exact == exact.to_integral_value() else exact.normalize()


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None
