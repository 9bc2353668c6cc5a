"""One bit a dimension: which few of very many vectors are worth an exact product?

Whether each number of a vector is above its mean makes 64 of them one word, and XOR and a count of bits compare two
such words. The first bits sort most rows out, all bits find the best few of the rest.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llm_costopt.cache.embed import Rows, Vector
from llm_costopt.cache.fixed import Fixed, floating

FIRST = 2
"""Words of every row that are compared: 128 bits, whatever the dimensions."""

FIRST_OF_FEW = 4, 32_768
"""Words that are compared of up to so many rows: there a second look at some of them would take longer."""

ENOUGH_OF_FEW = 1 / 64
"""Share of so few rows that is picked, though not fewer than half of what is asked for, nor more: among 10,000 questions the
160 nearest hold all that reach a cosine of 0.6 of the 8 true neighbours (n = 4,949), among 30,000 the 256 nearest 99.97 % (7,539)."""

SECOND = 1536, 1 / 128
"""How many rows at least, and which share of them, are compared by all of their bits."""

BLOCK = 4096
"""Rows that are sketched at a time, so that little memory is taken on the way."""

SAMPLE = 1024
"""How many rows a mean, and how many distances a quantile, is estimated from."""

FAR = 255
"""What a removed row is off by: more than can matter, and the most that a byte holds."""

LAST = 50_000
"""What a removed row is off by before the further words are compared."""


class Sketch:
    """The bits of up to *capacity* rows, and the mean that they are taken at, of when it had *seen* so many."""

    __slots__ = ("columns", "far", "mean", "seen")

    def __init__(self, mean: Vector, capacity: int, *, seen: int) -> None:
        self.mean = mean
        self.seen = seen
        self.columns = np.empty((-(-mean.size // 64), capacity), dtype=np.uint64)
        self.far = np.zeros(capacity, dtype=np.uint8)

    def write(self, start: int, rows: Rows | Fixed) -> None:
        """Sketch *rows* as those from *start* on."""
        for block in range(0, len(rows), BLOCK):
            words = self.words(floating(rows[block : block + BLOCK]))
            self.columns[:, start + block : start + block + len(words)] = words.T

    def words(self, rows: Rows) -> NDArray[np.uint64]:
        """Return the bits of *rows* (or of a vector), 64 to a word."""
        bits = np.packbits(rows > self.mean, axis=-1)
        whole = 8 * len(self.columns)
        if bits.shape[-1] < whole:
            padded = np.zeros((*bits.shape[:-1], whole), dtype=np.uint8)
            padded[..., : bits.shape[-1]] = bits
            bits = padded
        words: NDArray[np.uint64] = bits.view(np.uint64)
        return words

    def scan(self, words: NDArray[np.uint64], distance: NDArray[np.uint8]) -> None:
        """Fill *distance* with the differing bits of the first rows, as far as there are *words*; of removed ones with FAR."""
        differing = self.columns[: words.size, : distance.size] ^ words[:, None]
        np.add.reduce(np.bitwise_count(differing), axis=0, dtype=np.uint8, out=distance)
        np.bitwise_or(distance, self.far[: distance.size], out=distance)

    def add_rest(
        self, words: NDArray[np.uint64], rows: NDArray[np.intp], distance: NDArray[np.uint16], first: int
    ) -> None:
        """Add the differing bits of *rows* in all but the *first* words to *distance*."""
        for column, word in zip(self.columns[first:], words[first:], strict=True):
            distance += np.bitwise_count(column.take(rows) ^ word)


def mean_of(rows: Rows | Fixed) -> Vector:
    """Estimate the mean of *rows*."""
    mean: Vector = floating(rows[:: max(1, len(rows) // SAMPLE)]).mean(axis=0)
    return mean


def candidates(
    sketches: Sequence[tuple[Sketch, int]], vector: Vector, count: int, *, beyond: int = 0
) -> NDArray[np.intp]:
    """List the *count* nearest rows or so, numbered through, in ascending order.

    Args:
        sketches: with the number of rows that are in use of each.
        vector: what the rows are to be near to.
        count: how many are wanted; of few rows from a third to twice as many are listed.
        beyond: how many rows come after these without a sketch; all of them are listed.
    """
    asked = [sketch.words(vector) for sketch, _ in sketches]
    ends = [0]
    for _, rows in sketches:
        ends.append(ends[-1] + rows)
    few, at_most = FIRST_OF_FEW
    first = few if ends[-1] <= at_most else FIRST
    distance = np.empty(ends[-1] + beyond, dtype=np.uint8)
    distance[ends[-1] :] = 0
    for (sketch, _), words, start, end in zip(sketches, asked, ends, ends[1:], strict=False):
        sketch.scan(words[:first], distance[start:end])
    if asked[0].size <= first:
        wanted = min(count, max(count // 2, int(ENOUGH_OF_FEW * distance.size)))
        near = _nearest(distance, 3 * wanted // 4, wanted)
        # A few more are compared in less time than it takes to choose among them.
        return near if near.size <= 2 * count else _best(near, distance.take(near), count)
    least, share = SECOND
    near = _nearest(distance, count, max(least, 2 * count, share * distance.size))
    exact = distance.take(near).astype(np.uint16)
    exact[exact == FAR] = LAST
    bounds = near.searchsorted(ends)
    for (sketch, _), words, start, a, b in zip(sketches, asked, ends, bounds, bounds[1:], strict=False):
        sketch.add_rest(words, near[a:b] - start, exact[a:b], first)
    return _best(near, exact, count)


def _nearest(distance: NDArray[np.uint8], least: int, wanted: float) -> NDArray[np.intp]:
    """List about as many of the nearest rows as are *wanted*, in ascending order; never fewer than *least*."""
    sample = distance[:: max(1, distance.size // SAMPLE)].copy()
    sample.sort(kind="stable")  # which counts such small numbers
    radius = int(sample[min(int(wanted / distance.size * sample.size), sample.size - 1)])
    [near] = (distance <= radius).nonzero()
    while near.size < min(least, distance.size):
        radius += 2
        [near] = (distance <= radius).nonzero()
    return near


def _best(near: NDArray[np.intp], distance: NDArray[np.unsignedinteger], count: int) -> NDArray[np.intp]:
    """List the *count* rows of *near* with the least *distance*, in ascending order."""
    # A stable sort of such small numbers counts them, which is quicker than a partition that compares them.
    return near[np.sort(distance.argsort(kind="stable")[:count])]
