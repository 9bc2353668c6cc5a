"""Running totals of the last eight days, in steps of five minutes, made of records as they come."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from llm_costopt.monitor.stream import About, News, Stream
from llm_costopt.monitor.summary import Summary
from llm_costopt.monitor.watched import Batching
from llm_costopt.types import CallRecord

HOUR, DAY, WEEK = 3600.0, 86_400.0, 7 * 86_400.0

_STEP = 300.0
"""Seconds: a window is up to so much longer than its name says."""

_MOST_MODELS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How good answers were, as far as they were judged."""

    count: float
    """How many were."""
    error: float
    """The mean of 1 minus their scores; 0 if none was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What happened in a span of time."""

    requests: float
    """Requests that began."""
    hits: float
    """Those that the cache answered."""
    routed: float
    """Those for which a router decided."""
    escalated: float
    """Those whose draft was rejected."""
    cost: float
    """US dollars paid."""
    unpriced: Mapping[str, float]
    """Calls at an unknown cost, by model."""
    rows: float
    """Rows of batches that were answered or given up."""
    failed_rows: float
    """Those that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What alerts are judged by."""

    hour: Totals
    """The last hour."""
    day_before: Totals
    """The 24 hours before it."""
    week_hits: float
    """Hits within a week: without any there seems to be no cache."""
    scores: Mapping[About, tuple[Scores, Scores]] = field(default_factory=dict)
    """Scores of the last day, and of the week before it, by whose answers they judge."""
    budgets: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """The part of each budget that is spent, and the part of its period that has passed."""
    batches: Batching | None = None
    """How the work of batches stands; None if nobody tells."""


class Windows:
    """Add up records and scores; safe to use from any number of threads."""

    def __init__(self) -> None:
        self._stream = Stream()
        self._lock = threading.Lock()
        self._steps: dict[int, dict[str, float]] = {}
        self._models: set[str] = set()

    def add(self, record: CallRecord) -> None:
        """Count *record*, once, at the time at which it ended."""
        news = self._stream.read(record)
        if news is None:
            return
        with self._lock:
            counts = _counts(record, news)
            if news.unpriced:
                counts[f"unpriced {self._model(record.model)}"] = 1
            self._add(record.at, counts)

    def score(self, call: str, score: float, now: float, about: About | None) -> None:
        """Count how good the answer of *call* was."""
        found = about or self._stream.about(call)
        if found is None:
            return
        with self._lock:
            self._add(now, {f"scores {found}": 1, f"errors {found}": 1 - score})

    def remember(self, models: Iterable[str]) -> None:
        """Tell of *models* from now on, even when none of their calls is unpriced any more: that is news, too."""
        with self._lock:
            for model in models:
                self._model(model)

    def totals(self, since: float, until: float) -> Totals:
        """Sum up what ended at *since* or later and before *until*, to five minutes."""
        with self._lock:
            return _totals(self._sum(since, until), self._models)

    def scores(self, about: About, since: float, until: float) -> Scores:
        """Sum up the scores of *about* that came at *since* or later and before *until*."""
        with self._lock:
            summed = self._sum(since, until)
        count = summed[f"scores {about}"]
        return Scores(count=count, error=summed[f"errors {about}"] / count if count else 0.0)

    def _add(self, at: float, counts: Mapping[str, float]) -> None:
        step = int(at // _STEP)
        if step not in self._steps:
            self._steps[step] = defaultdict(float)
            oldest = step - int((HOUR + DAY + WEEK) // _STEP)
            for old in [s for s in self._steps if s < oldest]:
                del self._steps[old]
        _add_up(self._steps[step], counts)

    def _sum(self, since: float, until: float) -> dict[str, float]:
        first, last = int(since // _STEP), int(until // _STEP)
        summed: dict[str, float] = defaultdict(float)
        for step, counts in self._steps.items():
            if first <= step < last:
                _add_up(summed, counts)
        return summed

    def _model(self, name: str | None) -> str:
        known = name or "unknown"
        if known not in self._models and len(self._models) >= _MOST_MODELS:
            known = "other"
        self._models.add(known)
        return known


def facts(
    windows: Windows,
    now: float,
    *,
    summary: Callable[[float], Summary] | None,
    budgets: Mapping[str, tuple[float, float]],
    batches: Batching | None,
) -> Facts:
    """Put together what alerts are judged by; requests and costs are those of *summary* if it is given."""
    soon = now + _STEP  # the step that has begun counts
    recent = None if summary is None else summary(1)
    windows.remember(recent.unpriced_models if recent else ())
    hour = windows.totals(now - HOUR, soon)
    day_before = windows.totals(now - HOUR - DAY, now - HOUR)
    week_hits = windows.totals(now - WEEK, soon).hits
    if summary is not None and recent is not None:
        hour, day_before = _told(recent, summary(25), hour)
        week_hits = sum(summary(168).hits.values())
    abouts: tuple[About, ...] = ("cache", "router")
    return Facts(
        hour=hour,
        day_before=day_before,
        week_hits=week_hits,
        scores={
            a: (windows.scores(a, now - DAY, soon), windows.scores(a, now - DAY - WEEK, now - DAY)) for a in abouts
        },
        budgets=budgets,
        batches=batches,
    )


def _counts(record: CallRecord, news: News) -> dict[str, float]:
    return {
        "requests": news.begins,
        "hits": news.begins and record.cache is not None,
        "routed": news.routed,
        "escalated": news.escalates,
        "cost": float(record.cost or Decimal(0)),
        "rows": record.batch,
        "failed_rows": record.batch and record.error is not None,
    }


_NAMES = ("requests", "hits", "routed", "escalated", "cost", "rows", "failed_rows")


def _totals(summed: Mapping[str, float], models: set[str]) -> Totals:
    return Totals(**{n: summed[n] for n in _NAMES}, unpriced={m: summed[f"unpriced {m}"] for m in sorted(models)})


def _add_up(summed: dict[str, float], counts: Mapping[str, float]) -> None:
    for name, count in counts.items():
        summed[name] = summed.get(name, 0.0) + count


def _told(hour: Summary, longer: Summary, own: Totals) -> tuple[Totals, Totals]:
    """Read the last hour and the day before it from summaries of 1 and 25 hours; rows of batches are *own*.

    A summary tells no number of routed requests: all of them stand in for it.
    """
    last = replace(
        own,
        requests=hour.requests,
        hits=sum(hour.hits.values()),
        routed=hour.requests,
        escalated=(hour.escalation_rate or 0.0) * hour.requests,
        cost=float(hour.cost_usd),
        unpriced={m: float(m in hour.unpriced_models) for m in (*longer.unpriced_models, *own.unpriced)},
    )
    before = replace(
        last,
        requests=longer.requests - hour.requests,
        hits=sum(longer.hits.values()) - last.hits,
        cost=float(longer.cost_usd - hour.cost_usd),
    )
    return last, before
