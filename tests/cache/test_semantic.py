"""The semantic cache as a whole, with the bundled embedder wherever meaning is what is tested."""

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_costopt.cache import guards
from llm_costopt.cache.embed import Vector, WordLlamaEmbedder
from llm_costopt.cache.index import MemoryIndex
from llm_costopt.cache.local import USES
from llm_costopt.cache.records import Hit
from llm_costopt.cache.semantic import SemanticCache
from llm_costopt.cache.sqlite import counts_of, look_into
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.types import Answer, Message, Question, ToolCall

RICE = "How do I cook rice?"
RICE_TOO = "how can i cook the rice"
POETRY = "Which river is the longest?"

GOOD = Answer(text="Like this.", finish="stop")


def ask(text: str, system: str = "Be brief.", model: str = "small") -> Question:
    """Ask *text* under a system prompt."""
    return Question(messages=(Message(role="system", text=system), Message(role="human", text=text)), model=model)


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class CountingEmbedder(WordLlamaEmbedder):
    """The bundled embedder, which notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, text: str) -> Vector:
        self.asked.append(text)
        return super().embed(text)


class OddEmbedder:
    """Gives whatever it is told to."""

    name = "odd"

    def __init__(self, gives: Callable[[str], list[float]]) -> None:
        self._gives = gives

    def embed(self, text: str) -> Vector:
        return np.asarray(self._gives(text), dtype=np.float32)


Make = Callable[..., SemanticCache]


@pytest.fixture
def clock() -> Clock:
    """Make a clock that stands still."""
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Iterator[Make]:
    """Make caches that are closed in the end."""
    made: list[SemanticCache] = []

    def make_one(**options: Any) -> SemanticCache:
        defaults: dict[str, Any] = {"clock": clock, "threshold": 0.95, "rng": lambda: 0.0}
        made.append(SemanticCache(**defaults | options))
        return made[-1]

    yield make_one
    for cache in made:
        cache.close()


def found(hit: Hit | None) -> tuple[str, str] | None:
    """Say what a lookup found, and how."""
    return None if hit is None else (hit.kind, hit.payload)


def run_python(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run *code* in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_same_question_in_other_words(make: Make, clock: Clock) -> None:
    """The same words hit exactly, other words by meaning, another question not at all; each is counted."""
    cache = make()
    assert cache.stats().hit_rate is None
    assert cache.save(ask(RICE), GOOD, "rice")
    clock.now += 5.0
    exact, semantic, none = cache.find(ask(RICE)), cache.find(ask(RICE_TOO)), cache.find(ask(POETRY))

    assert (found(exact), found(semantic), none) == (("exact", "rice"), ("semantic", "rice"), None)
    assert exact is not None
    assert semantic is not None
    assert (exact.similarity, exact.age, exact.id.split("/")[1]) == (1.0, 5.0, semantic.id.split("/")[1])
    assert 0.95 <= semantic.similarity < 1.0
    stats = cache.stats()
    assert (stats.hits_exact, stats.hits_semantic, stats.misses, stats.stored, stats.entries) == (1, 1, 1, 1, 1)
    assert (stats.hits, stats.hit_rate, stats.errors) == (2, 2 / 3, 0)


@pytest.mark.parametrize(
    "other", [ask(RICE_TOO, system="Be long."), ask(RICE_TOO, model="big"), ask(RICE, model="big")]
)
def test_another_scope_shares_nothing(other: Question, make: Make) -> None:
    """Another system prompt or model finds nothing, exactly or by meaning."""
    cache = make()
    cache.save(ask(RICE), GOOD, "rice")

    assert cache.find(other) is None


def test_the_nearest_that_no_guard_refuses_is_served(make: Make) -> None:
    """A guard's refusal is counted under its name, and the next candidate gets its chance."""
    cache = make()
    cache.save(ask("How do I cook 3 cups of rice?"), GOOD, "three")
    cache.save(ask("how can i cook 2 cups of rice"), GOOD, "two")

    assert found(cache.find(ask("How do I cook 2 cups of rice?"))) == ("semantic", "two")
    assert cache.find(ask("How do I cook 4 cups of rice?")) is None
    assert cache.stats().refused["numbers"] >= 2


def test_guards_can_be_chosen(make: Make) -> None:
    """A guard of the user's own is asked with both questions and their similarity; none at all is possible."""
    asked: list[guards.Candidate] = []

    def picky(candidate: guards.Candidate) -> str | None:
        asked.append(candidate)
        return "picky"

    strict, free = make(guards=[picky]), make(guards=(), threshold=0.5)
    for cache in (strict, free):
        cache.save(ask(RICE), GOOD, "rice")

    assert strict.find(ask(RICE_TOO)) is None
    assert [(c.asked, c.stored) for c in asked] == [(RICE_TOO, RICE)]
    assert asked[0].similarity >= 0.95
    assert strict.stats().refused == {"picky": 1}
    assert found(free.find(ask("How do I cook 3 cups of rice?"))) == ("semantic", "rice")


