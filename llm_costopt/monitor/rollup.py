"""What the calls of each hour come to, by model, kept by SQLite itself with every change of the table of calls.

So a summary of a million calls reads a few thousand rows, is exact whoever writes, and costs no second transaction.
"""

import math

COUNTS = {
    "requests": "is_request",
    "priced": "is_request AND cost IS NOT NULL",
    "calls": "cache IS NULL",
    "shadow_calls": "shadow",
    "errors": "error IS NOT NULL",
    "exact": "is_request AND cache IS 'exact'",
    "semantic": "is_request AND cache IS 'semantic'",
    "routed": "is_request AND coalesce(complexity, replaces) IS NOT NULL",
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


def _add(sign: str, row: str) -> str:
    signed = ", ".join(sign + name for name in COUNTS)
    summed = ", ".join(f"{name} = {name} + excluded.{name}" for name in COUNTS)
    return (
        f"INSERT INTO hours (hour, model, {_NAMES}) SELECT hour, model, {signed} FROM counted WHERE id = {row}.id "
        f"ON CONFLICT (hour, model) DO UPDATE SET {summed};"
    )


SCHEMA = f"""
CREATE VIEW counted AS
SELECT id, at, CAST(at AS INTEGER) / 3600 AS hour, coalesce(model, 'unknown') AS model, tags, endpoint, tenant,
       {", ".join(f"{amount} AS {name}" for name, amount in COUNTS.items())}
FROM (SELECT *, NOT (rejected OR shadow) AS is_request FROM calls);
CREATE TABLE hours (
    hour INTEGER NOT NULL,
    model TEXT NOT NULL,
    {", ".join(f"{name} INTEGER NOT NULL" for name in COUNTS)},
    PRIMARY KEY (hour, model)
) WITHOUT ROWID;
CREATE TRIGGER calls_added AFTER INSERT ON calls BEGIN {_add("", "NEW")} END;
CREATE TRIGGER calls_changing BEFORE UPDATE ON calls BEGIN {_add("-", "OLD")} END;
CREATE TRIGGER calls_changed AFTER UPDATE ON calls BEGIN {_add("", "NEW")} END;
INSERT INTO hours (hour, model, {_NAMES})
SELECT hour, model, {", ".join(f"sum({name})" for name in COUNTS)} FROM counted GROUP BY 1, 2
"""

# For a table that grows a column: SQLite checks views and triggers when a column comes, and the sums are made anew.
DROP = """
DROP TRIGGER IF EXISTS calls_added;
DROP TRIGGER IF EXISTS calls_changing;
DROP TRIGGER IF EXISTS calls_changed;
DROP TRIGGER IF EXISTS calls_forgotten;
DROP VIEW IF EXISTS counted;
DROP TABLE IF EXISTS hours
"""

_SUMS = ", ".join(f"sum({name}) AS {name}" for name in COUNTS)


def _spanning(what: str, groups: str = "") -> str:
    return (
        f"SELECT {what} FROM hours WHERE hour >= :first {groups} UNION ALL "
        f"SELECT {what} FROM counted WHERE at >= :since AND at < :first * 3600 {groups}"
    )


SPAN = _spanning(f"hour, model, {_NAMES}")
"""The rows that count since `:since`: whole hours, from `:first` on, and the calls before them."""

# Twice, since the few rows of the sums are sorted faster than those of many hours.
BY_MODEL = (
    f"SELECT model, {_SUMS} FROM ({_spanning(f'model, {_SUMS}', 'GROUP BY model')}) GROUP BY model ORDER BY model"
)
"""Their figures for each model."""


def span(since: float) -> dict[str, float]:
    """Give the parameters of such a query for a moment in seconds since the epoch, or minus infinity."""
    # Minus infinity has no whole hour; nothing ended before the year -29,000.
    return {"since": since, "first": -(-math.ceil(max(since, -1e12)) // 3600)}
