"""Where the cache's entries live: SQLite, in memory or in a file that several processes share."""

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm_costopt.cache.embed import Vector

log = logging.getLogger(__name__)

VERSION = 1
"""Of the table's shape; a file of another version is set aside."""

_PATIENCE = 1.0
"""Seconds to wait for another process that is writing: a call that waits for its cache had better be made."""

# AUTOINCREMENT: an id must never name another question later, since the indexes of
# other processes go on holding it for a while.
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    exact TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL,
    scope TEXT NOT NULL,
    text TEXT NOT NULL,
    embedder TEXT,
    vector BLOB,
    payload TEXT NOT NULL,
    stored_at REAL NOT NULL,
    expires_at REAL,
    used_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_used ON entries (used_at);
CREATE INDEX IF NOT EXISTS entries_namespace ON entries (namespace);
PRAGMA user_version = {VERSION};
"""

# SQLite forbids to carry a connection across a fork (https://sqlite.org/howtocorrupt.html, 2.6): without the
# locks that it believes to hold, the child loses what it writes. So a fork waits until no store is at work,
# and files are closed until the next use, on both sides.
_at_work = threading.Lock()
_alive: "weakref.WeakSet[SQLiteStore]" = weakref.WeakSet()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stored answer."""

    id: int
    """Never used for another entry."""
    scope: str
    """Digest of all that must match exactly."""
    text: str
    """The question that was answered."""
    payload: str
    """The answer, as the host package wrote it."""
    stored_at: float
    """Seconds since the epoch."""
    expires_at: float | None
    """Seconds since the epoch; None: never."""
    used_at: float
    """Seconds since the epoch, of the last use that was noted."""


