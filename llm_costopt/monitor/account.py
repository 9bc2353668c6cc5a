"""What one answer cost and what it saved, by cause: the one place where both hosts get their amounts from."""

from decimal import Decimal

from llm_costopt.monitor.prices import Price
from llm_costopt.types import CacheKind, Saved, Usage


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
    """Say what an answer cost and what it saved against *baseline*, in US dollars.

    The baseline is the model that would have been asked without us; if it is None, the model that answered.
    What a rejected draft cost is charged by the ledger, since only there draft and escalation meet.
    An unknown amount is None. A hit costs nothing even if nobody knows what it saved.
    """
    if usage is None:
        return (None if cache is None else Decimal(0)), None
    listed = None if model is None else price(model, usage, provider=provider, batch=False)
    usual = listed if baseline is None or baseline == model else _elsewhere(price, baseline, provider, usage)
    if cache is not None:
        return Decimal(0), None if usual is None else Saved(cache=usual)
    if listed is None:
        return None, None
    cost = price(model, usage, provider=provider, batch=True) if batch else listed
    if cost is None or usual is None:
        return cost, None
    return cost, Saved(router=usual - listed, batch=listed - cost)


def _elsewhere(price: Price, baseline: str, provider: str | None, usage: Usage) -> Decimal | None:
    """Price the same tokens under *baseline*."""
    # First as the same provider sells it: through another one, the same model may have another price.
    same_seller = price(baseline, usage, provider=provider, batch=False)
    return same_seller if same_seller is not None else price(baseline, usage, batch=False)