def test_the_threshold_decides(make: Make) -> None:
    """With a threshold of 1, other words find nothing, and the same words typed otherwise still do."""
    cache = make(threshold=1)
    cache.save(ask(RICE), GOOD, "rice")
    similar, same = cache.find(ask(RICE_TOO)), cache.find(ask("how do i  cook rice"))

    assert similar is None
    assert same is None or same.kind == "semantic"  # a cosine of equal vectors may come out as 0.99999994
    assert found(cache.find(ask(RICE))) == ("exact", "rice")


def test_an_answer_has_an_absolute_age(make: Make, clock: Clock) -> None:
    """Hits do not make an answer fresh again: at its age it is gone, by both ways, and can be stored anew."""
    cache = make(ttl=100.0)
    cache.save(ask(RICE), GOOD, "old")
    for _ in range(99):
        clock.now += 1.0
        assert cache.find(ask(RICE))
        assert cache.find(ask(RICE_TOO))
    clock.now += 1.0

    assert (cache.find(ask(RICE)), cache.find(ask(RICE_TOO))) == (None, None)
    cache.save(ask(RICE), GOOD, "new")
    clock.now += 99.0
    assert found(cache.find(ask(RICE_TOO))) == ("semantic", "new")


def test_a_clock_that_was_far_ahead_keeps_nothing_alive(make: Make, clock: Clock) -> None:
    """What was stored while the clock was a year ahead is fetched anew, and does not last for a year; a little is no matter."""
    cache = make(ttl=100)
    clock.now += 50
    cache.save(ask(RICE), GOOD, "rice")
    clock.now -= 50
    assert found(cache.find(ask(RICE))) == ("exact", "rice")
    clock.now += 365 * 86_400
    cache.save(ask(RICE), GOOD, "rice")
    clock.now -= 365 * 86_400
    assert [cache.find(ask(text)) for text in (RICE, RICE_TOO)] == [None, None]

    cache.save(ask(RICE), GOOD, "rice again")
    assert found(cache.find(ask(RICE))) == ("exact", "rice again")


def test_an_answer_may_be_kept_for_ever(make: Make, clock: Clock) -> None:
    """With `ttl=None` nothing expires."""
    cache = make(ttl=None)
    cache.save(ask(RICE), GOOD, "rice")
    clock.now += 1e9

    assert found(cache.find(ask(RICE))) == ("exact", "rice")


def test_one_day_is_the_default(make: Make, clock: Clock) -> None:
    """Without a word about time, an answer is served for a day."""
    cache = make()
    cache.save(ask(RICE), GOOD, "rice")
    clock.now += 24 * 3600 - 1

    assert cache.find(ask(RICE)) is not None
    clock.now += 1
    assert cache.find(ask(RICE)) is None


def test_each_answer_may_have_its_own_time(make: Make, clock: Clock) -> None:
    """A function of question and answer decides: for ever, for some seconds, or not at all, which is counted."""

    def fresh_for(question: Question, answer: Answer) -> float | None:
        return {"for ever": None, "short": 10.0, "never": 0.0, "below": -1.0}[answer.text]

    cache = make(ttl=fresh_for)
    stored = [
        cache.save(ask(topic), Answer(text=text), text)
        for topic, text in ((RICE, "for ever"), (POETRY, "short"), ("Who are you?", "never"), ("Why?", "below"))
    ]
    clock.now += 9.0
    assert cache.find(ask(POETRY)) is not None
    clock.now += 1.0

    assert stored == [True, True, False, False]
    assert [found(cache.find(ask(t))) for t in (RICE, POETRY, "Who are you?")] == [("exact", "for ever"), None, None]
    assert cache.stats().not_stored == {"ttl": 2}


def test_what_was_used_stays(make: Make, clock: Clock) -> None:
    """Above the bound, the entry that was used longest ago goes, and is no longer found by meaning either."""
    cache = make(max_entries=2)
    cache.save(ask(RICE), GOOD, "rice")
    clock.now += 100
    cache.save(ask(POETRY), GOOD, "river")
    clock.now += 100
    assert cache.find(ask(RICE_TOO))
    clock.now += 100
    cache.save(ask("Who painted it?"), GOOD, "painter")

    assert [bool(cache.find(ask(t))) for t in (RICE_TOO, "Who painted it?", POETRY)] == [True, True, False]
    assert cache.stats().entries == 2


def test_what_has_expired_goes_first(make: Make, clock: Clock) -> None:
    """An entry that nobody will get is swept before one that was used less recently."""
    cache = make(max_entries=2, ttl=lambda _, answer: float(answer.text))
    cache.save(ask(RICE), Answer(text="10000"), "rice")
    clock.now += 100
    cache.save(ask(POETRY), Answer(text="50"), "river")
    clock.now += 100
    cache.save(ask("Who painted it?"), Answer(text="10000"), "painter")

    assert [bool(cache.find(ask(t))) for t in (RICE, "Who painted it?", POETRY)] == [True, True, False]


def test_storing_again_takes_no_room(make: Make) -> None:
    """However often an answer is replaced, nothing has to go for it."""
    cache = make(max_entries=2)
    cache.save(ask(POETRY), GOOD, "river")
    for n in range(9):
        cache.save(ask(RICE), GOOD, str(n))

    assert [found(cache.find(ask(t))) for t in (POETRY, RICE)] == [("exact", "river"), ("exact", "8")]


