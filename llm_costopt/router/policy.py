"""Which tier is asked first, and whether its draft will do: one policy for routing and for cascading.

Both follow from P(right) of each tier. Without a target the document's rules are the operating point: they are all there is
while nothing is known, and as outcomes arrive the same bars are held against what was learned. With a target the gain
of a dearer tier is held against its price (`calibrate`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

from llm_costopt.router.calibrate import Calibration, cascade_pays
from llm_costopt.router.complexity import Complexity, Level, level_of
from llm_costopt.router.confidence import Confidence, sure_of
from llm_costopt.router.learned import LearnedRules
from llm_costopt.router.value import odds_of_draft
from llm_costopt.types import Answer, Question

SIMPLE_AT, COMPLEX_BELOW = 0.85, 0.55
"""P(cheap right) from which its answer is taken as it comes, and below which it is not asked for one. They lie halfway
between what the prior gives the three levels (0.92, 0.69, 0.40), so that without an outcome the levels decide."""

CONFIDENT = 30
"""Outcomes from which a request by itself may be too hard to be worth a draft."""

Cascade: TypeAlias = Literal["never", "medium", "always"]
"""Which requests get a draft that is judged: none, those that are neither simple nor complex, or complex ones too."""

SHORT = "money is short"
"""What a reason says when a budget or a limit had a hand in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A request, and what stands around it when a tier is chosen."""

    question: Question
    """The request."""
    usable: tuple[int, ...]
    """The tiers that may be asked, the cheapest first; never empty."""
    costs: tuple[float, ...] | None = None
    """What the request would cost on each of all tiers, the provider's prompt cache counted, relative to what it would cost
    on the strongest without that; None if unknown."""
    thrift: float = 0.0
    """How much money is to be saved beyond what quality asks for: 0 not at all, 1 the cheapest usable tier answers."""
    drafts: bool = True
    """Whether a draft is worth trying on this route."""
    cascade: Cascade = "medium"
    """Which requests may get one."""
    on: int | None = None
    """The tier that the conversation is on; None if it begins, or is not in the provider's prompt cache any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A tier to ask."""

    tier: int
    """Which one."""
    final: bool
    """Whether its answer is taken as it comes."""
    level: Level
    """How hard the request is, from where it is first sent: `simple` to the cheapest, `medium` to a draft, `complex` beyond."""
    why: str
    """What decided."""
    right: tuple[float, ...] | None = None
    """P(right) of each tier as far as it was estimated; None if the rules alone decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is made of a draft."""

    sure: float
    """How sure the draft is to be right, from 0 to 1: the rule's score, or P(right) once there are outcomes."""
    why: str
    """What decided."""
    then: Step | None
    """The tier to ask instead; None if the draft is kept."""


class ByRules:
    """Ask by how hard a request is, and climb until an answer is sure enough.

    Args:
        rules: what is known of the tiers; without an outcome only *complexity* and *confidence* decide.
        complexity: says how hard a request is.
        confidence: says how sure an answer is.
        threshold: the least confidence at which a draft is kept.
    """

    def __init__(
        self, rules: LearnedRules, *, complexity: Complexity, confidence: Confidence, threshold: float
    ) -> None:
        self._rules = rules
        self._complexity, self._confidence = complexity, confidence
        self._threshold = threshold

    def start(self, s: Situation) -> Step:
        """Send what is simple to the first usable tier, what is complex to the last, and let the others climb."""
        level, why, right = self._level(s)
        cheapest, last = s.usable[0], s.usable[-1]
        if level == "complex" and s.cascade == "always":
            level, why = "medium", f"{why}; a draft all the same"
        tier, final = (last if level == "complex" else cheapest), level != "medium"
        if s.thrift >= 1:
            tier, final, why = cheapest, True, f"{why}; {SHORT}"
        elif level == "medium" and s.cascade == "never":
            tier, final, why = last, True, f"{why}; no cascade"
        elif level == "medium" and not s.drafts:
            tier, final, level, why = last, True, "complex", f"{why}; drafts do not pay on this route"
        elif s.on in s.usable and s.costs and s.on > tier and s.costs[s.on] <= s.costs[tier]:
            tier, final, why = s.on, True, f"{why}; its earlier turns are in the prompt cache of this tier"
        return Step(tier=tier, final=final or tier == last, level=level, why=why, right=right)

    def judge(self, s: Situation, step: Step, answer: Answer) -> Verdict:
        """Keep the draft from the threshold on; else ask the next usable tier."""
        sure, why = sure_of(self._confidence, s.question, answer)
        bar = self._threshold
        if sure > 0 and self._rules.value.knows:
            found = self._rules.value.after(s.question, answer, drafted=step.tier)
            sure, bar, why = found.right[0], odds_of_draft(bar), f"right with {found.right[0]:.0%}, {found.why}"
        kept = sure > 0 and sure >= bar - s.thrift
        return Verdict(sure=sure, why=why, then=None if kept else above(s, step))

    def _level(self, s: Situation) -> tuple[Level, str, tuple[float, ...] | None]:
        if not self._rules.value.knows:
            level, why = level_of(self._complexity, s.question)
            return ("medium", f"{why}; {SHORT}", None) if level == "complex" and s.thrift > 0 else (level, why, None)
        found = self._rules.value.before(s.question)
        sure = found.right[0]
        level = "complex" if sure < COMPLEX_BELOW - s.thrift else "simple" if sure >= SIMPLE_AT else "medium"
        return level, f"{found.why}; the cheapest tier is right with {sure:.0%}", found.right


