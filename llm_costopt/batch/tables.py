"""The tables of a job store, and how a file of an earlier release comes to them."""

OURS = 0x6C6C6D6A
"""`llmj` in the header of the file: what tells a job store from somebody else's database."""

VERSION = 3
"""Of the tables' shape."""

_TABLES_OF_1 = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    lane TEXT NOT NULL,
    state TEXT NOT NULL,
    rows INTEGER NOT NULL,
    at REAL NOT NULL,
    uploaded TEXT NOT NULL DEFAULT '',
    remote TEXT,
    status TEXT,
    through INTEGER,
    guessed INTEGER NOT NULL DEFAULT 0,
    not_these TEXT NOT NULL DEFAULT '[]',
    note TEXT,
    owner TEXT,
    leased REAL NOT NULL DEFAULT 0
);
CREATE TABLE rows (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL,
    lane TEXT NOT NULL,
    body BLOB,
    asked REAL NOT NULL,
    state TEXT NOT NULL,
    job TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    outcome TEXT,
    status INTEGER,
    reply BLOB,
    recorded INTEGER NOT NULL DEFAULT 0,
    delivered REAL,
    spent INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX rows_key ON rows (key) WHERE NOT spent;
CREATE INDEX rows_job ON rows (job, id);
CREATE INDEX rows_unrecorded ON rows (id) WHERE state = 'answered' AND NOT recorded;
CREATE TABLE claims (run TEXT NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (run, row)) WITHOUT ROWID
"""

UPGRADES = {
    1: "ALTER TABLE rows ADD COLUMN endpoint TEXT; ALTER TABLE rows ADD COLUMN tenant TEXT",
    2: "CREATE TABLE runs (id TEXT PRIMARY KEY, until REAL NOT NULL, trouble TEXT); CREATE INDEX claims_row ON claims (row)",
}
"""The statements that lead from a version to the next."""

# A new file takes the same steps as an old one, so that there is one shape.
SCHEMA = ";".join([_TABLES_OF_1, *UPGRADES.values()])
"""The statements that make a new file."""
