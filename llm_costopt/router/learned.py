"""What a router has learned from outcomes, and the operating point that keeps to its target.

Each outcome of all tiers is kept as a few numbers: what is expected of each tier by a model that has not seen the outcome, and
what came of it. From these numbers the operating point is chosen anew as they grow. The text of a request is not among
them.
"""

import hashlib
import json
import logging
import math
import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_costopt.router.calibrate import Calibration, OperatingPoint, calibrate, cheapest, estimate, steps
from llm_costopt.router.complexity import Complexity, complexity
from llm_costopt.router.confidence import Confidence, confidence
from llm_costopt.router.value import KEPT, NOBODY, Described, Embed, Example, Value, cross_fit, cross_fitted, groups_of
from llm_costopt.types import Answer, Question

log = logging.getLogger(__name__)

FORMAT = 2
"""Of the file."""

MOST_TIERS = 100
"""Of a file; nobody has as many, and a damaged number must not fill the memory."""

FEWEST = 10
"""Outcomes of all tiers below which no target is calculated at all."""

GROWTH = 1.1
"""The operating point is chosen anew when there are this many times the outcomes of the last time."""

_ALL_STRONG = OperatingPoint(threshold=-math.inf, strong_share=1.0, quality=1.0, low=1.0, high=1.0, cost=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What a router has to keep to; it answers at the least cost, or with the best quality, that does."""

    target_quality: float | None = None
    """Share of the strongest tier's quality to keep, with 95 % confidence."""
    max_strong_share: float | None = None
    """Largest share of the requests that may go to the strongest tier."""
    max_cost_per_request: float | None = None
    """In US dollars, or whatever unit the prices have."""

    def __post_init__(self) -> None:
        if self.target_quality is not None and not 0 < self.target_quality <= 1:
            raise ValueError(f"a target is a share of the strong model's quality, not {self.target_quality!r}")
        if self.max_strong_share is not None and not 0 <= self.max_strong_share <= 1:
            raise ValueError(f"max_strong_share is a share from 0 to 1, not {self.max_strong_share!r}")
        if self.max_cost_per_request is not None and not self.max_cost_per_request > 0:
            raise ValueError(f"max_cost_per_request is an amount above 0, not {self.max_cost_per_request!r}")

    @property
    def any(self) -> bool:
        """Tell whether there is anything to keep to."""
        return asdict(self) != asdict(Targets())


@dataclass(frozen=True, slots=True)
class Seen:
    """One outcome of all tiers, as a calibration needs it."""

    before: tuple[float, ...]
    """P(right) of each tier before any call."""
    after: tuple[float, ...] | None
    """The same after the first tier's draft; None if there was none."""
    scores: tuple[float, ...]
    """What came of it, from 0 to 1; NaN where it is not known."""
    group: int | None = None
    """Outcomes of one group share a context; None for one of its own."""


class LearnedRules:
    """What a router's own outcomes have taught it: `RouterChatModel(…, learned=rules)`.

    Made by `learn_rules`, read from the file that `llm-costopt calibrate` writes, or begun without any outcome by a router.
    May be used by any number of threads, and by several routers over the same tiers.

    Args:
        tiers: how many there are.
        prices: what a request costs on each of them, from the cheapest to the strongest, in any unit; None if unknown.
        targets: what to keep to; without any, the document's rules decide, as far as outcomes do not know better.
        value: what was learned so far.
        seen: outcomes that the operating point may rest on.
        complexity: the rule about requests that counts while nothing is known.
        confidence: the rule about drafts.
        embedder: turns a text into a vector to learn from as well.
    """

    def __init__(
        self,
        *,
        tiers: int,
        prices: Sequence[float] | None = None,
        targets: Targets | None = None,
        value: Value | None = None,
        seen: Iterable[Seen] = (),
        complexity: Complexity = complexity,
        confidence: Confidence = confidence,
        embedder: Embed | None = None,
    ) -> None:
        self.tiers = tiers
        self.prices = None if prices is None else tuple(prices)
        self._options: dict[str, Any] = {"complexity": complexity, "confidence": confidence, "embedder": embedder}
        self.value = value or Value(tiers=tiers, **self._options)
        self._start = self.value.to_dict() if self.value.knows else None
        self._lock = threading.Lock()
        self._before = tuple(seen)[-KEPT:]
        self._fresh: deque[tuple[Described, tuple[float, ...]]] = deque(maxlen=KEPT)
        self._seen: Sequence[Seen] = self._before
        self._calibrated_at = 0
        self.calibration: Calibration | None = None
        """The operating point with all it was chosen from; None where no target asks for one."""
        self.aim(targets or Targets())
        state = self.to_dict() if self.value.knows else asdict(self.targets)
        self.fingerprint = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
        """Tells these rules from others in the key of a cache, as they were at first: what was a good answer before some
        feedback is one after it."""

    @property
    def outcomes(self) -> int:
        """Return how many outcomes of all tiers the operating point may rest on."""
        return min(len(self._before) + len(self._fresh), KEPT)

    @property
    def explanation(self) -> str:
        """Say in a sentence by what the router decides."""
        return self.calibration.explanation if self.calibration else "the rules decide, nothing has to be kept to"

    def aim(self, targets: Targets) -> None:
        """Keep to other targets from now on.

        Raises:
            ValueError: the price of a tier is unknown, or prices do not rise from the cheapest tier to the strongest.
        """
        if targets.any and self.prices is None:
            raise ValueError("a target weighs quality against prices, and no prices are known: give prices=")
        self.targets = targets
        self.calibrate()

    def learn(self, question: Question, score: float, *, tier: int, answer: Answer | None = None) -> None:
        """Learn how good the answer of *tier* was, from 0 to 1; *answer* is the first tier's draft, if there was one."""
        self.value.learn(question, score, tier=tier, answer=answer)

    def observe(self, question: Question, scores: Mapping[int, float], *, answer: Answer | None = None) -> None:
        """Learn how good the answers of all tiers were to one request that was picked at random.

        *answer* is the first tier's. The operating point is chosen anew from time to time, which takes up to a second:
        do not wait for it where a user waits.
        """
        known = tuple(float(scores[t]) for t in range(self.tiers))
        described = self.value.describe(question, answer).forgetful()
        for tier, score in enumerate(known):
            self.value.learn(question, score, tier=tier, answer=answer)
        with self._lock:
            self._fresh.append((described, known))
            due = len(self._fresh) >= FEWEST and self.outcomes >= self._calibrated_at * GROWTH
        if due:
            self.calibrate()

    def calibrate(self) -> Calibration | None:
        """Choose the operating point anew from the outcomes there are."""
        with self._lock:
            fresh = list(self._fresh)
        seen = [*self._before, *self._estimated(fresh)][-KEPT:]
        found = self._choose(seen)
        with self._lock:
            self._seen, self.calibration, self._calibrated_at = seen, found, len(seen)
        return found

    def _estimated(self, fresh: Sequence[tuple[Described, tuple[float, ...]]]) -> list[Seen]:
        """Estimate outcomes, each by a model that has not seen it."""
        if len(fresh) < FEWEST:
            return []
        described = [x for x, _ in fresh]
        examples = [Example(question=NOBODY, scores=dict(enumerate(scores))) for _, scores in fresh]
        before, after = cross_fit(examples, described, begin=self._begin)
        drafts = [None] * len(fresh) if after is None else [tuple(row) for row in after.tolist()]
        return [Seen(tuple(b), a, known) for b, a, (_, known) in zip(before.tolist(), drafts, fresh, strict=True)]

    def _begin(self) -> Value:
        if self._start is None:
            return Value(tiers=self.tiers, **self._options)
        return Value.from_dict(self._start, tiers=self.tiers, **self._options)

    def _choose(self, seen: Sequence[Seen]) -> Calibration | None:
        prices = self.prices
        if prices is None or not self.targets.any:
            return None
        steps(prices)
        if len(seen) < FEWEST:
            if self.targets.target_quality is None:
                return None
            why = f"all calls are strong: {len(seen)} outcomes of all tiers prove nothing, {FEWEST} are the least"
            return Calibration(
                point=_ALL_STRONG, drafts=False, outcomes=len(seen), explanation=why, curve=(_ALL_STRONG,)
            )
        scores = np.array([s.scores for s in seen])
        groups = [f"own {n}" if s.group is None else str(s.group) for n, s in enumerate(seen)]

        def at(right: NDArray[np.float64], *, drafts: bool) -> Calibration:
            expected = estimate(right, scores)
            return calibrate(right, expected, prices, drafts=drafts, groups=groups, **asdict(self.targets))

        ways = [at(np.array([s.before for s in seen]), drafts=False)]
        if all(s.after for s in seen):
            ways.append(at(np.array([s.after for s in seen]), drafts=True))
        return cheapest(*ways)

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as JSON values; no text of a request can be read from it."""
        return {
            "format": FORMAT,
            "tiers": self.tiers,
            "prices": None if self.prices is None else list(self.prices),
            "targets": asdict(self.targets),
            "value": self.value.to_dict(),
            "seen": [[_short(s.before), _short(s.after), _short(s.scores), s.group] for s in self._seen],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file *path*, for its owner's eyes only.

        Raises:
            OSError: it cannot be written; nothing is left beside it.
        """
        self.calibrate()  # what came since the last time
        there = Path(path)
        beside = there.with_name(f"{there.name}.new")
        try:
            beside.touch(mode=0o600)
            beside.write_text(json.dumps(self.to_dict()), encoding="utf-8")
            beside.replace(there)
        except OSError:  # such as a folder of that name
            beside.unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, targets: Targets | None = None, **options: Any) -> "LearnedRules":
        """Read what `save` wrote; *targets* take the place of those in the file, *options* are those of the constructor.

        Raises:
            ValueError: the file cannot be read, or is not such a file.
        """
        try:
            state = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls._restored(state, targets, options)
        except (OSError, KeyError, TypeError, ValueError, IndexError) as problem:
            raise ValueError(
                f"{str(path)!r} holds no rules of a router ({problem}): write them with `llm-costopt calibrate`"
            ) from problem

    @classmethod
    def _restored(cls, state: Any, targets: Targets | None, options: dict[str, Any]) -> "LearnedRules":
        if state["format"] != FORMAT:
            raise ValueError(f"its format is {state['format']!r}, not {FORMAT}")
        tiers, prices = state["tiers"], state["prices"]
        if type(tiers) is not int or not 1 <= tiers <= MOST_TIERS:
            raise ValueError(f"it is for {tiers!r} tiers")
        if prices is not None and not (len(prices) == tiers and all(0 <= p < math.inf for p in prices)):
            raise ValueError(f"its prices are {prices!r}")
        value = Value.from_dict(state["value"], tiers=tiers, **options)
        if value.note is not None:
            log.warning("learned rules: %s", value.note)
        # Numbers that other features made say nothing about what these will make.
        seen = [_restored(row, tiers) for row in state["seen"]] if value.note is None else []
        return cls(
            tiers=tiers,
            prices=prices,
            targets=targets or Targets(**state["targets"]),
            value=value,
            seen=seen,
            **options,
        )


