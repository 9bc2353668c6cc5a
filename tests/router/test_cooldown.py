"""Tiers that fail are left alone for a while."""

import pytest

from llm_costopt.router.cooldown import COOL_DOWN, FAILURES, CoolDown


class Clock:
    """A clock that only the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Make a clock that stands still."""
    return Clock()


@pytest.fixture
def cool(clock: Clock) -> CoolDown:
    """Make a cool-down of the usual length."""
    return CoolDown(clock=clock)


def test_some_failures_in_a_row_are_an_outage(cool: CoolDown) -> None:
    """One failure less does not count, nor do failures with an answer between them."""
    for _ in range(FAILURES - 1):
        cool.failed(0)
    assert cool.cooling() == {}
    cool.worked(0)
    cool.failed(0)
    assert cool.cooling() == {}
    for _ in range(FAILURES - 1):
        cool.failed(0)

    assert list(cool.cooling()) == [0]


def test_a_rate_limit_counts_at_once(cool: CoolDown) -> None:
    """The provider has said to come back later; the reason tells for how long yet, and other tiers go on."""
    cool.failed(1, rate_limited=True)

    assert cool.cooling() == {1: f"failed, left alone for {COOL_DOWN:.0f} s"}


def test_it_ends_by_time_or_by_an_answer(cool: CoolDown, clock: Clock) -> None:
    """After the time the tier is asked again, one failure leaves it alone anew, an answer ends it at once."""
    cool.failed(0, rate_limited=True)
    clock.now += COOL_DOWN
    assert cool.cooling() == {}
    cool.failed(0, rate_limited=True)
    assert list(cool.cooling()) == [0]
    cool.worked(0)

    assert cool.cooling() == {}


def test_with_no_seconds_nothing_cools(clock: Clock) -> None:
    """Whoever sets 0 gets every call tried."""
    cool = CoolDown(0, clock=clock)
    cool.failed(0, rate_limited=True)

    assert cool.cooling() == {}
