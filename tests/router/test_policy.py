"""Where a request is sent first, and what becomes of a draft."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from llm_costopt.router.calibrate import Calibration, OperatingPoint
from llm_costopt.router.complexity import Level, complexity
from llm_costopt.router.confidence import confidence
from llm_costopt.router.learned import LearnedRules
from llm_costopt.router.policy import ByGain, ByRules, Situation, policy_of
from llm_costopt.router.value import Example
from llm_costopt.types import Answer, Message, Question

SIMPLE, MEDIUM, COMPLEX = "What is the capital of Peru?", "Tell me of the sea.", "Compare the two designs."
PLAIN, HEDGED, CUT = (
    Answer(text="The sea is deep."),
    Answer(text="It might be deep, I think."),
    Answer(text="The", finish="length"),
)


def ask(text: str) -> Question:
    """Ask in one human turn."""
    return Question(messages=(Message(role="human", text=text),))


def by_rules(rules: LearnedRules | None = None, threshold: float = 0.7) -> ByRules:
    """Decide by the document's rules, as far as nothing is learned."""
    return ByRules(rules or LearnedRules(tiers=2), complexity=complexity, confidence=confidence, threshold=threshold)


def by_gain(threshold: float, *, drafts: bool, rules: LearnedRules | None = None) -> ByGain:
    """Decide by gain, at an operating point of two tiers, the cheap one at a twentieth of the price."""
    point = OperatingPoint(threshold=threshold, strong_share=0.5, quality=1, low=1, high=1, cost=0.5)
    found = Calibration(point=point, drafts=drafts, outcomes=0, explanation="as calibrated", curve=(point,))
    return ByGain(rules or LearnedRules(tiers=2, prices=[0.05, 1.0]), found, confidence=confidence)


def situation(text: str, **around: Any) -> Situation:
    """Put a request between two usable tiers."""
    return Situation(**{"question": ask(text), "usable": (0, 1), **around})


@pytest.mark.parametrize(
    ("text", "tier", "final", "level"),
    [(SIMPLE, 0, True, "simple"), (MEDIUM, 0, False, "medium"), (COMPLEX, 1, True, "complex")],
)
def test_the_rules_while_nothing_is_known(text: str, tier: int, final: bool, level: Level) -> None:
    """Simple goes to the cheap tier, complex to the strong one, and the rest is drafted."""
    step = by_rules().start(situation(text))

    assert (step.tier, step.final, step.level, step.right) == (tier, final, level, None)


def test_without_a_cascade_nothing_is_drafted_for_a_target_either() -> None:
    """Where outcomes would let the cheap tier draft, `cascade="never"` has a tier answer at once."""
    policy = by_gain(0.1, drafts=True)

    assert not policy.start(situation(MEDIUM)).final
    assert policy.start(situation(MEDIUM, cascade="never")).final


def test_a_draft_is_kept_from_the_threshold_on() -> None:
    """While nothing is known the rule's score is held against the threshold, and what is flawed never passes."""
    s = situation(MEDIUM)
    step = by_rules().start(s)

    assert by_rules().judge(s, step, PLAIN).then is None
    assert by_rules().judge(s, step, HEDGED).then == replace(step, tier=1, final=True)
    assert by_rules(threshold=0.3).judge(s, step, HEDGED).then is None
    assert by_rules(threshold=0.0).judge(replace(s, thrift=0.99), step, CUT).then is not None


def outcomes(n: int, *, cheap_is_right_at: str) -> list[Example]:
    """Make outcomes in which the cheap tier can only do one kind of request, whatever the rules think."""
    rng = random.Random(7)
    found = []
    for _ in range(n):
        text = rng.choice([SIMPLE, MEDIUM, COMPLEX])
        right = text == cheap_is_right_at
        found.append(Example(question=ask(text), scores={0: float(right), 1: 1.0}, answer=PLAIN))
    return found


@pytest.mark.parametrize(("n", "led"), [(0, "rules"), (30, "both"), (200, "outcomes")])
def test_outcomes_take_over_from_the_rules(n: int, led: str) -> None:
    """With 30 outcomes against the rules the estimate has moved by a tenth at least, with 200 the decision is theirs."""
    rules = LearnedRules(tiers=2)
    rules.value.fit(outcomes(n, cheap_is_right_at=COMPLEX))
    hard, easy = (by_rules(rules).start(situation(text)) for text in (COMPLEX, SIMPLE))
    prior = LearnedRules(tiers=2).value.before(ask(COMPLEX)).right[0]

    if led == "rules":
        assert (hard.tier, easy.tier, hard.right) == (1, 0, None)
    else:
        assert hard.right is not None
        assert hard.right[0] > prior + 0.1
    if led == "outcomes":
        assert (hard.tier, hard.final) == (0, True)
        assert easy.tier == 1


