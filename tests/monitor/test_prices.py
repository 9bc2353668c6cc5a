"""What a call costs, and that an unknown price is None and never 0. Amounts are in US dollars."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, cast

import pytest
from genai_prices.data_snapshot import DataSnapshot, set_custom_snapshot

from llm_costopt.monitor.prices import Amount, Prices
from llm_costopt.types import Usage

MILLION = 1_000_000


def tokens(input_tokens: int = 0, output_tokens: int = 0, **parts: Any) -> Usage:
    """Count the tokens of one call."""
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens, **parts)


@pytest.fixture
def broken_list() -> Iterator[None]:
    """Let genai-prices stumble over its own list."""
    set_custom_snapshot(DataSnapshot(providers=cast("list[Any]", None), from_auto_update=False))
    yield
    set_custom_snapshot(None)


@pytest.mark.parametrize(
    ("model", "provider", "paid_in", "paid_out"),
    [
        ("gpt-4o", "openai", "2.5", "10"),
        ("gpt-4o-mini", "openai", "0.15", "0.6"),
        ("gpt-4o-mini-2024-07-18", "openai", "0.15", "0.6"),
        ("gpt-4o-2024-05-13", "openai", "5", "15"),
        ("gpt-4o-mini", "genericfakechatmodel", "0.15", "0.6"),
        ("GPT-4o-mini", None, "0.15", "0.6"),
        ("openai/gpt-4o-mini", None, "0.15", "0.6"),
        ("openai:gpt-4o-mini", None, "0.15", "0.6"),
        ("openai/gpt-4o-mini", "openrouter", "0.15", "0.6"),
        ("anthropic/claude-haiku-4-5", "openai", "1", "5"),
        ("claude-haiku-4-5-20251001", "anthropic", "1", "5"),
        ("bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0", None, "3", "15"),
        ("models/gemini-2.5-flash", "google_genai", "0.30", "2.5"),
        ("groq/openai/gpt-oss-120b", None, "0.15", "0.6"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", "openai", "0.3", "1.2"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", None, "0.3", "1.2"),
        ("gpt-4o", "azure", "2.5", "10"),
    ],
)
def test_prices_a_model_under_the_names_that_hosts_use(
    model: str, provider: str | None, paid_in: str, paid_out: str
) -> None:
    """A million tokens cost the list price, with provider prefix, date and fine-tuning in the name."""
    price = Prices()

    assert price(model, tokens(MILLION), provider=provider) == Decimal(paid_in)
    assert price(model, tokens(output_tokens=MILLION), provider=provider) == Decimal(paid_out)


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("nope", None),
        ("nope", "openai"),
        ("nope", "nobody"),
        ("claude-haiku-4-5", "openai"),  # not what OpenAI sells, so some other server answered
        ("", None),
        ("openai/", None),
        ("gpt-4o-2030-01-01", "openai"),  # snapshots have had prices of their own
        ("ft:gpt-4o-turbo-2030:org::id", "openai"),  # never that of the base model
        ("deepseek-r1:8b", "ollama"),  # DeepSeek has a price for deepseek-r1; one's own machine has none
        ("whisper-1", "openai"),  # listed, but by the minute
        ("gemma-3", "google"),  # listed without any price
    ],
)
def test_an_unknown_price_is_none(model: str, provider: str | None) -> None:
    """A model without a price per token has no price, rather than that of a relative or 0."""
    assert Prices()(model, tokens(1000, 100), provider=provider) is None


def test_a_free_model_costs_nothing() -> None:
    """A model that says that it is free costs 0, which is known."""
    assert Prices()("deepseek/deepseek-r1:free", tokens(1000, 100), provider="openrouter") == 0


def test_cached_tokens_are_part_of_the_input() -> None:
    """Of 1000 tokens read, the 500 cached ones cost half, and the others are not counted twice."""
    cost = Prices()("gpt-4o-mini", tokens(1000, 100, cache_read_tokens=500), provider="openai")

    assert cost == Decimal("0.0001725")


def test_tokens_written_to_the_providers_cache_cost_more() -> None:
    """Anthropic charges 1.25 times the input price for what it writes to its cache, and twice if it is kept for an hour."""
    price = Prices()
    written = tokens(1000, 0, cache_write_tokens=1000)
    some_for_an_hour = tokens(1000, 0, cache_write_tokens=1000, cache_write_1h_tokens=400)

    assert price("claude-sonnet-4-5", written, provider="anthropic") == Decimal("0.00375")
    assert price("claude-sonnet-4-5", some_for_an_hour, provider="anthropic") == Decimal("0.00465")


def test_reasoning_is_part_of_the_output() -> None:
    """Hidden reasoning is paid once, as output."""
    price = Prices()

    assert price("gpt-5", tokens(0, 100, reasoning_tokens=60)) == price("gpt-5", tokens(0, 100)) == Decimal("0.001")


def test_a_long_prompt_costs_the_price_of_its_tier() -> None:
    """Above 200,000 tokens, all of a prompt to this model costs double."""
    price = Prices()

    assert price("claude-sonnet-4-5", tokens(200_000)) == Decimal("0.6")
    assert price("claude-sonnet-4-5", tokens(400_000)) == Decimal("2.4")


def test_audio_has_its_own_price() -> None:
    """Audio costs more than text where the list says so."""
    price = Prices()
    heard = tokens(1000, 0, input_audio_tokens=1000)

    assert price("gpt-audio", heard) == Decimal("0.032")
    assert price("gpt-audio", tokens(1000)) == Decimal("0.0025")


def test_audio_without_an_audio_price_is_unknown() -> None:
    """A list that only has this model's text price does not know what audio costs."""
    price = Prices()

    assert price("gpt-4o-audio-preview", tokens(1000, 0, input_audio_tokens=1)) is None
    assert price("gpt-4o-audio-preview", tokens(0, 1000, output_audio_tokens=1)) is None
    assert price("gpt-4o-audio-preview", tokens(1000, 0)) == Decimal("0.0025")


