"""The index finds what a plain loop over all vectors finds, whatever was added and removed, and by whom."""

import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_costopt.cache.embed import Vector, unit
from llm_costopt.cache.index import MemoryIndex

SCOPES = ("one", "two")

RNG = np.random.default_rng(7)


def random_units(count: int, length: int) -> list[Vector]:
    """Draw unit vectors."""
    drawn = (unit(RNG.standard_normal(length).astype(np.float32)) for _ in range(count))
    return [v for v in drawn if v is not None]


POOL = random_units(40, 3)


def best(entries: Iterable[tuple[int, Vector]], vector: Vector, count: int) -> list[tuple[int, float]]:
    """Rank by a plain loop."""
    return sorted(((n, float(v @ vector)) for n, v in entries), key=lambda found: -found[1])[:count]


def ids(found: list[tuple[int, float]]) -> list[int]:
    """List what was found."""
    return [n for n, _ in found]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "remove"]), st.integers(1, 60), st.sampled_from(SCOPES), st.integers(0, 39)
    ),
    max_size=120,
)


@given(STEPS, st.integers(0, 39), st.integers(1, 10))
@settings(max_examples=200, deadline=None)
def test_a_search_is_exact(steps: list[tuple[str, int, str, int]], asked: int, count: int) -> None:
    """After any adds and removes, each scope gives exactly the nearest of its own entries, nearest first."""
    index, model = MemoryIndex(), dict[int, tuple[str, Vector]]()
    for step, entry, scope, row in steps:
        if step == "add":
            index.add(entry, scope, POOL[row])
            model.setdefault(entry, (scope, POOL[row]))
        else:
            index.remove(entry)
            model.pop(entry, None)

    assert len(index) == len(model)
    for scope in SCOPES:
        found = index.near(scope, POOL[asked], count)
        here = {n: v for n, (s, v) in model.items() if s == scope}

        # Equal vectors may come in any order, so similarities are compared, then each with its own entry.
        assert [s for _, s in found] == pytest.approx([s for _, s in best(here.items(), POOL[asked], count)], abs=1e-6)
        assert all(s == pytest.approx(float(here[n] @ POOL[asked]), abs=1e-6) for n, s in found)
        assert len({n for n, _ in found}) == len(found)


def test_a_search_stays_exact_when_most_has_gone() -> None:
    """A scope of which most was removed is packed, and goes on as if the rest had never been."""
    vectors = dict(enumerate(random_units(400, 16), start=1))
    index = MemoryIndex()
    for entry, vector in vectors.items():
        index.add(entry, "one", vector)
    for entry in [n for n in vectors if n % 4]:
        index.remove(entry)
        del vectors[entry]
    vectors[1000] = random_units(1, 16)[0]
    index.add(1000, "one", vectors[1000])
    asked = random_units(1, 16)[0]

    assert len(index) == 101
    assert ids(index.near("one", asked, 8)) == ids(best(vectors.items(), asked, 8))


def test_an_empty_scope_finds_nothing() -> None:
    """A scope that never was, and one whose last entry went, are both empty."""
    index = MemoryIndex()
    index.add(1, "one", POOL[0])
    index.remove(1)
    index.remove(1)
    index.remove(99)

    assert index.near("one", POOL[0], 3) == index.near("never", POOL[0], 3) == []
    assert len(index) == 0


def test_vectors_of_another_length_live_apart() -> None:
    """An embedder that now gives longer vectors finds its own, and old ones are neither found nor in the way."""
    short, long = random_units(1, 4)[0], random_units(1, 8)[0]
    index = MemoryIndex()
    index.add(1, "one", short)
    index.add(2, "one", long)

    assert ids(index.near("one", short, 5)) == [1]
    assert ids(index.near("one", long, 5)) == [2]
    index.remove(1)
    assert ids(index.near("one", long, 5)) == [2]


@pytest.fixture
def impatient() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient")
def test_threads_may_add_remove_and_search_at_once() -> None:
    """While others write, a search only ever sees whole entries of its scope; in the end all are there."""
    vectors = dict(enumerate(random_units(2400, 8), start=1))
    kept = [n for n in vectors if n % 3]
    asked, together, index = random_units(1, 8)[0], threading.Barrier(6), MemoryIndex()

    def write(part: int) -> None:
        together.wait()
        for entry in range(part + 1, 2401, 4):
            index.add(entry, "one", vectors[entry])
            if entry % 3 == 0:
                index.remove(entry)

    def search() -> bool:
        together.wait()
        right = True
        for _ in range(500):
            found = [(n, s) for n, s in index.near("one", asked, 8) if n]  # 0: it went while it was being listed
            right &= all(abs(s - float(vectors[n] @ asked)) < 1e-5 for n, s in found)
        return right

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write, part) for part in range(4)]
        searchers = [pool.submit(search) for _ in range(2)]
        for writer in writers:
            writer.result()

        assert all(searcher.result() for searcher in searchers)
    assert len(index) == len(kept)
    assert ids(index.near("one", asked, 8)) == ids(best(((n, vectors[n]) for n in kept), asked, 8))


def test_the_size_of_a_scope_counts_what_is_left() -> None:
    """Removed entries, other scopes and vectors of another length do not count."""
    index = MemoryIndex()
    for entry, scope, length in ((1, "a", 2), (2, "a", 2), (3, "b", 2), (4, "a", 3)):
        index.add(entry, scope, np.ones(length, dtype=np.float32))
    index.remove(1)

    assert (index.size("a", 2), index.size("b", 2), index.size("a", 3), index.size("c", 2)) == (1, 1, 1, 0)
