"""Routed against other requests, from the ledger: cost, time, errors and quality, each with a 95 % interval."""

from dataclasses import dataclass

import numpy as np

from llm_costopt.monitor.intervals import Estimate, difference, mean_amount, percentile_95, ratio, share
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.requests import Request
from llm_costopt.monitor.summary import Summary

NOT_RANDOM = (
    "Nobody assigned these requests to the two sides at random, so that they may differ for other reasons than the "
    "router; requests that the cache answered are left out, since nothing says whose they were."
)
TAGS = "The two sides are told apart by tags: they differ for other reasons too, unless the tags were drawn at random."


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The requests of one arm. An estimate is None where there are too few values to tell."""

    name: str
    """`routed`, `control`, or the tag that picks them."""
    requests: int
    """How many there are, failed ones included."""
    priced: int
    """How many of them have a known cost; the others take no part in it."""
    scored: int
    """How many of them have a score."""
    cost: Estimate | None
    """US dollars per request, its rejected drafts included, shadow calls not."""
    latency: Estimate | None
    """Seconds per request, its rejected drafts included, where known; without the Batch API."""
    latency_p95: Estimate | None
    """Seconds within which 95 % of these ended."""
    errors: Estimate | None
    """The share that failed."""
    hits: Estimate | None
    """The share that the cache answered."""
    score: Estimate | None
    """The mean score, from 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two arms and what they differ by. An estimate is None where there are too few values to tell.

    Requests count as independent of each other: if whole conversations or customers were assigned to an arm, the
    intervals are too narrow.
    """

    routed: Side
    """The requests that the router decided."""
    control: Side
    """Those that it is compared with."""
    cost: Estimate | None
    """Cost per request, as a multiple of the control's."""
    latency: Estimate | None
    """Mean latency, as a multiple of the control's."""
    latency_p95: Estimate | None
    """95th percentile of the latency, as a multiple of the control's."""
    errors: Estimate | None
    """The share that failed, less the control's."""
    hits: Estimate | None
    """The share that the cache answered, less the control's."""
    score: Estimate | None
    """The mean score, less the control's."""
    quality: Estimate | None
    """The mean score, as a multiple of the control's."""
    shadow_calls: int
    """Calls beside the answers, only to compare; they are in no request's cost."""
    shadow_usd: float
    """US dollars that they cost."""
    caveats: tuple[str, ...]
    """What to know before believing the figures, a sentence each."""


def compare(
    ledger: Ledger, *, hours: float | None = None, routed_tag: str | None = None, control_tag: str | None = None
) -> Comparison:
    """Compare routed with other requests of the last *hours*; of all if None.

    The arms are those that a router assigned at random, `CallRecord.arm`; or the requests with *routed_tag* and
    *control_tag*, if given. If no request is in the control arm, all that no router decided stand in for it.

    Raises:
        ValueError: there is nothing to compare, or only one of the tags is given.
    """
    if (routed_tag is None) != (control_tag is None):
        raise ValueError("two tags are compared: give both, or none for the arms that a router assigned")
    requests = ledger.requests(hours)
    if not requests:
        span = "" if hours is None else f" of the last {hours:g} hours"
        raise ValueError(f"the ledger has no requests{span} to compare")
    if routed_tag is not None and control_tag is not None:
        routed, control = _with_tags(requests, routed_tag, control_tag)
        caveats = [TAGS]
    else:
        routed, control, caveats = _of_arms(requests)
    names = (routed_tag or "routed", control_tag or "control")
    shadow = ledger.summary(hours)
    return _compared(_side(names[0], routed), _side(names[1], control), shadow, caveats)


def _compared(routed: Side, control: Side, shadow: Summary, caveats: list[str]) -> Comparison:
    sides = (routed, control)
    if unpriced := [f"{s.requests - s.priced} of {s.requests} ({s.name})" for s in sides if s.priced < s.requests]:
        caveats = [*caveats, f"The cost leaves out requests of unknown cost: {', '.join(unpriced)}."]
    return Comparison(
        routed=routed,
        control=control,
        cost=ratio(routed.cost, control.cost),
        latency=ratio(routed.latency, control.latency),
        latency_p95=ratio(routed.latency_p95, control.latency_p95),
        errors=difference(routed.errors, control.errors),
        hits=difference(routed.hits, control.hits),
        score=difference(routed.score, control.score),
        quality=ratio(routed.score, control.score),
        shadow_calls=shadow.shadow_calls,
        shadow_usd=float(shadow.shadow_usd),
        caveats=tuple(caveats),
    )


def _with_tags(requests: list[Request], routed_tag: str, control_tag: str) -> tuple[list[Request], list[Request]]:
    routed, control = ([r for r in requests if tag in r.tags] for tag in (routed_tag, control_tag))
    for tag, found in ((routed_tag, routed), (control_tag, control)):
        if not found:
            known = ", ".join(map(repr, sorted({t for r in requests for t in r.tags})[:10]))
            raise ValueError(f"no request carries the tag {tag!r}: the ledger knows {known or 'no tags'}")
    if both := sum(control_tag in r.tags for r in routed):
        raise ValueError(
            f"{both} requests carry both {routed_tag!r} and {control_tag!r}: give tags that exclude each other"
        )
    return routed, control


def _of_arms(requests: list[Request]) -> tuple[list[Request], list[Request], list[str]]:
    routed = [r for r in requests if r.arm == "routed"]
    control = [r for r in requests if r.arm == "control"]
    caveats = []
    if not control:
        asked = [r for r in requests if not r.hit]
        routed = [r for r in asked if r.arm or r.routed]
        control = [r for r in asked if not r.arm and not r.routed]
        caveats = [NOT_RANDOM]
    if not (routed and control):
        found, lacking = ("routed", "other") if routed else ("other", "routed")
        raise ValueError(
            f"the ledger has {len(routed or control)} {found} requests and no {lacking} ones to compare: let a router "
            "assign a share of the requests to its control arm, or name two tags"
        )
    return routed, control, caveats


def _side(name: str, requests: list[Request]) -> Side:
    costs, latencies, scores = (
        np.array([v for v in values if v is not None])
        for values in ([r.cost for r in requests], [r.latency for r in requests], [r.score for r in requests])
    )
    return Side(
        name=name,
        requests=len(requests),
        priced=len(costs),
        scored=len(scores),
        cost=mean_amount(costs),
        latency=mean_amount(latencies),
        latency_p95=percentile_95(latencies),
        errors=share(np.array([float(r.failed) for r in requests])),
        hits=share(np.array([float(r.hit) for r in requests])),
        score=share(scores),
    )