def test_a_full_cache_stays_within_its_bound(make: Make, clock: Clock) -> None:
    """Whatever is stored, there are never more entries than allowed, and the newest are among them."""
    cache = make(max_entries=40)
    for n in range(200):
        clock.now += 1
        cache.save(ask(f"What is item {n}?"), GOOD, str(n))
        assert (cache.stats().entries or 0) <= 40

    assert found(cache.find(ask("What is item 199?"))) == ("exact", "199")
    assert cache.find(ask("What is item 100?")) is None


def test_several_caches_on_a_file_keep_its_bound_together(make: Make, tmp_path: Path) -> None:
    """What others store counts as well: four caches that store in turn do not keep four times as many."""
    caches = [make(path=tmp_path / "cache.db", max_entries=100) for _ in range(4)]
    for n in range(100):
        for cache in caches:
            cache.save(ask(f"What is item {n} of {id(cache)}?"), GOOD, str(n))

    assert (caches[0].stats().entries or 0) <= 120


def test_what_another_cache_has_let_go_takes_no_memory(make: Make, tmp_path: Path) -> None:
    """A cache that only looks up holds no more vectors than the file has room for, however many come and go in it."""
    index = MemoryIndex()
    busy = make(path=tmp_path / "cache.db", max_entries=40)
    quiet = make(path=tmp_path / "cache.db", max_entries=40, index=index)
    for n in range(200):
        busy.save(ask(f"What is item {n}?"), GOOD, str(n))
        quiet.find(ask(RICE))
        assert len(index) <= 42

    assert found(quiet.find(ask("what is the item 199"))) == ("semantic", "199")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Answer(text="Like th", finish="length"), "truncated"),
        (Answer(text="Like th", finish="filter"), "filtered"),
        (Answer(text="I'm sorry, but I can't help with that."), "refused"),
        (Answer(text="No.", refused=True), "refused"),
        (Answer(text="", invalid="bad JSON"), "unparsable"),
        (Answer(text=" "), "empty"),
    ],
)
def test_a_bad_answer_is_not_stored(answer: Answer, problem: str, make: Make) -> None:
    """What is truncated, filtered, refused, unreadable or empty is counted and never served."""
    cache = make()

    assert cache.save(ask(RICE), answer, "bad") is False
    assert cache.find(ask(RICE)) is None
    assert cache.stats().not_stored == {problem: 1}
    assert (cache.stats().stored, cache.stats().entries) == (0, 0)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ('{"name": "Ann"}', True),
        (' ["Ann"]\n', True),
        ('```json\n{"name": "Ann"}\n```', True),
        ("Ann", True),
        ('{"name": "Ann"', False),
        ("{'name': 'Ann'}", False),
        ("[" * 100_000, False),
    ],
)
def test_a_structure_that_cannot_be_read_is_not_stored(text: str, stored: bool, make: Make) -> None:
    """Where a schema was asked for, broken JSON is asked for again, and what never was JSON is the reader's business."""
    question = Question(messages=(Message(role="human", text=RICE),), with_schema=True)
    cache = make()

    assert cache.save(question, Answer(text=text), "name") is stored
    assert cache.stats().not_stored == ({} if stored else {"unparsable": 1})
    assert cache.save(ask(RICE), Answer(text=text), "name")


def test_a_bad_answer_does_not_replace_a_good_one(make: Make) -> None:
    """What is in the store stays when a later answer to the same question is unfit."""
    cache = make()
    cache.save(ask(RICE), GOOD, "rice")
    cache.save(ask(RICE), Answer(text=""), "bad")

    assert found(cache.find(ask(RICE))) == ("exact", "rice")


def test_a_miss_embeds_once_and_an_exact_hit_never(make: Make) -> None:
    """Looking up, storing the answer and asking again embed the question one time in all."""
    embedder = CountingEmbedder()
    cache = make(embedder=embedder)
    question = ask(RICE)
    assert cache.find(question) is None
    cache.save(question, GOOD, "rice")
    assert cache.find(question)

    assert embedder.asked == [RICE]


async def test_a_vector_that_the_host_makes_saves_the_embedding(make: Make) -> None:
    """With the host's own way to embed, the cache embeds nothing, neither for the lookup nor for storing."""
    embedder, asked = CountingEmbedder(), []
    cache = make(embedder=embedder)

    async def embed(text: str) -> Vector:
        asked.append(text)
        return WordLlamaEmbedder().embed(text)

    assert await cache.afind(ask(RICE), embed) is None
    cache.save(ask(RICE), GOOD, "rice")

    assert found(await cache.afind(ask(RICE_TOO), embed)) == ("semantic", "rice")
    assert found(await cache.afind(ask(RICE), embed)) == ("exact", "rice")
    assert (asked, embedder.asked) == ([RICE, RICE_TOO], [])


class Picture(dict[str, str]):
    """A content block of which it can be told whether anybody still holds it."""


