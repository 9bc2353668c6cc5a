"""What a call costs: genai-prices behind guards, and prices of the user's own before it."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal

from llm_costopt.types import Usage

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation

log = logging.getLogger(__name__)

Amount = Decimal | str | float
"""A price as people write it; a float means the decimal number that Python prints for it."""

Source = Literal["override", "list", "batch", "assumed_batch_discount"]
"""Which price was taken: the user's, the list's, the list's for batches, or half of a price without one for batches."""

_MILLION = Decimal(1_000_000)

_HALF_IN_BATCH = frozenset({"anthropic", "azure", "google", "groq", "mistral", "openai"})
"""Providers that document half price for batches.

Wherever genai-prices 0.2.3 has batch prices of theirs, input and output cost exactly half (x-ai: 0.8).
It has none for Azure, whose models it borrows from OpenAI without them.
"""

_SELF_HOSTED = ("ollama", "llamacpp", "llamafile", "vllm", "lmstudio", "huggingface")
"""Hosts of one's own: `deepseek-r1:8b` under Ollama would get the price of DeepSeek's API."""

_DATE = re.compile(r"[-@]20\d\d-?[01]\d-?[0-3]\d$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A price and where it came from."""

    usd: Decimal
    """US dollars for the whole call."""
    source: Source
    """Which price was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rates:
    input: Decimal
    output: Decimal
    cached_input: Decimal


class Prices:
    """Say what a call costs, offline, from the list that genai-prices brings along.

    The list is loaded on first use (0.2 s). A price then takes about 130 µs and one for a batch 280 µs, all of it
    in genai-prices' check of the units: finding a model again takes it 0.3 µs. A model that it does not know takes
    100 to 190 µs, an override 4 µs. Prices are those of today: price a call when it ends, and keep the amount.

    Args:
        overrides: US dollars per million tokens by model: `(input, output)` or `(input, output, cached input)`.
            A name also stands for its dated snapshots and for `provider/name`, and wins over the list. Tokens that are
            written to a prompt cache, and those of audio, then cost what input and output cost.

    Raises:
        TypeError: *overrides* is no mapping of models by their names.
        ValueError: an override is not two or three amounts of at least 0.
    """

    def __init__(self, overrides: Mapping[str, Sequence[Amount]] | None = None) -> None:
        given: Any = {} if overrides is None else overrides
        if not (isinstance(given, Mapping) and all(isinstance(model, str) for model in given)):
            raise TypeError(
                "prices are given by the model's name, such as Prices({'my-model': (0.15, 0.60)}) in US dollars per "
                f"million tokens, not {overrides!r}"
            )
        self._own = {model.lower(): _rates(model, amounts) for model, amounts in given.items()}
        self._listed_as: dict[tuple[str, str | None], tuple[str, str | None]] = {}
        self._warned: set[str] = set()

    def __call__(self, model: str, usage: Usage, *, provider: str | None = None, batch: bool = False) -> Decimal | None:
        """Price *usage*; None if it is unknown, never an error."""
        quote = self.quote(model, usage, provider=provider, batch=batch)
        return None if quote is None else quote.usd

    def quote(self, model: str, usage: Usage, *, provider: str | None = None, batch: bool = False) -> Quote | None:
        """Price *usage* and say how; None if the price is unknown or the tokens contradict each other."""
        try:
            return self._quote(model, usage, provider, batch=batch) if _adds_up(usage) else None
        except (LookupError, ValueError):  # how genai-prices says "unknown" and "these tokens cannot be"
            return None
        except Exception:  # a price list must not break the call that it prices
            if model not in self._warned:
                self._warned.add(model)
                log.warning("No price for %r: the price list failed", model, exc_info=True)
            return None

    def _quote(self, model: str, usage: Usage, provider: str | None, *, batch: bool) -> Quote:
        for name in _names(model.lower()):
            if rates := self._own.get(name):
                return _own_quote(rates, usage, provider, batch=batch)
        listed = self._listed(model, usage, provider)
        if not _covers(listed, usage):
            raise LookupError(model)
        if not batch:
            return Quote(usd=listed.total_price, source="list")
        batched = self._listed(model, usage, provider, batch=True)
        # The prices and not the totals: where cached tokens get no discount, an honest total may be equal.
        if batched.model_price != listed.model_price:
            return Quote(usd=batched.total_price, source="batch")
        if listed.provider.id in _HALF_IN_BATCH:
            return Quote(usd=listed.total_price / 2, source="assumed_batch_discount")
        return Quote(usd=listed.total_price, source="list")

    def _listed(self, model: str, usage: Usage, provider: str | None, *, batch: bool = False) -> "PriceCalculation":
        from genai_prices import Usage as Tokens
        from genai_prices import calc_price

        context = {"processing": "batch"} if batch else None
        tokens = Tokens(**{name: n for name, n in _tokens(usage).items() if n})
        asked = (model, provider)
        for name, seller in [self._listed_as[asked]] if asked in self._listed_as else _candidates(model, provider):
            try:
                price = calc_price(tokens, name, provider_id=seller, price_context=context)
            except LookupError:
                continue
            self._listed_as[asked] = (name, seller)
            return price
        raise LookupError(model)


def _rates(model: str, amounts: Sequence[Amount]) -> _Rates:
    try:
        given = [] if isinstance(amounts, str) else [Decimal(str(a)) for a in amounts]
    except (InvalidOperation, TypeError):
        given = []
    if len(given) not in {2, 3} or not all(a.is_finite() and a >= 0 for a in given):
        raise ValueError(
            f"the price of {model!r} must be (input, output) or (input, output, cached input) in US dollars "
            f"per million tokens, not {amounts!r}"
        )
    return _Rates(input=given[0], output=given[1], cached_input=given[-1] if len(given) == 3 else given[0])


def _own_quote(rates: _Rates, usage: Usage, provider: str | None, *, batch: bool) -> Quote:
    fresh = usage.input_tokens - usage.cache_read_tokens
    cost = fresh * rates.input + usage.cache_read_tokens * rates.cached_input + usage.output_tokens * rates.output
    usd = cost / _MILLION
    if batch and _provider_id(provider) in _HALF_IN_BATCH:
        return Quote(usd=usd / 2, source="assumed_batch_discount")
    return Quote(usd=usd, source="override")


def _adds_up(usage: Usage) -> bool:
    """Say whether no part is larger than its whole; genai-prices checks that only where the part has a price."""
    return (
        usage.cache_read_tokens + usage.cache_write_tokens <= usage.input_tokens
        and usage.cache_write_1h_tokens <= usage.cache_write_tokens
        and usage.input_audio_tokens <= usage.input_tokens
        and max(usage.reasoning_tokens, usage.output_audio_tokens) <= usage.output_tokens
        and min(_tokens(usage).values()) >= 0
    )


def _tokens(usage: Usage) -> dict[str, int]:
    """Name the tokens as genai-prices does; there, too, the whole includes its parts."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
        "input_audio_tokens": usage.input_audio_tokens,
        "output_audio_tokens": usage.output_audio_tokens,
    }


