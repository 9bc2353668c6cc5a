"""The example that this product began with, computed from its own inputs, and where its figures are others."""

from dataclasses import dataclass
from decimal import Decimal

from llm_costopt.monitor.estimate import Estimate, estimate
from llm_costopt.monitor.prices import Prices

REQUESTS = 200_000
"""A day, all of them answered by gpt-4o."""

READ, WRITTEN = 300, 150
"""Tokens of a request that its amounts fit, though it says 800."""

PRICES = {"gpt-4o": (Decimal("2.50"), Decimal("10.00")), "gpt-4o-mini": (Decimal("0.15"), Decimal("0.60"))}
"""US dollars per million tokens that it states."""

_BASELINES = {10_000: 675, 50_000: 3_375, 200_000: 13_500, 500_000: 33_750, 1_000_000: 67_500}
"""Dollars a month by requests a day."""

_WORKLOADS = {
    "support": (75, 10, 65),
    "moderation": (85, 5, 75),
    "extraction": (70, 12, 55),
    "code": (30, 20, 25),
    "research": (20, 15, 15),
}
"""Percent answered by the cheap model, percent escalated, and percent saved as it says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure of the example."""

    what: str
    """What it is."""
    document: str
    """What the example says."""
    computed: str
    """What its own inputs give."""
    why: str
    """Where the difference comes from; empty if there is none."""


def lines() -> list[Line]:
    """Compute every figure of the example."""
    return [*_volumes(), *_together(), *(_workload(name, *shares) for name, shares in _WORKLOADS.items())]


def _of(
    requests: int = REQUESTS, *, hits: str = "0", cheap: str = "0", escalated: str = "0", batched: str = "0"
) -> Estimate:
    return estimate(
        requests_per_day=requests,
        input_tokens=READ,
        output_tokens=WRITTEN,
        cache_hits=hits,
        routed_cheap=cheap,
        escalated=escalated,
        batched=batched,
        batch_discount="50%",
        prices=Prices(PRICES),
    )


def _volumes() -> list[Line]:
    found = []
    for requests, said in _BASELINES.items():
        usd = _of(requests).usd.low
        why = (
            "" if requests != REQUESTS else f"300 + 150 tokens give it exactly; the 800 that it states cost {_at_800()}"
        )
        found.append(
            Line(what=f"baseline at {requests:,} requests a day", document=f"${said:,}", computed=_usd(usd), why=why)
        )
    return found


def _at_800() -> str:
    """Say what 800 tokens cost: it depends on how many of them are read and how many are written."""
    read, written = (
        estimate(requests_per_day=REQUESTS, input_tokens=i, output_tokens=800 - i, prices=Prices(PRICES)).usd.low
        for i in (800, 0)
    )
    return f"{_usd(read)} if all are read and {_usd(written)} if all are written, and $13,500 only if 33 are written"


def _together() -> list[Line]:
    baseline, cache, router, batch = (step.usd.low for step in _of(hits="30%", cheap="60%", batched="70%").steps)
    return [
        Line(what="with 30 % cache hits", document="$9,450", computed=_usd(cache), why=""),
        Line(
            what="and 60 % routed cheap",
            document="$5,670",
            computed=_usd(router),
            why="it takes off 40 %; gpt-4o-mini costs 6 % of gpt-4o, so that 60 % of the requests save 60 × 0.94 = 56.4 %",
        ),
        Line(
            what="and 70 % by batch at half price",
            document="$3,969",
            computed=_usd(batch),
            why=f"it takes off 30 %; half of 70 % is 35 %, which makes its own $5,670 {_usd(Decimal(5670) * Decimal('0.65'))}",
        ),
        Line(
            what="saved in all",
            document="71 %",
            computed=_percent(1 - batch / baseline),
            why="both of these; $3,969 is 70.6 % less than $13,500",
        ),
    ]


def _workload(name: str, cheap: int, escalated: int, said: int) -> Line:
    saved = _of(cheap=f"{cheap}%", escalated=f"{escalated}%").saved_share.low
    return Line(
        what=f"{name}: {cheap} / {escalated} / {100 - cheap - escalated}",
        document=f"~{said} %",
        computed=_percent(saved),
        why=f"{cheap} × 0.94 saved less {escalated} × 0.06 for rejected drafts; why its figure is lower it does not say",
    )


def _usd(amount: Decimal) -> str:
    return f"${amount:,.2f}".removesuffix(".00")


def _percent(share: Decimal) -> str:
    return f"{100 * share:.1f} %"
