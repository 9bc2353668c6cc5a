"""Comparisons in the background, and the judge's word."""

import logging
import os
import threading
from collections.abc import Callable
from functools import partial

import pytest

from llm_costopt import endpoint
from llm_costopt.endpoints import current_endpoint
from llm_costopt.router.judging import comparison, verdict
from llm_costopt.router.shadow import WAITING, Shadow, scores_of
from llm_costopt.types import Answer, Message, Question, ToolCall

QUESTION = Question(messages=(Message(role="human", text="What is 2 + 2?"),))
FOUR, FIVE, CUT = Answer(text="4"), Answer(text="5"), Answer(text="The ans", finish="length")


def test_a_share_is_drawn() -> None:
    """As many requests are compared as the rate says; none at a rate of 0."""
    numbers = iter([0.01, 0.5, 0.019, 0.02])
    shadow = Shadow(0.02, random=lambda: next(numbers))

    assert [shadow.chosen() for _ in range(4)] == [True, False, True, False]
    assert not Shadow(0.0).chosen()
    with pytest.raises(ValueError, match="share"):
        Shadow(2.0)


def test_comparisons_run_beside_the_caller() -> None:
    """Starting one does not wait for it, and one can wait for all."""
    shadow, gate, done = Shadow(1.0), threading.Event(), []
    shadow.start(lambda: done.append(gate.wait(10)))
    assert done == []
    assert not shadow.wait(0)
    gate.set()

    assert shadow.wait(10)
    assert done == [True]


def test_comparisons_know_what_is_said_around_the_request() -> None:
    """A comparison has its caller's context: it serves the same endpoint and the same tenant."""
    shadow, seen = Shadow(1.0), []
    with endpoint("POST /ask"):
        shadow.start(lambda: seen.append(current_endpoint()))

    assert shadow.wait(10)
    assert seen == ["POST /ask"]


def test_one_that_fails_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A model that fails in the background costs a label and a warning, without what it said."""

    def broken() -> None:
        raise ConnectionError("a secret")

    shadow = Shadow(1.0)
    with caplog.at_level(logging.WARNING):
        shadow.start(broken)
        assert shadow.wait(10)

    assert shadow.dropped == 1
    assert "ConnectionError" in caplog.text
    assert "secret" not in caplog.text


def _wait(gate: threading.Event) -> None:
    gate.wait(10)


def test_too_many_are_left_out() -> None:
    """When a hundred wait, one more is dropped and counted instead of piling up."""
    shadow, gate = Shadow(1.0), threading.Event()
    for _ in range(WAITING + 3):
        shadow.start(partial(_wait, gate))
    gate.set()

    assert shadow.dropped == 3
    assert shadow.wait(10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    """A comparison that is started after a fork runs in the child."""
    shadow = Shadow(1.0)
    shadow.start(lambda: None)
    assert shadow.wait(10)
    child = os.fork()
    if not child:
        done: list[int] = []
        shadow.start(lambda: done.append(1))
        os._exit(0 if shadow.wait(10) and done else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def exact(_: Question, answer: Answer, reference: Answer) -> float:
    """Judge by equality."""
    return float(answer.text == reference.text)


def unsure(_: Question, __: Answer, ___: Answer) -> None:
    """Judge nothing."""


@pytest.mark.parametrize(
    ("answers", "judge", "scores"),
    [
        ({0: FOUR, 1: FOUR}, exact, {0: 1.0, 1: 1.0}),
        ({0: FIVE, 1: FIVE, 2: FOUR}, exact, {0: 0.0, 1: 0.0, 2: 1.0}),
        ({0: FOUR, 1: FOUR}, unsure, None),
        ({0: FOUR, 1: CUT}, exact, None),
    ],
)
def test_answers_are_scored_against_the_strongest(
    answers: dict[int, Answer], judge: Callable[..., float | None], scores: dict[int, float] | None
) -> None:
    """The strongest tier's answer is the measure, unless it is flawed itself; a judge may say that it cannot tell."""
    assert scores_of(QUESTION, answers, judge=judge, strongest=max(answers)) == scores


def test_what_is_plainly_wrong_needs_no_judge() -> None:
    """A truncated answer scores 0 by a check that costs nothing."""

    def never(*_: object) -> float:
        raise AssertionError

    assert scores_of(QUESTION, {0: CUT, 1: FOUR}, judge=never, strongest=1) == {0: 0.0, 1: 1.0}


def test_a_score_out_of_range_is_told() -> None:
    """A judge that speaks in percent is an error, not a label."""
    with pytest.raises(ValueError, match="from 0 to 1"):
        scores_of(QUESTION, {0: FIVE, 1: FOUR}, judge=lambda *_: 70.0, strongest=1)


@pytest.mark.parametrize(
    ("word", "swapped", "score"),
    [
        ("A", False, 1.0),
        ("B", False, 0.0),
        ("A.", True, 0.0),
        ("b", True, 1.0),
        ("**SAME**", True, 1.0),
        ("Both", False, None),
        ("", False, None),
    ],
)
def test_the_word_of_a_judge(word: str, swapped: bool, score: float | None) -> None:
    """Only a clearly better reference makes an answer wrong, wherever it stood; another word is no label."""
    assert verdict(word, swapped=swapped) == score


def test_what_a_judge_is_asked() -> None:
    """It sees the request and both answers, tool calls too, in the order of the draw, between marks that nobody can guess."""
    call = Answer(text="", tool_calls=(ToolCall(id=None, name="add", args={"a": 2}),))
    asked = comparison(QUESTION, call, FOUR, swapped=True)

    assert asked.index("What is 2 + 2?") < asked.index("\n4\n") < asked.index("calls add with {'a': 2}")
    assert comparison(QUESTION, call, FOUR, swapped=True) != asked
