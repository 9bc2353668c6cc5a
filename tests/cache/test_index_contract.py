"""What every `VectorIndex` holds, whatever it is made of: one suite, run over all of them."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import pytest

from llm_costopt.cache import index as index_module
from llm_costopt.cache.embed import Vector, unit
from llm_costopt.cache.faiss import FaissIndex
from llm_costopt.cache.index import MemoryIndex, VectorIndex
from llm_costopt.cache.qdrant import QdrantIndex

Make: TypeAlias = Callable[[], VectorIndex]

HOSTILE = (
    "",
    " ",
    "a",
    "A",
    "a ",
    "a\x00",
    "a\x00b",
    "é",
    "e\u0301",
    "*",
    "%",
    "' OR 1=1 --",
    '{"must": []}',
    "None",
    "a" * 5000,
)


def units(count: int, length: int = 64, seed: int = 7) -> list[Vector]:
    """Draw unit vectors."""
    rng = np.random.default_rng(seed)
    drawn = (unit(rng.standard_normal(length).astype(np.float32)) for _ in range(count))
    return [v for v in drawn if v is not None]


def nearest(vectors: dict[int, Vector], asked: Vector, count: int) -> list[int]:
    """Rank by a plain loop."""
    return sorted(vectors, key=lambda n: -float(vectors[n] @ asked))[:count]


def ids(found: list[tuple[int, float]]) -> list[int]:
    """List what was found."""
    return [n for n, _ in found]


@pytest.fixture(params=["memory", "memory, sketched", "memory, small chunks", "faiss", "qdrant"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Give what makes an empty index of each kind."""
    if request.param == "faiss":
        pytest.importorskip("faiss")
        return FaissIndex
    if request.param == "qdrant":
        client = pytest.importorskip("qdrant_client").QdrantClient
        return lambda: QdrantIndex(client(":memory:"))
    if "small" in request.param:
        monkeypatch.setattr(index_module, "CHUNK", 64)
    if request.param != "memory":
        # As many as are asked for are always among so many candidates, so that what is found is exact here too.
        monkeypatch.setattr(index_module, "CANDIDATES", 150)
        return lambda: MemoryIndex(exact_below=10)
    return MemoryIndex


def fill(index: VectorIndex, vectors: dict[int, Vector], scope: str = "one") -> None:
    """Add all *vectors*."""
    for entry, vector in vectors.items():
        index.add(entry, scope, vector)


def test_the_nearest_come_first_with_their_similarity(make: Make) -> None:
    """A search gives the nearest in order, each with the product of its own vector and what was asked."""
    vectors, index = dict(enumerate(units(200), start=1)), make()
    fill(index, vectors)

    for asked in units(20, seed=8):
        found = index.near("one", asked, 8)
        assert ids(found) == nearest(vectors, asked, 8)
        assert [s for _, s in found] == pytest.approx([float(vectors[n] @ asked) for n, _ in found], abs=1e-4)


def test_an_empty_index_finds_nothing(make: Make) -> None:
    """Nothing was added: nothing is found, counted or removed."""
    index = make()
    index.remove(1)
    index.clear()

    assert index.near("one", units(1)[0], 8) == []
    assert (len(index), index.size("one", 64)) == (0, 0)


def test_more_are_asked_for_than_there_are(make: Make) -> None:
    """All of a small scope are listed, once each, the opposite of what was asked last."""
    asked = units(1)[0]
    vectors, index = {1: asked, 2: -asked, 3: units(1, seed=9)[0]}, make()
    fill(index, vectors)

    assert ids(index.near("one", asked, 50)) == [1, 3, 2]


def test_an_id_that_is_there_stays_as_it_is(make: Make) -> None:
    """Adding an id again changes nothing, in its own scope, in another one and at another length."""
    first, second = units(2)
    index = make()
    index.add(1, "one", first)
    index.add(1, "one", second)
    index.add(1, "two", second)
    index.add(1, "one", units(1, 128)[0])

    ((found, similarity),) = index.near("one", first, 5)
    assert found == 1
    assert similarity == pytest.approx(1.0, abs=1e-4)
    assert index.near("two", second, 5) == index.near("one", units(1, 128)[0], 5) == []
    assert len(index) == 1


def test_what_was_removed_is_not_found_and_may_come_back(make: Make) -> None:
    """A removed id is gone, as is one removed twice; added again elsewhere it is found there with its new vector."""
    vectors, index = dict(enumerate(units(200), start=1)), make()
    fill(index, vectors)
    for entry in (3, 3, 7, 999):
        index.remove(entry)

    assert 3 not in ids(index.near("one", vectors[3], 200))
    assert (len(index), index.size("one", 64)) == (198, 198)
    index.add(3, "two", vectors[4])
    index.add(7, "one", vectors[8])
    assert ids(index.near("two", vectors[4], 8)) == [3]
    assert set(ids(index.near("one", vectors[8], 2))) == {7, 8}
    assert len(index) == 200


