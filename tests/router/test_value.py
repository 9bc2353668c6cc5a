import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llm_costopt.router import features
from llm_costopt.router.value import MOST_WEIGHT, Example, Value, cross_fitted
from llm_costopt.types import Answer, Message, Question

SIMPLE, MEDIUM, COMPLEX = "What is the capital of Peru?", "Tell me of the sea.", "Compare the two designs."


def ask(text: str) -> Question:
    """Ask in one human turn."""
    return Question(messages=(Message(role="human", text=text),))


def gain(value: Value, text: str) -> float:
    """Estimate what the strong tier adds before any call."""
    return value.before(ask(text)).gain


def reversed_world(n: int) -> list[Example]:
    """Make outcomes against the rules: the cheap tier fails at what they call simple, and is right where they say complex."""
    rng = random.Random(0)
    found = []
    for k in range(n):
        is_simple = k % 2 == 0
        topic = rng.choice(["Peru", "Chad", "Laos", "Mali", "Oman"])
        text = f"What is the capital of {topic}?" if is_simple else f"Compare the two designs of {topic}."
        cheap = rng.random() < (0.1 if is_simple else 0.95)
        found.append(Example(question=ask(text), scores={0: float(cheap), 1: 1.0}))
    return found


def learned(examples: list[Example], **options: Any) -> Value:
    """Learn from examples at once."""
    value = Value(**options)
    value.fit(examples)
    return value


def test_the_rules_decide_while_nothing_is_known() -> None:
    """Without an outcome the strong tier gains most where the rules say complex, and least where they say simple."""
    value = Value()

    assert gain(value, SIMPLE) < 0.05 < gain(value, MEDIUM) < gain(value, COMPLEX)
    assert value.before(ask(SIMPLE)).outcomes == 0
    assert value.before(ask(COMPLEX)).why == "“compare”"


def test_the_rules_judge_a_draft_while_nothing_is_known() -> None:
    """Without an outcome a flawed draft is given up, a hedged one is doubted and a plain one is kept."""
    value = Value()
    plain, hedged, flawed = (value.after(ask(MEDIUM), Answer(text=t)) for t in ("It is wide.", "Perhaps wide.", ""))

    assert plain.gain < 0.1 < hedged.gain < flawed.gain
    assert flawed.gain > 0.5
    assert (flawed.why, flawed.confidence) == ("empty", 0.0)


def test_30_outcomes_count_and_200_lead() -> None:
    """Against outcomes that contradict them the rules give way: visibly at 30, altogether at 200."""
    leads = [gain(v, COMPLEX) - gain(v, SIMPLE) for v in (learned(reversed_world(n)) for n in (0, 30, 200))]

    assert leads[0] > 0.3
    assert leads[1] < leads[0] - 0.3
    assert leads[2] < -0.6


def test_a_draft_is_judged_by_what_was_learned_of_drafts() -> None:
    """After outcomes that depend on the draft alone, drafts to one and the same request are told apart."""
    good, bad = Answer(text="The sum holds:\n\n7"), Answer(text="One may not say that in short")
    value = learned(
        [Example(question=ask(MEDIUM), scores={0: float(a is good), 1: 1.0}, answer=a) for a in (good, bad) * 50]
    )

    assert value.after(ask(MEDIUM), good).gain < 0.1
    assert value.after(ask(MEDIUM), bad).gain > 0.5
    assert value.before(ask(MEDIUM)).right[0] == pytest.approx(0.5, abs=0.1)


def test_one_tier_can_be_learned_of_alone() -> None:
    """An outcome of one tier changes what is expected of that tier only, before and after a draft."""
    draft = Answer(text="It is wide.")
    value, fresh = Value(), Value()
    for _ in range(20):
        value.learn(ask(MEDIUM), 0.0, tier=1, answer=draft)

    assert value.before(ask(MEDIUM)).right[0] == fresh.before(ask(MEDIUM)).right[0]
    assert value.before(ask(MEDIUM)).right[1] < 0.3 < fresh.before(ask(MEDIUM)).right[1]
    assert value.after(ask(MEDIUM), draft).right[0] == fresh.after(ask(MEDIUM), draft).right[0]
    assert value.after(ask(MEDIUM), draft).right[1] < 0.3
    assert value.before(ask(MEDIUM)).outcomes == 0


