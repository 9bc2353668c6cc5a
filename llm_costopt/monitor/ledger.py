"""Every call in an append-only SQLite table; prompts and answers are never kept."""

import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

from llm_costopt.monitor.summary import Summary, summarise, units, usd
from llm_costopt.types import CallRecord, Saved, Usage

_OURS = 0x6C6C6D63
"""`llmc` in the header of the file: what tells a ledger from somebody else's database."""

_VERSION = 1
"""Of the table's shape."""

_PATIENCE = 5.0
"""Seconds to wait for another process that is writing."""

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS calls (
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
CREATE INDEX IF NOT EXISTS calls_at ON calls (at);
CREATE INDEX IF NOT EXISTS calls_replaces ON calls (replaces) WHERE replaces IS NOT NULL;
PRAGMA application_id = {_OURS};
PRAGMA user_version = {_VERSION};
"""

# `INSERT OR IGNORE` would also swallow a record that lacks what it must have.
_INSERT = """
INSERT INTO calls (id, at, model, provider, usage, cost, saved_cache, saved_router, saved_batch, latency,
                   cache, complexity, replaces, batch, tags, error)
VALUES (:id, :at, :model, :provider, :usage, :cost, :saved_cache, :saved_router, :saved_batch, :latency,
        :cache, :complexity, :replaces, :batch, :tags, :error)
ON CONFLICT (id) DO NOTHING
"""

# A draft saves nothing: the call that replaced it is compared with the baseline, and the draft came on top.
# The second condition serves a draft whose record arrives late.
_REJECT = """
UPDATE calls SET rejected = 1, saved_cache = 0, saved_batch = 0, saved_router = -cost
WHERE NOT rejected AND (id = :replaces OR (id = :id AND EXISTS (SELECT 1 FROM calls WHERE replaces = :id)))
"""

_CAUSES = ("cache", "router", "batch")

# Python offers fork hooks per process only, and SQLite forbids to carry a connection across a fork
# (https://sqlite.org/howtocorrupt.html, 2.6). So a fork waits until no ledger is at work, and files are
# closed until the next use, on both sides. What is in memory is copied, as all memory is.
_at_work = threading.Lock()
_alive: "weakref.WeakSet[Ledger]" = weakref.WeakSet()


class Ledger:
    """Keep every call and sum them up.

    Any number of threads and processes may share the file, and may fork. An append takes about 75 µs in memory
    and 145 µs in a file.

    Args:
        path: the file, made for its owner's eyes only if it is new; None keeps the calls in memory,
            each process its own.
        clock: tells the time in seconds since the epoch.

    Raises:
        ValueError: the file cannot be opened, is no ledger, or is one of another version.
    """

    _db: sqlite3.Connection | None = None

    def __init__(self, path: str | os.PathLike[str] | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._path = None if path is None else Path(path).absolute()
        self._clock = clock
        self._closed = False
        with _at_work:
            self._db = _connect(self._path)
            _alive.add(self)

    def append(self, record: CallRecord) -> None:
        """Keep *record*, once, and charge the draft that it replaces.

        Raises sqlite3.Error if it cannot be written, as on a full disk; then nothing of it is kept.
        """
        row = _row(record)
        with self._transaction("IMMEDIATE") as db:
            db.execute(_INSERT, row)
            db.execute(_REJECT, row)

    def records(self, since: float | None = None) -> list[CallRecord]:
        """List the calls that ended at *since* (seconds since the epoch) or later, the oldest first.

        The savings of a rejected draft are those that it was left with: minus its cost.
        """
        with self._transaction() as db:
            rows = db.execute("SELECT * FROM calls WHERE at >= ? ORDER BY at, rowid", [_or_ever(since)])
            return [_record(dict(row)) for row in rows]

    def summary(self, hours: float | None = 24) -> Summary:
        """Sum up the last *hours*; all there is if None."""
        since = None if hours is None else self._clock() - hours * 3600
        with self._transaction() as db:
            return summarise(db, _or_ever(since))

    def close(self) -> None:
        """Close the file; what was appended stays."""
        with _at_work:
            self._closed = True
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Nobody closes a ledger in memory. No lock: the collector may run while this thread holds it.
        self._release()

    def _release(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextmanager
    def _transaction(self, kind: Literal["DEFERRED", "IMMEDIATE"] = "DEFERRED") -> Iterator[sqlite3.Connection]:
        with _at_work:
            if self._closed:
                raise ValueError("the ledger is closed: make another one for the same path")
            self._db = self._db or _connect(self._path)
            with self._db:
                self._db.execute(f"BEGIN {kind}")
                yield self._db


def _before_fork() -> None:
    _at_work.acquire()
    for ledger in list(_alive):
        if ledger._path is not None:  # noqa: SLF001 - the hooks are the other half of the class
            ledger._release()  # noqa: SLF001


with suppress(AttributeError):  # Windows does not fork
    os.register_at_fork(before=_before_fork, after_in_parent=_at_work.release, after_in_child=_at_work.release)


def _connect(path: Path | None) -> sqlite3.Connection:
    db = None
    try:
        if path is not None:
            _create_private(path)
        db = sqlite3.connect(path or ":memory:", timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        is_new = not _is_ledger(db, path)
        db.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last calls, never the file; a sync per call would cost milliseconds.
        db.execute("PRAGMA synchronous = NORMAL")
        if is_new:
            _create_table(db)
    except (OSError, sqlite3.Error, ValueError) as error:
        if db is not None:
            db.close()
        if isinstance(error, ValueError):
            raise
        raise ValueError(
            f"cannot open the ledger {str(path)!r}: {error}; give a file of its own in a folder that exists and "
            f"may be written, or path=None to keep the calls in memory"
        ) from error
    return db


def _create_private(path: Path) -> None:
    # Only a new file may be opened here: closing it again would drop the locks that another connection
    # of this process holds (https://sqlite.org/howtocorrupt.html, 2.2).
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _is_ledger(db: sqlite3.Connection, path: Path | None) -> bool:
    """Say whether the table is there; False for an empty file, ValueError for a stranger."""
    with db:
        db.execute("BEGIN")  # one view of the file: another process may be making its table just now
        owner, version, tables = (
            db.execute(query).fetchone()[0]
            for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
    if owner == _OURS and version != _VERSION:
        raise ValueError(
            f"the ledger {str(path)!r} has schema version {version}, and this release keeps version {_VERSION}: "
            f"give another path, and keep the file for the release that wrote it"
        )
    if owner != _OURS and (owner or version or tables):
        raise ValueError(f"{str(path)!r} is a database, but not a ledger: give the ledger a file of its own")
    return bool(owner == _OURS)


def _create_table(db: sqlite3.Connection) -> None:
    with db:
        db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            db.execute(statement)


def _row(record: CallRecord) -> dict[str, Any]:
    fields = {name: getattr(record, name) for name in CallRecord.__slots__ if name != "saved"}
    saved = {cause: None if record.saved is None else getattr(record.saved, cause) for cause in _CAUSES}
    return fields | {
        "usage": None if record.usage is None else json.dumps(asdict(record.usage)),
        "tags": json.dumps(record.tags),
        "cost": _units(record.cost),
        **{f"saved_{cause}": _units(amount) for cause, amount in saved.items()},
    }


def _record(row: dict[str, Any]) -> CallRecord:
    del row["rejected"]
    saved = {cause: row.pop(f"saved_{cause}") for cause in _CAUSES}
    return CallRecord(
        **row
        | {
            "usage": None if row["usage"] is None else Usage(**json.loads(row["usage"])),
            "tags": tuple(json.loads(row["tags"])),
            "cost": None if row["cost"] is None else usd(row["cost"]),
            "saved": None if None in saved.values() else Saved(**{cause: usd(n) for cause, n in saved.items()}),
            "batch": bool(row["batch"]),
        }
    )


def _units(amount: Decimal | None) -> int | None:
    return None if amount is None else units(amount)


def _or_ever(since: float | None) -> float:
    return float("-inf") if since is None else since
