"""Where the cache's entries live: SQLite, in memory or in a file that several processes share."""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llm_costopt.cache.embed import Vector
from llm_costopt.cache.store import Entry, Selection
from llm_costopt.database import Database, UnusableFileError

try:
    import fcntl
except ImportError:  # Windows has none, nor lets anybody rename what another process has open
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

_OURS = 0x6C6C6D71
"""`llmq` in the header of the file: what tells a cache from somebody else's database."""

_VERSION = 3
"""Of the table's shape; a file of another version is set aside."""

_PATIENCE = 1.0
"""Seconds to wait for another process that is writing: a call that waits for its cache had better be made."""

_PAGE = 1000
"""Rows that are read at once: of 100,000 all at once would take up half as much memory again as the index of them."""

# AUTOINCREMENT: an id must never name another question later, since the indexes of
# other processes go on holding it for a while. It begins with the milliseconds since the epoch, or an index that outlives
# the entries, as a collection in Qdrant does, would hold vectors of other questions under the ids of the next ones.
_SCHEMA = """
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    written INTEGER NOT NULL,
    exact TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL,
    scope TEXT NOT NULL,
    text TEXT NOT NULL,
    sketch BLOB,
    embedder TEXT,
    vector BLOB,
    payload TEXT NOT NULL,
    answer TEXT NOT NULL,
    says INTEGER NOT NULL,
    model TEXT,
    tags TEXT NOT NULL,
    stored_at REAL NOT NULL,
    expires_at REAL,
    used_at REAL NOT NULL
);
INSERT INTO sqlite_sequence VALUES ('entries', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
CREATE INDEX entries_used ON entries (used_at);
CREATE INDEX entries_written ON entries (written);
CREATE INDEX entries_namespace ON entries (namespace);
CREATE TABLE parted (exact TEXT, entry INTEGER, PRIMARY KEY (exact, entry)) WITHOUT ROWID;
CREATE TABLE writes (last INTEGER NOT NULL);
INSERT INTO writes VALUES (0);
CREATE TABLE learned (namespace TEXT PRIMARY KEY, state TEXT NOT NULL)
"""


# Made when it is first needed: for a table of another version all that is stored would be set aside.
_COUNTS = """
CREATE TABLE IF NOT EXISTS counts
(namespace TEXT, name TEXT, n INTEGER NOT NULL, PRIMARY KEY (namespace, name)) WITHOUT ROWID
"""


class Indexed(NamedTuple):
    """What an index has to know of an entry."""

    written: int
    """Number of the write that brought it, rising over all processes."""
    id: int
    scope: str
    text: str
    says: int
    expires_at: float | None
    sketch: bytes
    """Of the text, as `reading.pack` wrote it."""
    vector: Vector