def test_weights_undo_what_a_log_leaves_out() -> None:
    """When wrong answers come to be known ten times less often, weighting by one over that gives the true share."""
    log = [(1.0, 1.0)] * 100 + [(0.0, 10.0)] * 10  # of 200 answers, half were right
    naive, fair = Value(), Value()
    naive.fit([Example(question=ask(MEDIUM), scores={0: score}) for score, _ in log])
    fair.fit([Example(question=ask(MEDIUM), scores={0: score}, weights={0: weight}) for score, weight in log])

    assert naive.before(ask(MEDIUM)).right[0] > 0.85
    assert fair.before(ask(MEDIUM)).right[0] == pytest.approx(0.5, abs=0.03)


def test_no_outcome_weighs_without_bound() -> None:
    """One very rare outcome counts like `MOST_WEIGHT` ordinary ones and not more."""
    rare = [Example(question=ask(MEDIUM), scores={0: 0.0}, weights={0: w}) for w in (1e9, MOST_WEIGHT)]

    assert gain(learned(rare[:1]), MEDIUM) == gain(learned(rare[1:]), MEDIUM)


def test_scores_may_be_graded() -> None:
    """A score between 0 and 1 is learned as the share that is right."""
    value = learned([Example(question=ask(MEDIUM), scores={0: 0.3})] * 200)

    assert value.before(ask(MEDIUM)).right[0] == pytest.approx(0.3, abs=0.03)


def test_learning_one_by_one_comes_to_the_same() -> None:
    """Outcomes that arrive one at a time teach what they teach at once, up to the last that were not fitted yet."""
    examples = reversed_world(120)
    value = Value()
    for e in examples:
        for tier, score in e.scores.items():
            value.learn(e.question, score, tier=tier)

    assert gain(value, SIMPLE) == pytest.approx(gain(learned(examples), SIMPLE), abs=0.05)
    assert value.before(ask(SIMPLE)).outcomes == 120


def test_learning_is_deterministic() -> None:
    """The same outcomes in the same order give the same weights to the last digit."""
    assert learned(reversed_world(60)).to_dict() == learned(reversed_world(60)).to_dict()


def test_tiers_between_are_expected_in_between() -> None:
    """With three tiers each has its own estimate, dearer ones are expected to be better, and a draft may be the second's."""
    value = Value(tiers=3)
    before, after = value.before(ask(COMPLEX)), value.after(ask(MEDIUM), Answer(text="It is wide."), drafted=1)

    assert list(before.right) == sorted(before.right)
    assert (len(before.right), len(after.right), after.tier) == (3, 2, 1)
    assert Value(tiers=1).before(ask(MEDIUM)).gain == 0


def test_an_embedder_is_learned_from() -> None:
    """What only the embedding tells is learned, for the request and for the draft."""

    def embed(text: str) -> NDArray[np.float32]:
        return np.array([1, len(text) % 2], dtype=np.float32)

    rng = random.Random(0)
    texts = ["".join(rng.choice("abcdefgh") for _ in range(rng.choice([20, 21]))) for _ in range(300)]
    examples = [
        Example(question=ask(t), scores={0: float(len(t) % 2), 1: 1.0}, answer=Answer(text=t[1:])) for t in texts
    ]
    seen, unseen = examples[:200], examples[200:]

    def told(value: Value) -> tuple[float, float]:
        odd, even = ([e for e in unseen if e.scores[0] == s] for s in (1, 0))
        before = [np.mean([value.before(e.question).gain for e in part]) for part in (even, odd)]
        after = [np.mean([value.after(e.question, e.answer).gain for e in part if e.answer]) for part in (even, odd)]
        return float(before[0] - before[1]), float(after[0] - after[1])

    assert min(told(learned(seen, embedder=embed))) > 0.4
    assert max(told(learned(seen))) < 0.2


