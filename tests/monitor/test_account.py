"""What an answer cost and saved, with prices that can be added up in the head."""

from decimal import Decimal
from typing import Any

import pytest

from llm_costopt.monitor.account import account
from llm_costopt.types import CacheKind, Saved, Usage

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
