"""Learned rules: from judged answers to the two rules of a router."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from llm_costopt.router.calibrate import Calibration
from llm_costopt.router.complexity import complexity
from llm_costopt.router.confidence import confidence
from llm_costopt.router.learned import LearnedRules, Targets, learn_rules
from llm_costopt.router.policy import Policy, Situation, policy_of
from llm_costopt.router.value import Example
from llm_costopt.types import Answer, Message, Question

PRICES = [0.06, 1.0]
GOOD, BAD = "The total is 42, as the sum shows.", "Perhaps it is something, I lost count of it."


def ask(text: str) -> Question:
    """Ask *text*."""
    return Question(messages=(Message(role="human", text=text),))


def policy(rules: LearnedRules) -> Policy:
    """Give the policy of a router that has learned *rules*."""
    return policy_of(rules, complexity=complexity, confidence=confidence, threshold=0.7)


def keeps(rules: LearnedRules, question: Question, answer: Answer) -> bool:
    """Tell whether the first tier's draft is kept."""
    s = Situation(question=question, usable=tuple(range(rules.tiers)))
    step = policy(rules).start(s)
    assert (step.tier, step.final) == (0, False)
    return policy(rules).judge(s, step, answer).then is None


def sent(rules: LearnedRules, text: str) -> tuple[int, bool]:
    """Tell which tier is asked first, and whether its answer is taken as it comes."""
    step = policy(rules).start(Situation(question=ask(text), usable=tuple(range(rules.tiers))))
    return step.tier, step.final


def traffic(n: int, seed: int = 1) -> list[Example]:
    """Make requests of which the cheap model can do one kind; where it fails, its draft shows it."""
    rng = random.Random(seed)
    made = []
    for k in range(n):
        is_easy = rng.random() < 0.6
        text = f"Please {'look up the entry' if is_easy else 'untangle the riddle'} number {rng.randrange(10**6)}"
        right = rng.random() < (0.95 if is_easy else 0.2)
        draft = Answer(text=GOOD if right else BAD, finish="stop")
        made.append(Example(question=ask(text), scores={0: float(right), 1: 0.97}, answer=draft, group=str(k)))
    return made


@pytest.fixture(scope="module")
def learned() -> tuple[LearnedRules, Calibration]:
    """Learn from some traffic."""
    return learn_rules(traffic(400), prices=PRICES)


def test_the_rules_know_what_each_tier_can_do(learned: tuple[LearnedRules, Calibration]) -> None:
    """On fresh requests a right draft is kept and a wrong one is not, whatever the request sounds like."""
    rules, found = learned
    fresh = traffic(200, seed=2)
    assert found.drafts
    kept = [keeps(rules, e.question, e.answer) for e in fresh if e.answer]

    assert sum(k == bool(e.scores[0]) for k, e in zip(kept, fresh, strict=True)) > 180


def test_without_drafts_the_request_decides() -> None:
    """Where no draft is known, the easy kind goes to the cheap model and the other one to the strong one."""
    blind = [Example(question=e.question, scores=e.scores, group=e.group) for e in traffic(400)]
    rules, found = learn_rules(blind, prices=PRICES, target_quality=0.9)

    assert not found.drafts
    assert sent(rules, "Please look up the entry number 7") == (0, True)
    assert sent(rules, "Please untangle the riddle number 7") == (1, True)


def test_what_is_surely_wrong_is_never_kept(learned: tuple[LearnedRules, Calibration]) -> None:
    """A truncated draft is escalated, whatever was learned."""
    rules, _ = learned

    assert keeps(rules, ask("Please look up the entry"), Answer(text=GOOD, finish="stop"))
    assert not keeps(rules, ask("Please look up the entry"), Answer(text=GOOD, finish="length"))


