"""What requests cost on each tier."""

from decimal import Decimal
from typing import Any

import pytest

from llm_costopt.router.costs import CACHED_FOR, Costs, Previous, Rates, rates_of
from llm_costopt.types import Message, Question, Usage

CHEAP = Rates(input=1e-6, cached=0.1e-6, output=4e-6)
STRONG = Rates(input=10e-6, cached=1e-6, output=40e-6)


def conversation(characters: int) -> Question:
    """Make a conversation whose first turns have so many characters."""
    return Question(
        messages=(
            Message(role="human", text="x" * characters),
            Message(role="ai", text="y" * 400),
            Message(role="human", text="z" * 400),
        )
    )


def test_costs_follow_the_length() -> None:
    """Twice as much text costs twice as much input, and the usual answer comes on top."""
    costs = Costs([CHEAP, STRONG])
    short, long = (costs.of(Question(messages=(Message(role="human", text="x" * n),))) for n in (4000, 8000))

    assert short == pytest.approx((1000e-6 + 300 * 4e-6, 10 * 1000e-6 + 300 * 40e-6))
    assert long is not None
    assert long[0] - short[0] == pytest.approx(1000e-6)  # type: ignore[index]


def test_the_tier_that_answered_last_is_cheaper() -> None:
    """What the provider still has in its cache is priced so on the tier of the turn before, and nowhere else."""
    costs, question = Costs([CHEAP, STRONG]), conversation(8000)
    fresh, warm = costs.of(question), costs.of(question, previous=Previous(tier=1, age=10))

    assert fresh is not None
    assert warm is not None
    assert warm[0] == fresh[0]
    assert fresh[1] - warm[1] == pytest.approx(2000 * 9e-6)


@pytest.mark.parametrize(("characters", "age"), [(2000, 10), (8000, CACHED_FOR + 1)])
def test_what_is_short_or_old_is_not_in_the_cache(characters: int, age: float) -> None:
    """Below 1,024 tokens, and after five minutes, the turns before cost what they always cost."""
    costs, question = Costs([CHEAP, STRONG]), conversation(characters)

    assert costs.of(question, previous=Previous(tier=1, age=age)) == costs.of(question)


def test_answers_are_as_long_as_they_were() -> None:
    """The expected length follows the answers that were seen, and never exceeds what the caller allows."""
    costs = Costs([CHEAP])
    question = Question(messages=(Message(role="human", text=""),))
    for _ in range(200):
        costs.wrote(0, 1000)

    assert costs.of(question) == pytest.approx((1000 * 4e-6,), rel=0.01)
    assert costs.of(question, max_tokens=10) == pytest.approx((10 * 4e-6,))


def test_an_unknown_price_is_not_zero() -> None:
    """If the price of one tier is unknown, nothing is said at all."""
    costs = Costs([CHEAP, None])

    assert not costs.known
    assert costs.of(conversation(10)) is None
    assert costs.usual() is None


def test_rates_are_read_off_a_price_list() -> None:
    """Three questions to the list give the rates; without a price for cached tokens they cost as much as others."""

    def price(model: str, usage: Usage, *, provider: str | None) -> Decimal | None:
        if usage.cache_read_tokens:
            return None if model == "plain" else Decimal("0.0001")
        return Decimal("0.001") * usage.input_tokens / 1000 + Decimal("0.002") * usage.output_tokens / 1000

    rates = rates_of(price, "m", "p")
    assert rates is not None
    assert (rates.input, rates.cached, rates.output) == pytest.approx((1e-6, 1e-7, 2e-6))
    assert rates_of(price, "plain", "p") == Rates(input=1e-6, cached=1e-6, output=2e-6)
    assert rates_of(price, None, "p") is None


def test_a_price_list_that_raises_knows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A broken list costs a warning."""

    def broken(*_: Any, **__: Any) -> Decimal:
        raise ZeroDivisionError

    assert rates_of(broken, "m", None) is None
    assert "price list failed" in caplog.text