def picture(number: int) -> tuple[Question, "weakref.ref[Picture]"]:
    """Ask about a picture, and say whether it is still held."""
    block = Picture(type="image", data=f"{number}")
    return Question(messages=(Message(role="human", text="What is it?", parts=(block,)),)), weakref.ref(block)


def test_what_was_answered_is_held_no_longer(make: Make) -> None:
    """A question goes when its answer is stored, and of those that never get one only the last are held: they may be large."""
    cache = make()
    question, answered = picture(0)
    cache.find(question)
    cache.save(question, GOOD, "a cat")
    del question
    failed = []
    for n in range(1, 200):
        question, held = picture(n)
        cache.find(question)
        failed.append(held)
    gc.collect()

    assert answered() is None
    assert sum(held() is not None for held in failed) <= 64


def test_only_so_many_vectors_are_remembered(make: Make) -> None:
    """The vectors that wait for their answers are bounded: after very many other misses it embeds again."""
    embedder = CountingEmbedder()
    cache = make(embedder=embedder, min_hit_rate=0)
    cache.find(ask(RICE))
    for n in range(1100):
        cache.find(ask(f"What is item {n}?"))
    cache.save(ask(RICE), GOOD, "rice")

    assert embedder.asked.count(RICE) == 2


def test_a_request_with_tools_only_hits_exactly(make: Make) -> None:
    """Even a stored question in almost the same words is not served to a call that may act."""
    cache = make(guards=(), threshold=0.5)
    call = Answer(text="", finish="tools", tool_calls=(ToolCall(id="1", name="cook", args={}),))
    one, other = (Question(messages=ask(text).messages, with_tools=True) for text in (RICE, RICE_TOO))
    cache.save(one, call, "call")

    assert (found(cache.find(one)), cache.find(other)) == (("exact", "call"), None)


def test_namespaces_share_nothing_and_clear_their_own(make: Make, tmp_path: Path) -> None:
    """In one file, each namespace finds, counts and clears its own entries."""
    ours, theirs = (make(path=tmp_path / "cache.db", namespace=name) for name in ("ours", "theirs"))
    ours.save(ask(RICE), GOOD, "ours")
    assert (theirs.find(ask(RICE)), theirs.find(ask(RICE_TOO))) == (None, None)
    theirs.save(ask(RICE), GOOD, "theirs")
    ours.clear()

    assert (ours.find(ask(RICE)), ours.find(ask(RICE_TOO))) == (None, None)
    assert found(theirs.find(ask(RICE_TOO))) == ("semantic", "theirs")
    assert (ours.stats().entries, theirs.stats().entries) == (0, 1)


def test_two_caches_on_one_file_share_their_entries(make: Make, tmp_path: Path) -> None:
    """What one stores, replaces or clears, the other sees at its next lookup."""
    one, other = make(path=tmp_path / "cache.db"), make(path=tmp_path / "cache.db")
    assert other.find(ask(RICE_TOO)) is None
    one.save(ask(RICE), GOOD, "rice")
    assert found(other.find(ask(RICE_TOO))) == ("semantic", "rice")
    other.save(ask(POETRY), GOOD, "river")
    assert found(one.find(ask("What river is the longest"))) == ("semantic", "river")
    one.save(ask(RICE), GOOD, "better rice")
    assert found(other.find(ask(RICE_TOO))) == ("semantic", "better rice")
    one.clear()

    assert [other.find(ask(text)) for text in (RICE, RICE_TOO, POETRY)] == [None] * 3


def test_a_file_is_found_by_meaning_after_a_restart(make: Make, tmp_path: Path) -> None:
    """A new process has the old answers at hand without embedding their questions again."""
    make(path=tmp_path / "cache.db").save(ask(RICE), GOOD, "rice")
    embedder = CountingEmbedder()

    assert found(make(path=tmp_path / "cache.db", embedder=embedder).find(ask(RICE_TOO))) == ("semantic", "rice")
    assert embedder.asked == [RICE_TOO]


def test_another_embedders_vectors_are_not_searched(make: Make, tmp_path: Path) -> None:
    """After a change of the embedder, old entries still hit exactly, and new ones by meaning."""
    make(path=tmp_path / "cache.db").save(ask(RICE), GOOD, "rice")
    odd = make(path=tmp_path / "cache.db", embedder=OddEmbedder(lambda text: [1.0, 0.0]), guards=())

    assert odd.find(ask(RICE_TOO)) is None
    assert found(odd.find(ask(RICE))) == ("exact", "rice")
    odd.save(ask(POETRY), GOOD, "river")
    assert found(odd.find(ask(RICE_TOO))) == ("semantic", "river")


def test_an_embedder_may_be_told_to_give_longer_vectors(make: Make, tmp_path: Path) -> None:
    """Vectors of another length under the same name harm neither old entries nor new ones."""
    make(path=tmp_path / "cache.db", embedder=OddEmbedder(lambda text: [1.0, 0.0])).save(ask(RICE), GOOD, "rice")
    longer = make(path=tmp_path / "cache.db", embedder=OddEmbedder(lambda text: [1.0, 0.0, 0.0]), guards=())

    assert longer.find(ask(RICE_TOO)) is None
    longer.save(ask(POETRY), GOOD, "river")
    assert found(longer.find(ask(RICE_TOO))) == ("semantic", "river")
    reopened = make(path=tmp_path / "cache.db", embedder=OddEmbedder(lambda text: [1.0, 0.0]), guards=())
    assert found(reopened.find(ask(RICE_TOO))) == ("semantic", "rice")