def test_rules_come_back_from_their_file(learned: tuple[LearnedRules, Calibration], tmp_path: Path) -> None:
    """Saved and loaded, they decide the same, have the same fingerprint, and hold no text of a request."""
    rules, _ = learned
    rules.save(tmp_path / "router.json")
    again = LearnedRules.load(tmp_path / "router.json")
    answers = [Answer(text=text, finish="stop") for text in (GOOD, BAD)]

    for e in traffic(20, seed=3):
        for answer in answers:
            expected = rules.value.after(e.question, answer).right
            assert again.value.after(e.question, answer).right == pytest.approx(expected, abs=0.02)
    assert again.explanation == rules.explanation
    assert "riddle" not in (tmp_path / "router.json").read_text(encoding="utf-8")
    assert LearnedRules.load(tmp_path / "router.json").fingerprint == again.fingerprint


def test_learning_goes_on() -> None:
    """Outcomes that come later move the rules, and leave them their name: a cache keeps what it has."""
    rules, _ = learn_rules(traffic(100), prices=PRICES)
    question, answer = ask("Please look up the entry number 7"), Answer(text=GOOD, finish="stop")
    before, name = rules.value.after(question, answer).right[0], rules.fingerprint
    for _ in range(60):
        rules.learn(question, 0.0, tier=0, answer=answer)

    assert rules.value.after(question, answer).right[0] < before - 0.3
    assert rules.fingerprint == name
    assert rules.to_dict() != learn_rules(traffic(100), prices=PRICES)[0].to_dict()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": 1}', '{"format": 2, "tiers": 2, "prices": ["x", 1], "value": {}, "seen": []}', None],
)
def test_a_file_that_is_none_is_told(content: str | None, tmp_path: Path) -> None:
    """A missing, broken or foreign file is one sentence that says what to do."""
    path = tmp_path / "router.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")

    with pytest.raises(ValueError, match="llm-costopt calibrate"):
        LearnedRules.load(path)


@pytest.mark.parametrize(
    ("place", "damage"),
    [
        (["tiers"], math.inf),
        (["tiers"], 10**12),
        (["tiers"], 0),
        (["tiers"], "2"),
        (["prices", 0], -1),
        (["prices", 1], math.nan),
        (["prices"], [1.0]),
        (["seen", 0, 0, 0], math.nan),
        (["seen", 0, 2, 0], 7),
    ],
)
def test_a_damaged_number_is_told(
    learned: tuple[LearnedRules, Calibration], place: list[Any], damage: Any, tmp_path: Path
) -> None:
    """A number that cannot be is told as such a file, and takes neither memory nor effect."""
    state = learned[0].to_dict()
    *way, last = place
    inner: Any = state
    for step in way:
        inner = inner[step]
    inner[last] = damage
    (tmp_path / "router.json").write_text(json.dumps(state), encoding="utf-8")

    with pytest.raises(ValueError, match="holds no rules of a router"):
        LearnedRules.load(tmp_path / "router.json")