_COLUMNS = ", ".join(Entry._fields)


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

    def put(self, entry: Entry, vector: Vector | None = None, embedder: str | None = None, sketch: bytes = b"") -> int:
        """Store *entry*, in place of the one with the same digest if there is one, and return its id."""
        with self._db.transaction("IMMEDIATE") as db:
            [(written,)] = db.execute("UPDATE writes SET last = last + 1 RETURNING last").fetchall()
            rows = db.execute(
                "INSERT INTO entries (exact, written, namespace, scope, text, sketch, embedder, vector, payload, answer,"
                " says, model, tags, stored_at, expires_at, used_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (exact) DO UPDATE SET written = excluded.written, payload = excluded.payload,"
                " answer = excluded.answer, says = excluded.says, model = excluded.model, tags = excluded.tags,"
                " stored_at = excluded.stored_at, expires_at = excluded.expires_at, used_at = excluded.used_at,"
                " sketch = excluded.sketch, vector = excluded.vector, embedder = excluded.embedder RETURNING id",
                (
                    entry.exact, written, self._namespace, entry.scope, entry.text, sketch, embedder,
                    None if vector is None else vector.tobytes(), entry.payload, entry.answer, entry.says, entry.model,
                    json.dumps(entry.tags), entry.stored_at, entry.expires_at, entry.used_at,
                ),
            ).fetchall()  # fmt: skip
        return int(rows[0][0])

    def touch(self, used: Mapping[int, float]) -> None:
        """Note when each of these entries was used, in seconds since the epoch."""
        with self._db.transaction("IMMEDIATE") as db:
            db.executemany("UPDATE entries SET used_at = ? WHERE id = ?", [(at, entry) for entry, at in used.items()])

    def delete(self, entry: int) -> None:
        """Delete an entry."""
        self._db.run("DELETE FROM entries WHERE id = ?", entry)

    def part(self, exact: str, entry: int) -> None:
        """Remember that *entry* does not answer the request *exact*."""
        self._db.run("INSERT OR IGNORE INTO parted VALUES (?, ?)", exact, entry)

    def has_parted(self) -> bool:
        """Tell whether anything was parted: asked when the file has changed, it saves a question a lookup."""
        return bool(self._db.run("SELECT EXISTS (SELECT 1 FROM parted)")[0][0])

    def parted(self, exact: str) -> set[int]:
        """Return the ids that `part` has parted from the request *exact*."""
        return {row[0] for row in self._db.run("SELECT entry FROM parted WHERE exact = ?", exact)}

    def select(self, which: Selection) -> list[int]:
        """List the ids of the entries of this namespace that *which* means."""
        rows = self._db.run(
            "SELECT id FROM entries WHERE namespace = ?1 AND (?2 IS NULL OR model = ?2)"
            " AND (?3 IS NULL OR stored_at < ?3) AND (?4 = '[]' OR EXISTS"
            " (SELECT 1 FROM json_each(tags) AS mine, json_each(?4) AS asked WHERE mine.value = asked.value))",
            self._namespace, which.model, which.stored_before, json.dumps(sorted(which.tags)),
        )  # fmt: skip
        return [row[0] for row in rows]

    def shrink(self, limit: int, now: float) -> list[int]:
        """Delete what has expired, then what was not used for longest until *limit* are left; return the ids."""
        gone = self._db.run("DELETE FROM entries WHERE expires_at <= ? RETURNING id", now)
        if (surplus := len(self) - limit) > 0:
            gone += self._db.run(
                "DELETE FROM entries WHERE id IN (SELECT id FROM entries ORDER BY used_at, id LIMIT ?) RETURNING id",
                surplus,
            )
        self._forget_parted()
        return [row[0] for row in gone]

    def clear(self) -> None:
        """Delete all entries of this namespace."""
        self._db.run("DELETE FROM entries WHERE namespace = ?", self._namespace)
        self._forget_parted()

    def count(self) -> int:
        """Count the entries of this namespace."""
        return int(self._db.run("SELECT COUNT(*) FROM entries WHERE namespace = ?", self._namespace)[0][0])

    def changed(self) -> bool:
        """Tell whether another connection has written since the last call."""
        version = (self._db.run("PRAGMA data_version")[0][0], self._db.opened)
        changed, self._seen = version != self._seen, version
        return changed

    def vectors(self, embedder: str, after: int) -> Iterator[Indexed]:
        """Iterate over what *embedder* embedded and was written after the write *after*, in order."""
        while rows := self._db.run(
            "SELECT written, id, scope, text, says, expires_at, sketch, vector FROM entries"
            " WHERE written > ? AND embedder = ? ORDER BY written LIMIT ?",
            after,
            embedder,
            _PAGE,
        ):
            for row in rows:
                yield Indexed(**{**row, "vector": np.frombuffer(row["vector"], dtype=np.float32)})
            after = rows[-1]["written"]

    def ids(self) -> set[int]:
        """Return the ids of all entries, of any namespace."""
        return {row[0] for row in self._db.run("SELECT id FROM entries")}

    def learned(self) -> str | None:
        """Return what `keep_learned` kept in this namespace."""
        rows = self._db.run("SELECT state FROM learned WHERE namespace = ?", self._namespace)
        return rows[0][0] if rows else None

    def keep_learned(self, state: str) -> None:
        """Keep what was learned beside the entries."""
        self._db.run("INSERT OR REPLACE INTO learned (namespace, state) VALUES (?, ?)", self._namespace, state)

    def add_counts(self, counts: Mapping[str, int], now: float) -> None:
        """Add *counts* to those that are kept beside the entries."""
        with self._db.transaction("IMMEDIATE") as db:
            db.execute(_COUNTS)
            db.execute("INSERT OR IGNORE INTO counts VALUES (?, 'since', ?)", [self._namespace, int(now)])
            db.executemany(
                "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT (namespace, name) DO UPDATE SET n = n + excluded.n",
                [(self._namespace, name, n) for name, n in counts.items()],
            )

    def counts(self) -> dict[str, int]:
        """Return what `add_counts` has added up."""
        return counts_of(self._db, self._namespace)

    def __len__(self) -> int:
        """Count the entries of all namespaces."""
        return int(self._db.run("SELECT COUNT(*) FROM entries")[0][0])

    def close(self) -> None:
        """Close the file; what was stored stays."""
        self._db.close()

    def _forget_parted(self) -> None:
        self._db.run("DELETE FROM parted WHERE entry NOT IN (SELECT id FROM entries)")

    def _one(self, where: str, value: str | int) -> Entry | None:
        # `where` is one of two constants above.
        rows = self._db.run(f"SELECT {_COLUMNS} FROM entries WHERE {where}", value)  # noqa: S608
        if not rows:
            return None
        *columns, tags, entry = rows[0]
        return Entry._make([*columns, tuple(json.loads(tags)), str(entry)])


