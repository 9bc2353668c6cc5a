"""The totals over the ledger's table, computed where the calls are."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from llm_costopt.types import CacheKind, Saved

# Money is kept as whole units of 1e-11 US dollars, so that sums are exact and made by SQLite: a price per
# million tokens has at most five decimals. A sum may reach 92 million dollars.
_DECIMALS = 11

_TOTALS = """
SELECT
    count(*) FILTER (WHERE request) AS requests,
    count(*) FILTER (WHERE request AND cost IS NOT NULL) AS priced,
    count(*) FILTER (WHERE cache IS NULL) AS calls,
    count(*) FILTER (WHERE shadow) AS shadow_calls,
    count(error) AS errors,
    count(*) FILTER (WHERE request AND cache = 'exact') AS exact,
    count(*) FILTER (WHERE request AND cache = 'semantic') AS semantic,
    count(*) FILTER (WHERE request AND coalesce(complexity, replaces) IS NOT NULL) AS routed,
    count(*) FILTER (WHERE request AND replaces IS NOT NULL) AS escalated,
    count(latency) FILTER (WHERE request AND NOT batch) AS timed,
    sum(latency) FILTER (WHERE NOT shadow AND NOT batch) AS seconds,
    count(*) FILTER (WHERE cost IS NULL AND error IS NULL) AS unpriced,
    coalesce(sum(cost), 0) AS cost,
    coalesce(sum(cost) FILTER (WHERE rejected AND NOT shadow), 0) AS rejected_cost,
    coalesce(sum(cost) FILTER (WHERE shadow), 0) AS shadow_cost,
    coalesce(sum(saved_cache), 0) AS saved_cache,
    coalesce(sum(saved_router), 0) AS saved_router,
    coalesce(sum(saved_batch), 0) AS saved_batch
FROM (SELECT *, NOT (rejected OR shadow) AS request FROM calls WHERE at >= :since)
"""

_BY_MODEL = """
SELECT coalesce(model, 'unknown') AS model, sum(cost) AS cost
FROM calls WHERE at >= :since AND cache IS NULL AND cost IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1
"""

_UNPRICED = """
SELECT DISTINCT coalesce(model, 'unknown') AS model
FROM calls WHERE at >= :since AND cost IS NULL AND error IS NULL ORDER BY 1
"""


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
    """US dollars not paid, all causes together."""
    unpriced: int
    """Calls that succeeded at an unknown cost; the amounts above lack them."""
    unpriced_models: tuple[str, ...]
    """Which models the unpriced calls went to."""


def summarise(db: sqlite3.Connection, since: float) -> Summary:
    """Sum up the calls that ended at *since* (seconds since the epoch) or later."""
    span = {"since": since}
    totals = db.execute(_TOTALS, span).fetchone()
    saved = Saved(**{cause: usd(totals[f"saved_{cause}"]) for cause in ("cache", "router", "batch")})
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
        mean_latency=_ratio(totals["seconds"], totals["timed"]),
        cost_by_model={row["model"]: usd(row["cost"]) for row in db.execute(_BY_MODEL, span)},
        saved=saved,
        saved_usd=saved.cache + saved.router + saved.batch,
        unpriced=totals["unpriced"],
        unpriced_models=tuple(row["model"] for row in db.execute(_UNPRICED, span)),
    )


def units(amount: Decimal) -> int:
    """Turn US dollars into what the table holds."""
    return int(amount.scaleb(_DECIMALS).to_integral_value())


def usd(amount: int) -> Decimal:
    """Turn what the table holds into US dollars."""
    exact = Decimal(amount).scaleb(-_DECIMALS)
    # Without the zeros behind, and without the exponent that `normalize` alone gives round hundreds.
    return exact.to_integral_value() if exact == exact.to_integral_value() else exact.normalize()


def _ratio(part: float | None, whole: int) -> float | None:
    return None if part is None or not whole else part / whole