class ByGain:
    """Ask the tier whose gain is worth its price, before any call or after a draft, whichever the outcomes show to cost less.

    Args:
        rules: what is known of the tiers.
        found: the operating point.
        confidence: finds what is surely wrong with a draft.
    """

    def __init__(self, rules: LearnedRules, found: Calibration, *, confidence: Confidence) -> None:
        self._rules = rules
        self._found = found
        self._confidence = confidence
        prices = rules.prices or (1.0,)
        self._prices = tuple(p / (prices[-1] or 1.0) for p in prices)  # a single tier may be free

    def start(self, s: Situation) -> Step:
        """Let the cheapest tier draft if that pays, else choose by what each tier is expected to be worth."""
        found = self._rules.value.before(s.question)
        why = f"gain {found.gain:+.2f} of the strong tier, {self._found.outcomes} outcomes"
        if self._found.point.threshold == -math.inf:
            why = self._found.explanation
        if s.thrift > 0:
            why = f"{why}; {SHORT}"
        if self._found.drafts and s.usable[0] == 0 and len(s.usable) > 1 and s.thrift < 1:
            ratio = self._costs(s)[0] / self._costs(s)[-1]
            if (
                s.drafts
                and s.cascade != "never"
                and (found.outcomes < CONFIDENT or cascade_pays(ratio, found.right[0]))
            ):
                return Step(tier=0, final=False, level="medium", why=why, right=found.right)
            why = f"{why}; a draft does not pay"
        tier = self._choose(s, s.usable, found.right)
        return Step(tier=tier, final=True, level="complex" if tier else "simple", why=why, right=found.right)

    def judge(self, s: Situation, step: Step, answer: Answer) -> Verdict:
        """Keep the draft unless a dearer tier is worth its price; what is surely wrong is never kept."""
        sure, why = sure_of(self._confidence, s.question, answer)
        if sure == 0:
            return Verdict(sure=sure, why=why, then=above(s, step))
        found = self._rules.value.after(s.question, answer, drafted=step.tier)
        why = f"right with {found.right[0]:.0%}, gain {found.gain:+.2f}"
        among = [step.tier, *(t for t in s.usable if t > step.tier)]
        tier = self._choose(s, among, (*[0.0] * step.tier, *found.right))
        then = replace(step, tier=tier, final=True) if tier > step.tier else None
        return Verdict(sure=found.right[0], why=why, then=then)

    def _choose(self, s: Situation, among: Sequence[int], right: Sequence[float]) -> int:
        """Take the tier that is worth most: P(right) less the threshold times its place between the tiers' prices."""
        threshold = self._found.point.threshold
        if s.thrift > 0:  # no gain is below -1; from there it rises without an end
            threshold = math.inf if s.thrift >= 1 else max(-1.0, threshold) + 2 * s.thrift / (1 - s.thrift)
        costs = self._costs(s)
        if threshold == -math.inf:
            return among[-1]
        if threshold == math.inf:
            return min(among, key=lambda t: costs[t])
        span = 1 - self._prices[0] or 1.0
        return max(among, key=lambda t: (right[t] - threshold * costs[t] / span, -t))

    def _costs(self, s: Situation) -> tuple[float, ...]:
        return s.costs or self._prices


def above(s: Situation, step: Step) -> Step | None:
    """Give the step to the next usable tier; None if there is none. It drafts as *step* does, unless it is the last."""
    rest = [t for t in s.usable if t > step.tier]
    return replace(step, tier=rest[0], final=step.final or len(rest) == 1) if rest else None


class Policy(Protocol):
    """Decides; it must not raise."""

    def start(self, s: Situation) -> Step:
        """Choose the tier to ask first."""
        ...

    def judge(self, s: Situation, step: Step, answer: Answer) -> Verdict:
        """Keep the draft *answer* of *step*, or choose the tier to ask instead."""
        ...


def policy_of(rules: LearnedRules, *, complexity: Complexity, confidence: Confidence, threshold: float) -> Policy:
    """Give the policy that *rules* are ready for: by gain if there is an operating point, else by the rules."""
    if (found := rules.calibration) is not None:
        return ByGain(rules, found, confidence=confidence)
    return ByRules(rules, complexity=complexity, confidence=confidence, threshold=threshold)
