"""One bit a dimension: which few of very many vectors are worth an exact product?

Whether each number of a vector is above its mean makes 64 of them one word, and XOR and a count of bits compare two
such words. The first 128 bits sort most rows out, all bits find the best few of the rest.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llm_costopt.cache.embed import Rows, Vector

FIRST = 2
"""Words of every row that are compared: 128 bits, whatever the dimensions."""

SECOND = 2048, 1 / 64
"""How many rows at least, and which share of them, are compared by all of their bits."""

BLOCK = 4096
"""Rows that are sketched at a time, so that little memory is taken on the way."""

SAMPLE = 1024
"""How many rows a mean, and how many distances a quantile, is estimated from."""

FAR = 127
"""What a removed row is farther off by: more than can matter, and in a byte with 128 bits on top."""


LAST = 65535
"""What a removed row is off by once all bits are compared."""


class Sketch:
    """The bits of up to *capacity* rows, and the mean that they are taken at, of when it had *seen* so many."""

    __slots__ = ("far", "first", "mean", "rest", "seen")

    def __init__(self, mean: Vector, capacity: int, *, seen: int) -> None:
        self.mean = mean
        self.seen = seen
        words = -(-mean.size // 64)
        # The words that are compared of every row stand in columns, to be read without gaps; the others stand together.
        self.first = np.empty((min(FIRST, words), capacity), dtype=np.uint64)
        self.rest = np.empty((capacity, words - len(self.first)), dtype=np.uint64)
        self.far = np.zeros(capacity, dtype=np.uint8)

    def write(self, start: int, rows: Rows) -> None:
        """Sketch *rows* as those from *start* on."""
        for block in range(0, len(rows), BLOCK):
            words = self.words(rows[block : block + BLOCK])
            place = slice(start + block, start + block + len(words))
            self.first[:, place] = words[:, :FIRST].T
            self.rest[place] = words[:, FIRST:]

    def words(self, rows: Rows) -> NDArray[np.uint64]:
        """Return the bits of *rows* (or of a vector), 64 to a word."""
        bits = np.packbits(rows > self.mean, axis=-1)
        whole = 8 * (len(self.first) + self.rest.shape[1])
        if bits.shape[-1] < whole:
            padded = np.zeros((*bits.shape[:-1], whole), dtype=np.uint8)
            padded[..., : bits.shape[-1]] = bits
            bits = padded
        words: NDArray[np.uint64] = bits.view(np.uint64)
        return words

    def scan(self, words: NDArray[np.uint64], distance: NDArray[np.uint8]) -> None:
        """Fill *distance* with the differing bits of the first words of the first rows."""
        differing, bits = np.empty(distance.size, dtype=np.uint64), np.empty(distance.size, dtype=np.uint8)
        so_far = self.far[: distance.size]
        for column, word in zip(self.first, words, strict=False):
            np.bitwise_xor(column[: distance.size], word, out=differing)
            np.bitwise_count(differing, out=bits)
            np.add(so_far, bits, out=distance)
            so_far = distance

    def add_rest(self, words: NDArray[np.uint64], rows: NDArray[np.intp], distance: NDArray[np.uint16]) -> None:
        """Add the differing bits of the further words of *rows* to *distance*."""
        bits = np.bitwise_count(self.rest.take(rows, axis=0) ^ words[FIRST:])
        for column in bits.T:  # a sum over so short an axis takes ten times as long
            distance += column
        distance[self.far.take(rows) == FAR] = LAST


def mean_of(rows: Rows) -> Vector:
    """Estimate the mean of *rows*."""
    mean: Vector = rows[:: max(1, len(rows) // SAMPLE)].mean(axis=0)
    return mean


def candidates(sketches: Sequence[tuple[Sketch, int]], vector: Vector, count: int) -> NDArray[np.intp]:
    """List the *count* nearest rows of *sketches*, of which so many rows are in use, numbered through, in ascending order."""
    asked = [sketch.words(vector) for sketch, _ in sketches]
    ends = [0]
    for _, rows in sketches:
        ends.append(ends[-1] + rows)
    first = np.empty(ends[-1], dtype=np.uint8)
    for (sketch, _), words, start, end in zip(sketches, asked, ends, ends[1:], strict=False):
        sketch.scan(words, first[start:end])
    near = _nearest(first, count)
    distance = first.take(near).astype(np.uint16)
    bounds = np.searchsorted(near, ends)
    for (sketch, _), words, start, a, b in zip(sketches, asked, ends, bounds, bounds[1:], strict=False):
        sketch.add_rest(words, near[a:b] - start, distance[a:b])
    return near[np.sort(np.argpartition(distance, count - 1)[:count])]


def _nearest(first: NDArray[np.uint8], count: int) -> NDArray[np.intp]:
    """List the rows that are worth comparing by all bits, at least *count*."""
    least, share = SECOND
    within = np.cumsum(np.bincount(first[:: max(1, first.size // SAMPLE)]))
    wanted = max(least, 2 * count, share * first.size) / first.size * within[-1]
    near = np.flatnonzero(first <= int(np.searchsorted(within, wanted)))
    return near if near.size >= count else np.arange(first.size)
