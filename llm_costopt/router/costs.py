"""What a request would cost on each tier, the provider's prompt cache counted: what makes it worth staying on a tier."""

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from llm_costopt.account import Price
from llm_costopt.router.capability import characters
from llm_costopt.types import Question, Usage

log = logging.getLogger(__name__)

CHARACTERS = 4
"""Characters of a token, on average, in English."""
USUAL = 300.0
"""Tokens of an answer, until some were seen."""
MEMORY = 0.05
"""Weight of the newest answer in the usual length."""
CACHED_FROM = 1024
"""Tokens from which OpenAI and Anthropic keep a prompt in their cache."""
CACHED_FOR = 300.0
"""Seconds for which they keep it at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a model's tokens cost, in US dollars each."""

    input: float
    """A token read."""
    cached: float
    """A token read from the provider's prompt cache."""
    output: float
    """A token written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """The turn before, in a conversation."""

    tier: int
    """Which one answered it."""
    age: float
    """Seconds since then."""


def usd_of(price: Price, model: str | None, usage: Usage, provider: str | None, *, batch: bool = False) -> float | None:
    """Ask *price* for US dollars; None if it knows none, or is a list of the user's own that fails: that must not break a call."""
    try:
        told = price(model or "", usage, provider=provider, **({"batch": True} if batch else {}))
        usd = None if told is None else float(told)
    except Exception:  # whatever the user's code raises or returns
        log.warning("no price of %r: the price list failed", model, exc_info=True)
        return None
    if usd is None or 0 <= usd < math.inf:
        return usd
    log.warning("no price of %r: %r is no amount of money", model, usd)
    return None


def rates_of(price: Price, model: str | None, provider: str | None) -> Rates | None:
    """Read the rates of *model* off what *price* says of 1,000 tokens of each kind; None if it knows none of them."""
    if model is None:
        return None
    kinds = (
        Usage(input_tokens=1000, output_tokens=0),
        Usage(input_tokens=1000, output_tokens=0, cache_read_tokens=1000),
        Usage(input_tokens=0, output_tokens=1000),
    )
    full, cached, written = (usd_of(price, model, usage, provider) for usage in kinds)
    if full is None or written is None:
        return None
    cached = full if cached is None else cached
    return Rates(input=full / 1000, cached=cached / 1000, output=written / 1000)


class Costs:
    """Expect what requests cost on each tier.

    Args:
        rates: those of each tier, the cheapest first; None for a tier whose price is unknown.
    """

    def __init__(self, rates: Sequence[Rates | None]) -> None:
        self.rates = tuple(rates)
        self._lock = threading.Lock()
        self._written = [USUAL] * len(self.rates)

    @property
    def known(self) -> bool:
        """Tell whether the price of each tier is known."""
        return None not in self.rates

    def of(
        self, question: Question, *, previous: Previous | None = None, max_tokens: int = 0
    ) -> tuple[float, ...] | None:
        """Give US dollars per tier; None if a price is unknown."""
        read = sum(map(characters, question.messages)) / CHARACTERS
        kept = kept_tokens(question, previous)
        found = []
        for tier, rates in enumerate(self.rates):
            if rates is None:
                return None
            cached = kept if previous is not None and previous.tier == tier else 0.0
            written = min(self._written[tier], max_tokens or self._written[tier])
            found.append((read - cached) * rates.input + cached * rates.cached + written * rates.output)
        return tuple(found)

    def usual(self) -> tuple[float, ...] | None:
        """Give US dollars per tier for a request of 1,000 tokens; None if a price is unknown."""
        costs = [1000 * r.input + w * r.output for r, w in zip(self.rates, self._written, strict=True) if r]
        return tuple(costs) if self.known else None

    def wrote(self, tier: int, tokens: int) -> None:
        """Note how long an answer of *tier* was."""
        with self._lock:
            self._written[tier] += MEMORY * (tokens - self._written[tier])


def kept_tokens(question: Question, previous: Previous | None) -> float:
    """Estimate how many tokens of *question* the provider still has in its cache from the *previous* turn."""
    if previous is None or previous.age > CACHED_FOR:
        return 0.0
    last = max((n for n, m in enumerate(question.messages) if m.role == "ai"), default=0)
    tokens = sum(map(characters, question.messages[:last])) / CHARACTERS
    return tokens if tokens >= CACHED_FROM else 0.0