def test_rules_of_another_version_are_warned_of(
    learned: tuple[LearnedRules, Calibration], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was learned of other features is left out, and the log says so: nobody pays strong calls unaware."""
    state = learned[0].to_dict()
    state["value"]["features"] = "others"
    (tmp_path / "router.json").write_text(json.dumps(state), encoding="utf-8")

    assert LearnedRules.load(tmp_path / "router.json").outcomes == 0
    assert "learning starts anew: features 'others' instead of" in caplog.text


@pytest.mark.parametrize(
    ("count", "limits", "message"),
    [
        (5, {}, "at least 10"),
        (50, {"max_cost_per_request": 0.01}, "cheapest costs more"),
        (50, {"target_quality": 2}, "target"),
    ],
)
def test_what_cannot_be_is_refused(count: int, limits: dict[str, Any], message: str) -> None:
    """Too few outcomes, a limit below the cheapest price, a target that is no share."""
    with pytest.raises(ValueError, match=message):
        learn_rules(traffic(count), prices=PRICES, **limits)


def test_rules_for_three_tiers() -> None:
    """A doubtful draft goes to the tier that is worth its price, which may be the middle one."""
    rng = random.Random(4)
    examples = []
    for _ in range(400):
        right = rng.random() < 0.6
        question = ask(f"Please look at the number {rng.randrange(10**6)}")
        scores = {0: float(right), 1: 0.97, 2: 0.98}
        examples.append(Example(question=question, scores=scores, answer=Answer(text=GOOD if right else BAD)))
    rules, found = learn_rules(examples, prices=[0.05, 0.3, 1.0])
    s = Situation(question=ask("Please look at the number 7"), usable=(0, 1, 2))
    step = policy(rules).start(s)
    then = policy(rules).judge(s, step, Answer(text=BAD)).then

    assert found.drafts
    assert keeps(rules, s.question, Answer(text=GOOD))
    assert then is not None
    assert (then.tier, then.final) == (1, True)
    assert found.point.cost < 0.25


def test_a_share_is_kept() -> None:
    """With `max_strong_share` no more than that goes to the strong tier."""
    _, found = learn_rules(traffic(300), prices=PRICES, target_quality=None, max_strong_share=0.2)

    assert found.point.strong_share <= 0.2
    assert json.dumps(found.explanation)


def test_outcomes_one_by_one_are_worth_as_much_as_a_log() -> None:
    """What a router sees in its own traffic gives the operating point that a log of the same outcomes gives."""
    examples = [Example(question=e.question, scores=e.scores, answer=e.answer) for e in traffic(120)]
    rules = LearnedRules(tiers=2, prices=PRICES, targets=Targets(target_quality=0.95))
    for e in examples:
        rules.observe(e.question, e.scores, answer=e.answer)
    found = learn_rules(examples, prices=PRICES)[1]

    assert rules.calibrate() == found


def test_outcomes_after_a_restart_add_to_those_before(tmp_path: Path) -> None:
    """A file's outcomes and those that come later are counted together, and go into the next file."""
    rules = LearnedRules(tiers=2, prices=PRICES, targets=Targets(target_quality=0.95))
    for e in traffic(40):
        rules.observe(e.question, e.scores, answer=e.answer)
    rules.save(tmp_path / "a.json")
    again = LearnedRules.load(tmp_path / "a.json")
    for e in traffic(30, seed=9):
        again.observe(e.question, e.scores, answer=e.answer)
    again.save(tmp_path / "b.json")

    assert again.outcomes == 70
    assert LearnedRules.load(tmp_path / "b.json").explanation == again.explanation
    assert (tmp_path / "b.json").stat().st_mode & 0o777 == 0o600


def test_other_targets_move_the_point(learned: tuple[LearnedRules, Calibration], tmp_path: Path) -> None:
    """A file may be loaded for another target; a target without prices is refused."""
    learned[0].save(tmp_path / "router.json")
    strict, loose = (
        LearnedRules.load(tmp_path / "router.json", targets=Targets(target_quality=x)) for x in (0.99, 0.8)
    )

    assert strict.calibration is not None
    assert loose.calibration is not None
    assert strict.calibration.point.strong_share > loose.calibration.point.strong_share
    with pytest.raises(ValueError, match="prices="):
        LearnedRules(tiers=2, targets=Targets(target_quality=0.9))


def test_rules_that_cannot_be_written_leave_nothing_behind(
    learned: tuple[LearnedRules, Calibration], tmp_path: Path
) -> None:
    """Where a folder has the name, saving fails and no file is left beside it."""
    (tmp_path / "router.json").mkdir()
    with pytest.raises(IsADirectoryError):
        learned[0].save(tmp_path / "router.json")

    assert [found.name for found in tmp_path.iterdir()] == ["router.json"]


@pytest.mark.parametrize(
    "targets", [{"target_quality": 0.0}, {"max_strong_share": 1.5}, {"max_cost_per_request": -1.0}]
)
def test_a_target_that_is_none(targets: dict[str, float]) -> None:
    """A share beyond 0 to 1, or an amount that is not above 0, is refused."""
    with pytest.raises(ValueError, match=r"target|share|amount"):
        Targets(**targets)