@pytest.mark.parametrize("kept", [0, 5, 150])
def test_much_of_a_scope_may_go(make: Make, kept: int) -> None:
    """However few are left, just these are found, and new ones beside them."""
    vectors, index = dict(enumerate(units(300), start=1)), make()
    fill(index, vectors)
    for entry in np.random.default_rng(1).permutation(np.arange(1, 301))[kept:].tolist():
        index.remove(entry)
        del vectors[entry]
    vectors[1000] = units(1, seed=5)[0]
    index.add(1000, "one", vectors[1000])

    for asked in units(5, seed=8):
        assert ids(index.near("one", asked, 8)) == nearest(vectors, asked, 8)
    assert len(index) == index.size("one", 64) == kept + 1


def test_a_scope_sees_nothing_of_another(make: Make) -> None:
    """Each of many scopes, with names that try to be more than names, finds its own entry alone."""
    vector, index = units(1)[0], make()
    for entry, scope in enumerate(HOSTILE, start=1):
        index.add(entry, scope, vector)

    assert [ids(index.near(scope, vector, 50)) for scope in HOSTILE] == [[n] for n in range(1, len(HOSTILE) + 1)]
    assert [index.size(scope, 64) for scope in HOSTILE] == [1] * len(HOSTILE)
    assert index.near("b", vector, 50) == []


def test_there_may_be_very_many_scopes(make: Make) -> None:
    """Of thousands of scopes with one entry each, each finds its own."""
    index = make()
    count = 1000 if isinstance(index, QdrantIndex) else 10_000
    vectors = dict(enumerate(units(count, 8), start=1))
    for entry, vector in vectors.items():
        index.add(entry, f"scope {entry}", vector)

    assert len(index) == count
    for entry in range(1, count, 97):
        assert ids(index.near(f"scope {entry}", vectors[entry], 8)) == [entry]


@pytest.mark.parametrize("lengths", [(1, 2), (3, 4), (256, 384), (100, 1536)])
def test_vectors_of_another_length_live_apart(make: Make, lengths: tuple[int, int]) -> None:
    """Vectors of any length may be mixed: a search finds those of its own length alone, and finds them right."""
    index = make()
    by_length = {n: dict(enumerate(units(160, n), start=1 + 1000 * place)) for place, n in enumerate(lengths)}
    for vectors in by_length.values():
        fill(index, vectors)

    for length, vectors in by_length.items():
        asked = units(1, length, seed=8)[0]
        found = index.near("one", asked, 4)
        assert [s for _, s in found] == pytest.approx(
            [float(vectors[n] @ asked) for n in nearest(vectors, asked, 4)], abs=1e-4
        )
        assert index.size("one", length) == 160
    index.remove(1)
    assert (index.size("one", lengths[0]), index.size("one", lengths[1])) == (159, 160)


def test_clearing_leaves_an_empty_index(make: Make) -> None:
    """After `clear` nothing is left of any scope or length, and the ids are free again."""
    index, vectors = make(), units(3)
    fill(index, dict(enumerate(vectors, start=1)))
    index.add(9, "two", units(1, 128)[0])
    index.clear()

    assert len(index) == index.size("one", 64) == index.size("two", 128) == 0
    assert index.near("one", vectors[0], 8) == []
    index.add(1, "two", vectors[2])
    assert ids(index.near("two", vectors[2], 8)) == [1]


@pytest.fixture
def impatient() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient")
def test_two_threads_may_write_and_search_at_once(make: Make) -> None:
    """While one thread adds and removes, what another finds has its own similarity; in the end all is right."""
    vectors = dict(enumerate(units(300), start=1))
    asked, together, index = units(1, seed=8)[0], threading.Barrier(2), make()

    def write() -> None:
        together.wait()
        for entry, vector in vectors.items():
            index.add(entry, "one", vector)
            if entry % 3 == 0:
                index.remove(entry)

    def search() -> list[tuple[int, float]]:
        together.wait()
        return [found for _ in range(100) for found in index.near("one", asked, 8)]

    with ThreadPoolExecutor(2) as pool:
        writer, searcher = pool.submit(write), pool.submit(search)
        writer.result()

        assert all(abs(s - float(vectors[n] @ asked)) < 1e-4 for n, s in searcher.result())
    left = {n: v for n, v in vectors.items() if n % 3}
    assert ids(index.near("one", asked, 8)) == nearest(left, asked, 8)
    assert len(index) == len(left)