@pytest.mark.parametrize("numbers", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 0.0], []])
def test_a_vector_without_direction_leaves_the_exact_tier(numbers: list[float], make: Make) -> None:
    """Zeros and NaN from an embedder are no failure: the very same request hits, other words miss."""
    cache = make(embedder=OddEmbedder(lambda text: numbers), guards=())
    cache.save(ask(RICE), GOOD, "rice")

    assert (found(cache.find(ask(RICE))), cache.find(ask(RICE_TOO))) == (("exact", "rice"), None)
    assert cache.stats().errors == 0


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("?", "!"),
        ("\U0001f44d", "\U0001f44e"),
        ("How are you :)", "How are you :("),
        ("Is a ≤ b here?", "Is a ≥ b here?"),
        ("Rate it ★★★", "Rate it ★"),
        ("What is 5 - 3?", "What is 5 + 3?"),
        ("东京的天气怎么样", "大阪的天气怎么样"),
        ("Сколько стоит хлеб", "Сколько стоит снег"),
    ],
)
def test_signs_and_other_scripts_are_told_apart(stored: str, asked: str, make: Make) -> None:
    """Questions that differ in a sign, a face or a word of another alphabet are different questions."""
    cache = make()
    cache.save(ask(stored), GOOD, stored)

    assert cache.find(ask(asked)) is None


def broken(text: str) -> list[float]:
    """Fail as a remote embedder does."""
    raise ConnectionError(f"cannot embed {text}")


