"""Where the cache's entries live: SQLite, in memory or in a file that several processes share."""

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llm_costopt.cache.embed import Vector
from llm_costopt.database import Database, UnusableFileError

log = logging.getLogger(__name__)

_OURS = 0x6C6C6D71
"""`llmq` in the header of the file: what tells a cache from somebody else's database."""

_VERSION = 1
"""Of the table's shape; a file of another version is set aside."""

_PATIENCE = 1.0
"""Seconds to wait for another process that is writing: a call that waits for its cache had better be made."""

# AUTOINCREMENT: an id must never name another question later, since the indexes of
# other processes go on holding it for a while.
_SCHEMA = """
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    exact TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL,
    scope TEXT NOT NULL,
    text TEXT NOT NULL,
    embedder TEXT,
    vector BLOB,
    payload TEXT NOT NULL,
    answer TEXT NOT NULL,
    says INTEGER NOT NULL,
    stored_at REAL NOT NULL,
    expires_at REAL,
    used_at REAL NOT NULL
);
CREATE INDEX entries_used ON entries (used_at);
CREATE INDEX entries_namespace ON entries (namespace);
CREATE TABLE learned (namespace TEXT PRIMARY KEY, state TEXT NOT NULL)
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
    answer: str
    """The words of the answer."""
    says: int
    """Entries with the same number have answers that say the same."""
    stored_at: float
    """Seconds since the epoch."""
    expires_at: float | None
    """Seconds since the epoch; None: never."""
    used_at: float
    """Seconds since the epoch, of the last use that was noted."""


class SQLiteStore:
    """Keep entries in the file *path*, or in memory if it is None.

    A file that is damaged or of another version is set aside, with a warning; somebody else's database is refused.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, namespace: str = "") -> None:
        self._db = _open(path)
        self._namespace = namespace
        self._seen = (0, 0)

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
        answer: str = "",
        says: int = 0,
        stored_at: float,
        expires_at: float | None,
        vector: Vector | None = None,
        embedder: str | None = None,
    ) -> int:
        """Store an entry, in place of the one with the same *exact* if there is one, and return its id."""
        rows = self._db.run(
            "INSERT INTO entries"
            " (exact, namespace, scope, text, embedder, vector, payload, answer, says, stored_at, expires_at, used_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (exact) DO UPDATE SET payload = excluded.payload, answer = excluded.answer,"
            " says = excluded.says, stored_at = excluded.stored_at,"
            " expires_at = excluded.expires_at, used_at = excluded.used_at, vector = excluded.vector,"
            " embedder = excluded.embedder RETURNING id",
            exact, self._namespace, scope, text, embedder, None if vector is None else vector.tobytes(),
            payload, answer, says, stored_at, expires_at, stored_at,
        )  # fmt: skip
        return int(rows[0][0])

    def touch(self, entry: int, now: float) -> None:
        """Note that *entry* was used."""
        self._db.run("UPDATE entries SET used_at = ? WHERE id = ?", now, entry)

    def delete(self, entry: int) -> None:
        """Delete an entry."""
        self._db.run("DELETE FROM entries WHERE id = ?", entry)

    def shrink(self, limit: int, now: float) -> list[int]:
        """Delete what has expired, then what was not used for longest until *limit* are left; return the ids."""
        gone = self._db.run("DELETE FROM entries WHERE expires_at <= ? RETURNING id", now)
        if (surplus := len(self) - limit) > 0:
            gone += self._db.run(
                "DELETE FROM entries WHERE id IN (SELECT id FROM entries ORDER BY used_at, id LIMIT ?) RETURNING id",
                surplus,
            )
        return [row[0] for row in gone]

    def clear(self) -> None:
        """Delete all entries of this namespace."""
        self._db.run("DELETE FROM entries WHERE namespace = ?", self._namespace)

    def count(self) -> int:
        """Count the entries of this namespace."""
        return int(self._db.run("SELECT COUNT(*) FROM entries WHERE namespace = ?", self._namespace)[0][0])

    def changed(self) -> bool:
        """Tell whether another connection has written since the last call."""
        version = (self._db.run("PRAGMA data_version")[0][0], self._db.opened)
        changed, self._seen = version != self._seen, version
        return changed

    def vectors(self, embedder: str, after: int) -> Iterator[tuple[int, str, str, int, float | None, Vector]]:
        """Iterate over id, scope, text, saying, expiry and vector of what *embedder* embedded, with ids above *after*."""
        rows = self._db.run(
            "SELECT id, scope, text, says, expires_at, vector FROM entries WHERE id > ? AND embedder = ? ORDER BY id",
            after,
            embedder,
        )
        return ((*row[:5], np.frombuffer(row[5], dtype=np.float32)) for row in map(tuple, rows))

    def learned(self) -> str | None:
        """Return what `keep_learned` kept in this namespace."""
        rows = self._db.run("SELECT state FROM learned WHERE namespace = ?", self._namespace)
        return rows[0][0] if rows else None

    def keep_learned(self, state: str) -> None:
        """Keep what was learned beside the entries."""
        self._db.run("INSERT OR REPLACE INTO learned (namespace, state) VALUES (?, ?)", self._namespace, state)

    def __len__(self) -> int:
        """Count the entries of all namespaces."""
        return int(self._db.run("SELECT COUNT(*) FROM entries")[0][0])

    def close(self) -> None:
        """Close the file; what was stored stays."""
        self._db.close()

    def _one(self, where: str, value: str | int) -> Entry | None:
        # `where` is one of two constants above.
        rows = self._db.run(
            f"SELECT id, scope, text, payload, answer, says, stored_at, expires_at, used_at FROM entries WHERE {where}",  # noqa: S608
            value,
        )
        if not rows:
            return None
        columns = ("id", "scope", "text", "payload", "answer", "says", "stored_at", "expires_at", "used_at")
        return Entry(**dict(zip(columns, rows[0], strict=True)))


def _open(path: str | os.PathLike[str] | None) -> Database:
    def opened() -> Database:
        return Database(path, what="cache", schema=_SCHEMA, owner=_OURS, version=_VERSION, patience=_PATIENCE)

    try:
        return opened()
    except UnusableFileError as problem:
        if path is None:
            raise
        file = Path(path)
        aside = file.with_name(f"{file.name}.{time.time_ns()}.aside")
        log.warning("%s; it is now %s, and a new one begins", problem, aside.name)
        for suffix in ("", "-wal", "-shm"):
            if (part := Path(f"{file}{suffix}")).exists():
                part.rename(f"{aside}{suffix}")
        return opened()