@pytest.mark.parametrize("policy", [by_rules(), by_gain(0.2, drafts=True), by_gain(-math.inf, drafts=False)])
@pytest.mark.parametrize("text", [SIMPLE, MEDIUM, COMPLEX])
def test_with_all_thrift_the_cheapest_usable_tier_answers(policy: Any, text: str) -> None:
    """When money is out, nothing dearer is asked, and the reason says so."""
    step = policy.start(situation(text, thrift=1.0))

    assert (step.tier, step.final) == (0, True)
    assert "money is short" in step.why


def test_thrift_shifts_the_balance_by_degrees() -> None:
    """The more is to be saved, the fewer requests of many go beyond the cheap tier."""
    rules = LearnedRules(tiers=2, prices=[0.05, 1.0])
    policy = by_gain(-math.inf, drafts=False, rules=rules)
    texts = [SIMPLE, MEDIUM, COMPLEX]
    strong = [sum(policy.start(situation(t, thrift=x / 20)).tier for t in texts) for x in range(21)]

    assert strong == sorted(strong, reverse=True)
    assert (strong[0], strong[-1]) == (3, 0)
    assert set(strong) == {0, 1, 2, 3}


def test_the_gain_is_held_against_the_price() -> None:
    """At a low threshold nearly all gains are worth it, at a high one none; without drafts each answer is final."""
    steps = {x: by_gain(x, drafts=False).start(situation(MEDIUM)) for x in (0.01, 0.9)}

    assert (steps[0.01].tier, steps[0.9].tier) == (1, 0)
    assert all(step.final for step in steps.values())


def test_a_tier_in_the_prompt_cache_is_worth_staying_on() -> None:
    """The strong tier costs less than its price where the turns before are in its cache, and the balance follows."""
    policy = by_gain(0.35, drafts=False)

    assert policy.start(situation(MEDIUM, costs=(0.05, 1.0))).tier == 0
    assert policy.start(situation(MEDIUM, costs=(0.05, 0.2))).tier == 1


def test_rules_stay_on_a_tier_only_if_that_pays() -> None:
    """A conversation on the strong tier stays there while its cached turns make it no dearer, and leaves it otherwise."""
    stays = by_rules().start(situation(SIMPLE, costs=(0.2, 0.15), on=1))
    leaves = by_rules().start(situation(SIMPLE, costs=(0.05, 0.15), on=1))

    assert (stays.tier, leaves.tier) == (1, 0)
    assert "prompt cache" in stays.why


def test_a_route_without_drafts() -> None:
    """Where drafts do not pay, what would be drafted goes to the strong tier, or to the one that is worth it."""
    step = by_rules().start(situation(MEDIUM, drafts=False))
    assert (step.tier, step.final, step.level) == (1, True, "complex")
    assert by_gain(0.9, drafts=True).start(situation(MEDIUM, drafts=False)).tier == 0
    assert by_gain(0.01, drafts=True).start(situation(MEDIUM, drafts=False)).tier == 1


def test_a_draft_that_is_surely_wrong_is_not_asked_for() -> None:
    """A request that the cheap tier cannot do goes to the strong one at once, when enough outcomes say so and a draft costs much."""
    rules = LearnedRules(tiers=2, prices=[0.5, 1.0])
    policy = by_gain(0.1, drafts=True, rules=rules)
    assert not policy.start(situation(COMPLEX)).final
    rules.value.fit(outcomes(200, cheap_is_right_at=SIMPLE))

    assert (policy.start(situation(COMPLEX)).tier, policy.start(situation(COMPLEX)).final) == (1, True)
    assert not policy.start(situation(SIMPLE)).final


def test_the_draft_decides_by_gain() -> None:
    """After a draft the same bar is held against what its text shows."""
    s, policy = situation(MEDIUM), by_gain(0.15, drafts=True)
    step = policy.start(s)

    assert policy.judge(s, step, PLAIN).then is None
    assert policy.judge(s, step, HEDGED).then == replace(step, tier=1, final=True)
    assert policy.judge(s, step, CUT).sure == 0.0


def test_rules_without_a_target_decide_by_rules() -> None:
    """A policy by gain needs an operating point."""
    options: dict[str, Any] = {"complexity": complexity, "confidence": confidence, "threshold": 0.7}

    assert isinstance(policy_of(LearnedRules(tiers=2), **options), ByRules)
