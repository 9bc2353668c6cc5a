"""A router that observes, is switched off, or drafts as much as it is told to."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from llm_costopt.endpoints import endpoint
from llm_costopt.flow import drive
from llm_costopt.observed import Observed, read, say
from llm_costopt.router.cascade import Call, Outcome
from llm_costopt.router.complexity import complexity
from llm_costopt.router.confidence import confidence
from llm_costopt.router.learned import Targets
from llm_costopt.router.router import Request, Router, Run
from llm_costopt.router.settings import here_of, spelled_out, with_preset
from llm_costopt.router.spending import Budget
from llm_costopt.router.start import Model, memory_of
from llm_costopt.types import Answer, Message, Question, Usage

SIMPLE, MEDIUM, COMPLEX = "What is the capital of Peru?", "Tell me of the sea.", "Compare the two designs."
PLAIN, HEDGED = Answer(text="The sea is deep."), Answer(text="It might be deep, I think.")


def price(model: str, usage: Usage, **_: Any) -> Decimal:
    """Charge a tenth for the cheap model."""
    return Decimal("0.001" if model == "small" else "0.01") * (usage.input_tokens + usage.output_tokens)


def router(*, budgets: Sequence[Budget] = (), targets: Targets = Targets(), **options: Any) -> Router:  # noqa: B008 - frozen
    """Make a router over two tiers."""
    memory = memory_of(
        [Model(name="small", provider=None), Model(name="big", provider=None)],
        price=price,
        targets=targets,
        with_budgets=bool(budgets),
        learned=None,
        shadow_rate=0.0,
        is_judged=False,
        cool_down=0.0,
        complexity=complexity,
        confidence=confidence,
    )
    said = {"threshold": 0.7, **options}
    return Router(
        names=["cheap", "strong"], memory=memory, complexity=complexity, confidence=confidence, budgets=budgets, **said
    )


def route(of: Router, text: str, answer: Answer = PLAIN) -> tuple[list[int], Outcome[Answer], Run]:
    """Send a request through; return the tiers that were asked."""
    asked: list[int] = []

    def ask(call: Call) -> Answer:
        asked.append(call.tier)
        return answer

    run = of.begin(Request(question=Question(messages=(Message(role="human", text=text),)), profiles=[{}, {}]))
    outcome = drive(run.flow(read=lambda reply: reply, unfit=lambda _: None), ask)
    return asked, outcome, run


@pytest.mark.parametrize(
    ("text", "tier", "drafts", "level"),
    [(SIMPLE, "cheap", False, "simple"), (MEDIUM, "cheap", True, "medium"), (COMPLEX, "strong", False, "complex")],
)
def test_an_observing_router_asks_the_strongest_and_notes_what_it_would_have_asked(
    text: str, tier: str, drafts: bool, level: str
) -> None:
    """Whatever the request, one call of the strongest tier; decision and reason hold what would have been asked, and its cost."""
    asked, outcome, run = route(router(mode="observe"), text)
    decision = run.decision(outcome)
    found = read(decision.why)

    assert asked == [1]
    assert (decision.tier, decision.would, decision.complexity, decision.escalated) == ("strong", tier, level, False)
    assert found is not None
    assert (found.tier, found.drafts) == (tier, drafts)
    assert found.share == pytest.approx(0.1 if tier == "cheap" else 1.0)
    assert decision.to_dict()["would"] == tier


def test_what_would_be_decided_is_explained_without_a_call() -> None:
    """Before any call the decision says the same."""
    request = Request(question=Question(messages=(Message(role="human", text=SIMPLE),)), profiles=[{}, {}])
    decision = router(mode="observe").begin(request).decision()

    assert (decision.tier, decision.would) == ("strong", "cheap")
    assert "observe: cheap would answer at 0.1000 of the cost" in decision.explain()


@pytest.mark.parametrize("text", [SIMPLE, MEDIUM, COMPLEX])
def test_a_router_that_is_off_asks_the_strongest_straight(text: str) -> None:
    """No draft, no decision, and the reason says so."""
    asked, outcome, run = route(router(mode="off", control=1.0), text)
    decision = run.decision(outcome)

    assert asked == [1]
    assert (decision.why, decision.would, decision.arm) == ("off: the router is not asked", None, None)
    assert "would" not in decision.to_dict()


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_no_limit_stops_or_counts_what_is_not_decided(mode: Any) -> None:
    """A spent budget refuses nothing and still counts what is spent; limits on the mean are not drawn upon."""
    budget = Budget("0.000001")
    mean = Targets(max_cost_per_request=0.0001, max_strong_share=0.01)
    of = router(mode=mode, budgets=[budget], targets=mean)
    memory = of.memory
    assert memory.share is not None
    assert memory.mean_cost is not None
    before = [memory.share.thrift(), memory.mean_cost.thrift()]
    for _ in range(50):
        asked, outcome, run = route(of, MEDIUM)
        assert asked == [1]
        run.settle(outcome.attempts[-1].call, usd=0.5, written=None)

    assert budget.spent > 1
    assert [memory.share.thrift(), memory.mean_cost.thrift()] == before
    if mode == "observe":
        assert "money is short" not in run.decision(outcome).why


def test_an_observing_router_is_in_no_arm_of_a_comparison() -> None:
    """All are answered alike, so that nothing is compared."""
    assert (
        router(mode="observe", control=0.5)
        .begin(Request(question=Question(messages=(Message(role="human", text=SIMPLE),)), profiles=[{}, {}]))
        .arm
        is None
    )


@pytest.mark.parametrize(
    ("preset", "text", "answer", "tiers"),
    [
        ("conservative", SIMPLE, PLAIN, [0]),
        ("conservative", MEDIUM, PLAIN, [1]),
        ("conservative", COMPLEX, PLAIN, [1]),
        ("balanced", SIMPLE, PLAIN, [0]),
        ("balanced", MEDIUM, PLAIN, [0]),
        ("balanced", MEDIUM, HEDGED, [0, 1]),
        ("balanced", COMPLEX, PLAIN, [1]),
        ("aggressive", MEDIUM, Answer(text="Perhaps it is deep."), [0]),
        ("aggressive", COMPLEX, PLAIN, [0]),
        ("aggressive", COMPLEX, HEDGED, [0, 1]),
    ],
)
def test_what_a_preset_sends_where(preset: str, text: str, answer: Answer, tiers: list[int]) -> None:
    """Conservative sends simple requests alone to the cheap tier, balanced cascades the medium ones, aggressive all others."""
    asked, _, _ = route(router(**_options(preset)), text, answer)

    assert asked == tiers


def _options(preset: str) -> dict[str, Any]:
    return {name: value for name, value in with_preset({"preset": preset}).items() if name != "preset"}


def test_why_there_was_no_draft_is_said() -> None:
    """A medium request of a conservative router is still medium in the figures, and its reason names the setting."""
    _, outcome, run = route(router(cascade="never"), MEDIUM)
    decision = run.decision(outcome)

    assert (decision.complexity, decision.why.endswith("; no cascade")) == ("medium", True)


def test_what_is_given_wins_over_the_preset() -> None:
    """An option beside a preset holds; None is none."""
    assert with_preset({"preset": "aggressive", "threshold": 0.9}) == {
        "preset": "aggressive", "cascade": "always", "threshold": 0.9,
    }  # fmt: skip
    assert with_preset({"threshold": None}) == {"cascade": "medium", "threshold": 0.7}
    with pytest.raises(ValueError, match="preset is one of conservative, balanced, aggressive, not 'bold'"):
        with_preset({"preset": "bold"})


def test_an_endpoint_has_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside the block its word holds, unless the kill switch is more careful."""
    spelled = spelled_out({"search": "conservative", "drafts": "off", "faq": {"threshold": 0.5}})

    def now() -> dict[str, Any]:
        return here_of(spelled, mode="on", cascade="medium", threshold=0.7)

    assert now() == {"mode": "on", "cascade": "medium", "threshold": 0.7}
    with endpoint("search"):
        assert now() == {"mode": "on", "cascade": "never", "threshold": 0.7}
    with endpoint("drafts"):
        assert now()["mode"] == "off"
    with endpoint("faq"):
        assert now() == {"mode": "on", "cascade": "medium", "threshold": 0.5}
        monkeypatch.setenv("LLM_COSTOPT", "observe")
        assert now()["mode"] == "observe"


