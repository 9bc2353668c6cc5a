"""What an answer cost and saved, with prices that can be added up in the head."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_costopt.account import account
from llm_costopt.monitor.prices import Prices
from llm_costopt.types import CacheKind, Saved, Usage

PRICES = Prices()
USAGE = Usage(input_tokens=1, output_tokens=0)
LIST = {"cheap": Decimal(2), "strong": Decimal(10)}


def price(model: str, usage: Usage, *, provider: str | None = None, batch: bool = False) -> Decimal | None:
    """Half price in batches; the provider "dear" doubles everything; "picky" sells the cheap model only."""
    if provider == "picky" and model != "cheap":
        return None
    listed = LIST.get(model)
    if listed is None:
        return None
    return listed * (2 if provider == "dear" else 1) / (2 if batch else 1)


def usd(amount: int | None) -> Decimal | None:
    """Write a whole amount, or an unknown one."""
    return None if amount is None else Decimal(amount)


@pytest.mark.parametrize(
    ("model", "options", "cost", "saved"),
    [
        ("cheap", {}, 2, Saved()),
        ("cheap", {"baseline": "cheap"}, 2, Saved()),
        ("cheap", {"baseline": "strong"}, 2, Saved(router=Decimal(8))),
        ("strong", {"baseline": "strong"}, 10, Saved()),
        ("strong", {"baseline": "cheap"}, 10, Saved(router=Decimal(-8))),
        ("cheap", {"batch": True}, 1, Saved(batch=Decimal(1))),
        ("cheap", {"batch": True, "baseline": "strong"}, 1, Saved(router=Decimal(8), batch=Decimal(1))),
        ("cheap", {"cache": "exact"}, 0, Saved(cache=Decimal(2))),
        ("cheap", {"cache": "semantic", "baseline": "strong"}, 0, Saved(cache=Decimal(10))),
        ("new", {"baseline": "strong"}, None, None),
        ("cheap", {"baseline": "new"}, 2, None),
        ("cheap", {"batch": True, "baseline": "new"}, 1, None),
        ("new", {"cache": "exact"}, 0, None),
        ("new", {"cache": "exact", "baseline": "strong"}, 0, Saved(cache=Decimal(10))),
        (None, {"baseline": "strong"}, None, None),
        (None, {"cache": "exact", "baseline": "strong"}, 0, Saved(cache=Decimal(10))),
    ],
)
def test_each_cause_gets_its_own_saving(
    model: str | None, options: dict[str, Any], cost: int | None, saved: Saved | None
) -> None:
    """A cause saves against the baseline or else the model itself, and the unknown stays unknown."""
    found = account(price, model=model, usage=USAGE, **options)

    assert found == (usd(cost), saved)


@pytest.mark.parametrize(("cache", "cost"), [(None, None), ("exact", 0)])
def test_without_usage_nothing_is_known_but_that_a_hit_is_free(cache: CacheKind | None, cost: int | None) -> None:
    """Tokens that nobody reported have no price; a hit costs nothing all the same."""
    found = account(price, model="cheap", usage=None, cache=cache, baseline="strong")

    assert found == (usd(cost), None)


def test_the_baseline_is_priced_as_the_same_provider_sells_it() -> None:
    """A dearer seller makes both models dearer, so that the strong model itself saves nothing."""
    found = account(price, model="cheap", provider="dear", usage=USAGE, baseline="strong")

    assert found == (Decimal(4), Saved(router=Decimal(16)))


def test_a_baseline_of_another_provider_is_priced_there() -> None:
    """Where the call's provider does not sell the baseline, its own provider's price counts."""
    found = account(price, model="cheap", provider="picky", usage=USAGE, baseline="strong")

    assert found == (Decimal(2), Saved(router=Decimal(8)))


READ = Usage(input_tokens=1_000_000, output_tokens=100_000, cache_read_tokens=800_000)
WRITTEN = Usage(input_tokens=1000, output_tokens=10, cache_write_tokens=900)


@pytest.mark.parametrize(
    ("options", "cost", "saved"),
    [
        ({"model": "gpt-4o-mini"}, "0.15", Saved(prompt_cache=Decimal("0.06"))),
        (
            {"model": "gpt-4o-mini", "baseline": "gpt-4o"},
            "0.15",
            Saved(router=Decimal("2.35"), prompt_cache=Decimal(1)),
        ),
        (
            {"model": "gpt-4o-mini", "baseline": "gpt-4o", "batch": True},
            "0.105",  # in a batch of OpenAI's, what is read from the cache costs what all input costs there
            Saved(router=Decimal("2.35"), batch=Decimal("0.045"), prompt_cache=Decimal(1)),
        ),
        ({"model": "gpt-4o-mini", "cache": "exact"}, "0", Saved(cache=Decimal("0.15"))),
        ({"model": "gpt-4o-mini", "baseline": "new"}, "0.15", None),
    ],
    ids=["alone", "with the router", "with router and batch", "none in a hit", "unknown"],
)
def test_what_the_prompt_cache_saves_is_apart(options: dict[str, Any], cost: str, saved: Saved | None) -> None:
    """With the list's prices, tokens from the provider's cache save the difference to the input price, once, and it is no part of ours."""
    found = account(Prices(), provider="openai", usage=READ, **options)

    assert found == (Decimal(cost), saved)


def test_tokens_that_are_written_to_the_prompt_cache_cost_more() -> None:
    """Anthropic charges a quarter more for what it stores for minutes and twice as much for an hour, against which later reads are held."""
    hour = replace(WRITTEN, cache_write_1h_tokens=900)
    found = [account(Prices(), model="claude-sonnet-4-5", usage=usage)[1] for usage in (WRITTEN, hour)]

    assert found == [
        Saved(prompt_cache=Decimal("-0.000675")),  # 900 tokens at 3.75 instead of 3 dollars a million
        Saved(prompt_cache=Decimal("-0.0027")),  # and at 6
    ]


MODELS = st.sampled_from(["gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "claude-haiku-4-5", "gemini-2.5-flash"])


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Draw tokens whose parts fit into their whole."""
    fresh, read, written, output = (draw(st.integers(0, 2_000_000)) for _ in range(4))
    return Usage(
        input_tokens=fresh + read + written, output_tokens=output, cache_read_tokens=read, cache_write_tokens=written
    )


