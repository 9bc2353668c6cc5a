"""What a router decided about one request, and why: kept with the answer, and readable."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from llm_costopt.router.complexity import Level

Arm = Literal["routed", "control"]
"""Of a comparison: what the router decides, or the strongest tier at once."""

_OPTIONAL = ("would", "skipped", "unknown", "arm", "right", "cost", "propensity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision with its reasons, as `response_metadata["llm_costopt"]` holds it; no text of the request is in it."""

    complexity: Level
    """Where the request was first sent: `simple` to the cheapest tier, `medium` to a draft, `complex` beyond."""
    why: str
    """What decided that."""
    tier: str
    """The tier that answered; before any call, the one to be asked first."""
    would: str | None = None
    """The tier that would have been asked first, had the router not merely observed; None if it did not."""
    escalated: bool = False
    """Whether a draft was rejected."""
    fell_back: bool = False
    """Whether a tier failed."""
    at: float
    """When it was made, in seconds since the epoch."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Tiers that were not to be asked, and why."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """What the request needs and nobody has said of a tier: it was taken for given."""
    arm: Arm | None = None
    """The arm of the comparison; None if none is going on."""
    right: Mapping[str, float] | None = None
    """P(right) of each tier before any call; None if the rules alone decided."""
    cost: Mapping[str, float] | None = None
    """Expected US dollars for each tier's answer, the provider's prompt cache counted; None if a price is unknown."""
    propensity: Mapping[str, float] | None = None
    """The probability with which each tier's answer was to be known; None if nothing is compared."""
    attempts: tuple[Mapping[str, Any], ...] = ()
    """The calls in order; the last is the accepted one."""

    def explain(self) -> str:
        """Tell it in lines for a reader."""
        lines = [f"{self.complexity}: {self.why}"]
        lines += [f"{tier} is not asked: {why}" for tier, why in self.skipped.items()]
        lines += [f"nobody says whether {tier} has what it takes: {what}" for tier, what in self.unknown.items()]
        if self.right:
            lines.append("right with " + ", ".join(f"{tier} {p:.0%}" for tier, p in self.right.items()))
        if self.cost:
            lines.append("would cost " + ", ".join(f"{tier} ${usd:.6f}" for tier, usd in self.cost.items()))
        if self.arm == "control":
            lines.append("this request is in the control arm of a comparison")
        lines += [_line(attempt) for attempt in self.attempts]
        return "\n".join([*lines, f"{self.tier} {'answers' if self.attempts else 'is asked first'}"])

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values, without what there is none of."""
        said = asdict(self)
        kept = {name: value for name, value in said.items() if value or name not in _OPTIONAL}
        return {**kept, "attempts": list(self.attempts)}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave, whatever else stands beside it.

        Raises:
            ValueError: it is no decision.
        """
        try:
            known = {name: said[name] for name in cls.__slots__ if name in said}
            return cls(**{**known, "attempts": tuple(said["attempts"])})
        except (KeyError, TypeError) as problem:
            raise ValueError("this answer carries no decision of a router") from problem


def _line(attempt: Mapping[str, Any]) -> str:
    sure = attempt.get("confidence")
    judged = "" if sure is None else f" at {sure:.2f}"
    why = f" ({attempt['why']})" if attempt.get("why") else ""
    return f"{attempt.get('tier')} ({attempt.get('model') or 'unknown model'}): {attempt.get('result')}{judged}{why}"
