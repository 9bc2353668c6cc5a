import logging
import uuid
from collections.abc import Callable, Mapping

import pytest

from llm_costopt.flow import drive
from llm_costopt.router.cascade import Attempt, Call, Outcome, cascade
from llm_costopt.router.complexity import Complexity, Level
from llm_costopt.router.learned import LearnedRules
from llm_costopt.router.policy import ByRules, Situation
from llm_costopt.types import Answer, Message, Question

QUESTION = Question(messages=(Message(role="human", text="?"),))

Replies = Mapping[int, str | Exception]
"""What each tier says."""


def read(reply: str) -> Answer:
    """Give a reply in the core's terms."""
    return Answer(text=reply)


def sure_of(_: Question, answer: Answer) -> tuple[float, str]:
    """Score a reply by the number in it: `cheap 0.5`."""
    return float(answer.text.split()[1]), f"read from {answer.text!r}"


def by_rules(complexity: Complexity, tiers: int = 2) -> ByRules:
    """Decide by rules alone, with a threshold of 0.7."""
    return ByRules(LearnedRules(tiers=tiers), complexity=complexity, confidence=sure_of, threshold=0.7)


class Asked:
    """The tiers: remembers the calls and plays the replies."""

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self.calls: list[Call] = []

    def __call__(self, call: Call) -> str:
        self.calls.append(call)
        reply = self._replies[call.tier]
        if isinstance(reply, Exception):
            raise reply
        return reply


def route(
    level: Level,
    ask: Callable[[Call], str],
    *,
    tiers: int = 2,
    unfit: Callable[[Exception], str | None] = lambda _: None,
    clock: Callable[[], float] = lambda: 0.0,
) -> Outcome[str]:
    """Run one request of *level* through the flow, with a threshold of 0.7."""
    situation = Situation(question=QUESTION, usable=tuple(range(tiers)))
    policy = by_rules(lambda _: (level, "the test says so"), tiers)
    return drive(cascade(situation, policy, read=read, unfit=unfit, clock=clock), ask)


def results(outcome: Outcome[str]) -> list[tuple[int, str]]:
    """List what came of each attempt."""
    return [(a.call.tier, a.result) for a in outcome.attempts]


@pytest.mark.parametrize(("level", "tier"), [("simple", 0), ("complex", 1)])
def test_simple_and_complex_are_one_unseen_call(level: Level, tier: int) -> None:
    """A simple request ends at the first tier and a complex one at the last, and nobody judges the reply."""
    ask = Asked({tier: "bad 0.0"})
    outcome = route(level, ask)

    assert outcome.reply == "bad 0.0"
    assert [(c.tier, c.final, c.level, c.replaces) for c in ask.calls] == [(tier, True, level, None)]
    assert results(outcome) == [(tier, "accepted")]
    assert (outcome.attempts[0].confidence, outcome.attempts[0].why) == (None, None)
    assert (outcome.first.level, outcome.first.why) == (level, "the test says so")
    assert not outcome.escalated
    assert not outcome.fell_back


def test_medium_keeps_a_good_draft() -> None:
    """A draft that is good enough is the reply, with its score and the reason for it."""
    ask = Asked({0: "cheap 0.7"})
    outcome = route("medium", ask)

    assert outcome.reply == "cheap 0.7"
    assert [(c.tier, c.final) for c in ask.calls] == [(0, False)]
    assert (outcome.attempts[0].confidence, outcome.attempts[0].why) == (0.7, "read from 'cheap 0.7'")
    assert not outcome.escalated


def test_medium_escalates_a_bad_draft() -> None:
    """Below the threshold the draft is kept on record as rejected and the next tier is asked."""
    ask = Asked({0: "cheap 0.69", 1: "strong 0.1"})
    outcome = route("medium", ask)

    assert outcome.reply == "strong 0.1"
    assert [(c.tier, c.final) for c in ask.calls] == [(0, False), (1, True)]
    assert results(outcome) == [(0, "rejected"), (1, "accepted")]
    assert outcome.attempts[0].reply == "cheap 0.69"
    assert outcome.attempts[0].confidence == 0.69
    assert outcome.attempts[1].confidence is None
    assert outcome.escalated
    assert not outcome.fell_back


def test_an_escalation_names_the_call_that_it_replaces() -> None:
    """The second call says which draft it stands in for, by an id that is a UUID of its own."""
    ask = Asked({0: "cheap 0.0", 1: "strong 1.0"})
    route("medium", ask)
    draft, call = ask.calls

    assert (draft.replaces, call.replaces) == (None, draft.id)
    assert len({uuid.UUID(draft.id), uuid.UUID(call.id)}) == 2


@pytest.mark.parametrize("level", ["simple", "medium"])
def test_a_failed_tier_falls_back(level: Level) -> None:
    """An error of the cheap tier is no escalation: the next call replaces nothing, and the error is on record."""
    ask = Asked({0: ConnectionError("no network"), 1: "strong 1.0"})
    outcome = route(level, ask)

    assert outcome.reply == "strong 1.0"
    assert results(outcome) == [(0, "failed"), (1, "accepted")]
    assert ask.calls[1].replaces is None
    assert (outcome.attempts[0].reply, outcome.attempts[0].why) == (None, "ConnectionError")
    assert outcome.fell_back
    assert not outcome.escalated


