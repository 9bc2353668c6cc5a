"""Limits: what shifts the balance, and what stops."""

import threading
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from llm_costopt.errors import BudgetExceededError
from llm_costopt.router.spending import PATIENCE, Allowance, Budget, Per

NOON = 1_700_000_000.0 - 1_700_000_000.0 % 86400 + 43200
"""12:00 UTC of a day in November 2023."""


class Clock:
    """A clock that is set by hand."""

    def __init__(self, at: float = NOON) -> None:
        self.at = at

    def __call__(self) -> float:
        """Tell the time."""
        return self.at


def test_spending_with_the_clock_changes_nothing() -> None:
    """Who has used half of a day's budget at noon need not save."""
    budget = Budget(10, clock=Clock())
    budget.charge(5.0)

    assert budget.thrift() == 0.0


def test_thrift_rises_smoothly_ahead_of_the_clock() -> None:
    """The further spending is ahead of the day, the more is to be saved, up to the cheapest tier alone, and never in a leap."""
    budget, thrifts = Budget(10, clock=Clock()), []
    for _ in range(100):
        budget.charge(0.1)
        thrifts.append(budget.thrift())

    assert thrifts == sorted(thrifts)
    assert (thrifts[0], thrifts[-1]) == (0.0, 1.0)
    assert max(b - a for a, b in pairwise(thrifts)) < 0.06


def test_a_budget_stops_with_a_sentence_that_helps() -> None:
    """What the budget does not hold raises, and says how much is spent and when it begins anew."""
    budget = Budget("0.05", tag="search", clock=Clock())
    budget.reserve(0.05)
    with pytest.raises(
        BudgetExceededError, match=r"\$0.05 per day for 'search'.*\$0.0500 are spent.*2023-11-15 00:00 UTC"
    ):
        budget.reserve(0.001)

    assert budget.spent == Decimal("0.05")


@pytest.mark.parametrize(("per", "later"), [("hour", 3600), ("day", 86400), ("month", 31 * 86400)])
def test_a_budget_begins_anew(per: Per, later: float) -> None:
    """With the next hour, day or month, nothing is spent."""
    clock = Clock()
    budget = Budget(1, per=per, clock=clock)
    budget.reserve(1.0)
    clock.at += later
    budget.reserve(1.0)

    assert budget.spent == 1


def test_threads_cannot_exceed_it_together() -> None:
    """Of many reservations at once as many are granted as the budget holds."""
    budget, granted, start = Budget(10, clock=Clock()), [], threading.Barrier(16)

    def spend() -> None:
        start.wait()
        for _ in range(20):
            try:
                budget.reserve(0.25)
            except BudgetExceededError:
                return
            granted.append(0.25)

    threads = [threading.Thread(target=spend) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(granted) == 10


def test_what_others_spend_counts() -> None:
    """A ledger's figure counts, is asked for now and then only, and what was spent here since then comes on top."""
    clock, asked = Clock(), []

    def told(since: float, tag: str | None) -> Decimal:
        asked.append((since, tag))
        return Decimal(4)

    budget = Budget(10, tag="a", spent=told, clock=clock)
    assert budget.spent == 4
    budget.charge(1.0)
    assert budget.spent == 5
    assert asked == [(NOON - 43200, "a")]
    clock.at += PATIENCE
    assert budget.spent == 4
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("told", "spent"), [(4.5, "5.5"), (4, 5), (None, 1), ("rubbish", 1), (float("nan"), 1), (Decimal("Infinity"), 1)]
)
def test_a_function_of_the_users_own_breaks_no_request(told: Any, spent: Any) -> None:
    """A float is an amount as well, and what is none leaves the budget to what this process spends."""
    budget = Budget(10, spent=lambda *_: told, clock=(clock := Clock()))
    budget.reserve(1.0)
    budget.thrift()

    assert budget.spent == 1 if spent == 1 else Decimal(str(told)) + 1
    clock.at += PATIENCE
    assert budget.spent == max(1, Decimal(spent) - 1)


def test_a_clock_that_is_set_back_asks_the_ledger_again() -> None:
    """What others spend counts also while the clock runs through an hour for the second time."""
    clock, told = Clock(), [Decimal(1)]
    budget = Budget(10, spent=lambda *_: told[0], clock=clock)
    assert budget.spent == 1
    told[0] = Decimal(9)
    clock.at -= 3600

    assert budget.spent == 9


def test_a_ledger_that_fails_leaves_the_own_count() -> None:
    """A budget whose ledger cannot be read holds by what this process spends."""

    def broken(since: float, tag: str | None) -> Decimal:
        raise OSError

    budget = Budget(1, spent=broken, clock=Clock())
    budget.reserve(0.9)
    with pytest.raises(BudgetExceededError):
        budget.reserve(0.2)


@pytest.mark.parametrize(
    "given",
    [
        *[{"usd": 0}, {"usd": -1}, {"usd": "nan"}, {"usd": float("inf")}],
        *[{"usd": "$5"}, {"usd": ""}, {"usd": None}, {"usd": True}, {"usd": []}],
        *[{"usd": 1, "per": "year"}, {"usd": 1, "per": None}, {"usd": 1, "per": ["day"]}],
        *[{"usd": 1, "tag": 5}, {"usd": 1, "tag": ["search"]}],
        {"usd": 1, "spent": Decimal(0)},
    ],
    ids=str,
)
def test_a_budget_that_is_none(given: Any) -> None:
    """What is no amount above 0, no span, no tag or no function is refused at once, in a sentence."""
    with pytest.raises((TypeError, ValueError), match="a budget is"):
        Budget(**given)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_an_allowance_holds_a_share(share: float) -> None:
    """Where a strong call is made whenever thrift leaves it, no more than the share is made, and hardly less."""
    allowance, strong, n = Allowance(share, strong=1.0), 0, 2000
    for k in range(n):
        allowance.request()
        gain = (k * 0.618) % 1.0
        if gain > allowance.thrift():
            allowance.charge(1.0)
            strong += 1

    assert share * 0.95 - 0.01 < strong / n <= share + 1 / n


def test_an_allowance_that_is_not_needed_does_not_bind() -> None:
    """Below the limit nothing is to be saved."""
    allowance = Allowance(0.5, strong=1.0)
    for _ in range(20):
        allowance.request()

    assert allowance.thrift() == 0.0
