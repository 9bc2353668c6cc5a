"""`explain`: what a lookup would do, and why, without doing it."""

import json
from collections.abc import Iterator

import pytest

from llm_costopt import Answer, Message, Question, SemanticCache
from llm_costopt.cache.economy import TRIAL

RICE, RICE_TOO = "How do I cook rice?", "how can i cook the rice"
GOOD = Answer(text="Like this.")


def ask(text: str) -> Question:
    """Ask *text*."""
    return Question(messages=(Message(role="human", text=text),))


@pytest.fixture(params=["max_error", "threshold"])
def cache(request: pytest.FixtureRequest) -> Iterator[SemanticCache]:
    """Make a cache of each policy with two questions in it."""
    made = SemanticCache(threshold=0.95 if request.param == "threshold" else None)
    made.save(ask(RICE), GOOD, "rice")
    made.save(ask("How do I cook 3 cups of rice?"), GOOD, "three")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (ask(RICE), "exact hit"),
        (ask(RICE_TOO), "semantic hit"),
        (ask("How do I cook 5 cups of rice?"), "refused (numbers"),
        (ask("Where do penguins live?"), "a miss"),
        (ask("and the second one?"), "(follow-up)"),
        (ask("Write a poem about rice"), "creative"),
        (ask("???"), "no meaning"),
        (Question(messages=ask(RICE_TOO).messages, with_tools=True), "(tools)"),
        (Question(messages=ask(RICE).messages, model="other"), "nothing is stored"),
    ],
)
def test_each_decision_has_its_reason(cache: SemanticCache, question: Question, said: str) -> None:
    """The sentence names what decided, and agrees with what a lookup then does."""
    explained = cache.explain(question)

    assert said in explained.decision
    assert cache.stats().hits + cache.stats().misses == 0
    assert ("hit" in explained.decision.split(":")[0]) == (
        cache.find(question) is not None or "shadow" in cache.stats().refused
    )


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("off", "a miss: the cache is switched off"),
        ("observe", "a miss, since the cache merely observes; else an exact hit"),
    ],
)
def test_a_cache_that_does_not_serve_says_so(monkeypatch: pytest.MonkeyPatch, mode: str, said: str) -> None:
    """By its own mode or by the kill switch, the decision is a miss, and observing still tells what it would be."""
    cache = SemanticCache()
    cache.save(ask(RICE), GOOD, "rice")
    monkeypatch.setenv("LLM_COSTOPT", mode)

    assert cache.explain(ask(RICE)).decision.startswith(said)
    assert cache.find(ask(RICE)) is None


def test_candidates_and_evidence_are_shown(cache: SemanticCache) -> None:
    """Each candidate stands there with its similarity, its answer and the guards against it; all of it is JSON."""
    explained = cache.explain(ask("How do I cook 5 cups of rice?"))
    assert explained.judgement is not None
    three = next(c for c in explained.judgement.considered if "3 cups" in c.text)

    assert "numbers" in three.against
    assert "3 cups" in str(explained)
    assert "numbers" in str(explained)
    assert json.loads(json.dumps(explained.to_dict()))["text"] == "How do I cook 5 cups of rice?"


def test_with_a_budget_the_evidence_has_names() -> None:
    """The probability is shown with the numbers that it was made from."""
    cache = SemanticCache()
    cache.save(ask(RICE), GOOD, "rice")
    judgement = cache.explain(ask(RICE_TOO)).judgement
    cache.close()

    assert judgement is not None
    assert judgement.sure is not None
    assert 0.5 < judgement.sure <= 1
    assert judgement.serves
    assert len(judgement.evidence) > 10


def test_an_endpoint_that_is_left_off_says_so() -> None:
    """Whoever wonders why nothing hits any more is told."""
    cache = SemanticCache()
    for n in range(TRIAL):
        cache.find(ask(f"What is the tax on item {n}?"))

    assert "left off" in cache.explain(ask(RICE)).decision
    cache.close()
