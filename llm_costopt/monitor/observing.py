"""What a router that merely observed would have done, and what that would have cost, from a ledger."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from llm_costopt.observed import Observed, read
from llm_costopt.types import CallRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldBe:
    """The requests that would have been sent the same way."""

    tier: str
    """The tier that would have been asked first."""
    drafts: bool
    """Whether its answer would have been judged, and may have been rejected."""
    requests: int
    """How many."""
    paid: Decimal
    """US dollars that they cost."""
    kept: Decimal
    """What they would have cost, had every draft been kept."""
    rejected: Decimal
    """What they would have cost, had every draft been rejected."""
    unpriced: int
    """Those whose price is unknown; the amounts lack them."""


def would_be(records: Iterable[CallRecord]) -> list[WouldBe]:
    """Sum up what was observed, those requests first whose cost would have changed most."""
    ways: dict[tuple[str, bool], list[tuple[CallRecord, Observed]]] = {}
    for record in records:
        if not record.shadow and record.error is None and (observed := read(record.why)):
            ways.setdefault((observed.tier, observed.drafts), []).append((record, observed))
    found = [_sum(tier, calls, drafts=drafts) for (tier, drafts), calls in ways.items()]
    return sorted(found, key=lambda one: one.kept - one.paid)


def _sum(tier: str, calls: list[tuple[CallRecord, Observed]], *, drafts: bool) -> WouldBe:
    paid = kept = Decimal(0)
    unpriced = 0
    for record, observed in calls:
        if record.cost is None or observed.share is None:
            unpriced += 1
        else:
            paid += record.cost
            kept += record.cost * Decimal(str(observed.share))
    rejected = kept + paid if drafts else kept
    return WouldBe(
        tier=tier, drafts=drafts, requests=len(calls), paid=paid, kept=kept, rejected=rejected, unpriced=unpriced
    )
