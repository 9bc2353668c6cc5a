"""The circuit breaker: what keeps failing is left alone for a while, and tried again by itself."""

import logging
import threading

import pytest

from llm_costopt.cache.breaker import Breaker, CircuitOpenError


class Ticks:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    """Make a clock that stands still."""
    return Ticks()


@pytest.fixture
def breaker(ticks: Ticks) -> Breaker:
    """Make a breaker of three failures and five seconds."""
    return Breaker("calling", failures=3, cool_down=5.0, clock=ticks)


def call(breaker: Breaker, *, fails: bool) -> str:
    """Make a call and say how it ended: `done`, `failed`, `opened` (it failed, and that opened it) or `left off`."""
    ran = []

    def called() -> None:
        ran.append(1)
        if fails:
            raise OSError("no answer to: the question")

    try:
        with breaker.watch():
            called()
    except OSError:
        return "failed"
    except CircuitOpenError:
        return "opened" if ran else "left off"
    return "done"


def test_it_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    """Failures pass through until so many came in a row; from then on nothing is called. A success in between counts."""
    ends = [call(breaker, fails=fails) for fails in (True, True, False, True, True, True, False, True)]

    assert ends == ["failed", "failed", "done", "failed", "failed", "opened", "left off", "left off"]


def test_one_trial_closes_or_opens_it(breaker: Breaker, ticks: Ticks) -> None:
    """After the cool-down one call is made: if it fails, the wait begins anew; if not, all are made again."""
    for _ in range(3):
        call(breaker, fails=True)
    ends = []
    for now, fails in (
        (4.9, False),
        (5.0, True),
        (5.0, False),
        (9.9, False),
        (10.0, False),
        (10.0, True),
        (10.0, False),
    ):
        ticks.now = now
        ends.append(call(breaker, fails=fails))

    assert ends == ["left off", "opened", "left off", "left off", "done", "failed", "done"]


def test_one_trial_at_a_time(breaker: Breaker, ticks: Ticks) -> None:
    """While a trial is under way, other threads' calls are left off; one that never ends is followed by another."""
    for _ in range(3):
        call(breaker, fails=True)
    ticks.now = 5.0
    ends = []
    with breaker.watch():
        for now in (5.0, 9.9, 10.0):
            ticks.now = now
            other = threading.Thread(target=lambda: ends.append(call(breaker, fails=True)))
            other.start()
            other.join()

    assert ends == ["left off", "left off", "opened"]
    assert call(breaker, fails=False) == "done"


def test_it_warns_once_for_each_change(breaker: Breaker, ticks: Ticks, caplog: pytest.LogCaptureFixture) -> None:
    """One warning says that it opened, one that it closed, whatever the number of calls; none quotes what failed."""
    for now in (0.0, 0.0, 0.0, 1.0, 5.0, 10.0):
        ticks.now = now
        call(breaker, fails=True)
    ticks.now = 15.0
    call(breaker, fails=False)
    call(breaker, fails=False)
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    assert messages == [
        "calling failed 3 times in a row (OSError): it is left off and tried once every 5 s",
        "calling works again",
    ]