def test_an_error_that_means_a_bad_answer_escalates() -> None:
    """An error that the host knows as a bad answer is a rejection, with its reason and without a reply."""
    ask = Asked({0: ValueError("half an object"), 1: "strong 1.0"})
    outcome = route("medium", ask, unfit=lambda error: "truncated" if "half" in str(error) else None)

    assert results(outcome) == [(0, "rejected"), (1, "accepted")]
    assert (outcome.attempts[0].reply, outcome.attempts[0].why) == (None, "truncated")
    assert ask.calls[1].replaces == ask.calls[0].id
    assert outcome.escalated
    assert not outcome.fell_back


@pytest.mark.parametrize("level", ["simple", "medium", "complex"])
def test_the_error_of_the_last_tier_is_raised(level: Level) -> None:
    """When no tier is left the caller gets the very error of the last one, even one that means a bad answer."""
    problem = TimeoutError("too slow")
    ask = Asked({0: ConnectionError("no network"), 1: problem})
    with pytest.raises(TimeoutError) as caught:
        route(level, ask, unfit=lambda _: "unfit")

    assert caught.value is problem


def test_an_interrupt_is_no_failure_of_a_tier() -> None:
    """Ctrl-C does not lead to a second call."""
    calls: list[Call] = []

    def ask(call: Call) -> str:
        calls.append(call)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        route("medium", ask)

    assert len(calls) == 1


def test_a_complexity_rule_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """A broken rule costs a warning and the check of the draft, never the call."""

    def broken(question: Question) -> tuple[Level, str]:
        raise ZeroDivisionError

    flow = cascade(Situation(question=QUESTION, usable=(0, 1)), by_rules(broken), read=read)
    with caplog.at_level(logging.WARNING):
        outcome = drive(flow, Asked({0: "cheap 1.0"}))

    assert (outcome.first.level, outcome.first.why, outcome.reply) == ("medium", "the rule failed", "cheap 1.0")
    assert "ZeroDivisionError" in caplog.text


def test_a_confidence_rule_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """An answer that could not be judged is not trusted."""
    with caplog.at_level(logging.WARNING):
        outcome = route("medium", Asked({0: "no number", 1: "strong 1.0"}))

    assert outcome.reply == "strong 1.0"
    assert (outcome.attempts[0].confidence, outcome.attempts[0].why) == (0.0, "the rule failed")
    assert "ValueError" in caplog.text


def test_the_rule_is_asked_about_the_question() -> None:
    """The complexity rule sees the whole request."""
    seen: list[Question] = []

    def rule(question: Question) -> tuple[Level, str]:
        seen.append(question)
        return "simple", ""

    drive(cascade(Situation(question=QUESTION, usable=(0, 1)), by_rules(rule), read=read), Asked({0: "cheap 1.0"}))

    assert seen == [QUESTION]


def test_three_tiers() -> None:
    """Medium climbs as far as it must, each rejected draft is replaced by the next call, and the last is final."""
    ask = Asked({0: "a 0.1", 1: "b 0.2", 2: "c 0.3"})
    outcome = route("medium", ask, tiers=3)

    assert outcome.reply == "c 0.3"
    assert [c.final for c in ask.calls] == [False, False, True]
    assert [c.replaces for c in ask.calls] == [None, ask.calls[0].id, ask.calls[1].id]
    assert results(outcome) == [(0, "rejected"), (1, "rejected"), (2, "accepted")]


def test_three_tiers_stop_in_the_middle() -> None:
    """The second draft is kept if it is good, although the first tier failed."""
    outcome = route("medium", Asked({0: OSError(), 1: "b 0.9"}), tiers=3)

    assert results(outcome) == [(0, "failed"), (1, "accepted")]
    assert (outcome.fell_back, outcome.escalated) == (True, False)


def test_a_draft_and_then_an_error() -> None:
    """After a rejected draft and a failed call both words hold, and the tier that stands in replaces the draft."""
    ask = Asked({0: "a 0.1", 1: OSError(), 2: "c 0.3"})
    outcome = route("medium", ask, tiers=3)

    assert results(outcome) == [(0, "rejected"), (1, "failed"), (2, "accepted")]
    assert (outcome.fell_back, outcome.escalated) == (True, True)
    assert [c.replaces for c in ask.calls] == [None, ask.calls[0].id, ask.calls[0].id]


def test_one_tier() -> None:
    """With a single tier there is nothing to judge for."""
    outcome = route("medium", Asked({0: "only 0.0"}), tiers=1)

    assert results(outcome) == [(0, "accepted")]
    assert outcome.attempts[0].call.final


def test_each_attempt_has_its_time() -> None:
    """The seconds of an attempt are those of its call, failed or not."""
    ticks = iter([10.0, 10.5, 20.0, 23.0, 30.0, 37.0])
    ask = Asked({0: OSError(), 1: "b 0.0", 2: "c 1.0"})
    outcome: Outcome[str] = route("medium", ask, tiers=3, clock=lambda: next(ticks))
    attempts: tuple[Attempt[str], ...] = outcome.attempts

    assert [a.seconds for a in attempts] == [0.5, 3.0, 7.0]