def counts_of(db: Database, namespace: str) -> dict[str, int]:
    """Return what was counted in *namespace*."""
    if not db.run("SELECT 1 FROM sqlite_master WHERE name = 'counts'"):
        return {}
    return dict(map(tuple, db.run("SELECT name, n FROM counts WHERE namespace = ?", namespace)))


def look_into(path: str | os.PathLike[str]) -> Database:
    """Open the file of a cache that is there, without setting it aside or making one.

    Raises:
        ValueError: there is none, or it cannot be used.
    """
    file = Path(path)
    if not file.is_file() or not file.stat().st_size:
        raise ValueError(f"{path}: there is no cache; give the path= that `SemanticCache` was given")
    return Database(file, what="cache", schema=_SCHEMA, owner=_OURS, version=_VERSION, patience=_PATIENCE)


def _open(path: str | os.PathLike[str] | None) -> Database:
    def opened() -> Database:
        return Database(path, what="cache", schema=_SCHEMA, owner=_OURS, version=_VERSION, patience=_PATIENCE)

    if path is None:
        return opened()
    file = Path(path)
    found = None
    with suppress(OSError):  # what is wrong with the path, opening it will say
        found = file.stat()
    try:
        with _folder_locked(file, exclusive=False):
            return opened()
    except UnusableFileError as problem:
        # Whoever were still opening the old file could take the log of the new one for its own, and empty it.
        with _folder_locked(file, exclusive=True):
            if found:
                _set_aside(file, found, str(problem))
            return opened()


@contextmanager
def _folder_locked(file: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold the folder of *file* against those that set a file aside, or against all that open one.

    A lock that cannot be had, or not in time, is gone without.
    """
    with ExitStack() as at_the_end:
        with suppress(OSError):  # no such folder, as opening the file will say, or a file system without locks
            folder = os.open(file.absolute().parent, os.O_RDONLY)
            at_the_end.callback(os.close, folder)
            if fcntl is not None:
                _lock(folder, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
                at_the_end.callback(fcntl.flock, folder, fcntl.LOCK_UN)  # for a child too, which has inherited it
        yield


def _lock(folder: int, kind: int) -> None:
    give_up = time.monotonic() + _PATIENCE
    while time.monotonic() < give_up:
        with suppress(BlockingIOError):
            fcntl.flock(folder, kind | fcntl.LOCK_NB)
            return
        time.sleep(0.005)


def _set_aside(file: Path, found: os.stat_result, problem: str) -> None:
    """Rename an unusable *file*, unless it is no longer the one that was *found*: another process was faster."""
    with suppress(FileNotFoundError):
        if not os.path.samestat(file.stat(), found):
            return
        aside = file.with_name(f"{file.name}.{time.time_ns()}.aside")
        log.warning("%s; it is now %s, and a new one begins", problem, aside.name)
        # The database itself last: once it is gone, another process makes a new one with a log of its own.
        for suffix in ("-wal", "-shm", ""):
            if (part := Path(f"{file}{suffix}")).exists():
                part.rename(f"{aside}{suffix}")
