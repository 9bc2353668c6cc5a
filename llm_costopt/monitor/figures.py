"""What a report shows, summed up by SQLite: whatever the number of calls, a few thousand rows come out."""

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from decimal import Decimal

from llm_costopt.monitor.rollup import COUNTS, span
from llm_costopt.monitor.summary import CAUSES, Summary, summarise, usd
from llm_costopt.types import CacheKind, Saved

COMPARED = 100_000
"""Calls, the newest ones, that the two arms are compared on: each of their requests is looked at, some 60 MB of them."""

_MOST_ENDPOINTS = 1_000
"""Endpoints, the dearest ones, that are looked at."""

_HOUR, _DAY, _WEEK = 3600, 86_400, 604_800

_NAMES = ", ".join(COUNTS)

_Read = Callable[..., list[sqlite3.Row]]
"""Runs a query with its parameters."""

_SLICES = f"""
SELECT (hour * 3600 - :origin) / :width * :width + :origin AS start, sum(requests) AS requests, sum(exact) AS exact,
       sum(semantic) AS semantic, sum(routed) AS routed, sum(escalated) AS escalated, sum(cost) AS cost,
       {", ".join(f"sum(saved_{cause}) AS {cause}" for cause in CAUSES)}
FROM (SELECT hour, {_NAMES} FROM hours WHERE hour >= :first UNION ALL
      SELECT hour, {_NAMES} FROM counted WHERE at >= :since AND at < :first * 3600)
GROUP BY 1 ORDER BY 1
"""

_ROUTES = """
SELECT coalesce(complexity, 'unknown') AS complexity, coalesce(tier, model, 'unknown') AS tier,
       replaces IS NOT NULL AS escalated, rejected, count(*) AS calls,
       count(cost) AS priced, coalesce(sum(cost), 0) AS cost, coalesce(sum(saved_router), 0) AS saved
FROM calls
WHERE at >= :since AND cache IS NULL AND NOT shadow AND coalesce(complexity, tier, replaces) IS NOT NULL
GROUP BY 1, 2, 3, 4 ORDER BY calls DESC LIMIT 200
"""

# Three significant digits: at most 900 rows for each power of ten.
_LATENCIES = """
SELECT cache IS NOT NULL AS hit, CAST(printf('%.2e', latency) AS REAL) AS seconds, count(*) AS calls
FROM calls WHERE at >= :since AND latency > 0 AND NOT batch AND NOT shadow AND error IS NULL
GROUP BY 1, 2 ORDER BY 2
"""

_JUDGED = """
SELECT cache, count(*) AS judged, sum(score < 0.5) AS wrong
FROM (SELECT calls.cache, avg(scores.score) AS score FROM scores JOIN calls USING (id)
      WHERE calls.at >= :since AND calls.cache IS NOT NULL AND NOT calls.shadow GROUP BY id)
GROUP BY 1 ORDER BY 1
"""

_ENDPOINTS = f"""
SELECT endpoint AS name, sum(is_request) AS requests, sum(is_request AND cache IS NOT NULL) AS hits,
       sum(is_request AND at >= :middle) AS late_requests,
       sum(is_request AND at >= :middle AND cache IS NOT NULL) AS late_hits,
       sum(cache IS NULL) AS calls, sum(error IS NOT NULL) AS errors,
       sum(cost IS NULL AND error IS NULL) AS unpriced, sum(batch) AS batched,
       coalesce(sum(cost), 0) AS cost, coalesce(sum(iif(batch, 0, cost)), 0) AS unbatched_cost,
       {", ".join(f"coalesce(sum(saved_{cause}), 0) AS {cause}" for cause in CAUSES)}
FROM (SELECT *, NOT (rejected OR shadow) AS is_request FROM calls WHERE at >= :since)
GROUP BY 1 ORDER BY cost DESC, 1 LIMIT {_MOST_ENDPOINTS}
"""

_TIMES = """
SELECT endpoint AS name, CAST(at AS INTEGER) / 3600 AS hour, count(*) AS calls
FROM calls WHERE at >= :since AND cache IS NULL AND NOT batch AND NOT shadow AND endpoint IN
"""

