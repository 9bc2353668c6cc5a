"""Matching by meaning is left off where it does not pay, and tried again."""

import threading
from collections.abc import Iterator

import pytest

from llm_costopt import Answer, Message, Question, SemanticCache
from llm_costopt.cache.economy import ENDPOINTS, FIRST_PAUSE, PAUSE, TRIAL, Economy
from llm_costopt.cache.embed import Vector, WordLlamaEmbedder


def ask(text: str, system: str = "Be brief.") -> Question:
    """Ask *text*."""
    return Question(messages=(Message(role="system", text=system), Message(role="human", text=text)))


class CountingEmbedder(WordLlamaEmbedder):
    """The bundled embedder, which counts."""

    def __init__(self) -> None:
        self.asked = 0

    def embed(self, text: str) -> Vector:
        self.asked += 1
        return super().embed(text)


def lookups(economy: Economy, count: int, hits: int = 0) -> int:
    """Send *count* lookups, of which the first *hits* of those that are let through hit; count those let through."""
    through = 0
    for _ in range(count):
        if economy.pays("here"):
            through += 1
            economy.note("here", hit=through <= hits)
    return through


def test_what_never_hits_is_tried_one_time_in_ten() -> None:
    """After a trial without enough hits some lookups are spared, after the next twice as many, up to nine in ten."""
    economy = Economy(0.15)

    assert lookups(economy, TRIAL) == TRIAL
    assert economy.off() == 1
    assert lookups(economy, FIRST_PAUSE) == 0
    assert lookups(economy, TRIAL) == TRIAL
    assert lookups(economy, 2 * FIRST_PAUSE) == 0
    assert lookups(economy, 100 * (TRIAL + PAUSE)) == pytest.approx(100 * TRIAL, rel=0.1)


def test_what_hits_often_enough_stays_on() -> None:
    """15 of 100 are enough, one less is not."""
    for hits, off in ((TRIAL * 15 // 100, 0), (TRIAL * 15 // 100 - 1, 1)):
        economy = Economy(0.15)
        lookups(economy, TRIAL, hits)
        assert economy.off() == off


def test_a_trial_that_pays_turns_it_on_again() -> None:
    """When the traffic begins to repeat itself, the next trial notices."""
    economy = Economy(0.15)
    lookups(economy, TRIAL + FIRST_PAUSE)
    lookups(economy, TRIAL, TRIAL)

    assert economy.off() == 0
    assert lookups(economy, 100) == 100


def test_each_endpoint_is_judged_by_itself_and_few_are_remembered() -> None:
    """One endpoint's failure does not turn off another, and very many do not fill the memory."""
    economy = Economy(0.15)
    lookups(economy, TRIAL)
    assert economy.pays("there")
    for n in range(ENDPOINTS + 1):
        economy.note(n, hit=False)

    assert not economy.is_off("here")
    assert economy.pays("here")


@pytest.fixture
def embedder() -> CountingEmbedder:
    """Make an embedder that counts."""
    return CountingEmbedder()


@pytest.fixture
def cache(embedder: CountingEmbedder) -> Iterator[SemanticCache]:
    """Make a cache of the plain rule, whose hits do not depend on chance."""
    made = SemanticCache(embedder=embedder, threshold=0.95)
    yield made
    made.close()


def test_an_endpoint_whose_questions_never_repeat_is_left_off(cache: SemanticCache, embedder: CountingEmbedder) -> None:
    """Neither lookups nor answers are embedded any longer; exact hits, and other endpoints, go on."""
    for n in range(TRIAL):
        cache.find(ask(f"What is the tax on item {n}?"))
    before = embedder.asked
    for n in range(50):
        question = ask(f"Where does item {n} come from?")
        assert cache.find(question) is None
        cache.save(question, Answer(text="Rome."), "Rome")
        assert cache.find(question) is not None

    assert embedder.asked == before
    assert cache.stats().off == 1
    other = [ask(text, system="Be long.") for text in ("How do I cook rice?", "how can i cook the rice")]
    cache.save(other[0], Answer(text="So."), "so")
    assert cache.find(other[1]) is not None


def test_follow_ups_are_judged_apart_from_first_turns(cache: SemanticCache, embedder: CountingEmbedder) -> None:
    """Later turns of conversations, which hardly ever repeat, do not turn off the first ones under the same prompt."""
    system, human = ask("How do I cook rice?").messages
    for n in range(TRIAL):
        cache.find(
            Question(
                messages=(
                    system,
                    human,
                    Message(role="ai", text=f"{n}"),
                    Message(role="human", text="Why is water needed?"),
                )
            )
        )
    assert cache.stats().off == 1
    before = embedder.asked
    cache.find(ask("How do I cook rice?"))

    assert embedder.asked == before + 1


def test_with_a_rate_of_zero_it_is_never_left_off() -> None:
    """Whoever asks for it gets every lookup."""
    cache = SemanticCache(threshold=0.95, min_hit_rate=0)
    for n in range(TRIAL + 10):
        cache.find(ask(f"What is the tax on item {n}?"))

    assert cache.stats().off == 0
    cache.close()


@pytest.mark.parametrize(("model", "off"), [(1.0, 0), (0.4, 1)])
def test_break_even_is_where_hits_save_the_time_of_the_lookups(model: float, off: int) -> None:
    """With ten hits in a trial whose lookups took 0.01 s each, a model of 1 s is worth it and one of 0.4 s is not."""
    economy = Economy(None)
    economy.note("here", hit=True, seconds=0.01)
    economy.answered("here", model)
    for n in range(TRIAL - 1):
        economy.note("here", hit=n < 9, seconds=0.01)

    assert economy.off() == off


def test_break_even_waits_for_an_answer() -> None:
    """As long as no answer came, nobody knows what the model takes, and nothing is left off."""
    economy = Economy(None)
    for _ in range(TRIAL):
        economy.note("here", hit=False, seconds=0.01)

    assert economy.off() == 0


def test_a_slow_embedder_before_a_quick_model_does_not_pay() -> None:
    """The cache measures both by itself: an embedder that takes longer than the model is left off."""

    class Slow(CountingEmbedder):
        def embed(self, text: str) -> Vector:
            threading.Event().wait(0.001)
            return super().embed(text)

    cache = SemanticCache(embedder=Slow(), min_hit_rate=None, threshold=0.95)
    for n in range(TRIAL):
        question = ask(f"What is the tax on item {n}?")
        cache.find(question)
        cache.save(question, Answer(text="7"), "7")

    assert cache.stats().off == 1
    cache.close()