def _covers(listed: "PriceCalculation", usage: Usage) -> bool:
    """Say whether all tokens of *usage* have a price: genai-prices takes a missing one for 0."""
    prices = listed.model_price
    if listed.model.id.endswith(":free"):
        return True
    if (usage.input_tokens and prices.input_mtok is None) or (usage.output_tokens and prices.output_mtok is None):
        return False
    # Google's models without an audio price charge audio as text; elsewhere the price is merely not listed.
    return listed.provider.id == "google" or not (
        (usage.input_audio_tokens and prices.input_audio_mtok is None)
        or (usage.output_audio_tokens and prices.output_audio_mtok is None)
    )


def _names(model: str) -> Iterator[str]:
    """Yield what an override may call *model*: as it is, without its provider, without its date."""
    base = model
    if model.startswith("ft:"):
        base = ":".join(model.split(":")[:2])  # ft:<base model>:<organisation>:<name>:<id>
    for name in (model, base, base.rpartition("/")[2]):
        yield name
        yield _DATE.sub("", name)


def _candidates(model: str, provider: str | None) -> Iterator[tuple[str, str | None]]:
    """Yield under which name and provider genai-prices may list *model*, the surest first."""
    if model.startswith("ft:"):
        yield model, provider or "openai"
        return
    model = model.removeprefix("models/")  # as Google's own API writes its names
    seller = _provider_id(provider)
    if seller:
        yield model, seller
    head, _, tail = model.partition("/") if "/" in model else model.partition(":")
    if tail and _provider_id(head):
        yield tail, head
    if not seller and not _self_hosted(provider):
        # A host that wraps a model often gives the name of its own class as the provider.
        yield model, None


def _provider_id(provider: str | None) -> str | None:
    """Give genai-prices' own name of *provider*; None if it knows none."""
    from genai_prices.data_snapshot import find_provider_by_id, get_snapshot

    found = find_provider_by_id(get_snapshot().providers, provider) if provider else None
    return found.id if found else None


def _self_hosted(provider: str | None) -> bool:
    plain = re.sub(r"[^a-z]", "", (provider or "").lower())
    return any(host in plain for host in _SELF_HOSTED)
