"""How a record says what a router would have done: written by the router, read by the monitor, never text of a request."""

import re
from dataclasses import dataclass

NOT_ROUTED = ("observe: ", "off: ")
"""What the reasons begin with where the router merely observed, or was switched off."""

SWITCHED_OFF = "off: the router is not asked"
"""The reason of a router that is."""

_SAID = re.compile(r"^observe: (?P<tier>.+?) would (?P<does>answer|draft)(?: at (?P<share>[\d.]+) of the cost)?; ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a router that only observes would have done first."""

    tier: str
    """The tier that would have been asked."""
    drafts: bool
    """Whether its answer would have been judged before anybody saw it."""
    share: float | None
    """What it would have cost, relative to what was asked instead; None if a price is unknown."""


def say(observed: Observed, why: str) -> str:
    """Put it before the reasons of the decision."""
    cost = "" if observed.share is None else f" at {observed.share:.4f} of the cost"
    return f"observe: {observed.tier} would {'draft' if observed.drafts else 'answer'}{cost}; {why}"


def read(why: str | None) -> Observed | None:
    """Read it off the reasons of a record; None if nothing was merely observed."""
    found = _SAID.match(why or "")
    if found is None:
        return None
    share = found["share"]
    return Observed(tier=found["tier"], drafts=found["does"] == "draft", share=None if share is None else float(share))


def has_routed(why: str | None) -> bool:
    """Tell whether a router that gave these reasons acted by them."""
    return not (why or "").startswith(NOT_ROUTED)
