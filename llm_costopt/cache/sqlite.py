"""Where the cache's entries live: SQLite, in memory or in a file that several processes share."""

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llm_costopt.cache.embed import Vector

log = logging.getLogger(__name__)

VERSION = 1
"""Of the table's shape; a file of another version is set aside."""

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

    One connection serves all threads: SQLite serialises its calls, and each change here is one
    statement in autocommit mode. A connection must not outlive a fork; the owner makes a new store.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, namespace: str = "") -> None:
        self._db = _connect(path)
        self._namespace = namespace
        self._seen = 0

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
        row = self._db.execute(
            "INSERT INTO entries"
            " (exact, namespace, scope, text, embedder, vector, payload, stored_at, expires_at, used_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (exact) DO UPDATE SET payload = excluded.payload, stored_at = excluded.stored_at,"
            " expires_at = excluded.expires_at, used_at = excluded.used_at, vector = excluded.vector,"
            " embedder = excluded.embedder RETURNING id",
            (
                exact, self._namespace, scope, text, embedder, None if vector is None else vector.tobytes(),
                payload, stored_at, expires_at, stored_at,
            ),
        ).fetchall()  # fmt: skip
        return int(row[0][0])

    def touch(self, entry: int, now: float) -> None:
        """Note that *entry* was used."""
        self._db.execute("UPDATE entries SET used_at = ? WHERE id = ?", (now, entry))

    def delete(self, entry: int) -> None:
        """Delete an entry."""
        self._db.execute("DELETE FROM entries WHERE id = ?", (entry,))

    def shrink(self, limit: int, now: float) -> list[int]:
        """Delete what has expired, then what was not used for longest until *limit* are left; return the ids."""
        gone = self._db.execute("DELETE FROM entries WHERE expires_at <= ? RETURNING id", (now,)).fetchall()
        if (surplus := len(self) - limit) > 0:
            gone += self._db.execute(
                "DELETE FROM entries WHERE id IN (SELECT id FROM entries ORDER BY used_at, id LIMIT ?) RETURNING id",
                (surplus,),
            ).fetchall()
        return [row[0] for row in gone]

    def clear(self) -> None:
        """Delete all entries of this namespace."""
        self._db.execute("DELETE FROM entries WHERE namespace = ?", (self._namespace,))

    def count(self) -> int:
        """Count the entries of this namespace."""
        rows = self._db.execute("SELECT COUNT(*) FROM entries WHERE namespace = ?", (self._namespace,)).fetchall()
        return int(rows[0][0])

    def changed(self) -> bool:
        """Tell whether another connection has written since the last call."""
        version = self._db.execute("PRAGMA data_version").fetchall()[0][0]
        changed, self._seen = version != self._seen, version
        return bool(changed)

    def vectors(self, embedder: str, after: int) -> Iterator[tuple[int, str, Vector]]:
        """Iterate over id, scope and vector of the entries that *embedder* embedded, with ids above *after*."""
        rows = self._db.execute(
            "SELECT id, scope, vector FROM entries WHERE id > ? AND embedder = ? ORDER BY id", (after, embedder)
        ).fetchall()
        return ((entry, scope, np.frombuffer(vector, dtype=np.float32)) for entry, scope, vector in rows)

    def __len__(self) -> int:
        """Count the entries of all namespaces."""
        return int(self._db.execute("SELECT COUNT(*) FROM entries").fetchall()[0][0])

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def _one(self, where: str, value: str | int) -> Entry | None:
        # `where` is one of two constants above.
        rows = self._db.execute(
            f"SELECT id, scope, text, payload, stored_at, expires_at, used_at FROM entries WHERE {where}",  # noqa: S608
            (value,),
        ).fetchall()
        if not rows:
            return None
        columns = ("id", "scope", "text", "payload", "stored_at", "expires_at", "used_at")
        return Entry(**dict(zip(columns, rows[0], strict=True)))


def _connect(path: str | os.PathLike[str] | None) -> sqlite3.Connection:
    if path is None:
        return _open(":memory:")
    file = Path(path)
    if not file.parent.is_dir():
        raise ValueError(
            f"no folder {str(file.parent)!r} for the cache {file.name!r}: make it first or give another path"
        )
    if file.is_dir():
        raise ValueError(f"the cache's path {str(file)!r} is a folder: name a file in it")
    try:
        return _open(str(file))
    except sqlite3.OperationalError as problem:  # locked, not readable, disk full: the file may be sound
        raise ValueError(f"cannot open the cache {str(file)!r}: {problem}") from problem
    except (sqlite3.DatabaseError, _OtherVersionError) as problem:
        aside = file.with_name(f"{file.name}.{time.time_ns()}.aside")
        log.warning("the cache %s cannot be used (%s); it is now %s and a new one begins", file, problem, aside.name)
        for suffix in ("", "-wal", "-shm"):
            if (part := Path(f"{file}{suffix}")).exists():
                part.rename(f"{aside}{suffix}")
        return _open(str(file))


def _open(name: str) -> sqlite3.Connection:
    if name != ":memory:":
        # 0600 before the first byte: questions and answers may be private.
        os.close(os.open(name, os.O_CREAT | os.O_RDWR, 0o600))
    db = sqlite3.connect(name, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        _check_version(db)
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        # WAL with NORMAL survives any crash of the process; a power cut may lose the last writes, never the file.
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def _check_version(db: sqlite3.Connection) -> None:
    version = db.execute("PRAGMA user_version").fetchall()[0][0]
    if version not in {0, VERSION} or (version == 0 and db.execute("SELECT 1 FROM sqlite_master").fetchall()):
        raise _OtherVersionError(f"it is of version {version}, not {VERSION}")


class _OtherVersionError(Exception):
    """The file is an SQLite database, but not a cache of this version."""
