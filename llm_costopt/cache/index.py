"""Find the nearest stored questions in one scope: the `VectorIndex` protocol, and the one in process, of numpy alone."""

import threading
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llm_costopt.cache.embed import Rows, Vector
from llm_costopt.cache.fixed import Fixed, cosines, fixed, floating
from llm_costopt.cache.sketch import FAR, Sketch, candidates, mean_of

EXACT_BELOW = 4096
"""Rows of a scope up to which all are multiplied: 0.15 ms where a sketch takes 0.1, and no neighbour is missed."""

SKETCHED_FROM = 64
"""Least dimensions for a sketch: fewer bits than a word hold tell too little apart, and so short a product is quick."""

CANDIDATES = 256
"""Rows that a sketch picks for an exact product, more if more than 32 neighbours are asked for, fewer of few (`sketch.ENOUGH_OF_FEW`).

Measured on question embeddings, 300 searches each: of the 8 nearest, all that reach a cosine of 0.75 are found among
10,000 and 100,000, 99.9 % among 1,000,000 (made up in part); at 0.6 all, all and 99.5 %; of all 8 98 % each. A Hamming
radius of 80 of 256 bits loses 4 % at 0.6 and 15 % at 0.5.
"""

CHUNK = 131072
"""Rows that lie side by side: no insertion ever copies more than half as many. With half as many a search among 100,000
takes 0.03 ms longer, and the slowest insertion 7 ms instead of 13."""

STEP = 64
"""Rows that are sketched together, which takes little longer than one; up to as many newest ones are compared exactly."""

SKETCHED_AGAIN = 512
"""Rows of a chunk that have a mean of their own; from there on it is sketched again at each doubling."""

SORTED = 400
"""Similarities up to which to sort all is quicker than to part the best from the rest first."""

_GONE = -2.0

_Place: TypeAlias = tuple[str, int]


class VectorIndex(Protocol):
    """Unit vectors by scope and by length, with a positive id each; may be used by several threads at once."""

    def add(self, entry: int, scope: str, vector: Vector) -> None:
        """Add unit *vector* under the id *entry* (positive); an id that is there already stays as it is."""
        ...

    def remove(self, entry: int) -> None:
        """Remove the vector of *entry*, if there is one."""
        ...

    def near(self, scope: str, vector: Vector, count: int) -> list[tuple[int, float]]:
        """List up to *count* nearest entries of *scope*, as id and cosine similarity, nearest first.

        Only vectors as long as *vector* are searched: an embedder may have been told to give longer ones.
        """
        ...

    def size(self, scope: str, dimensions: int) -> int:
        """Count the entries of *scope* whose vectors have so many *dimensions*."""
        ...

    def clear(self) -> None:
        """Remove everything."""
        ...

    def __len__(self) -> int: ...


