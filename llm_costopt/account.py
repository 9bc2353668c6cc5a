"""What one answer cost and what it saved, by cause: the one place where hosts and batches get their amounts from."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

from llm_costopt.types import CacheKind, Saved, Usage

Price = Callable[..., Decimal | None]
"""`(model, usage, *, provider=None, batch=False)` → US dollars, or None if unknown; `Prices()` is one."""


def account(
    price: Price,
    *,
    model: str | None,
    provider: str | None = None,
    usage: Usage | None,
    cache: CacheKind | None = None,
    batch: bool = False,
    baseline: str | None = None,
) -> tuple[Decimal | None, Saved | None]:
    """Say what an answer cost and what it saved, in US dollars; an unknown amount is None.

    A call is held against what its tokens cost at the list price of *baseline*, none of them from the provider's prompt
    cache. *baseline* is the model that would have been asked without us; if it is None, the model that answered. Down to
    the cost lead, one after the other and so without counting anything twice, the prompt cache, the router, and the batch.
    The prompt cache comes first and is taken at the baseline's prices, since without us it would have served the same
    tokens there: what a cheaper model saves is only what is left.

    A hit is held against its stored call as it was, prompt cache included. It costs nothing even if nobody knows what it
    saved. What a rejected draft cost is charged by the ledger, since only there draft and escalation meet.

    Raises TypeError if *price* gives what is no amount.
    """
    price = partial(_amount, price)
    if usage is None:
        return (None if cache is None else Decimal(0)), None

    def usual(tokens: Usage) -> Decimal | None:
        if baseline is not None and baseline != model:
            return _elsewhere(price, baseline, provider, tokens)
        return None if model is None else price(model, tokens, provider=provider, batch=False)

    held_against = usual(usage)
    if cache is not None:
        return Decimal(0), None if held_against is None else Saved(cache=held_against)
    itself = baseline is None or baseline == model
    listed = held_against if itself or model is None else price(model, usage, provider=provider, batch=False)
    if model is None or listed is None:
        return None, None
    cost = price(model, usage, provider=provider, batch=True) if batch else listed
    if cost is None or held_against is None:
        return cost, None
    fresh = usual(_fresh(usage)) if usage.cache_read_tokens or usage.cache_write_tokens else held_against
    by_provider = Decimal(0) if fresh is None else fresh - held_against
    return cost, Saved(router=held_against - listed, batch=listed - cost, prompt_cache=by_provider)


def _amount(price: Price, model: str, usage: Usage, **how: Any) -> Decimal | None:
    """Ask *price*, which may be the user's own: what it says wrongly must not get into sums."""
    usd: Any = price(model, usage, **how)
    if usd is not None and not (isinstance(usd, Decimal) and usd.is_finite() and usd >= 0):
        raise TypeError("a price is a Decimal of 0 or more, in US dollars for the whole call, or None if it is unknown")
    return usd


def _fresh(usage: Usage) -> Usage:
    """Count the same tokens as if there were no prompt cache."""
    return replace(usage, cache_read_tokens=0, cache_write_tokens=0, cache_write_1h_tokens=0)


def _elsewhere(price: Price, baseline: str, provider: str | None, usage: Usage) -> Decimal | None:
    """Price the same tokens under *baseline*."""
    # First as the same provider sells it: through another one, the same model may have another price.
    same_seller = price(baseline, usage, provider=provider, batch=False)
    return same_seller if same_seller is not None else price(baseline, usage, batch=False)
