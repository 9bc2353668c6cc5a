"""The store of one machine: entries in SQLite, their vectors in an index in process."""

import os
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TypeAlias

from llm_costopt.cache.embed import Vector
from llm_costopt.cache.index import MemoryIndex, VectorIndex
from llm_costopt.cache.reading import pack, sketch, unpack
from llm_costopt.cache.sqlite import SQLiteStore
from llm_costopt.cache.store import Entry, Nearby, Selection
from llm_costopt.cache.verify import Neighbour

_Fact: TypeAlias = tuple[str, int, int, bytes, float | None]
"""Question, what its answer says, trigrams and words of the question's sketch, when it expires: a tuple of plain values
is nothing that the garbage collector goes through."""

USES = 64
"""Uses that are written together: one alone takes as long as the lookup, and may wait for other writers."""

FORGOTTEN = 64
"""Entries that have expired, or that others have deleted, and that a lookup forgets, besides two for each that they have
stored: with an index on a server each takes a reply."""


class LocalStore:
    """Keep entries in the file *path*, or in memory if it is None, and find them by nearness.

    Args:
        path: a file that several processes may share, or None.
        namespace: only entries of this one are seen.
        embedder: name of what made the vectors; others are not searched.
        max_entries: above this, expired and then least recently used entries go, of all namespaces of the file.
        index: finds what is near; it belongs to this store alone, and holds nothing that the file does not.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        namespace: str,
        embedder: str,
        max_entries: int,
        index: VectorIndex | None = None,
    ) -> None:
        self._rows = SQLiteStore(path, namespace=namespace)
        self._is_shared = path is not None
        self._embedder = embedder
        self._max_entries = max_entries
        self._step = max_entries // 20
        self._index = MemoryIndex() if index is None else index
        self._facts: dict[int, _Fact] = {}
        self._has_parted = self._rows.has_parted()
        self._used: dict[int, float] = {}
        self._caught_up = 0
        self._lock = threading.Lock()
        self._room = self._room_left()
        self._most = max_entries + self._step
        self._gone: list[int] = []

    def get(self, exact: str) -> Entry | None:
        """Look up an entry by the digest of its whole request."""
        return self._rows.get(exact)

    def by_id(self, entry: str) -> Entry | None:
        """Look up an entry by its id."""
        if not entry.isdecimal():
            return None
        found = self._rows.by_id(int(entry))
        if found is None:  # another process deleted it since it was indexed
            self._forget(int(entry))
        return found

    def near(self, exact: str, scope: str, vector: Vector, count: int, since: float) -> Nearby:
        """Find up to *count* entries of *scope* next to unit *vector* that had not expired at *since*."""
        self._catch_up()
        parted = self._rows.parted(exact) if self._has_parted else set()
        neighbours: list[Neighbour] = []
        gone: _Fact = ("", 0, 0, b"", since)
        for beyond in (0, FORGOTTEN):  # no further: after a quiet week, all of a scope may have expired
            neighbours, expired = [], False
            for entry, similarity in self._index.near(scope, vector, count + len(parted) + beyond):
                text, says, trigrams, words, expires_at = self._facts.get(entry, gone)
                if expires_at is not None and expires_at <= since:
                    self._forget(entry)  # or it would stand before what is fresh; stored anew, it is indexed anew
                    expired = True
                elif entry not in parted:
                    neighbours.append(Neighbour(str(entry), similarity, text, says, trigrams, words))
            if not expired:
                break
        return Nearby(neighbours=neighbours[:count], entries=self._index.size(scope, vector.size))

    def put(self, entry: Entry, vector: Vector | None) -> Entry:
        """Store *entry* and make room for it."""
        found = sketch(entry.text)
        # In memory nobody else will ever ask for the vector, and the index has it.
        kept = (vector, self._embedder, pack(found)) if vector is not None and self._is_shared else ()
        number = self._rows.put(entry, *kept)
        if vector is not None:
            self._facts[number] = (entry.text, entry.says, *found, entry.expires_at)
            self._index.add(number, entry.scope, vector)
        self._make_room(entry.stored_at)
        return entry._replace(id=str(number))

    def touch(self, entry: Entry, now: float) -> None:
        """Note that *entry* was used; what is not yet written is forgotten by a process that is killed."""
        with self._lock:
            self._used[int(entry.id)] = now
            is_enough = len(self._used) >= USES
        if is_enough:
            self._write_uses()

    def part(self, exact: str, entry: str) -> None:
        """Remember that the entry with this id does not answer the request *exact*."""
        self._rows.part(exact, int(entry))
        self._has_parted = True

    def delete(self, entry: str) -> None:
        """Delete the entry with this id, if there is one."""
        self._rows.delete(int(entry))
        self._forget(int(entry))

    def select(self, which: Selection) -> list[str]:
        """List the ids of the entries of this namespace that *which* means."""
        return [str(entry) for entry in self._rows.select(which)]

    def clear(self) -> None:
        """Delete all entries of this namespace, and what was parted."""
        self._rows.clear()
        self._index.clear()
        self._facts.clear()

    def count(self) -> int:
        """Count the entries of this namespace."""
        return self._rows.count()

    def learned(self) -> str | None:
        """Return what `keep_learned` kept in this namespace."""
        return self._rows.learned()

    def keep_learned(self, state: str) -> None:
        """Keep what was learned beside the entries."""
        self._rows.keep_learned(state)

    def add_counts(self, counts: Mapping[str, int], now: float) -> None:
        """Add *counts* to those that are kept beside the entries."""
        self._rows.add_counts(counts, now)

    def counts(self) -> dict[str, int]:
        """Return what `add_counts` has added up."""
        return self._rows.counts()

    def close(self) -> None:
        """Close the file; what was stored stays."""
        with suppress(sqlite3.Error):  # another process writes for too long: which entries were used is no great loss
            self._write_uses()
        self._rows.close()

    def _catch_up(self) -> None:
        """Index what other processes have stored, and on the first search all that the file holds."""
        if not self._is_shared or not self._rows.changed():
            return
        self._has_parted = self._rows.has_parted()
        latest, news = self._caught_up, 0
        for row in self._rows.vectors(self._embedder, latest):
            news += 1
            found = unpack(row.sketch) or sketch(row.text)
            self._facts[row.id] = (row.text, row.says, *found, row.expires_at)
            self._index.add(row.id, row.scope, row.vector)
            latest = row.written
        with self._lock:
            self._caught_up = max(self._caught_up, latest)
        self._forget_deleted(FORGOTTEN + 2 * news)

    def _forget_deleted(self, count: int) -> None:
        """Forget what other processes have deleted, of which nobody tells; no more than *count* at once."""
        if not self._gone and len(self._facts) > self._most:
            known = list(self._facts)  # first, since what is stored from now on is not among the ids
            there = self._rows.ids()
            self._gone = [entry for entry in known if entry not in there]
            self._most = len(known) - len(self._gone) + self._step
        now, self._gone = self._gone[:count], self._gone[count:]
        for entry in now:
            self._forget(entry)

    def _write_uses(self) -> None:
        with self._lock:
            used, self._used = self._used, {}
        if used:
            self._rows.touch(used)

    def _forget(self, entry: int) -> None:
        self._index.remove(entry)
        self._facts.pop(entry, None)

    def _make_room(self, now: float) -> None:
        with self._lock:
            self._room -= 1
            if self._room >= 0:
                return
        if len(self._rows) > self._max_entries:
            self._write_uses()
            # A twentieth at a time, or each further entry would pay for a sweep.
            for entry in self._rows.shrink(self._max_entries - self._step, now):
                self._forget(entry)
        with self._lock:
            self._room = self._room_left()

    def _room_left(self) -> int:
        """Say how many entries may be stored before all are counted again: other processes store some as well."""
        return min(self._max_entries - len(self._rows), self._step)