def test_google_charges_audio_as_text_where_it_lists_no_audio_price() -> None:
    """Gemini Pro has one input price for all kinds of input."""
    assert Prices()("gemini-2.5-pro", tokens(1000, 0, input_audio_tokens=1000)) == Decimal("0.00125")


@pytest.mark.parametrize(
    "usage",
    [
        tokens(10, 1, cache_read_tokens=11),
        tokens(10, 1, cache_read_tokens=6, cache_write_tokens=5),
        tokens(10, 1, reasoning_tokens=2),
        tokens(10, 1, input_audio_tokens=11),
        tokens(10, 1, output_audio_tokens=2),
        tokens(-1, 1),
    ],
)
def test_tokens_that_contradict_each_other_have_no_price(usage: Usage) -> None:
    """Where a part is larger than its whole, somebody counted another way, and the cost is unknown."""
    assert Prices()("gpt-4o-mini", usage) is None
    assert Prices({"gpt-4o-mini": ("1", "1")})("gpt-4o-mini", usage) is None


@pytest.mark.parametrize(
    ("model", "provider", "usage", "usd", "source"),
    [
        ("gpt-4o-mini", "openai", tokens(MILLION), "0.075", "batch"),
        ("claude-haiku-4-5", "anthropic", tokens(MILLION), "0.5", "batch"),
        ("claude-haiku-4-5", "anthropic", tokens(MILLION, 0, cache_read_tokens=MILLION), "0.05", "batch"),
        # OpenAI gives no discount on this model's cached tokens: the total is that of the list, and right.
        ("gpt-4o-mini", "openai", tokens(MILLION, 0, cache_read_tokens=MILLION), "0.075", "batch"),
        ("text-embedding-3-small", "openai", tokens(MILLION), "0.01", "assumed_batch_discount"),
        ("gpt-4o", "azure", tokens(MILLION), "1.25", "assumed_batch_discount"),
        ("claude-sonnet-4-20250514", "anthropic", tokens(100_000), "0.15", "assumed_batch_discount"),
        ("grok-4", "xai", tokens(MILLION), "3", "list"),  # no batch price, and no promise of half
    ],
)
def test_a_batch_costs_what_the_provider_promises(
    model: str, provider: str, usage: Usage, usd: str, source: str
) -> None:
    """The list's batch price counts; without one, half where the provider documents half; else the full price."""
    quote = Prices().quote(model, usage, provider=provider, batch=True)

    assert quote is not None
    assert (quote.usd, quote.source) == (Decimal(usd), source)