@given(MODELS, st.none() | MODELS, st.booleans(), usages())
@settings(deadline=None, max_examples=60)
def test_the_causes_add_up(model: str, baseline: str | None, batch: bool, usage: Usage) -> None:
    """Whatever the models and the tokens, the four causes are the list price of the baseline without prompt cache less the cost."""
    cost, saved = account(PRICES, model=model, usage=usage, baseline=baseline, batch=batch)
    plain = PRICES(baseline or model, Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens))

    assert cost is not None
    assert saved is not None
    assert plain is not None
    assert saved.total + saved.prompt_cache == plain - cost


def test_a_prompt_cache_whose_effect_is_unknown_saves_nothing() -> None:
    """If only the tokens as they were have a price, the other causes stand, and the prompt cache is credited with nothing."""

    def guarded(model: str, usage: Usage, **_: Any) -> Decimal | None:
        return Decimal(2) if usage.cache_read_tokens else None

    assert account(guarded, model="cheap", usage=READ) == (Decimal(2), Saved())


@pytest.mark.parametrize("said", [0.01, "0.01", Decimal("nan"), Decimal("inf"), Decimal(-1)])
def test_a_price_that_is_no_amount_is_refused(said: Any) -> None:
    """What a price list of the user's own says wrongly gets into no sum."""
    with pytest.raises(TypeError, match="Decimal of 0 or more"):
        account(lambda *_, **__: said, model="cheap", usage=USAGE)