class MemoryIndex:
    """Search in process: exactly up to *exact_below* entries of a scope, above that what a sketch of one bit a dimension picks.

    A search takes no lock: it reads one snapshot, and rows of a snapshot never move. An added row is written behind
    them, a removed one only loses its id. Adding is O(1), a search costs its own scope only, however many there are.
    """

    def __init__(self, *, exact_below: int = EXACT_BELOW) -> None:
        self._exact_below = exact_below
        self._lock = threading.Lock()
        self._scopes: dict[_Place, _Snapshot] = {}
        self._where: dict[int, _Chunk] = {}

    def add(self, entry: int, scope: str, vector: Vector) -> None:
        """Add unit *vector* under the id *entry* (positive); an id that is there already stays as it is."""
        with self._lock:
            if entry not in self._where:
                place = (scope, vector.size)
                before = self._scopes.get(place, _EMPTY)
                self._scopes[place] = self._append(place, before, [entry], vector[None])

    def remove(self, entry: int) -> None:
        """Remove the vector of *entry*, if there is one."""
        with self._lock:
            chunk = self._where.pop(entry, None)
            if chunk is None:
                return
            chunk.remove(entry)
            chunks, rows, removed = self._scopes[chunk.place]
            removed += 1
            used = min(rows - CHUNK * chunks.index(chunk), CHUNK)
            if rows == removed:
                del self._scopes[chunk.place]
            elif chunk.removed > max(64, used // 2):
                rest = tuple(other for other in chunks if other is not chunk)
                left = _Snapshot(rest, rows - used, removed - chunk.removed)
                kept = np.flatnonzero(chunk.ids[:used])
                self._scopes[chunk.place] = self._append(chunk.place, left, chunk.ids[kept].tolist(), chunk.rows[kept])
            else:
                self._scopes[chunk.place] = _Snapshot(chunks, rows, removed)

    def near(self, scope: str, vector: Vector, count: int) -> list[tuple[int, float]]:
        """List up to *count* nearest entries of *scope*, as id and cosine similarity, nearest first."""
        snapshot = self._scopes.get((scope, vector.size), _EMPTY)
        if not snapshot.rows:
            return []
        wanted = max(CANDIDATES, 8 * count) * max(1, 256 // vector.size)
        if self._sketched(snapshot) and wanted < snapshot.rows - STEP:
            ids, similarity = _picked(snapshot, vector, wanted)
        else:
            ids, similarity = _all(snapshot, vector)
        if snapshot.removed:
            similarity[ids == 0] = _GONE
        best = _top(similarity, count)
        return [(n, s) for n, s in zip(ids[best].tolist(), similarity[best].tolist(), strict=True) if n]

    def size(self, scope: str, dimensions: int) -> int:
        """Count the entries of *scope* whose vectors have so many *dimensions*."""
        snapshot = self._scopes.get((scope, dimensions), _EMPTY)
        return snapshot.rows - snapshot.removed

    def clear(self) -> None:
        """Remove everything."""
        with self._lock:
            self._scopes, self._where = {}, {}

    def __len__(self) -> int:
        return len(self._where)

    def _append(self, place: _Place, before: "_Snapshot", ids: list[int], rows: Rows | Fixed) -> "_Snapshot":
        chunks, end = before.chunks, before.rows
        while ids:
            if end == CHUNK * len(chunks):
                # Behind a full chunk comes one that never has to grow: memory that is not written to costs nothing.
                chunks = (*chunks, _Chunk(place, CHUNK, fixed=True) if chunks else _Chunk(place, 1))
            start = end - CHUNK * (len(chunks) - 1)
            fit = min(len(ids), CHUNK - start)
            chunks[-1].write(start, ids[:fit], rows[:fit])
            for entry in ids[:fit]:
                self._where[entry] = chunks[-1]
            ids, rows, end = ids[fit:], rows[fit:], end + fit
        after = _Snapshot(chunks, end, before.removed)
        if self._sketched(after) and not chunks[-1].is_sketched(end - CHUNK * (len(chunks) - 1)):
            _sketch(after)
        return after

    def _sketched(self, snapshot: "_Snapshot") -> bool:
        return snapshot.rows > self._exact_below and snapshot.chunks[0].rows.shape[1] >= SKETCHED_FROM


_Ids: TypeAlias = NDArray[np.int64]


class _Snapshot(NamedTuple):
    """All chunks but the last are full; so many rows are in use, and so many of these were removed."""

    chunks: "tuple[_Chunk, ...]"
    rows: int
    removed: int

    def used(self) -> "list[tuple[_Chunk, int]]":
        """List the chunks with the rows that are in use of each."""
        return [(chunk, min(CHUNK, self.rows - CHUNK * n)) for n, chunk in enumerate(self.chunks)]


_EMPTY = _Snapshot((), 0, 0)


class _Chunk:
    """Up to CHUNK rows of one scope; when it grows, its arrays make place for longer ones that begin the same.

    Rows with a sketch are in 16 bits a number, since only few of them are multiplied; others are as they came.
    """

    __slots__ = ("ids", "place", "removed", "rows", "sketch")

    def __init__(self, place: _Place, capacity: int, *, fixed: bool = False) -> None:
        self.place = place
        self.removed = 0
        self.ids: _Ids = np.zeros(capacity, dtype=np.int64)
        shape = (capacity, place[1])
        self.rows: Rows | Fixed = np.empty(shape, np.int16) if fixed else np.empty(shape, np.float32)
        self.sketch: Sketch | None = None

    @property
    def is_fixed(self) -> bool:
        return self.rows.dtype == np.int16

    def fix(self, used: int) -> None:
        """Pass to 16 bits a number; so many rows are in use."""
        if not self.is_fixed:
            rows: Fixed = np.empty(self.rows.shape, dtype=np.int16)
            rows[:used] = fixed(self.rows[:used])
            self.rows = rows

    def write(self, start: int, ids: list[int], rows: Rows | Fixed) -> None:
        end = start + len(ids)
        if end > len(self.ids):
            longer = _Chunk(self.place, min(CHUNK, max(end, 2 * len(self.ids))), fixed=self.is_fixed)
            longer.ids[:start], longer.rows[:start] = self.ids[:start], self.rows[:start]
            self.ids, self.rows = longer.ids, longer.rows
        self.ids[start:end] = ids
        self.rows[start:end] = fixed(rows) if self.is_fixed else floating(rows)
        start, end = start - start % STEP, end - end % STEP
        if end > start and self.sketch is not None and self.sketch.far.size == len(self.rows):
            self.sketch.write(start, self.rows[start:end])

    def is_sketched(self, used: int) -> bool:
        """Tell whether there is a sketch, as long as the rows, and of when at least half of those *used* were there."""
        sketch = self.sketch
        return sketch is not None and sketch.far.size == len(self.rows) and used < 2 * max(sketch.seen, SKETCHED_AGAIN)

    def remove(self, entry: int) -> None:
        row = int(np.flatnonzero(self.ids == entry)[0])
        self.ids[row] = 0
        self.removed += 1
        if self.sketch is not None:
            self.sketch.far[row] = FAR


def _sketch(snapshot: _Snapshot) -> None:
    """Sketch the last chunks, as far back as there is no sketch yet, or one of when there were half as many rows.

    Each is sketched at a mean of its own, since a scope may turn to other questions; at first at that of the one before.
    """
    used = snapshot.used()
    for n in reversed(range(len(used))):
        chunk, rows = used[n]
        if chunk.is_sketched(rows):
            break
        chunk.fix(rows)
        source, seen = used[n - 1] if n and rows < SKETCHED_AGAIN else used[n]
        sketch = Sketch(mean_of(source.rows[:seen]), len(chunk.rows), seen=rows)
        sketch.write(0, chunk.rows[: rows - rows % STEP])
        sketch.far[:rows] = np.where(chunk.ids[:rows] == 0, FAR, 0)
        chunk.sketch = sketch


def _all(snapshot: _Snapshot, vector: Vector) -> tuple[_Ids, Vector]:
    similarity = np.concatenate([cosines(chunk.rows[:used], vector) for chunk, used in snapshot.used()])
    return np.concatenate([chunk.ids[:used] for chunk, used in snapshot.used()]), similarity


def _picked(snapshot: _Snapshot, vector: Vector, count: int) -> tuple[_Ids, Vector]:
    used, tail = snapshot.used(), snapshot.rows % STEP
    sketches = [(chunk.sketch, rows - rows % STEP) for chunk, rows in used if chunk.sketch]
    picked = candidates(sketches, vector, count, beyond=tail)
    rows = np.empty((picked.size, vector.size), dtype=np.int16)
    ids = np.empty(picked.size, dtype=np.int64)
    start = 0
    for n, (chunk, _) in enumerate(used, 1):
        end = picked.size if n == len(used) else int(picked.searchsorted(CHUNK * n))
        here = picked[start:end] - CHUNK * (n - 1)
        chunk.rows.take(here, axis=0, out=rows[start:end], mode="clip")
        chunk.ids.take(here, out=ids[start:end], mode="clip")
        start = end
    return ids, cosines(rows, vector)


def _top(similarity: Vector, count: int) -> NDArray[np.intp]:
    if count < similarity.size > SORTED:
        best = np.argpartition(-similarity, count - 1)[:count]
        return best[np.argsort(-similarity[best])]
    return np.argsort(-similarity)[:count]
