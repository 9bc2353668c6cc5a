"""A large scope is searched by a sketch: it finds what an exact search finds among all that could be hits."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_costopt.cache import index as index_module
from llm_costopt.cache.embed import Rows, Vector
from llm_costopt.cache.index import MemoryIndex
from llm_costopt.cache.sketch import Sketch, candidates, mean_of


def like_questions(count: int, dimensions: int = 256, *, seed: int = 3) -> Rows:
    """Draw unit vectors off the origin and in clusters, as embedded questions are, most with some neighbours."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((max(1, count // 20), dimensions))
    rows = rng.standard_normal(dimensions) + topics[rng.integers(len(topics), size=count)]
    rows += 0.7 * rng.standard_normal((count, dimensions))
    units: Rows = (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float32)
    return units


def filled(rows: Rows, **options: int) -> MemoryIndex:
    """Index *rows* in one scope with ids from 1."""
    index = MemoryIndex(**options)
    for entry, row in enumerate(rows, start=1):
        index.add(entry, "one", row)
    return index


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make chunks small and candidates few (of so few rows half of these), so that few rows exercise all that many do."""
    monkeypatch.setattr(index_module, "CHUNK", 256)
    monkeypatch.setattr(index_module, "CANDIDATES", 192)
    monkeypatch.setattr(index_module, "SKETCHED_AGAIN", 32)


@pytest.mark.parametrize("dimensions", [64, 100, 256, 384, 1536])
def test_a_sketch_finds_what_could_be_a_hit(dimensions: int) -> None:
    """Of the 8 nearest, all that are at least 0.6 alike are found among 4,000, in order, with similarities to four digits."""
    rows = like_questions(4000, dimensions)
    index = filled(rows, exact_below=0)

    for asked in like_questions(4000, dimensions)[::200] + np.float32(0.3) * rows[::-200]:
        vector = asked / np.linalg.norm(asked)
        similarity = rows @ vector
        want = [n for n in np.argsort(-similarity)[:8] if similarity[n] >= 0.6]
        found = index.near("one", vector, 8)
        assert [n for n, _ in found][: len(want)] == [n + 1 for n in want]
        assert [s for _, s in found] == pytest.approx([float(similarity[n - 1]) for n, _ in found], abs=1e-4)


def test_a_sketch_reads_few_rows() -> None:
    """Of many rows, as many candidates are picked as asked for, and no more however many are alike."""
    rows = np.repeat(like_questions(100), 200, axis=0)
    sketch = Sketch(mean_of(rows), len(rows), seen=len(rows))
    sketch.write(0, rows)
    picked = candidates([(sketch, len(rows))], rows[0], 50)

    assert picked.tolist() == sorted(set(picked.tolist()))
    assert picked.size == 50
    assert picked.max() < 200


def test_similarities_are_numbers() -> None:
    """Whatever was removed and in whatever order, no similarity is NaN or out of its range."""
    rows = like_questions(900, 64)
    index = filled(rows, exact_below=100)
    for entry in range(1, 900, 3):
        index.remove(entry)
    similarity = [s for row in rows[::30] for _, s in index.near("one", row, 200)]

    assert len(similarity) > 5000
    assert all(-1.001 <= s <= 1.001 for s in similarity)


ROWS = like_questions(1200, 64)

STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "add", "remove"]), st.integers(0, 1199), st.integers(1, 200)),
    min_size=1,
    max_size=20,
)


@pytest.mark.usefixtures("narrow")
@given(STEPS, st.integers(0, 700), st.integers(0, 1199))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_very_near_is_found_after_any_changes(
    steps: list[tuple[str, int, int]], below: int, asked: int
) -> None:
    """After runs of adds and removes across chunks and the change to a sketch, an entry finds itself iff it is there."""
    index, there = MemoryIndex(exact_below=below), set[int]()
    for step, first, count in steps:
        for row in range(first, min(first + count, 1200)):
            if step == "add":
                index.add(row + 1, "one", ROWS[row])
                there.add(row)
            else:
                index.remove(row + 1)
                there.discard(row)
    found = index.near("one", ROWS[asked], 8)

    assert len(index) == index.size("one", 64) == len(there)
    assert len(found) == len({n for n, _ in found}) == min(8, len(there))
    assert {n - 1 for n, _ in found} <= there
    assert (asked + 1 in [n for n, _ in found]) == (asked in there)
    assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)
    assert all(s == pytest.approx(float(ROWS[n - 1] @ ROWS[asked]), abs=1e-4) for n, s in found)


def with_duplicates(dimensions: int) -> tuple[Rows, list[int]]:
    """Draw 2,000 unit vectors of which the first 100 are all but the same, and rank all by the first."""
    rows = like_questions(2000, dimensions)
    rows[:100] = rows[0] + np.float32(0.001) * rows[:100]
    rows[:100] /= np.linalg.norm(rows[:100], axis=1)[:, None]
    return rows, np.argsort(-(rows @ rows[0])).tolist()


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("dimensions", [64, 256, 1536])
@pytest.mark.parametrize("first", [2000, 1000])
def test_removed_entries_do_not_crowd_out_others(dimensions: int, first: int) -> None:
    """If all the nearest went, before or after there was a sketch, the next ones are found, though candidates are fewer."""
    rows, ranked = with_duplicates(dimensions)
    index = filled(rows[:first], exact_below=1200)
    for row in ranked[:100]:
        index.remove(row + 1)
    for row in range(first, 2000):
        index.add(row + 1, "one", rows[row])
    found = [n - 1 for n, _ in index.near("one", rows[0], 3)]

    assert set(found) <= set(ranked[100:116])


@pytest.mark.usefixtures("narrow")
def test_the_mean_follows_what_is_asked() -> None:
    """When all later questions lie elsewhere than the first, they are still told apart as well as before."""
    both: Rows = np.concatenate([like_questions(2000), like_questions(2000, seed=9)])
    index = filled(both, exact_below=200)

    for asked in range(0, 4000, 50):
        similarity = both @ both[asked]
        want = [n for n in np.argsort(-similarity)[:8] if similarity[n] >= 0.75]
        found = [n - 1 for n, _ in index.near("one", both[asked], 8)]
        assert set(want) <= set(found)


def test_many_neighbours_may_be_asked_for() -> None:
    """A search for more than the usual candidates lists as many, and one for all is exact."""
    rows = like_questions(3000, 64)
    index = filled(rows, exact_below=0)

    assert len(index.near("one", rows[0], 300)) == 300
    everything = [n - 1 for n, _ in index.near("one", rows[0], 3000)]
    assert sorted(everything) == list(range(3000))
    assert everything[:20] == np.argsort(-(rows @ rows[0]))[:20].tolist()


@pytest.fixture
def impatient() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient", "narrow")
def test_threads_may_search_while_the_index_outgrows_an_exact_search() -> None:
    """Searches that run while a scope grows, is sketched, shrinks and is packed see whole entries, once each."""
    rows = like_questions(1500, 64)
    index, together = filled(rows[:1], exact_below=300), threading.Barrier(3)

    def write() -> None:
        together.wait()
        for row in range(1, 1500):
            index.add(row + 1, "one", rows[row])
            if row > 300 and row % 4:
                index.remove(row - 250)

    def search() -> list[list[tuple[int, float]]]:
        together.wait()
        return [index.near("one", rows[-1], 8) for _ in range(400)]

    with ThreadPoolExecutor(3) as pool:
        writer, searchers = pool.submit(write), [pool.submit(search) for _ in range(2)]
        writer.result()
        searches: list[list[tuple[int, float]]] = [found for searcher in searchers for found in searcher.result()]

    asked: Vector = rows[-1]
    assert all(len(found) == len({n for n, _ in found}) for found in searches)
    assert all(abs(s - float(rows[n - 1] @ asked)) < 1e-4 for found in searches for n, s in found)
    gone = {row - 250 for row in range(301, 1500) if row % 4}
    assert len(index) == 1500 - len(gone)
    assert index.near("one", rows[-1], 1)[0][0] == 1500


def test_a_scope_that_shrinks_is_searched_exactly_again() -> None:
    """When a sketched scope has lost most entries, and grows anew, what it finds stays right."""
    rows = like_questions(3000, 64)
    index = filled(rows, exact_below=1000)
    for row in range(2900):
        index.remove(row + 1)

    assert [n - 1 for n, _ in index.near("one", rows[0], 100)] == (
        np.argsort(-(rows[2900:] @ rows[0]), kind="stable") + 2900
    ).tolist()
    for row in range(2900):
        index.add(row + 1, "one", rows[row])
    assert [n for n, _ in index.near("one", rows[5], 1)] == [6]
