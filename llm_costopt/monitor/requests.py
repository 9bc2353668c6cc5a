"""The ledger's calls put together to the requests that they were made for."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from llm_costopt.monitor.rollup import ROUTED
from llm_costopt.monitor.summary import units
from llm_costopt.types import Arm

_REQUESTS = f"""
WITH RECURSIVE drafts (final, id) AS (
    SELECT id, replaces FROM calls WHERE at >= :since AND replaces IS NOT NULL AND NOT rejected AND NOT shadow
    UNION
    SELECT final, replaces FROM drafts JOIN calls USING (id) WHERE replaces IS NOT NULL
),
before AS (
    SELECT final, iif(count(cost) = count(*), sum(cost), NULL) AS cost,
           iif(count(latency) = count(*), sum(latency), NULL) AS latency
    FROM drafts JOIN calls USING (id) GROUP BY final
)
SELECT calls.id, at, arm, tags, cache IS NOT NULL AS hit, error IS NOT NULL AS failed,
       (SELECT avg(score) FROM scores WHERE scores.id = calls.id) AS score,
       {ROUTED} AS routed,
       iif(final IS NULL, calls.cost, calls.cost + before.cost) AS cost,
       iif(batch, NULL, iif(final IS NULL, calls.latency, calls.latency + before.latency)) AS latency
FROM calls LEFT JOIN before ON final = calls.id
WHERE at >= :since AND NOT rejected AND NOT shadow ORDER BY at, calls.rowid
"""

_DOLLAR = units(Decimal(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, with the drafts that were rejected on its way; shadow calls are no part of it."""

    id: str
    """The id of the call, or hit, that answered it; what a score is given for."""
    at: float
    """When it ended, in seconds since the epoch."""
    arm: Arm | None
    """Which arm of a comparison it was in."""
    routed: bool
    """Whether a router decided who answers."""
    tags: tuple[str, ...]
    """The host's tags of the call that answered it."""
    cost: float | None
    """US dollars, those of its drafts included; None if any of them is unknown."""
    latency: float | None
    """Seconds, those of its drafts included; None if any of them is unknown, and in the Batch API, which waits."""
    hit: bool
    """Whether the cache answered."""
    failed: bool
    """Whether it ended in an error."""
    score: float | None
    """How good the answer was, from 0 to 1: the mean over all who scored it; None if nobody did."""


def requests_of(db: sqlite3.Connection, since: float) -> Iterator[Request]:
    """Give the requests that ended at *since* (seconds since the epoch) or later, the oldest first."""
    for row in db.execute(_REQUESTS, {"since": since}):
        yield Request(
            id=row["id"],
            at=row["at"],
            arm=row["arm"],
            routed=bool(row["routed"]),
            tags=tuple(json.loads(row["tags"])),
            cost=None if row["cost"] is None else row["cost"] / _DOLLAR,
            latency=row["latency"],
            hit=bool(row["hit"]),
            failed=bool(row["failed"]),
            score=row["score"],
        )