class SQLiteStore:
    """Keep entries in the file *path*, or in memory if it is None.

    One connection serves all threads, one statement at a time, and each change here is one statement in
    autocommit mode. Threads may share a store, processes its file; a fork is safe.
    """

    _db: sqlite3.Connection | None = None

    def __init__(self, path: str | os.PathLike[str] | None = None, *, namespace: str = "") -> None:
        self._path = None if path is None else Path(path).absolute()
        self._namespace = namespace
        self._closed = False
        self._seen: int | None = None
        with _at_work:
            self._connect()
            _alive.add(self)

    def get(self, exact: str) -> Entry | None:
        """Look up an entry by the digest of its whole request."""
        return self._one("exact = ?", exact)

    def by_id(self, entry: int) -> Entry | None:
        """Look up an entry by its id."""
        return self._one("id = ?", entry)

    def put(
        self,
        *,
        exact: str,
        scope: str,
        text: str,
        payload: str,
        stored_at: float,
        expires_at: float | None,
        vector: Vector | None = None,
        embedder: str | None = None,
    ) -> int:
        """Store an entry, in place of the one with the same *exact* if there is one, and return its id."""
        rows = self._run(
            "INSERT INTO entries"
            " (exact, namespace, scope, text, embedder, vector, payload, stored_at, expires_at, used_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (exact) DO UPDATE SET payload = excluded.payload, stored_at = excluded.stored_at,"
            " expires_at = excluded.expires_at, used_at = excluded.used_at, vector = excluded.vector,"
            " embedder = excluded.embedder RETURNING id",
            exact, self._namespace, scope, text, embedder, None if vector is None else vector.tobytes(),
            payload, stored_at, expires_at, stored_at,
        )  # fmt: skip
        return int(rows[0][0])

    def touch(self, entry: int, now: float) -> None:
        """Note that *entry* was used."""
        self._run("UPDATE entries SET used_at = ? WHERE id = ?", now, entry)

    def delete(self, entry: int) -> None:
        """Delete an entry."""
        self._run("DELETE FROM entries WHERE id = ?", entry)

    def shrink(self, limit: int, now: float) -> list[int]:
        """Delete what has expired, then what was not used for longest until *limit* are left; return the ids."""
        gone = self._run("DELETE FROM entries WHERE expires_at <= ? RETURNING id", now)
        if (surplus := len(self) - limit) > 0:
            gone += self._run(
                "DELETE FROM entries WHERE id IN (SELECT id FROM entries ORDER BY used_at, id LIMIT ?) RETURNING id",
                surplus,
            )
        return [row[0] for row in gone]

    def clear(self) -> None:
        """Delete all entries of this namespace."""
        self._run("DELETE FROM entries WHERE namespace = ?", self._namespace)

    def count(self) -> int:
        """Count the entries of this namespace."""
        return int(self._run("SELECT COUNT(*) FROM entries WHERE namespace = ?", self._namespace)[0][0])

    def changed(self) -> bool:
        """Tell whether another connection has written since the last call."""
        version = self._run("PRAGMA data_version")[0][0]
        changed, self._seen = version != self._seen, version
        return bool(changed)

    def vectors(self, embedder: str, after: int) -> Iterator[tuple[int, str, Vector]]:
        """Iterate over id, scope and vector of the entries that *embedder* embedded, with ids above *after*."""
        rows = self._run(
            "SELECT id, scope, vector FROM entries WHERE id > ? AND embedder = ? ORDER BY id", after, embedder
        )
        return ((entry, scope, np.frombuffer(vector, dtype=np.float32)) for entry, scope, vector in rows)

    def __len__(self) -> int:
        """Count the entries of all namespaces."""
        return int(self._run("SELECT COUNT(*) FROM entries")[0][0])

    def close(self) -> None:
        """Close the connection."""
        with _at_work:
            self._closed = True
            self._release()

    def __del__(self) -> None:
        # Nobody closes a store in memory. No lock: the collector may run while this thread holds it.
        self._release()

    def _connect(self) -> sqlite3.Connection:
        # A new connection counts the changes of the others from anew.
        self._seen = None
        self._db = _connect(self._path)
        return self._db

    def _release(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _run(self, statement: str, *values: object) -> list[Any]:
        with _at_work:
            if self._closed:
                raise ValueError("the cache is closed: make another one for the same path")
            return (self._db or self._connect()).execute(statement, values).fetchall()

    def _one(self, where: str, value: str | int) -> Entry | None:
        # `where` is one of two constants above.
        rows = self._run(
            f"SELECT id, scope, text, payload, stored_at, expires_at, used_at FROM entries WHERE {where}",  # noqa: S608
            value,
        )
        if not rows:
            return None
        columns = ("id", "scope", "text", "payload", "stored_at", "expires_at", "used_at")
        return Entry(**dict(zip(columns, rows[0], strict=True)))


def _before_fork() -> None:
    _at_work.acquire()
    for store in list(_alive):
        if store._path is not None:  # noqa: SLF001 - the hooks are the other half of the class
            store._release()  # noqa: SLF001


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(before=_before_fork, after_in_parent=_at_work.release, after_in_child=_at_work.release)


def _connect(file: Path | None) -> sqlite3.Connection:
    if file is None:
        return _open(":memory:")
    try:
        _check_place(file)
        return _open(str(file))
    except (sqlite3.OperationalError, OSError) as problem:  # locked, not readable, disk full: the file may be sound
        raise ValueError(f"cannot open the cache {str(file)!r}: {problem}") from problem
    except (sqlite3.DatabaseError, _OtherVersionError) as problem:
        aside = file.with_name(f"{file.name}.{time.time_ns()}.aside")
        log.warning("the cache %s cannot be used (%s); it is now %s and a new one begins", file, problem, aside.name)
        for suffix in ("", "-wal", "-shm"):
            if (part := Path(f"{file}{suffix}")).exists():
                part.rename(f"{aside}{suffix}")
        return _open(str(file))


def _check_place(file: Path) -> None:
    if not file.parent.is_dir():
        raise ValueError(
            f"no folder {str(file.parent)!r} for the cache {file.name!r}: make it first or give another path"
        )
    if file.is_dir():
        raise ValueError(f"the cache's path {str(file)!r} is a folder: name a file in it")


def _open(name: str) -> sqlite3.Connection:
    if name != ":memory:":
        _create_private(name)
    db = sqlite3.connect(name, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        is_new = _is_new(db)
        _write_ahead(db)
        # WAL with NORMAL survives any crash of the process; a power cut may lose the last writes, never the file.
        db.execute("PRAGMA synchronous = NORMAL")
        if is_new:
            _create_table(db)
    except BaseException:
        db.close()
        raise
    return db


def _create_private(name: str) -> None:
    # 0600 before the first byte: questions and answers may be private. Only a new file may be opened here: closing
    # it again would drop the locks that another connection of this process holds (howtocorrupt.html, 2.2).
    with suppress(FileExistsError):
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _is_new(db: sqlite3.Connection) -> bool:
    with db:
        db.execute("BEGIN")  # one view of the file: another process may be making its table just now
        version = db.execute("PRAGMA user_version").fetchall()[0][0]
        empty = not db.execute("SELECT 1 FROM sqlite_master").fetchall()
    if version != VERSION and (version or not empty):
        raise _OtherVersionError(f"it is of version {version}, not {VERSION}")
    return bool(version == 0)


def _write_ahead(db: sqlite3.Connection) -> None:
    # Two connections that switch at once both fail without waiting, unlike those that write at once.
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return


def _create_table(db: sqlite3.Connection) -> None:
    with db:
        db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            db.execute(statement)


class _OtherVersionError(Exception):
    """The file is an SQLite database, but not a cache of this version."""