def test_a_saved_value_says_the_same() -> None:
    """After a trip through JSON the estimates are nearly the same, and outcomes go on to count."""
    draft = Answer(text="It is wide.")
    value = learned([Example(question=e.question, scores=e.scores, answer=draft) for e in reversed_world(200)])
    restored = Value.from_dict(json.loads(json.dumps(value.to_dict())))

    assert restored.note is None
    for text in (SIMPLE, MEDIUM, COMPLEX):
        assert restored.before(ask(text)).right == pytest.approx(value.before(ask(text)).right, abs=0.02)
        assert restored.after(ask(text), draft).right == pytest.approx(value.after(ask(text), draft).right, abs=0.02)
    assert restored.before(ask(MEDIUM)).outcomes == 200


def test_a_restored_value_holds_on_to_what_it_knew() -> None:
    """One new outcome moves a restored value little, many move it."""
    state = learned(reversed_world(200)).to_dict()
    one, many = Value.from_dict(state), Value.from_dict(state)
    one.fit([Example(question=ask("Tell me of trees."), scores={0: 0.0})])
    many.fit([Example(question=ask("Tell me of trees."), scores={0: 0.0})] * 300)
    start = Value.from_dict(state).before(ask(MEDIUM)).right[0]

    assert one.before(ask(MEDIUM)).right[0] == pytest.approx(start, abs=0.1)
    assert many.before(ask(MEDIUM)).right[0] < start - 0.3


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tiers": 3}, "tiers 2 instead of 3"),
        ({"embedder": lambda _: np.ones(4, dtype=np.float32)}, "dimensions 0 instead of 4"),
    ],
)
def test_a_state_of_another_router_is_not_used(options: dict[str, Any], why: str) -> None:
    """A state of other tiers or of another embedder is set aside with a reason, and learning starts anew."""
    value = Value.from_dict(learned(reversed_world(50)).to_dict(), **options)

    assert value.note is not None
    assert why in value.note
    assert value.before(ask(MEDIUM)).outcomes == 0


@pytest.mark.parametrize("key", ["version", "features"])
def test_a_state_of_another_version_is_not_used(key: str) -> None:
    """A state of another version or of other features is set aside with a reason."""
    value = Value.from_dict({**learned(reversed_world(50)).to_dict(), key: 0})

    assert f"{key} 0 instead of" in str(value.note)
    assert gain(value, COMPLEX) == gain(Value(), COMPLEX)


def spoil(change: Callable[[dict[str, Any]], Any]) -> Any:
    """Spoil one model of a good state."""
    state = learned(reversed_world(20)).to_dict()
    change(state["models"][0])
    return state


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(None, id="nothing"),
        pytest.param([], id="list"),
        pytest.param({}, id="empty"),
        pytest.param({**Value().to_dict(), "models": []}, id="no models"),
        pytest.param(spoil(lambda m: m.update(small=[0.0])), id="too few weights"),
        pytest.param(spoil(lambda m: m["small"].__setitem__(0, float("nan"))), id="nan"),
        pytest.param(spoil(lambda m: m["small"].__setitem__(0, float("inf"))), id="infinite"),
        pytest.param(spoil(lambda m: m["small"].__setitem__(0, "x")), id="text"),
        pytest.param(spoil(lambda m: m["precision"].__setitem__(0, -1)), id="negative precision"),
        pytest.param(spoil(lambda m: m["words"]["at"].__setitem__(0, -1)), id="negative place"),
        pytest.param(spoil(lambda m: m["words"]["at"].__setitem__(0, features.SMALL)), id="place outside"),
        pytest.param(spoil(lambda m: m["words"]["at"].__setitem__(0, 0.5)), id="half a place"),
        pytest.param(spoil(lambda m: m["words"]["at"].__setitem__(0, m["words"]["at"][1])), id="place twice"),
        pytest.param(spoil(lambda m: m["words"].update(at=[[1]], weights=[1.0])), id="nested"),
        pytest.param(spoil(lambda m: m["words"]["at"].pop()), id="unequal"),
        pytest.param(spoil(lambda m: m.update(outcomes=-1)), id="negative count"),
        pytest.param(spoil(lambda m: m.update(outcomes="many")), id="no count"),
    ],
)
def test_a_spoilt_state_is_an_error(state: Any) -> None:
    """What is no state raises `ValueError`, wherever it is spoilt."""
    with pytest.raises(ValueError, match="no state of a router"):
        Value.from_dict(state)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text() | st.sampled_from(["at", "weights", "small"]), x),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["words", "small", "precision", "outcomes"]))
