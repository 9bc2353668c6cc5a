"""What the calls of each hour and day come to, by model, kept by SQLite itself with every change of the table of calls.

So a summary of a million calls reads a few thousand rows, is exact whoever writes, and costs no second transaction.
"""

import math

from llm_costopt.observed import NOT_ROUTED

_UNROUTED = " OR ".join(f"why GLOB '{begins}*'" for begins in NOT_ROUTED)

ROUTED = f"coalesce(complexity, tier, replaces) IS NOT NULL AND NOT coalesce({_UNROUTED}, 0)"
"""Whether a router decided who answers a call, and neither observed only nor was switched off."""

COUNTS = {
    "requests": "is_request",
    "priced": "is_request AND cost IS NOT NULL",
    "calls": "cache IS NULL",
    "shadow_calls": "shadow",
    "errors": "error IS NOT NULL",
    "exact": "is_request AND cache IS 'exact'",
    "semantic": "is_request AND cache IS 'semantic'",
    "routed": f"is_request AND {ROUTED}",
    "escalated": "is_request AND replaces IS NOT NULL",
    "timed": "is_request AND NOT batch AND latency IS NOT NULL",
    "micros": "iif(shadow OR batch OR latency IS NULL, 0, CAST(round(latency * 1e6) AS INTEGER))",
    "unpriced": "cost IS NULL AND error IS NULL",
    "paid": "cache IS NULL AND cost IS NOT NULL",
    "cost": "coalesce(cost, 0)",
    "rejected_cost": "iif(rejected AND NOT shadow, coalesce(cost, 0), 0)",
    "shadow_cost": "iif(shadow, coalesce(cost, 0), 0)",
    "saved_cache": "coalesce(saved_cache, 0)",
    "saved_router": "coalesce(saved_router, 0)",
    "saved_batch": "coalesce(saved_batch, 0)",
    "saved_prompt_cache": "coalesce(saved_prompt_cache, 0)",
}
"""What one call adds to each figure: all of them whole numbers, whose sums do not depend on the order."""

_NAMES = ", ".join(COUNTS)


_HOURS_IN = {"hour": 1, "day": 24}


def _add(sign: str, row: str) -> str:
    signed = ", ".join(sign + name for name in COUNTS)
    summed = ", ".join(f"{name} = {name} + excluded.{name}" for name in COUNTS)
    return "".join(
        f"INSERT INTO {span}s ({span}, model, {_NAMES}) "
        f"SELECT hour / {hours}, model, {signed} FROM counted WHERE id = {row}.id "
        f"ON CONFLICT ({span}, model) DO UPDATE SET {summed};"
        for span, hours in _HOURS_IN.items()
    )


def _table(span: str) -> str:
    return (
        f"CREATE TABLE {span}s ({span} INTEGER NOT NULL, model TEXT NOT NULL, "
        f"{', '.join(f'{name} INTEGER NOT NULL' for name in COUNTS)}, PRIMARY KEY ({span}, model)) WITHOUT ROWID"
    )


_SUMMED = ", ".join(f"sum({name}) AS {name}" for name in COUNTS)

_DAYS = f"INSERT INTO days (day, model, {_NAMES}) SELECT hour / 24, model, {_SUMMED} FROM hours"

SCHEMA = f"""
CREATE VIEW counted AS
SELECT id, at, CAST(at AS INTEGER) / 3600 AS hour, coalesce(model, 'unknown') AS model, tags, endpoint, tenant,
       {", ".join(f"{amount} AS {name}" for name, amount in COUNTS.items())}
FROM (SELECT *, NOT (rejected OR shadow) AS is_request FROM calls);
{_table("hour")};
{_table("day")};
CREATE TRIGGER calls_added AFTER INSERT ON calls BEGIN {_add("", "NEW")} END;
CREATE TRIGGER calls_changing BEFORE UPDATE ON calls BEGIN {_add("-", "OLD")} END;
CREATE TRIGGER calls_changed AFTER UPDATE ON calls BEGIN {_add("", "NEW")} END;
INSERT INTO hours (hour, model, {_NAMES}) SELECT hour, model, {_SUMMED} FROM counted GROUP BY 1, 2;
{_DAYS} GROUP BY 1, 2
"""

FORGET = (
    "DELETE FROM hours WHERE hour < :first",
    "DELETE FROM days WHERE day <= :first / 24",
    f"{_DAYS} WHERE hour / 24 = :first / 24 GROUP BY 1, 2",
)
"""Forget the hours before `:first`; what is left of its day is summed up anew."""

# For a table that grows a column: SQLite checks views and triggers when a column comes, and the sums are made anew.
DROP = """
DROP TRIGGER IF EXISTS calls_added;
DROP TRIGGER IF EXISTS calls_changing;
DROP TRIGGER IF EXISTS calls_changed;
DROP VIEW IF EXISTS counted;
DROP TABLE IF EXISTS hours
"""


def _spanning(what: str, groups: str = "") -> str:
    return (
        f"SELECT {what} FROM (SELECT day * 24 AS hour, * FROM days) WHERE day >= :day {groups} UNION ALL "
        f"SELECT {what} FROM hours WHERE hour >= :first AND hour < :day * 24 {groups} UNION ALL "
        f"SELECT {what} FROM counted WHERE at >= :since AND at < :first * 3600 {groups}"
    )


SPAN = _spanning(f"hour, model, {_NAMES}")
"""The rows that count since `:since`: whole days, from `:day` on, the whole hours before them, from `:first` on, and the calls before these."""

SPENT = f"SELECT coalesce(sum(cost), 0) FROM ({SPAN})"
"""What they cost."""

# Twice, since the few rows of the sums are sorted faster than those of many days.
BY_MODEL = (
    f"SELECT model, {_SUMMED} FROM ({_spanning(f'model, {_SUMMED}', 'GROUP BY model')}) GROUP BY model ORDER BY model"
)
"""Their figures for each model."""


def span(since: float) -> dict[str, float]:
    """Give the parameters of such a query for a moment in seconds since the epoch, or an infinite one."""
    # Infinity has no whole hour; nothing ended before the year -29,000, or ends after 33,000.
    first = -(-math.ceil(min(max(since, -1e12), 1e12)) // 3600)
    return {"since": since, "first": first, "day": -(-first // 24)}
