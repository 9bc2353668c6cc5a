"""What a month costs, step by step."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_costopt.monitor.estimate import Estimate, Span, estimate
from llm_costopt.monitor.prices import Prices

PRICES = Prices({"big": ("2.50", "10.00", "1.25"), "small": ("0.15", "0.60", "0.075")})


def month(**options: Any) -> Estimate:
    """Estimate the document's 200,000 requests a day with given prices."""
    said = {"requests_per_day": 200_000, "input_tokens": 300, "output_tokens": 150, "strong": "big", "cheap": "small"}
    return estimate(**{**said, "prices": PRICES, "batch_discount": "50%", **options})


def dollars(found: Estimate) -> dict[str, Decimal]:
    """Give the dollars after each step of an estimate without ranges."""
    assert all(step.usd.low == step.usd.high for step in found.steps)
    return {step.name: step.usd.low for step in found.steps}


def test_the_parts_work_on_what_the_parts_before_have_left() -> None:
    """30 % hits, 60 % routed cheap at 6 % of the price, and half off for 70 % of what is then paid."""
    found = month(cache_hits=0.3, routed_cheap=0.6, batched=0.7)

    assert dollars(found) == {
        "baseline": Decimal(13_500),
        "cache": Decimal(9_450),
        "router": Decimal("4120.20"),
        "batch": Decimal("2678.13"),
    }
    assert [step.saved_usd.low for step in found.steps] == [0, 4050, Decimal("5329.80"), Decimal("1442.07")]
    assert found.saved_share == Span(low=Decimal("0.80162"), high=Decimal("0.80162"))


def test_a_rejected_draft_is_paid_for() -> None:
    """Of 75 / 10 / 15 the cheap model is paid for 85 % and the strong one for 25 %."""
    assert dollars(month(routed_cheap=0.75, escalated=0.10))["router"] == 13_500 * (
        Decimal("0.85") * Decimal("0.06") + Decimal("0.25")
    )


def test_the_providers_prompt_cache_comes_first_and_halves_the_cached_input() -> None:
    """300 tokens at $2.50 are a third of a request; with 80 % of them at half price 4/30 of the baseline go."""
    found = month(prompt_cached="80%", cache_hits=0.5)

    assert [step.name for step in found.steps] == ["baseline", "prompt cache", "cache"]
    assert dollars(found)["prompt cache"] == Decimal(6_000_000) * Decimal("0.00195")
    assert dollars(found)["cache"] == Decimal(3_000_000) * Decimal("0.00195")


def test_every_look_up_costs_even_one_that_misses() -> None:
    """6 million look-ups at a hundred-thousandth of a dollar are $60, hits or no hits."""
    assert dollars(month(lookup_usd="0.00001", cache_hits=0.3))["cache"] == 9_450 + 60
    assert dollars(month(lookup_usd="0.00001"))["cache"] == 13_500 + 60


def test_listed_models_have_their_own_batch_prices() -> None:
    """What the price list says of batches is taken, for each of the two models."""
    found = estimate(requests_per_day=1000, input_tokens=300, output_tokens=150, routed_cheap=0.5, batched=1)

    assert dollars(found)["batch"] == dollars(found)["router"] / 2
    assert found.notes == ()


def test_a_batch_price_that_nobody_knows_is_no_discount_and_is_said() -> None:
    """Given prices say nothing of batches; the notes tell what to give."""
    found = month(batched=0.5, batch_discount=None)

    assert found.steps[-1].name == "baseline"
    assert found.notes[0] == "no batch price of big is known, so that none is counted; batch_discount= says what it is"
    assert month(batch_discount=None).notes == ()


def test_a_range_gives_both_ends() -> None:
    """The best end takes most hits and fewest escalations, the worst the other way round."""
    found = month(cache_hits="20%..40%", routed_cheap=0.6, escalated="0..0.1")
    best, worst = month(cache_hits=0.4, routed_cheap=0.6), month(cache_hits=0.2, routed_cheap=0.6, escalated=0.1)

    assert found.usd == Span(low=best.usd.low, high=worst.usd.high)
    assert found.saved_share == Span(low=worst.saved_share.low, high=best.saved_share.high)


rates = st.decimals(0, 1, places=3)


@given(
    rates=st.fixed_dictionaries(dict.fromkeys(("prompt_cached", "cache_hits", "routed_cheap", "batched"), rates)),
    escalated=rates,
    more=rates,
    which=st.sampled_from(["prompt_cached", "cache_hits", "routed_cheap", "batched"]),
)
def test_more_of_anything_never_costs_more(
    rates: dict[str, Decimal], escalated: Decimal, more: Decimal, which: str
) -> None:
    """The month falls with each rate, is never negative, and rises with escalations."""
    escalated *= 1 - rates["routed_cheap"]
    raised = {**rates, which: max(rates[which], more)}
    raised["routed_cheap"] = min(raised["routed_cheap"], 1 - escalated)
    usd = month(**rates, escalated=escalated).usd.low

    assert 0 <= month(**raised, escalated=escalated).usd.low <= usd
    assert month(**rates).usd.low <= usd


@given(requests=st.integers(0, 10**9), read=st.integers(0, 10**6), written=st.integers(0, 10**5))
def test_without_rates_there_is_the_baseline_alone(requests: int, read: int, written: int) -> None:
    """With all rates at 0 the month costs requests times tokens times prices, and nothing is saved."""
    found = month(requests_per_day=requests, input_tokens=read, output_tokens=written)

    assert dollars(found) == {"baseline": 30 * requests * (read * Decimal("2.5") + written * 10) / 10**6}
    assert found.saved_share == Span(low=Decimal(0), high=Decimal(0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cache_hits": 1.5}, "cache_hits is a share from 0 to 1, or a range such as 0.2..0.4 or 20%..40%, not 1.5"),
        ({"cache_hits": "40%..20%"}, "cache_hits is a share"),
        ({"batched": "nan"}, "batched is a share"),
        ({"escalated": "half"}, "escalated is a share"),
        ({"routed_cheap": 0.8, "escalated": 0.3}, "routed_cheap and escalated are shares of the same requests"),
        ({"requests_per_day": -1}, "requests_per_day is a number of 0 or more, not -1"),
        ({"requests_per_day": float("inf")}, "requests_per_day is a number"),
        ({"lookup_usd": "free"}, "lookup_usd is a number"),
        ({"input_tokens": -1}, "input_tokens is a whole number of tokens, 0 or more, not -1"),
        ({"output_tokens": 1.5}, "output_tokens is a whole number"),
        ({"strong": "nobody/knows"}, "the price of 'nobody/knows' is unknown: give"),
        ({"cheap": "big", "routed_cheap": 0.3}, "routed_cheap is the share that a cheaper model than 'big' answers"),
        ({"strong": "small", "cheap": "big"}, "'big' costs more than 'small' for these tokens"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(options: dict[str, Any], says: str) -> None:
    """Each wrong argument is named with what it should be."""
    with pytest.raises(ValueError, match="^" + says.replace(".", r"\.")) as raised:
        month(**options)

    assert "\n" not in str(raised.value)
