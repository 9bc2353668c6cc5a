"""Stale-while-revalidate, feedback and invalidation: what happens to an answer after it was stored."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_costopt import Answer, Message, Question, SemanticCache, cache_scope
from llm_costopt.cache.embed import Vector
from llm_costopt.cache.refresh import LEASE

RICE, RICE_TOO = "How do I cook rice?", "how can i cook the rice"
GOOD = Answer(text="Like this.", finish="stop")


def ask(text: str, model: str = "small") -> Question:
    """Ask *text*."""
    return Question(messages=(Message(role="human", text=text),), model=model, model_name=model)


class Clock:
    """A clock that only the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


Make = Callable[..., SemanticCache]


@pytest.fixture
def clock() -> Clock:
    """Make a clock that stands still."""
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Iterator[Make]:
    """Make caches of the plain rule that are closed in the end."""
    made: list[SemanticCache] = []

    def make_one(**options: Any) -> SemanticCache:
        defaults: dict[str, Any] = {"clock": clock, "threshold": 0.95, "rng": lambda: 0.0}
        made.append(SemanticCache(**defaults | options))
        return made[-1]

    yield make_one
    for cache in made:
        cache.close()


def found(cache: SemanticCache, text: str) -> tuple[str, bool] | None:
    """Say what is served, and whether it is stale."""
    hit = cache.find(ask(text))
    return None if hit is None else (hit.payload, hit.stale)


@pytest.mark.parametrize("first", [RICE, RICE_TOO])
def test_one_request_fetches_anew_while_the_others_get_the_old_answer(make: Make, clock: Clock, first: str) -> None:
    """After the TTL the first request goes to the model, whatever its words; the rest are served until it is back."""
    cache = make(ttl=60, stale_while_revalidate=30)
    cache.save(ask(RICE), GOOD, "old")
    clock.now += 60

    assert found(cache, first) is None
    assert found(cache, RICE) == ("old", True)
    assert found(cache, RICE_TOO) == ("old", True)
    cache.save(ask(first), GOOD, "new")
    assert found(cache, RICE) == ("new", False)
    assert found(cache, RICE_TOO) == ("new", False)
    assert (cache.stats().stale, cache.stats().entries) == (2, 1)


def test_a_refresh_that_fails_is_tried_again(make: Make, clock: Clock) -> None:
    """When the first one does not come back, another one goes to the model after its lease."""
    cache = make(ttl=60, stale_while_revalidate=3600)
    cache.save(ask(RICE), GOOD, "old")
    clock.now += 60
    assert found(cache, RICE) is None
    clock.now += LEASE - 1
    assert found(cache, RICE) == ("old", True)
    clock.now += 1

    assert found(cache, RICE) is None
    assert found(cache, RICE) == ("old", True)


def test_a_refresh_that_comes_late_takes_nothing_away(make: Make, clock: Clock) -> None:
    """An answer that comes after another request has fetched the entry anew does not take its place."""
    cache = make(ttl=60, stale_while_revalidate=3600)
    cache.save(ask(RICE), GOOD, "old")
    clock.now += 60
    assert found(cache, RICE_TOO) is None
    clock.now += LEASE
    assert found(cache, RICE) is None
    cache.save(ask(RICE), GOOD, "new")
    cache.save(ask(RICE_TOO), GOOD, "late")

    assert [found(cache, RICE), found(cache, RICE_TOO)] == [("new", False), ("late", False)]


def test_nothing_is_served_after_that_time(make: Make, clock: Clock) -> None:
    """Stale is served for as long as was said, and without the option not at all."""
    late, none = make(ttl=60, stale_while_revalidate=30), make(ttl=60)
    for cache in (late, none):
        cache.save(ask(RICE), GOOD, "old")
    clock.now += 60
    assert [found(none, RICE), found(none, RICE), found(none, RICE_TOO)] == [None] * 3
    late.find(ask(RICE))
    clock.now += 30

    assert [found(late, RICE), found(late, RICE_TOO)] == [None, None]


def test_a_wrong_hit_is_not_served_to_that_question_again(make: Make, tmp_path: Path) -> None:
    """After feedback the pair is parted, in another process and after a restart too; other wordings still hit."""
    cache, other = make(path=tmp_path / "cache.db"), make(path=tmp_path / "cache.db")
    cache.save(ask(RICE), GOOD, "rice")
    hit = cache.find(ask(RICE_TOO))
    assert hit is not None
    assert other.find(ask(RICE_TOO)) is not None
    assert cache.feedback(hit.id, ok=False)

    again = make(path=tmp_path / "cache.db")
    for one in (cache, other, again):
        assert found(one, RICE_TOO) is None
        assert found(one, RICE) == ("rice", False)
        assert found(one, "How can I cook rice?") == ("rice", False)


@pytest.mark.parametrize("threshold", [0.8, None], ids=["threshold", "max_error"])
def test_a_wrong_answer_is_not_served_from_beside_it(threshold: float | None) -> None:
    """Many stored wordings with one answer are all parted from a question by one complaint; another answer may be served."""
    cache = SemanticCache(threshold=threshold, guards=[], rng=lambda: 0.999, min_hit_rate=0)
    words = [
        "How do I get a refund?",
        "How can I get a refund?",
        "What is the way to get a refund?",
        "how to get refunds",
    ]
    for text in [*words, *(f"How do I get a refund of it {'again ' * n}?" for n in range(1, 21))]:
        cache.save(ask(text), Answer(text="Fill in the form and send it to us."), "form")
    asked = "How do I give a refund?"
    hit = cache.find(ask(asked))
    assert hit
    assert cache.feedback(hit.id, ok=False)

    assert cache.find(ask(asked)) is None
    other = cache.find(ask("How would I get a refund?"))
    assert other
    assert other.payload == "form"
    cache.save(ask(asked), Answer(text="Open the till and count the money out."), "till")
    assert found(cache, asked) == ("till", False)