@pytest.mark.parametrize(
    ("endpoints", "says"),
    [
        ({"a": "bold"}, "say one of conservative, balanced, aggressive, on, observe, off, or options by name"),
        ({"a": {"target_quality": 0.9}}, "target_quality cannot differ by endpoint; there are preset, mode, cascade"),
        ({"a": {"threshold": 2}}, "endpoints={'a': …}: threshold is from 0 to 1"),
        ({"a": {"threshold": "0.5"}}, "threshold is from 0 to 1"),
        ({"a": {"threshold": None}}, "threshold is from 0 to 1"),
        ({"a": {"cascade": "often"}}, "cascade one of never, medium, always"),
        ({"a": ["on"]}, "say one of conservative, balanced, aggressive, on, observe, off, or options by name"),
        ({"a": {"mode": ["on"]}}, "mode is 'on', 'observe' or 'off', not"),
    ],
)
def test_what_cannot_differ_by_endpoint_is_refused(endpoints: Any, says: str) -> None:
    """A wrong word, option or value says what there is."""
    with pytest.raises(ValueError, match=says):
        spelled_out(endpoints)


@pytest.mark.parametrize(
    "observed",
    [
        Observed(tier="cheap", drafts=True, share=0.0625),
        Observed(tier="tier 2", drafts=False, share=None),
        Observed(tier="strong", drafts=False, share=1.0),
    ],
)
def test_what_a_record_says_can_be_read_back(observed: Observed) -> None:
    """What the router writes before its reasons is what the monitor reads."""
    assert read(say(observed, "short; no structure")) == observed
    assert read("short; no structure") is read(None) is None
