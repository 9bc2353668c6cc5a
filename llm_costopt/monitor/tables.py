"""The ledger's tables, and how a file of an earlier release comes to them."""

from llm_costopt.monitor import rollup

VERSION = 4
"""Of the tables' shape."""

_TABLES_OF_1 = """
CREATE TABLE calls (
    id TEXT PRIMARY KEY,
    at REAL NOT NULL,
    model TEXT,
    provider TEXT,
    usage TEXT,
    cost INTEGER,
    saved_cache INTEGER,
    saved_router INTEGER,
    saved_batch INTEGER,
    latency REAL,
    cache TEXT,
    complexity TEXT,
    replaces TEXT,
    batch INTEGER NOT NULL,
    tags TEXT NOT NULL,
    error TEXT,
    rejected INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX calls_at ON calls (at);
CREATE INDEX calls_replaces ON calls (replaces) WHERE replaces IS NOT NULL
"""

_FROM_1 = """
ALTER TABLE calls ADD COLUMN tier TEXT;
ALTER TABLE calls ADD COLUMN why TEXT;
ALTER TABLE calls ADD COLUMN arm TEXT;
ALTER TABLE calls ADD COLUMN shadow INTEGER NOT NULL DEFAULT 0;
CREATE TABLE scores (
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    at REAL NOT NULL,
    score REAL NOT NULL,
    PRIMARY KEY (id, source)
)
"""

_COLUMNS_OF_4 = """
ALTER TABLE calls ADD COLUMN endpoint TEXT;
ALTER TABLE calls ADD COLUMN tenant TEXT;
ALTER TABLE calls ADD COLUMN request TEXT;
ALTER TABLE calls ADD COLUMN saved_prompt_cache INTEGER;
UPDATE calls SET saved_prompt_cache = 0 WHERE saved_cache IS NOT NULL;
CREATE TABLE texts (
    id TEXT PRIMARY KEY,
    at REAL NOT NULL,
    question TEXT NOT NULL,
    answer TEXT NOT NULL
);
CREATE INDEX texts_at ON texts (at)
"""

_FROM_3 = f"{rollup.DROP};{_COLUMNS_OF_4};{rollup.SCHEMA}"

UPGRADES = {1: _FROM_1, 2: "", 3: _FROM_3}
"""The statements that lead from a version to the next. The sums that came with 3 are made anew for 4."""

# A new file takes the same steps as an old one, so that there is one shape.
SCHEMA = ";".join([_TABLES_OF_1, *UPGRADES.values()])
"""The statements that make a new file."""