def learn_rules(
    examples: Sequence[Example],
    *,
    prices: Sequence[float],
    target_quality: float | None = 0.95,
    max_strong_share: float | None = None,
    max_cost_per_request: float | None = None,
    **options: Any,
) -> tuple[LearnedRules, Calibration]:
    """Learn the rules of a router from *examples*, and choose the cheapest way that keeps to what is given.

    Args:
        examples: requests with the scores of each tier, and the first tier's draft where there is one.
        prices: what a request costs on each tier, from the cheapest to the strongest.
        target_quality: share of the strongest tier's quality to keep, with 95 % confidence; None for none.
        max_strong_share: of the requests that may go to the strongest tier; None for any.
        max_cost_per_request: in the unit of *prices*; None for any.
        options: `complexity`, `confidence` and `embedder` of `LearnedRules`.

    Raises:
        ValueError: there are too few examples, or no way to answer keeps to the limits.
    """
    if len(examples) < FEWEST:
        raise ValueError(f"{len(examples)} outcomes are too few to learn from: at least {FEWEST}, better 200")
    targets = Targets(
        target_quality=target_quality, max_strong_share=max_strong_share, max_cost_per_request=max_cost_per_request
    )
    tiers = len(prices)
    before, after = cross_fitted(examples, tiers=tiers, **options)
    scores = np.array([[e.scores.get(t, np.nan) for t in range(tiers)] for e in examples])
    value = Value(tiers=tiers, **options)
    value.fit(examples)
    drafts = [None] * len(examples) if after is None else [tuple(row) for row in after.tolist()]
    names = groups_of(examples)
    number = {name: n for n, name in enumerate(dict.fromkeys(names))}
    seen = [
        Seen(tuple(b), a, tuple(s), number[name])
        for b, a, s, name in zip(before.tolist(), drafts, scores.tolist(), names, strict=True)
    ]
    rules = LearnedRules(tiers=tiers, prices=prices, targets=targets, value=value, seen=seen, **options)
    return rules, rules.calibration or calibrate(before, estimate(before, scores), prices, drafts=False)


def _short(values: tuple[float, ...] | None) -> list[float | None] | None:
    return None if values is None else [None if math.isnan(x) else x for x in values]


def _restored(row: Any, tiers: int) -> Seen:
    before, after, scores, group = row
    known = tuple(math.nan if x is None else float(x) for x in scores)
    expected = [tuple(float(x) for x in part) for part in (before, after) if part is not None]
    if any(len(part) != tiers for part in (*expected, known)) or not isinstance(group, int | None):
        raise ValueError("an outcome has the wrong form")
    if not all(0 <= x <= 1 for part in expected for x in part):
        raise ValueError("a probability is not between 0 and 1")
    if not all(0 <= x <= 1 or math.isnan(x) for x in known):
        raise ValueError("a score is not between 0 and 1")
    return Seen(expected[0], expected[1] if after is not None else None, known, group)