def test_no_state_does_harm(junk: Any, key: str) -> None:
    """Any JSON in the place of a part of a state is refused with `ValueError` or is itself a sound part."""
    state = Value().to_dict()
    state["models"][0][key] = junk
    try:
        value = Value.from_dict(state)
    except ValueError:
        return

    assert all(0 <= p <= 1 for p in value.before(ask(MEDIUM)).right)


def test_a_state_stays_small() -> None:
    """However much was learned, the state of two tiers stays below 300 KB."""
    rng = random.Random(0)

    def text() -> str:
        return " ".join(f"w{rng.randrange(10**6)}" for _ in range(300))

    examples = [
        Example(question=ask(text()), scores={0: rng.random(), 1: rng.random()}, answer=Answer(text=text()))
        for _ in range(100)
    ]

    assert len(json.dumps(learned(examples).to_dict())) < 300_000


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tier": 2}, "no tier 2"),
        ({"tier": -1}, "no tier -1"),
        ({"score": 1.5}, "a score"),
        ({"score": float("nan")}, "a score"),
        ({"weight": 0.5}, "a weight"),
        ({"weight": float("nan")}, "a weight"),
        ({"drafted": 5}, "no tier 5"),
    ],
)
def test_impossible_outcomes_are_refused(options: dict[str, Any], why: str) -> None:
    """A tier, a score or a weight that cannot be is named, and nothing is learned."""
    value = Value()

    with pytest.raises(ValueError, match=why):
        value.learn(ask(MEDIUM), **{"score": 1.0, "tier": 0, **options})
    assert value.before(ask(MEDIUM)).outcomes == 0
    with pytest.raises(ValueError, match="at least one tier"):
        Value(tiers=0)


def test_cross_fitting_sees_nothing_of_the_own_group() -> None:
    """What is estimated for an example does not change with the outcomes of its own group, and does with others'."""
    draft = Answer(text="It is wide.")

    def log(of_sea: float) -> list[Example]:
        topics = ["sea", "sky", "sand", "sun", "salt"] * 6
        return [
            Example(
                question=ask(f"Tell me of the {topic}."),
                scores={0: of_sea if topic == "sea" else 1.0, 1: 1.0},
                answer=draft,
                group=topic,
            )
            for topic in topics
        ]

    (b0, a0), (b1, a1) = cross_fitted(log(0.0)), cross_fitted(log(1.0))

    assert a0 is not None
    assert a1 is not None
    assert (b0[0] == b1[0]).all()
    assert (a0[0] == a1[0]).all()
    assert b0[1, 0] < b1[1, 0]
    assert a0[1, 0] < a1[1, 0]


def test_cross_fitting_without_drafts() -> None:
    """Without a draft of the cheapest tier for each example there are no estimates after a draft."""
    examples = [*reversed_world(10), Example(question=ask(MEDIUM), scores={0: 1.0}, answer=Answer(text="It is wide."))]
    before, after = cross_fitted(examples, folds=2)

    assert before.shape == (11, 2)
    assert after is None