_UNPRICED = """
SELECT coalesce(model, 'unknown') AS model, count(*) AS calls, sum(usage IS NULL) AS untold
FROM calls WHERE at >= :since AND cost IS NULL AND error IS NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 50
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What one hour, day or week came to."""

    start: int
    """When it began, in seconds since the epoch."""
    requests: int
    """Requests that ended, failed ones included."""
    exact: int
    """Those that the cache answered with the same request's answer."""
    semantic: int
    """Those that it answered with that of another wording."""
    routed: int
    """Those that a router decided."""
    escalated: int
    """Those whose draft was rejected."""
    cost_usd: Decimal
    """US dollars paid."""
    saved: Saved
    """US dollars not paid, by cause."""

    @property
    def baseline_usd(self) -> Decimal:
        """US dollars that it would have cost without us."""
        return self.cost_usd + self.saved.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Calls that a router made in one way."""

    complexity: str
    """How hard the requests were held to be."""
    tier: str
    """Which tier was asked."""
    escalated: bool
    """Whether a draft of another tier was rejected before."""
    rejected: bool
    """Whether these are drafts that were rejected: no requests of their own."""
    calls: int
    """How many there are."""
    priced: int
    """How many of them have a known cost."""
    cost_usd: Decimal
    """US dollars paid."""
    saved_usd: Decimal
    """US dollars not paid because of the router; a rejected draft saves minus its cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Calls, or hits, that took as long."""

    hit: bool
    """Whether the cache answered."""
    seconds: float
    """How long, to three digits."""
    calls: int
    """How many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Hits that somebody scored."""

    cache: CacheKind
    """How the cache found the answers."""
    judged: int
    """How many have a score."""
    wrong: int
    """How many of these have a mean score below a half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What the calls of one endpoint of the application come to."""

    name: str | None
    """What the application calls it; None for calls that name none."""
    requests: int
    """Requests that ended."""
    hits: int
    """Those that the cache answered."""
    late_requests: int
    """Requests of the second half of the time."""
    late_hits: int
    """Hits of the second half."""
    calls: int
    """Real calls, drafts and failed ones included."""
    errors: int
    """Calls that failed."""
    unpriced: int
    """Calls of unknown cost."""
    batched: int
    """Calls that went through the Batch API."""
    cost_usd: Decimal
    """US dollars paid."""
    unbatched_usd: Decimal
    """The part of it that was paid outside the Batch API."""
    saved: Saved
    """US dollars not paid, by cause."""
    busy: tuple[int, int, float, int] | None = None
    """Of the three hours of the day with the most real calls: first hour (UTC), days on which there were calls, the
    share of calls that fall in the three hours, and all calls; None for an endpoint that is not among the ten dearest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All that a report shows, but for the comparison of two arms."""

    first: float
    """When the first call ended, in seconds since the epoch."""
    last: float
    """When the last call ended."""
    width: int
    """Seconds in a slice: an hour, a day or a week."""
    summary: Summary
    """The totals."""
    slices: tuple[Slice, ...]
    """The same over time, the oldest first; a slice without a call is left out."""
    routes: tuple[Route, ...]
    """Calls that a router made."""
    latencies: tuple[Latency, ...]
    """Without the Batch API, shadow calls and failures; the shortest first."""
    judged: tuple[Judged, ...]
    """Hits with a score, by how they were found."""
    endpoints: tuple[Endpoint, ...]
    """The dearest first, at most a thousand."""
    unpriced: tuple[tuple[str, int], ...]
    """Models with calls of unknown cost, and how many those are."""
    untold: tuple[tuple[str, int], ...]
    """The same of the calls among them of which no tokens were told: no price would help there."""
    compared_hours: float | None
    """Back from now, how far the arms are compared: all the time, or that of the newest 100,000 calls; None for ever."""
    compared_seconds: float
    """How much time the calls span that are compared."""

    @property
    def seconds(self) -> float:
        """How much time the calls span."""
        return self.last - self.first


def figures_of(db: sqlite3.Connection, since: float, now: float) -> Figures | None:
    """Sum up the calls that ended at *since* (seconds since the epoch) or later; None if there is none."""
    when = {"since": since}
    (first,) = db.execute("SELECT min(at) FROM calls WHERE at >= :since", when).fetchone()
    if first is None:
        return None
    oldest, last = (db.execute(f"SELECT {end}(at) FROM calls").fetchone()[0] for end in ("min", "max"))
    # Through the index on the time, most of a million calls take four times as long as in the order of the file.
    most = last - first > (last - oldest) / 4
    read = _reader(db, since, most=most)
    newest = db.execute(
        f"SELECT at FROM calls WHERE at >= :since ORDER BY at DESC LIMIT 1 OFFSET {COMPARED}", when
    ).fetchone()
    compared = newest["at"] if newest else since
    width = next((w for w, most in ((_HOUR, 3 * _DAY), (_DAY, 120 * _DAY)) if last - first <= most), _WEEK)
    latencies, unpriced = read(_LATENCIES), read(_UNPRICED)
    return Figures(
        first=first,
        last=last,
        width=width,
        summary=summarise(db, since),
        slices=tuple(
            map(_slice, db.execute(_SLICES, {**span(since), "width": width, "origin": _origin(first, width)}))
        ),
        routes=tuple(map(_route, read(_ROUTES))),
        latencies=tuple(Latency(hit=bool(r["hit"]), seconds=r["seconds"], calls=r["calls"]) for r in latencies),
        judged=tuple(Judged(**dict(row)) for row in db.execute(_JUDGED, when)),
        endpoints=_endpoints(read, (first + last) / 2),
        unpriced=tuple((row["model"], row["calls"]) for row in unpriced),
        untold=tuple((row["model"], row["untold"]) for row in unpriced if row["untold"]),
        compared_hours=None if compared == float("-inf") else (now - compared) / 3600,
        compared_seconds=last - max(first, compared),
    )


def _origin(first: float, width: int) -> int:
    # The day, or hour, of the first call begins the first slice: a week then has seven full days, whatever day it is.
    return int(first) // min(width, _DAY) * min(width, _DAY)


def _saved(row: sqlite3.Row) -> Saved:
    return Saved(**{cause: usd(row[cause]) for cause in CAUSES})


def _slice(row: sqlite3.Row) -> Slice:
    counts = {name: row[name] for name in ("start", "requests", "exact", "semantic", "routed", "escalated")}
    return Slice(**counts, cost_usd=usd(row["cost"]), saved=_saved(row))


def _route(row: sqlite3.Row) -> Route:
    return Route(
        complexity=row["complexity"],
        tier=row["tier"],
        escalated=bool(row["escalated"]),
        rejected=bool(row["rejected"]),
        calls=row["calls"],
        priced=row["priced"],
        cost_usd=usd(row["cost"]),
        saved_usd=usd(row["saved"]),
    )


def _reader(db: sqlite3.Connection, since: float, *, most: bool) -> _Read:
    def read(query: str, **more: object) -> list[sqlite3.Row]:
        in_order = query.replace("WHERE at >=", "WHERE +at >=") if most else query
        return db.execute(in_order, {"since": since, **more}).fetchall()

    return read


def _endpoints(read: _Read, middle: float) -> tuple[Endpoint, ...]:
    rows = read(_ENDPOINTS, middle=middle)
    dearest = [row["name"] for row in rows[:10] if row["name"] is not None]
    marks = ", ".join(f":name{n}" for n in range(len(dearest)))
    names = {f"name{n}": name for n, name in enumerate(dearest)}
    calls: dict[str, list[tuple[int, int]]] = {name: [] for name in dearest}
    for row in read(f"{_TIMES} ({marks}) GROUP BY 1, 2", **names):
        calls[row["name"]].append((row["hour"], row["calls"]))
    counts = [field.name for field in fields(Endpoint) if field.name in (rows[0].keys() if rows else ())]
    return tuple(
        Endpoint(
            **{name: row[name] for name in counts},
            cost_usd=usd(row["cost"]),
            unbatched_usd=usd(row["unbatched_cost"]),
            saved=_saved(row),
            busy=_busy(calls.get(row["name"], [])),
        )
        for row in rows
    )


def _busy(calls: Iterable[tuple[int, int]]) -> tuple[int, int, float, int] | None:
    by_hour, days = [0] * 24, set()
    for hour, count in calls:
        by_hour[hour % 24] += count
        days.add(hour // 24)
    if not days:
        return None
    three = [by_hour[h] + by_hour[(h + 1) % 24] + by_hour[(h + 2) % 24] for h in range(24)]
    return three.index(max(three)), len(days), max(three) / sum(by_hour), sum(by_hour)