def test_a_complaint_holds_though_nothing_can_be_embedded(make: Make, tmp_path: Path) -> None:
    """Where what is near cannot be looked for, the entry that was complained about is parted all the same."""
    cache = make(path=tmp_path / "cache.db")
    cache.save(ask(RICE), GOOD, "rice")
    hit = cache.find(ask(RICE_TOO))
    assert hit is not None

    class Failing:
        name = cache.embedder.name

        def embed(self, text: str) -> Vector:
            raise ConnectionError(text)

    other = make(path=tmp_path / "cache.db", embedder=Failing())

    assert other.feedback(hit.id, ok=False)
    assert other.stats().errors == 1
    assert found(cache, RICE_TOO) is None


def test_a_wrong_exact_hit_is_deleted(make: Make) -> None:
    """Where the very answer to a question is wrong, nobody gets it any more."""
    cache = make()
    cache.save(ask(RICE), GOOD, "bad")
    hit = cache.find(ask(RICE))
    assert hit is not None
    assert cache.feedback(hit.id, ok=False)

    assert (found(cache, RICE), found(cache, RICE_TOO), cache.stats().entries) == (None, None, 0)


def test_a_wrong_answer_to_what_has_no_direction_is_deleted(make: Make) -> None:
    """A question whose vector is all zeros has nothing near it."""

    class Flat:
        name = "flat"

        def embed(self, text: str) -> Vector:
            return np.zeros(2, dtype=np.float32)

    cache = make(embedder=Flat())
    cache.save(ask(RICE), GOOD, "bad")
    hit = cache.find(ask(RICE))
    assert hit is not None
    assert cache.feedback(hit.id, ok=False)

    assert (found(cache, RICE), cache.stats().errors) == (None, 0)


def test_feedback_by_the_question(make: Make) -> None:
    """Who has lost the id may name the question; what was not served lately is not known."""
    cache = make()
    cache.save(ask(RICE), GOOD, "rice")
    cache.find(ask(RICE_TOO))

    assert cache.feedback(ask(RICE_TOO), ok=False)
    assert found(cache, RICE_TOO) is None
    assert not cache.feedback(ask("Which river is the longest?"), ok=False)


@pytest.mark.parametrize("about", ["", "nonsense", "a/b", "a/999", "/"])
def test_feedback_about_nothing_changes_nothing(make: Make, about: str) -> None:
    """An id that was never given is answered with False."""
    cache = make()
    cache.save(ask(RICE), GOOD, "rice")

    assert not cache.feedback(about, ok=False)
    assert found(cache, RICE_TOO) == ("rice", False)


def test_a_right_hit_stays(make: Make) -> None:
    """Praise changes nothing about what is served."""
    cache = make()
    cache.save(ask(RICE), GOOD, "rice")
    hit = cache.find(ask(RICE_TOO))
    assert hit is not None
    assert cache.feedback(hit.id, ok=True)

    assert found(cache, RICE_TOO) == ("rice", False)


def test_invalidation_by_tag_model_and_age(make: Make, clock: Clock) -> None:
    """What meets all that is said goes, exactly and by meaning; a dry run only counts."""
    cache = make()
    with cache_scope(tags=["kb", "v1"]):
        cache.save(ask(RICE), GOOD, "rice")
    clock.now += 100
    with cache_scope(tags=["kb"]):
        cache.save(ask("Which river is the longest?", model="big"), GOOD, "river")
    cache.save(ask("Where do penguins live?"), GOOD, "penguins")

    assert cache.invalidate(tags=["kb"], dry_run=True) == 2
    assert cache.invalidate(model="small", dry_run=True) == 2
    assert cache.invalidate(older_than=50, model="big", dry_run=True) == 0
    assert cache.invalidate(tags=["v1", "v9"], older_than=50) == 1
    assert (found(cache, RICE), found(cache, RICE_TOO)) == (None, None)
    assert cache.invalidate(model="big") == 1
    assert found(cache, "Where do penguins live?") == ("penguins", False)
    assert cache.stats().entries == 1


def test_invalidation_must_be_told_what(make: Make) -> None:
    """Without any condition it refuses, rather than delete everything; a bare text for tags is refused as well."""
    cache = make()
    with pytest.raises(ValueError, match="clear"):
        cache.invalidate()
    with pytest.raises(TypeError, match=r"tags=\['kb'\]"):
        cache.invalidate(tags="kb")


def test_the_kind_of_content_decides_how_long(make: Make, clock: Clock) -> None:
    """A price is served for minutes, a fact for a day, a poem never; a scope's word is stronger than the rule."""
    cache = make()
    cache.save(ask("What is the price of gold?"), GOOD, "price")
    cache.save(ask(RICE), GOOD, "rice")
    with cache_scope(kind="live"):
        cache.save(ask("Where do penguins live?"), GOOD, "penguins")
    assert not cache.save(ask("Write a poem about rice"), GOOD, "poem")
    clock.now += 600

    assert found(cache, "What is the price of gold?") is None
    assert found(cache, "Where do penguins live?") is None
    assert found(cache, RICE_TOO) == ("rice", False)
    assert cache.stats().not_stored == {"creative": 1}
