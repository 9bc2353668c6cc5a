"""What was spent and saved under each model, tag, endpoint, tenant or day."""

import sqlite3
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from llm_costopt.monitor.rollup import SPAN, span
from llm_costopt.monitor.summary import CAUSES, usd
from llm_costopt.types import Saved

By = Literal["model", "tag", "endpoint", "tenant", "day"]
"""What calls are put together by."""

_FIGURES = ("requests", "calls", "errors", "unpriced", "cost", *(f"saved_{cause}" for cause in CAUSES))

_SUMS = ", ".join(f"sum({name}) AS {name}" for name in _FIGURES)

_TOTALS: dict[By, str] = {
    "model": f"SELECT model AS key, {_SUMS} FROM ({SPAN}) GROUP BY 1 ORDER BY cost DESC, 1",
    "day": f"SELECT date(hour * 3600, 'unixepoch') AS key, {_SUMS} FROM ({SPAN}) GROUP BY 1 ORDER BY 1",
    "tag": f"SELECT value AS key, {_SUMS} FROM counted LEFT JOIN json_each(tags) WHERE at >= :since "
    "GROUP BY 1 ORDER BY cost DESC, 1",
    "endpoint": f"SELECT endpoint AS key, {_SUMS} FROM counted WHERE at >= :since GROUP BY 1 ORDER BY cost DESC, 1",
    "tenant": f"SELECT tenant AS key, {_SUMS} FROM counted WHERE at >= :since GROUP BY 1 ORDER BY cost DESC, 1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """What the calls with one key come to."""

    key: str | None
    """The model, the tag, the endpoint, the tenant, or the day (UTC, `2026-11-24`); None for calls without one."""
    requests: int
    """Requests that ended, failed ones included."""
    calls: int
    """Real calls, drafts, shadow calls and failed ones included; cache hits are none."""
    errors: int
    """Calls that failed."""
    unpriced: int
    """Calls that succeeded at an unknown cost; the amounts lack them."""
    cost_usd: Decimal
    """US dollars paid, as far as known."""
    saved: Saved
    """US dollars not paid, by cause, as far as known."""
    saved_usd: Decimal
    """US dollars not paid, all causes together but the provider's prompt cache, which works without us."""


def totals_of(db: sqlite3.Connection, by: By, since: float) -> list[Total]:
    """Sum up the calls that ended at *since* (seconds since the epoch) or later."""
    if by not in _TOTALS:
        raise ValueError(f"totals are by {', '.join(map(repr, _TOTALS))}, not by {by!r}")
    return [_total(row) for row in db.execute(_TOTALS[by], span(since))]


def _total(row: sqlite3.Row) -> Total:
    saved = Saved(**{cause: usd(row[f"saved_{cause}"]) for cause in CAUSES})
    return Total(
        key=row["key"],
        requests=row["requests"],
        calls=row["calls"],
        errors=row["errors"],
        unpriced=row["unpriced"],
        cost_usd=usd(row["cost"]),
        saved=saved,
        saved_usd=saved.total,
    )
