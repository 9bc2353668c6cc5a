"""What was spent and saved under each model, tag or day."""

import sqlite3
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from llm_costopt.monitor.rollup import SPAN, span
from llm_costopt.monitor.summary import usd
from llm_costopt.types import Saved

By = Literal["model", "tag", "day"]
"""What calls are put together by."""

_FIGURES = ("requests", "calls", "errors", "unpriced", "cost", "saved_cache", "saved_router", "saved_batch")

_SUMS = ", ".join(f"sum({name}) AS {name}" for name in _FIGURES)

_TOTALS: dict[By, str] = {
    "model": f"SELECT model AS key, {_SUMS} FROM ({SPAN}) GROUP BY 1 ORDER BY cost DESC, 1",
    "day": f"SELECT date(hour * 3600, 'unixepoch') AS key, {_SUMS} FROM ({SPAN}) GROUP BY 1 ORDER BY 1",
    "tag": f"SELECT value AS key, {_SUMS} FROM counted LEFT JOIN json_each(tags) WHERE at >= :since "
    "GROUP BY 1 ORDER BY cost DESC, 1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """What the calls with one key come to."""

    key: str | None
    """The model, the tag or the day (UTC, `2026-11-24`); None for calls without a tag."""
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
    """US dollars not paid, all causes together."""


def totals_of(db: sqlite3.Connection, by: By, since: float) -> list[Total]:
    """Sum up the calls that ended at *since* (seconds since the epoch) or later."""
    if by not in _TOTALS:
        raise ValueError(f"totals are by {', '.join(map(repr, _TOTALS))}, not by {by!r}")
    return [_total(row) for row in db.execute(_TOTALS[by], span(since))]


def _total(row: sqlite3.Row) -> Total:
    saved = Saved(**{cause: usd(row[f"saved_{cause}"]) for cause in ("cache", "router", "batch")})
    return Total(
        key=row["key"],
        requests=row["requests"],
        calls=row["calls"],
        errors=row["errors"],
        unpriced=row["unpriced"],
        cost_usd=usd(row["cost"]),
        saved=saved,
        saved_usd=saved.cache + saved.router + saved.batch,
    )