@pytest.mark.parametrize("amounts", [("2", "8"), (Decimal(2), Decimal(8)), (2.0, 8.0), [2, 8]])
def test_an_override_wins(amounts: tuple[Amount, ...]) -> None:
    """The user's price counts, whatever number type it is written in, and says that it does."""
    quote = Prices({"gpt-4o": amounts}).quote("gpt-4o", tokens(MILLION, MILLION), provider="openai")

    assert quote is not None
    assert (quote.usd, quote.source) == (Decimal(10), "override")


@pytest.mark.parametrize(
    "model",
    [
        "mine",
        "Mine",
        "acme/mine",
        "mine-2026-01-31",
        "mine@20260131",
        "ft:mine-2026-01-31:org::id",
        "acme/mine-20260131",
    ],
)
def test_an_override_holds_for_all_names_of_a_model(model: str) -> None:
    """A price for `mine` is also that of its snapshots, its fine-tuned children and its name at a provider."""
    price = Prices({"MINE": ("1", "1"), "ft:mine": ("1", "1")})

    assert price(model, tokens(MILLION)) == 1


def test_an_override_is_not_the_price_of_a_fine_tuned_model() -> None:
    """A price for the base model is not that of its fine-tuned children, which cost more."""
    assert Prices({"mine": ("1", "1")})("ft:mine:org::id", tokens(MILLION)) is None


def test_an_override_may_price_cached_input() -> None:
    """The third amount is for cached input; without it, cached input costs as any input."""
    usage = tokens(MILLION, 0, cache_read_tokens=MILLION // 2)

    assert Prices({"mine": ("1", "1", "0.1")})("mine", usage) == Decimal("0.55")
    assert Prices({"mine": ("1", "1")})("mine", usage) == 1


def test_an_override_is_halved_in_a_batch_where_the_provider_documents_it() -> None:
    """Batches halve the user's price at OpenAI, and leave it alone at a provider that promises nothing."""
    price = Prices({"mine": ("1", "1")})

    assert price("mine", tokens(MILLION), provider="openai", batch=True) == Decimal("0.5")
    assert price("mine", tokens(MILLION), provider="nobody", batch=True) == 1
    assert price("mine", tokens(MILLION), batch=True) == 1


@pytest.mark.parametrize("overrides", ["gpt-4o", ["gpt-4o"], 3, {4: ("1", "2")}, {None: ("1", "2")}])
def test_overrides_that_name_no_model_are_refused_at_once(overrides: Any) -> None:
    """What is no mapping of models by their names is refused with an example of one."""
    with pytest.raises(TypeError, match=r"by the model's name, such as Prices\(\{'my-model': \(0\.15, 0\.60\)\}\)"):
        Prices(overrides)


@pytest.mark.parametrize("amounts", [(), ("1",), ("1", "2", "3", "4"), ("1", "-1"), ("1", "x"), ("1", "nan"), "15", 3])
def test_a_wrong_override_is_refused_at_once(amounts: Any) -> None:
    """A price that cannot be one is named when it is given, not when it is used."""
    with pytest.raises(ValueError, match=r"'mine' must be \(input, output\) or"):
        Prices({"mine": amounts})


@pytest.mark.usefixtures("broken_list")
def test_a_broken_price_list_is_none_and_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A failure inside the price library never reaches the caller and is logged once for each model."""
    price = Prices()

    with caplog.at_level(logging.WARNING):
        found = [price("gpt-4o", tokens(1)), price("gpt-4o", tokens(1)), price("gpt-4o", tokens(1), batch=True)]

    assert found == [None, None, None]
    assert [record.getMessage() for record in caplog.records] == ["No price for 'gpt-4o': the price list failed"]


def test_the_list_is_loaded_on_first_use() -> None:
    """Importing the module and making a `Prices` leaves genai-prices and pydantic alone."""
    code = (
        "import sys; from llm_costopt.monitor.prices import Prices; Prices({'m': ('1', '1')});"
        "sys.exit(any(m in sys.modules for m in ('genai_prices', 'pydantic')))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
