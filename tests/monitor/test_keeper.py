"""What both hosts' monitors do with a record."""

import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from llm_costopt.monitor.keeper import Keeper
from llm_costopt.types import CallRecord, Saved, Usage


def test_a_call_is_priced_when_it_is_recorded() -> None:
    """A price that changes later changes nothing of what was kept."""
    dollars = [Decimal(1)]

    def price(model: str, usage: Usage, **_: Any) -> Decimal:
        return dollars[0] * usage.input_tokens

    keeper = Keeper(prices=price, clock=lambda: 0.0)
    call = CallRecord(id="a", at=0.0, model="m", cost=None, usage=Usage(input_tokens=2, output_tokens=0))
    keeper.keep(call, None)
    dollars[0] = Decimal(100)
    keeper.keep(replace(call, id="b"), None)

    assert [r.cost for r in keeper.records()] == [Decimal(2), Decimal(200)]
    assert keeper.summary().cost_usd == Decimal(202)


def test_all_causes_reach_the_summary_and_the_totals() -> None:
    """A routed call in a batch with a prompt cache saves by three causes, of which the provider's own is no part of our total."""

    def price(model: str, usage: Usage, *, batch: bool = False, **_: Any) -> Decimal:
        tokens = usage.input_tokens - Decimal("0.5") * usage.cache_read_tokens
        return (10 if model == "strong" else 1) * tokens / (2 if batch else 1)

    keeper = Keeper(baseline="strong", prices=price, clock=lambda: 0.0)
    usage = Usage(input_tokens=4, output_tokens=0, cache_read_tokens=2)
    keeper.keep(CallRecord(id="a", at=0.0, model="cheap", cost=None, usage=usage, batch=True, endpoint="/ask"), None)
    summary, (total,) = keeper.summary(), keeper.ledger.totals("endpoint")
    saved = Saved(router=Decimal(27), batch=Decimal("1.5"), prompt_cache=Decimal(10))

    assert (summary.cost_usd, summary.saved, summary.saved_usd) == (Decimal("1.5"), saved, Decimal("28.5"))
    assert (total.saved, total.saved_usd) == (saved, Decimal("28.5"))
    assert (
        summary.cost_usd + summary.saved_usd + summary.saved.prompt_cache == 40
    )  # four fresh tokens of the strong model


@pytest.mark.parametrize("said", [0.01, Decimal("nan"), Decimal(-1)])
def test_a_price_that_is_no_amount_leaves_a_call_unpriced(said: Any) -> None:
    """The call is kept, and counted among those whose cost is unknown."""
    keeper = Keeper(prices=lambda *_, **__: said)
    usage = Usage(input_tokens=1, output_tokens=1)
    keeper.keep(CallRecord(id="a", at=time.time(), model="cheap", usage=usage, cost=None), None)
    summary = keeper.summary()

    assert (summary.calls, summary.unpriced, keeper.failures) == (1, 1, 1)
    assert summary.cost_usd == 0


@pytest.mark.parametrize("name", ["prices", "on_record", "clock", "redact"])
def test_what_should_be_called_is_tried_at_once(name: str) -> None:
    """A table of prices or a list of listeners would fail at every call, and only be counted."""
    wrong: dict[str, Any] = {name: {"cheap": (1, 2)}}
    with pytest.raises(TypeError, match=f"{name} is a function"):
        Keeper(**wrong)


@pytest.mark.parametrize("name", ["baseline", "hash_key"])
def test_what_should_be_a_text_is_tried_at_once(name: str) -> None:
    """A model in place of its name would leave every saving unknown."""
    wrong: dict[str, Any] = {name: b"gpt-4o"}
    with pytest.raises(TypeError, match=f"{name} is a text, not bytes"):
        Keeper(**wrong)
