"""What a ledger says about a workload, in the terms of `estimate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from llm_costopt.monitor.estimate import DAYS
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.types import CallRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What was measured, under the names of the arguments of `estimate`."""

    requests: int
    """Requests that were answered, from store or not; failed ones are left out."""
    days: float
    """From the first call to the last."""
    requests_per_day: Decimal
    """The former divided by the latter; 0 if all calls were made at once."""
    input_tokens: int
    """Of a request, on average over those whose tokens are known."""
    output_tokens: int
    """Likewise."""
    strong: str
    """The model of the router's strongest tier, or the only one."""
    cheap: str
    """The model of another tier that was asked most, or the same as *strong* without a router."""
    prompt_cached: Decimal
    """Share of the input of real calls that the provider had in its prompt cache."""
    cache_hits: Decimal
    """Share of the requests that were answered from store."""
    routed_cheap: Decimal
    """Share of the others that another model than the strong one answered."""
    escalated: Decimal
    """Share of the others that had a draft rejected."""
    batched: Decimal
    """Share of the others that went through a Batch API."""
    paid_usd: Decimal
    """What all calls of the time cost, shadow calls and drafts included, as far as their prices are known."""
    unpriced: int
    """Calls whose price is unknown."""

    @property
    def month_usd(self) -> Decimal | None:
        """What 30 days cost at this pace; None if there is no pace."""
        return self.paid_usd / Decimal(str(self.days)) * DAYS if self.days else None


def measured(ledger: Ledger, *, since: float | None = None, strong: str | None = None) -> Workload:
    """Read a workload off *ledger*; every call is read.

    Args:
        ledger: where calls are kept.
        since: calls that ended before are left out, in seconds since the epoch; all count if None.
        strong: the model that would answer everything; the strongest tier's, or the only one, if not given.

    Raises:
        ValueError: no request was answered whose tokens are known, or it cannot be told which model is the strong one.
    """
    everything = ledger.records(since)
    calls = [call for call in everything if not call.shadow]
    drafts = {call.replaces for call in calls}
    requests = [call for call in calls if call.id not in drafts and call.error is None]
    known = [call.usage for call in requests if call.usage is not None]
    if not known:
        raise ValueError("the ledger holds no answered request whose tokens are known: there is nothing to scale")
    asked = [call for call in requests if call.cache is None]
    strong = strong or _strong(calls)
    days = (calls[-1].at - calls[0].at) / 86_400
    used = [call.usage for call in calls if call.usage and call.cache is None]
    return Workload(
        requests=len(requests),
        days=days,
        requests_per_day=Decimal(len(requests)) / Decimal(str(days)) if days else Decimal(0),
        input_tokens=round(sum(usage.input_tokens for usage in known) / len(known)),
        output_tokens=round(sum(usage.output_tokens for usage in known) / len(known)),
        strong=strong,
        cheap=_cheap(calls, strong),
        prompt_cached=_share(sum(u.cache_read_tokens for u in used), sum(u.input_tokens for u in used)),
        cache_hits=_share(len(requests) - len(asked), len(requests)),
        routed_cheap=_share(sum(not call.replaces and not _is(call, strong) for call in asked), len(asked)),
        escalated=_share(sum(call.replaces is not None for call in asked), len(asked)),
        batched=_share(sum(call.batch for call in asked), len(asked)),
        paid_usd=sum((call.cost for call in everything if call.cost is not None), Decimal(0)),
        unpriced=sum(call.cost is None and call.error is None for call in everything),
    )


def _strong(calls: Sequence[CallRecord]) -> str:
    """Find the strong model: that of the strongest tier, or the only one; by the name without a date if it has both.

    A call that fails has the name that was asked for, one that succeeds often that of a dated snapshot.
    """
    names = {call.model for call in calls if call.model}
    undated = {name: next((n for n in names if name.startswith(f"{n}-20")), name) for name in names}
    tiers = [undated[call.model] for call in calls if call.tier == "strong" and call.model]
    if tiers:
        return _most(tiers)
    models = set(undated.values())
    if len(models) != 1:
        raise ValueError(f"no router says which of {sorted(models)} is the strong model: name it, strong= or --strong")
    return models.pop()


def _cheap(calls: Sequence[CallRecord], strong: str) -> str:
    others = [call.model for call in calls if call.model and call.cache is None and not _is(call, strong)]
    return _most(others) if others else strong


def _is(call: CallRecord, model: str) -> bool:
    """Tell whether *model*, or a dated snapshot of it, was asked; what has no name is no cheaper one, unless its tier says so."""
    if call.model is None:
        return call.tier in (None, "strong")
    return call.model == model or call.model.startswith(f"{model}-20")


def _most(models: Sequence[str]) -> str:
    return max(dict.fromkeys(models), key=models.count)


def _share(part: int, whole: int) -> Decimal:
    return Decimal(part) / Decimal(whole) if whole else Decimal(0)