def test_a_failing_embedder_is_a_miss(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Inside `failsafe` the failure is counted and logged without a word of what was asked; outside it is raised."""
    cache = make(embedder=OddEmbedder(broken))
    with pytest.raises(ConnectionError):
        cache.find(ask(RICE))
    with caplog.at_level(logging.DEBUG), cache.failsafe("lookup"):
        cache.find(ask(RICE))

    assert cache.stats().errors == 1
    assert "lookup failed (ConnectionError)" in caplog.text
    assert "in broken" in caplog.text
    assert "rice" not in caplog.text


def test_the_exact_tier_goes_on_without_an_embedder(make: Make) -> None:
    """What is answered while the embedder is down is stored, and found by the same words."""
    cache = make(embedder=OddEmbedder(broken))
    with cache.failsafe("lookup"):
        cache.find(ask(RICE))

    assert cache.save(ask(RICE), GOOD, "rice")
    assert found(cache.find(ask(RICE))) == ("exact", "rice")
    assert cache.stats().errors == 2


async def test_an_embedder_that_keeps_failing_is_left_alone(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """After some failures in a row nobody waits for it for a while, on any way, and the log says so once."""
    asked = []

    def fail(text: str) -> list[float]:
        asked.append(text)
        raise TimeoutError

    async def afail(text: str) -> Vector:
        return np.array(fail(text), dtype=np.float32)

    cache = make(embedder=OddEmbedder(fail))
    for n in range(50):
        with cache.failsafe("lookup"):
            cache.find(ask(f"What is item {n}?"))
        with cache.failsafe("lookup"):
            await cache.afind(ask(f"What is item {n}?"), afail)
        assert cache.save(ask(f"What is item {n}?"), GOOD, "item")

    assert 5 <= len(asked) < 20
    assert sum("it is left off" in line for line in caplog.messages) == 1
    assert (cache.stats().errors, cache.stats().misses) == (150, 100)


async def test_lookups_are_hits_or_misses(make: Make) -> None:
    """A lookup that fails counts as a miss, so that a cache that is down does not seem to hit whenever it is asked."""
    cache = make(embedder=OddEmbedder(broken))
    for _ in range(2):
        with cache.failsafe("lookup"):
            cache.find(ask(RICE))
        with cache.failsafe("lookup"):
            await cache.afind(ask(RICE))

    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.errors, stats.hit_rate) == (0, 4, 4, 0.0)


def test_exact_hits_need_no_embedder(make: Make, tmp_path: Path) -> None:
    """While the embedder is down, what was stored before is still found by the same words."""
    make(path=tmp_path / "cache.db").save(ask(RICE), GOOD, "rice")

    assert found(make(path=tmp_path / "cache.db", embedder=OddEmbedder(broken)).find(ask(RICE))) == ("exact", "rice")


def test_a_closed_cache_fails_safely(make: Make) -> None:
    """After `close`, lookups and stores inside `failsafe` are counted as errors, and the stats can still be read."""
    cache = make()
    cache.save(ask(RICE), GOOD, "rice")
    cache.close()
    with cache.failsafe("lookup"):
        cache.find(ask(RICE))
    with cache.failsafe("update"):
        cache.save(ask(POETRY), GOOD, "river")
    stats = cache.stats()

    assert (stats.entries, stats.stored, stats.hits) == (None, 1, 0)
    assert stats.errors >= 2


def test_failsafe_lets_a_stop_through(make: Make) -> None:
    """Only failures are held back: an interrupt of the program is not."""
    cache = make()
    with pytest.raises(KeyboardInterrupt), cache.failsafe("lookup"):
        raise KeyboardInterrupt

    assert cache.stats().errors == 0


def test_a_hit_is_served_from_a_file_that_cannot_be_written(make: Make, clock: Clock, tmp_path: Path) -> None:
    """If the uses cannot be noted, the answers in hand are served all the same, and the failure is counted."""
    cache, other = make(path=tmp_path / "cache.db"), make(path=tmp_path / "cache.db")
    requests = [ask(f"{RICE} {n}") for n in range(USES)]
    for request in requests:
        cache.save(request, GOOD, "rice")
    clock.now += 100.0
    holder = run_holder(tmp_path / "cache.db")
    hits = [cache.find(request) for request in requests]
    with other.failsafe("update"):
        other.save(ask(POETRY), GOOD, "river")
    holder.kill()
    holder.communicate()

    cache.close()

    assert {found(hit) for hit in hits} == {("exact", "rice")}
    assert (cache.stats().errors, other.stats().errors) == (2, 1)  # the count of a closed store is the second


def test_uses_outlive_the_cache(make: Make, clock: Clock, tmp_path: Path) -> None:
    """What was used is known to the next cache of the file, and stays when room is made."""
    cache = make(path=tmp_path / "cache.db", max_entries=2)
    for n, text in enumerate((RICE, POETRY)):
        clock.now += n
        cache.save(ask(text), GOOD, text)
    clock.now += 100.0
    cache.find(ask(RICE))
    cache.close()
    again = make(path=tmp_path / "cache.db", max_entries=2)
    clock.now += 1.0
    again.save(ask("Who wrote the oldest sonnet?"), GOOD, "nobody")

    assert again.find(ask(RICE)) is not None
    assert again.find(ask(POETRY)) is None


def run_holder(path: Path) -> "subprocess.Popen[str]":
    """Start a process that holds the write lock of *path* until it is killed."""
    code = (
        "import sqlite3, sys, time; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('BEGIN IMMEDIATE'); print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    return holder


def test_an_expired_answer_does_not_hide_a_fresh_one(make: Make, clock: Clock) -> None:
    """When the nearest stored question has expired, the next one above the threshold is served."""
    cache = make(ttl=lambda question, _: 10 if question.messages[-1].text == RICE else 1000)
    cache.save(ask(RICE), GOOD, "short-lived")
    cache.save(ask(RICE_TOO), GOOD, "long-lived")
    before = cache.find(ask("How do you cook rice?"))
    clock.now += 20
    after = cache.find(ask("How do you cook rice?"))
    cache.save(ask(RICE), GOOD, "stored anew")
    again = cache.find(ask("How do you cook rice?"))
    cache.close()

    assert [hit and hit.payload for hit in (before, after, again)] == ["short-lived", "long-lived", "stored anew"]


def test_no_lookup_tidies_a_whole_scope(make: Make, clock: Clock) -> None:
    """Where all of a scope has expired, a lookup forgets some of it and returns; it had gone through tens of thousands."""
    index = MemoryIndex()
    cache = make(index=index, ttl=10)
    for n in range(200):
        cache.save(ask(f"What is item {n}?"), GOOD, "old")
    clock.now += 20
    left = []
    for _ in range(4):
        assert cache.find(ask(RICE)) is None
        left.append(len(index))

    assert left[0] > 64
    assert left[-1] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0}, r"such as 0\.95; got 0"),
        ({"threshold": 1.01}, r"such as 0\.95; got 1\.01"),
        ({"threshold": float("nan")}, "such as"),
        ({"threshold": 95}, "such as"),
        ({"max_error": 0}, r"such as 0\.01; got 0"),
        ({"max_error": 0.5}, r"such as 0\.01; got 0\.5"),
        ({"max_error": 0.01, "shadow_rate": 0}, r"such as 0\.05; got 0"),
        ({"max_error": 0.01, "shadow_rate": 1.5}, r"such as 0\.05; got 1\.5"),
        ({"ttl": 0}, "or None for ever; got 0"),
        ({"ttl": -1.5}, r"or None for ever; got -1\.5"),
        ({"ttl": float("nan")}, "or None"),
        ({"max_entries": 0}, "at least 1, such as 100000; got 0"),
        ({"ttl": {"stattic": 60}}, "static, summary"),
        ({"ttl": {"live": -1}}, "None for ever"),
        ({"stale_while_revalidate": -1}, "at least 0 seconds"),
        ({"min_hit_rate": 1}, "below 1, such as 0.15; got 1"),
        ({"single_flight": -1}, "at least 0 seconds"),
        ({"max_words": -1}, r"at least 0 \(exact hits only\), such as 50; got -1"),
        ({"path": "/nowhere/at/all/cache.db"}, "folder"),
        ({"mode": None}, "mode is 'on', 'observe' or 'off', not None"),
        ({"endpoints": ["search"]}, r"endpoints is a mapping by endpoint.*got \['search'\]"),
        ({"max_error": "0.01"}, r"max_error is a share.*got '0\.01'"),
        ({"threshold": True}, "threshold is a cosine.*got True"),
        ({"threshold": 0.9, "max_error": 0.01}, "which has no max_error: give one or the other"),
        ({"threshold": 0.9, "shadow_rate": 0.1}, "which has no shadow_rate: give one or the other"),
        ({"ttl": "1h"}, "ttl is a number of seconds.*got '1h'"),
        ({"ttl": timedelta(hours=1)}, "ttl is a number of seconds.*got datetime"),
        ({"ttl": {"static": "1h"}}, "ttl is a number of seconds by kind.*'1h'"),
        ({"timeout": None}, "timeout is seconds above 0.*got None"),
        ({"namespace": None}, "namespace is a text, such as 'acme'; got None"),
    ],
)
def test_a_wrong_argument_is_refused(options: dict[str, Any], message: str) -> None:
    """Each is a ValueError that tells what was given and what would be right."""
    with pytest.raises(ValueError, match=message):
        SemanticCache(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"embedder": "all-MiniLM-L6-v2"},
        {"index": "faiss"},
        {"guards": "numbers"},
        {"guards": None},
        {"clock": 5.0},
        {"rng": None},
    ],
    ids=str,
)
def test_a_part_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    """What would make each lookup or each answer fail, and be counted only, is told at once by its name."""
    with pytest.raises(TypeError, match=f"^{next(iter(options))} "):
        SemanticCache(**options)


def test_ages_below_zero_delete_nothing(make: Make) -> None:
    """An age of minus one second would mean whatever was stored before the next second begins: everything."""
    cache = make()
    cache.save(ask(RICE), GOOD, "rice")

    with pytest.raises(ValueError, match="older_than is a number of seconds, such as 3600; got -1"):
        cache.invalidate(older_than=-1)
    assert cache.find(ask(RICE))


def test_threads_may_share_a_cache(make: Make) -> None:
    """Eight threads that look up and store at once lose no entry, fail at nothing and are all counted."""
    cache = make(ttl=None)
    together = threading.Barrier(8)

    def work(thread: int) -> list[bool]:
        together.wait()
        hits = []
        for n in range(50):
            question = ask(f"What is item {n} of list {thread % 4}?")
            if cache.find(question) is None:
                cache.save(question, GOOD, f"{thread % 4}-{n}")
            hits.append(found(cache.find(question)) == ("exact", f"{thread % 4}-{n}"))
        return hits

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))

    assert all(all(hits) for hits in results)
    stats = cache.stats()
    assert (stats.hits + stats.misses, stats.entries, stats.errors) == (800, 200, 0)


HELPERS = """
import os, sys
from llm_costopt.cache.semantic import SemanticCache
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.types import Answer, Message, Question

def ask(text):
    return Question(messages=(Message(role="system", text="Be brief."), Message(role="human", text=text)), model="small")

def save(cache, text):
    assert cache.save(ask(text), Answer(text="x"), text), text
"""

OTHER_PROCESS = (
    HELPERS
    + """
cache = SemanticCache(path=sys.argv[1], threshold=0.95)  # with an error budget some hits are checked, not served
assert cache.find(ask("What river is the longest")).payload == "river"
save(cache, "How do I cook rice?")
"""
)


def test_two_processes_share_a_file(make: Make, tmp_path: Path) -> None:
    """A running cache finds by meaning what another process stored, and the other way round."""
    cache = make(path=tmp_path / "cache.db", ttl=None, clock=time.time)
    cache.save(ask(POETRY), GOOD, "river")
    assert cache.find(ask(RICE_TOO)) is None
    result = run_python(OTHER_PROCESS, tmp_path / "cache.db")

    assert (result.returncode, result.stderr) == (0, "")
    assert found(cache.find(ask(RICE_TOO))) == ("semantic", RICE)


FORKER = (
    HELPERS
    + """
# Without an embedder: it starts threads, and later Pythons warn of any fork beside a thread.
cache, memory = (SemanticCache(path=path, max_words=0, ttl=None) for path in (sys.argv[1], None))
save(cache, "before")
save(memory, "before")
# As another thread of the parent may leave them for the child.
locked = [p._lock for p in (cache._parts.tally, cache._parts.vectors, cache._parts.store._index, memory._parts.tally)]
(go, gone), children = os.pipe(), []
for lock in locked:
    lock.acquire()
for n in range(3):
    pid = os.fork()
    if not pid:
        os.close(gone)
        (cache.stats, memory.clear, memory.stats)[n]()
        save(cache, f"child {n}")
        save(memory, f"child {n}")
        assert memory.find(ask(f"child {n}"))
        assert cache.stats().errors == memory.stats().errors == 0
        os.read(go, 1)
        save(cache, f"orphan {n}")
        os._exit(0)
    children.append(pid)
for lock in locked:
    lock.release()
save(cache, "after")
cache.close()  # the parent's end must not take the file away from its children
os.close(gone)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 3
assert memory.find(ask("before")) and not memory.find(ask("child 0"))
"""
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_cache_survives_a_fork(make: Make, tmp_path: Path) -> None:
    """Parent and children go on with the same file, whatever locks were held, and lose nothing that they stored."""
    result = run_python(FORKER, tmp_path / "cache.db")
    cache = make(path=tmp_path / "cache.db")
    stored = ["before", "after", *(f"{who} {n}" for who in ("child", "orphan") for n in range(3))]

    assert (result.returncode, result.stderr) == (0, "")
    assert [text for text in stored if cache.find(ask(text)) is None] == []
    assert cache.stats().entries == len(stored)


LEAVER = (
    HELPERS
    + """
cache = SemanticCache(path=sys.argv[1])
save(cache, "before")
assert cache.find(ask("before"))
if os.fork() == 0:
    cache.close()
    os._exit(0)
os.wait()
cache.close()
"""
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_what_a_fork_did_not_do_it_does_not_count(tmp_path: Path) -> None:
    """A child that only closes the cache does not note the figures of its parent once more."""
    result = run_python(LEAVER, tmp_path / "cache.db")

    assert (result.returncode, result.stderr) == (0, "")
    assert counts_of(look_into(tmp_path / "cache.db"), "")["hits_exact"] == 1


REPLACER = (
    HELPERS
    + """
import pathlib
file = pathlib.Path(sys.argv[1])
cache = SemanticCache(path=file, threshold=0.95)
save(cache, "How do I cook rice?")
assert cache.find(ask("how can i cook the rice"))
for part in file.parent.glob(file.name + "*"):
    part.unlink()
save(SemanticCache(path=file, threshold=0.95), "Which river is the longest?")
if os.fork() == 0:
    os._exit(0)
os.wait()
assert cache.find(ask("how can i cook the rice")) is None
assert cache.find(ask("Which river is the longest?"))
"""
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_file_that_was_replaced_answers_no_other_question(tmp_path: Path) -> None:
    """Where a file was deleted and another one made, an entry with the same number there is not served for the old one."""
    result = run_python(REPLACER, tmp_path / "cache.db")

    assert (result.returncode, result.stderr) == (0, "")


WRITER = (
    HELPERS
    + """
cache, n = SemanticCache(path=sys.argv[1], ttl=None), 0
while True:
    save(cache, f"What is item {n}?")
    print(n, flush=True)
    n += 1
"""
)


@pytest.mark.skipif(os.name != "posix", reason="this system has no SIGKILL")
def test_what_was_stored_survives_a_kill(make: Make, tmp_path: Path) -> None:
    """A writer that is killed amid its writes leaves a file that opens, with every entry that it had reported."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "cache.db")], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout
    reported = [writer.stdout.readline() for _ in range(200)]
    writer.send_signal(signal.SIGKILL)
    reported += writer.communicate(timeout=60)[0].splitlines(keepends=True)
    numbers = [int(line) for line in reported if line.endswith("\n")]
    cache = make(path=tmp_path / "cache.db")

    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 200
    assert [n for n in numbers if cache.find(ask(f"What is item {n}?")) is None] == []
    assert found(cache.find(ask("what's item 7?"))) == ("semantic", "What is item 7?")
    assert list(tmp_path.glob("*.aside")) == []


def test_feedback_is_a_score_of_the_cache() -> None:
    """What the application says of a hit is passed on once, with the hit's id; of an unknown hit nothing is."""
    told: list[tuple[str, float, str]] = []
    cache = SemanticCache(threshold=0.95, on_score=lambda hit, score, *, about: told.append((hit, score, about)))
    cache.save(ask(RICE), GOOD, "rice")
    hit = cache.find(ask(RICE))
    assert hit
    cache.feedback(hit.id, ok=True)
    cache.feedback("unknown/hit", ok=True)
    cache.feedback(ask(RICE), ok=False)

    assert told == [(hit.id, 1.0, "cache"), (hit.id, 0.0, "cache")]


def test_a_ledger_takes_no_scores_of_a_cache(tmp_path: Path) -> None:
    """What cannot be called with a score of the cache is refused at once with the way out, not counted as failures later."""
    ledger = Ledger(tmp_path / "costs.db")

    with pytest.raises(TypeError, match=r"alerts\.score.*stats\(\)\.checked.*ledger\.score\(record_id, score\)"):
        SemanticCache(on_score=ledger.score)


def test_whoever_does_not_say_how_it_is_called_may_be_told() -> None:
    """A callable without a signature is taken as it is, and one that takes anything too."""
    for on_score in (dict, lambda *_, **__: None):
        assert SemanticCache(on_score=on_score).stats().errors == 0


def test_a_score_that_cannot_be_told_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A hook that fails keeps nothing from being learned, and what it says is not logged as a warning."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret")

    cache = SemanticCache(threshold=0.95, on_score=broken)
    cache.save(ask(RICE), GOOD, "rice")
    hit = cache.find(ask(RICE))
    assert hit
    with caplog.at_level(logging.WARNING):
        known = cache.feedback(hit.id, ok=False)

    assert known
    assert cache.find(ask(RICE)) is None
    assert cache.stats().errors == 1
    assert "secret" not in caplog.text
