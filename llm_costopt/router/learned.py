"""A router's rules as its own outcomes have taught them, at the operating point that keeps to a target."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_costopt.router.calibrate import Calibration, calibrate, cheapest, choose, estimate
from llm_costopt.router.complexity import Level
from llm_costopt.router.confidence import confidence
from llm_costopt.router.value import Example, Value, cross_fitted, groups_of
from llm_costopt.types import Answer, Question

BAR = 0.7
"""The threshold of a router that its `confidence` is made for: an answer at this score is just good enough."""


class LearnedRules:
    """The two rules of a router of two tiers, made from what it learned: `RouterChatModel(…, learned=rules)`.

    Made by `learn_rules`, or read from the file that `llm-costopt calibrate` writes.
    """

    def __init__(self, value: Value, *, prices: Sequence[float], threshold: float, drafts: bool) -> None:
        self._value = value
        self._prices = tuple(prices)
        self._threshold = threshold
        self._drafts = drafts
        self.fingerprint = hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]
        """Tells these rules from others in the key of a cache, as they were at first: what was a good answer before some
        feedback is one after it."""

    def complexity(self, question: Question) -> tuple[Level, str]:
        """Say which tier a request goes to: `simple` to the first, `complex` to the last, `medium` to a draft that is judged."""
        found = self._value.before(question)
        why = f"gain {found.gain:+.2f} of the strong tier, {found.outcomes} outcomes"
        if self._drafts:
            return "medium", why
        tier = choose(np.array([found.right]), self._prices, self._threshold)[0]
        return ("simple", why) if tier == 0 else ("complex", why)

    def confidence(self, question: Question, answer: Answer) -> tuple[float, str]:
        """Score a draft of the first tier: `BAR` and more if no dearer tier is worth its price; what is surely wrong is 0."""
        score, flaw = confidence(question, answer)
        if score == 0:
            return score, flaw
        found = self._value.after(question, answer)
        why = f"right with {found.right[0]:.0%}, gain {found.gain:+.2f}"
        keeps = choose(np.array([found.right]), self._prices, self._threshold)[0] == 0
        sure = found.right[0]
        return (BAR + (1 - BAR) * sure if keeps else min(BAR * sure, BAR - 0.01)), why

    def learn(self, question: Question, score: float, *, tier: int, answer: Answer | None = None) -> None:
        """Learn how good the answer of *tier* was, from 0 to 1; *answer* is the first tier's draft, if there was one."""
        self._value.learn(question, score, tier=tier, answer=answer)

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as JSON values; no text of a request can be read from it."""
        threshold = self._threshold if np.isfinite(self._threshold) else str(self._threshold)
        point = {"threshold": threshold, "drafts": self._drafts, "prices": list(self._prices)}
        return {"point": point, "value": self._value.to_dict()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file *path*."""
        Path(path).write_text(json.dumps(self.to_dict()), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LearnedRules":
        """Read what `save` wrote.

        Raises:
            ValueError: the file cannot be read, or is not such a file.
        """
        try:
            state = json.loads(Path(path).read_text(encoding="utf-8"))
            point = state["point"]
            prices = [float(price) for price in point["prices"]]
            value = Value.from_dict(state["value"], tiers=len(prices))
            return cls(value, prices=prices, threshold=float(point["threshold"]), drafts=bool(point["drafts"]))
        except (OSError, KeyError, TypeError, ValueError) as problem:
            raise ValueError(
                f"{str(path)!r} holds no rules of a router ({problem}): write them with `llm-costopt calibrate`"
            ) from problem


def learn_rules(
    examples: Sequence[Example],
    *,
    prices: Sequence[float],
    target_quality: float | None = 0.95,
    max_strong_share: float | None = None,
    max_cost_per_request: float | None = None,
) -> tuple[LearnedRules, Calibration]:
    """Learn the rules of a router from *examples*, and choose the cheapest way that keeps to what is given.

    Args:
        examples: requests with the scores of each tier, and the first tier's draft where there is one.
        prices: what a request costs on the cheap and on the strong tier.
        target_quality: share of the strongest tier's quality to keep, with 95 % confidence; None for none.
        max_strong_share: of the requests that may go to the strongest tier; None for any.
        max_cost_per_request: in the unit of *prices*; None for any.

    Raises:
        ValueError: there are too few examples, there are not two tiers, or no way to answer keeps to the limits.
    """
    if len(prices) != 2:  # the draft that `confidence` judges is the first tier's, and it goes to the last or to nobody
        raise ValueError(f"rules are learned for two tiers, the cheap one's price first, not for {len(prices)}")
    if len(examples) < 10:
        raise ValueError(f"{len(examples)} outcomes are too few to learn from: at least 10, better 200")
    before, after = cross_fitted(examples, tiers=len(prices))
    scores = np.array([[e.scores.get(t, np.nan) for t in range(len(prices))] for e in examples])
    limits = {
        "target_quality": target_quality,
        "max_strong_share": max_strong_share,
        "max_cost_per_request": max_cost_per_request,
    }

    def at(right: NDArray[np.float64], *, drafts: bool) -> Calibration:
        return calibrate(right, estimate(right, scores), prices, drafts=drafts, groups=groups_of(examples), **limits)

    ways = [at(before, drafts=False), *([] if after is None else [at(after, drafts=True)])]
    found = cheapest(*ways)
    value = Value(tiers=len(prices))
    value.fit(examples)
    return LearnedRules(value, prices=prices, threshold=found.point.threshold, drafts=found.drafts), found
