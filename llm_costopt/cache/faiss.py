"""The index of a cache, searched by FAISS: exact whatever the size, for scopes whose every neighbour counts."""

import threading
from typing import Any

import numpy as np

from llm_costopt.cache.embed import Vector
from llm_costopt.errors import MissingExtraError


class FaissIndex:
    """Search with one flat FAISS index a scope: exact, so a search grows with its scope, and with no other.

    FAISS may not be read while it is written, so that one thread at a time is in it.

    Raises:
        MissingExtraError: the package `faiss-cpu` is not installed.
    """

    def __init__(self) -> None:
        try:
            import faiss
        except ModuleNotFoundError as missing:
            raise MissingExtraError("FaissIndex", "faiss") from missing
        self._faiss: Any = faiss
        self._lock = threading.Lock()
        self._scopes: dict[tuple[str, int], _Scope] = {}
        self._where: dict[int, tuple[str, int]] = {}

    def add(self, entry: int, scope: str, vector: Vector) -> None:
        """Add unit *vector* under the id *entry* (positive); an id that is there already stays as it is."""
        with self._lock:
            if entry in self._where:
                return
            place = (scope, vector.size)
            if place not in self._scopes:
                self._scopes[place] = _Scope(self._faiss, vector.size)
            self._scopes[place].add(entry, vector)
            self._where[entry] = place

    def remove(self, entry: int) -> None:
        """Remove the vector of *entry*, if there is one."""
        with self._lock:
            place = self._where.pop(entry, None)
            if place is None:
                return
            self._scopes[place].remove(entry)
            if not len(self._scopes[place]):
                del self._scopes[place]

    def near(self, scope: str, vector: Vector, count: int) -> list[tuple[int, float]]:
        """List up to *count* nearest entries of *scope*, as id and cosine similarity, nearest first."""
        with self._lock:
            here = self._scopes.get((scope, vector.size))
            return here.near(vector, count) if here else []

    def size(self, scope: str, dimensions: int) -> int:
        """Count the entries of *scope* whose vectors have so many *dimensions*."""
        with self._lock:
            here = self._scopes.get((scope, dimensions))
            return len(here) if here else 0

    def clear(self) -> None:
        """Remove everything."""
        with self._lock:
            self._scopes, self._where = {}, {}

    def __len__(self) -> int:
        return len(self._where)


class _Scope:
    """Removed entries are left out of searches first, and taken out together later: each time moves all rows behind."""

    def __init__(self, faiss: Any, dimensions: int) -> None:
        self._faiss = faiss
        self._index = faiss.IndexIDMap(faiss.IndexFlatIP(dimensions))
        self._gone: set[int] = set()

    def add(self, entry: int, vector: Vector) -> None:
        if entry in self._gone:
            self._sweep()
        self._index.add_with_ids(np.asarray(vector[None], dtype=np.float32), np.array([entry], dtype=np.int64))

    def remove(self, entry: int) -> None:
        self._gone.add(entry)
        if len(self._gone) > max(64, len(self) // 8):
            self._sweep()

    def near(self, vector: Vector, count: int) -> list[tuple[int, float]]:
        only = None
        if self._gone:
            without = self._faiss.IDSelectorNot(self._faiss.IDSelectorBatch(self._ids()))
            only = self._faiss.SearchParameters(sel=without)
        asked = np.asarray(vector[None], dtype=np.float32)
        similarity, ids = self._index.search(asked, min(count, len(self)), params=only)
        return [(int(entry), float(s)) for entry, s in zip(ids[0], similarity[0], strict=True)]

    def __len__(self) -> int:
        return int(self._index.ntotal) - len(self._gone)

    def _ids(self) -> Any:
        return np.fromiter(self._gone, dtype=np.int64, count=len(self._gone))

    def _sweep(self) -> None:
        self._index.remove_ids(self._ids())
        self._gone.clear()
