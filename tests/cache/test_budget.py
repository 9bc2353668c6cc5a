"""`SemanticCache(max_error=…)` through its public names: it starts useful, learns, checks itself and keeps what it learned."""

import random
from pathlib import Path

import pytest

from llm_costopt.cache.semantic import SemanticCache
from llm_costopt.types import Answer, Message, Question

PLACES = ["garage", "kitchen", "garden", "cellar", "attic", "office", "hall", "porch"]
ACTIONS = {
    "light": [
        "switch the {} light on",
        "turn on the lamp in the {}",
        "could you light up the {}",
        "lamp on in the {} please",
    ],
    "heat": [
        "make the {} warmer",
        "raise the temperature in the {}",
        "it is too cold in the {}",
        "warm up the {} a little",
    ],
    "clean": [
        "vacuum the {}",
        "clean the floor of the {}",
        "send the robot to sweep the {}",
        "the {} needs a clean floor",
    ],
}


def ask(text: str) -> Question:
    """Ask *text*."""
    return Question(messages=(Message(role="human", text=text),))


def traffic(n: int, seed: int = 3) -> list[tuple[str, str]]:
    """Make requests to a house, each with the label of what should happen."""
    rng = random.Random(seed)
    kinds = [(a, p) for a in ACTIONS for p in PLACES]
    made = []
    for _ in range(n):
        action, place = rng.choice(kinds)
        words = rng.choice(ACTIONS[action]).format(place)
        made.append(
            (
                f"{rng.choice(['', 'hey ', 'now ', 'again '])}{words}{rng.choice(['', ' today', ' for me'])}",
                f"{action} {place}",
            )
        )
    return made


def replay(cache: SemanticCache, requests: list[tuple[str, str]]) -> tuple[int, int]:
    """Send *requests*, a miss storing the right answer; count semantic hits and wrong ones."""
    hits = wrong = 0
    for text, right in requests:
        hit = cache.find(ask(text))
        if hit is None:
            cache.save(ask(text), Answer(text=right), right)
        elif hit.kind == "semantic":
            hits += 1
            wrong += hit.payload != right
    return hits, wrong


def test_it_hits_more_than_the_plain_rule_within_its_budget() -> None:
    """On made traffic with many wordings it serves far more than the threshold does, and few of its answers are wrong."""
    requests = traffic(1500)
    learned, plain = SemanticCache(max_error=0.02, rng=random.Random(1).random), SemanticCache(threshold=0.95)
    (hits, wrong), (plain_hits, _) = replay(learned, requests), replay(plain, requests)

    assert hits > 2 * plain_hits
    assert wrong / len(requests) <= 0.03


def test_some_would_be_hits_are_checked() -> None:
    """With a shadow rate of 1 every would-be hit goes to the model, is counted, and nothing is served by meaning."""
    cache = SemanticCache(max_error=0.02, shadow_rate=1)
    hits, _ = replay(cache, traffic(400))

    assert hits == 0
    assert cache.stats().refused["shadow"] > 20


def test_certain_guards_hold_whatever_was_learned() -> None:
    """After traffic in which all is served, another number and a negation are still another question."""
    cache = SemanticCache(max_error=0.4, rng=random.Random(1).random)
    replay(cache, traffic(300))
    cache.save(ask("set the alarm in the hall to 7"), Answer(text="done"), "done")

    assert cache.find(ask("set the alarm in the hall to 8")) is None
    assert cache.find(ask("do not set the alarm in the hall to 7")) is None


def test_a_hit_says_how_sure_it_is() -> None:
    """The probability is in the hit; an exact one needs none."""
    cache = SemanticCache(max_error=0.05, shadow_rate=1e-9)
    requests = traffic(600)
    replay(cache, requests)
    sure = [hit.sure for text, _ in requests if (hit := cache.find(ask(f"hey {text}"))) and hit.kind == "semantic"]
    exact = cache.find(ask(requests[0][0]))

    assert sure
    assert all(s is not None and 0.5 <= s <= 1 for s in sure)
    assert exact is None or exact.sure is None


def test_what_was_learned_is_kept_with_the_store(tmp_path: Path) -> None:
    """A new process begins with the weights that the last one had, and finds its entries and what they say."""
    path = tmp_path / "cache.db"
    lookups = [ask(f"hey {text}") for text, _ in traffic(200)]
    found = []
    for requests in (traffic(800), []):
        cache = SemanticCache(max_error=0.1, shadow_rate=1e-9, path=path)
        replay(cache, requests)
        found.append([hit.sure if (hit := cache.find(q)) and hit.kind == "semantic" else None for q in lookups])
        cache.close()
    both = [(one, other) for one, other in zip(*found, strict=True) if one and other]

    assert len(both) > 40
    assert all(one == pytest.approx(other) for one, other in both)


def test_answers_that_change_are_no_longer_served() -> None:
    """When the right answers to the same questions begin to differ every time, the checks notice, and the hits stop."""
    cache = SemanticCache(max_error=0.02, shadow_rate=0.2, rng=random.Random(1).random)
    before, _ = replay(cache, traffic(600))
    changing = [(text, f"{right} version {n}") for n, (text, right) in enumerate(traffic(2400, seed=4))]
    replay(cache, changing[:2000])
    after, _ = replay(cache, changing[2000:])

    assert before > 150
    assert after < 0.15 * 400
