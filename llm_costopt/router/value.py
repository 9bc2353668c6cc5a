"""How probably each tier is right, before any call and after a draft: what the router decides by.

One logistic model per tier learns from outcomes of the application's own requests. It starts from the
rules: they are the centre of its prior, so that they decide while nothing is known and fade as outcomes
arrive. The **gain** of the strongest tier, P(strong right) - P(cheap right), is what a dearer call buys;
how hard a request is says less, because what no tier can do is hard as well.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_costopt.router import features, logistic
from llm_costopt.router.complexity import Complexity, Level, complexity, level_of
from llm_costopt.router.confidence import Confidence, confidence, sure_of
from llm_costopt.router.features import Features
from llm_costopt.router.task import Task, task_of
from llm_costopt.types import Answer, Question

Array = NDArray[np.float64]
Embed = Callable[[str], NDArray[np.float32]]

VERSION = 1
KEPT = 2000
"""Outcomes of each model that it is fitted on, the newest; older ones live on in the prior of a saved state only."""
GROWTH = 1.15
"""A model is fitted again when it has this many times the outcomes of the last time: 40 times in 2,000."""
MOST_WEIGHT = 20.0
"""Of one outcome. A rarer one would decide alone; the cut costs a little bias."""
REMEMBERED = 64
"""Requests whose description is kept until their draft and their outcome arrive."""
SAVED_WEIGHTS = 4096
"""Weights of words that a saved model keeps, the largest: 4 models of 2 tiers then take at most some 250 KB."""

# Log odds of being right for a request that the rules call simple, medium and complex. They are guesses which say
# what the rules say: simple is for the cheapest tier, complex for the strongest, medium is where a draft is judged.
_CHEAPEST: Mapping[Level, float] = {"simple": 2.5, "medium": 0.8, "complex": -0.4}
_STRONGEST: Mapping[Level, float] = {"simple": 2.6, "medium": 2.2, "complex": 1.7}
# A draft with confidence 0.9 is right with 85 %, one that hedges once with 65 %, one that is flawed with 9 %.
_DRAFT_AT_0, _DRAFT_SLOPE = -2.3, 4.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is expected of the tiers for one request."""

    right: tuple[float, ...]
    """P(right) of each tier from `tier` on; after a draft, the first is the draft's."""
    tier: int
    """The tier of the first number: 0 before any call, the tier of the draft after it."""
    outcomes: int
    """How many outcomes the least known of these numbers rests on; 0 means that the rules alone speak."""
    level: Level
    """How hard the rules find the request."""
    why: str
    """Which rule said so; after a draft, what the rules say of it."""
    confidence: float | None = None
    """What the rules give the draft; None before any call."""

    @property
    def gain(self) -> float:
        """Return what the strongest tier adds to the first one, between -1 and 1."""
        return self.right[-1] - self.right[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One request with what is known of the tiers' answers."""

    question: Question
    """The request."""
    scores: Mapping[int, float]
    """How good the answer of a tier was, from 0 to 1, for the tiers whose answer was judged."""
    answer: Answer | None = None
    """The draft; None if there was none or its text is not known."""
    drafted: int = 0
    """The tier that wrote the draft."""
    weights: Mapping[int, float] = field(default_factory=dict)
    """One over the probability that this tier's outcome was to be known; 1 where it is not given."""
    group: str = ""
    """Examples of one group share a context and are never split between learning and testing; each its own if empty."""


@dataclass(frozen=True, slots=True)
class _Asked:
    question: Question
    task: Task
    level: Level
    why: str
    features: Features


NOBODY = Question(messages=())
"""Stands for a request that is forgotten."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a request and a draft look like to the models."""

    asked: _Asked
    """The request."""
    after: Features | None
    """The request with the draft; None if there is none."""
    confidence: float | None
    """What the rules give the draft."""
    doubt: str | None
    """Why."""

    def forgetful(self) -> "Described":
        """Leave out the text."""
        return replace(self, asked=replace(self.asked, question=NOBODY, task=Task(text="", words=0, material=0)))


class _Model:
    """P(right) of one tier: a prior, outcomes, and the weights that follow from both."""

    def __init__(self, centre: Array) -> None:
        self.centre = centre
        self.precision = np.ones(len(centre))
        self.weights = centre
        self.outcomes = 0
        self._fitted_at = 0
        self._kept: deque[tuple[Features, float, float]] = deque(maxlen=KEPT)

    def probability(self, x: Features) -> float:
        """Predict."""
        z = float(self.weights.take(x.indices) @ x.values)
        return 1 / (1 + math.exp(-max(-40.0, min(z, 40.0))))

    def add(self, x: Features, score: float, weight: float) -> None:
        """Keep an outcome, without learning from it yet."""
        self._kept.append((x, score, min(weight, MOST_WEIGHT)))
        self.outcomes += 1

    @property
    def is_due(self) -> bool:
        """Tell whether there are enough new outcomes to fit again."""
        return self.outcomes > self._fitted_at and self.outcomes >= self._fitted_at * GROWTH

    def fit(self) -> None:
        """Learn from the outcomes that are kept."""
        if not self._kept:
            return
        rows, scores, importance = zip(*self._kept, strict=True)
        self.weights = logistic.fit(
            rows,
            np.array(scores),
            np.array(importance),
            start=self.weights,
            centre=self.centre,
            precision=self.precision,
        )
        self._fitted_at = self.outcomes

    def to_dict(self) -> dict[str, Any]:
        """Return the weights as JSON values."""
        words = self.weights[: features.SMALL].round(3)
        largest = np.argsort(-np.abs(words), kind="stable")[:SAVED_WEIGHTS]
        at = np.sort(largest[words[largest] != 0])
        return {
            "outcomes": self.outcomes,
            "words": {"at": at.tolist(), "weights": words[at].tolist()},
            "small": self.weights[features.SMALL :].round(4).tolist(),
            "precision": self._sureness().round(3).tolist(),
        }

    def restore(self, state: Any) -> None:
        """Start from saved weights: they are the centre of the prior, held as firmly as the outcomes made them."""
        small = _finite(state["small"], len(self.weights) - features.SMALL)
        precision = _finite(state["precision"], len(small))
        at = np.array(state["words"]["at"])
        words = _finite(state["words"]["weights"], len(at))
        outcomes = state["outcomes"]
        if at.ndim != 1 or (len(at) and at.dtype.kind != "i"):
            raise ValueError("the places of weights are whole numbers")
        if len(at) and (at.min() < 0 or at.max() >= features.SMALL or len(np.unique(at)) < len(at)):
            raise ValueError("a weight has a place that does not exist or is taken")
        if not isinstance(outcomes, int) or outcomes < 0 or (precision < 1).any():
            raise ValueError("the number of outcomes or a precision is too small")
        centre = np.zeros_like(self.weights)
        centre[at.astype(int)] = words
        centre[features.SMALL :] = small
        self.weights = self.centre = centre
        self.precision[features.SMALL :] = precision
        self.outcomes = self._fitted_at = outcomes

    def _sureness(self) -> Array:
        """Return one over the variance of each small weight: what the prior knew and what the outcomes add."""
        precision = self.precision.copy()
        for x, _, weight in self._kept:
            p = self.probability(x)
            precision[x.indices] += weight * p * (1 - p) * np.square(x.values)
        return precision[features.SMALL :]


class Value:
    """Estimate P(right) of each tier, and learn it from outcomes.

    *complexity* and *confidence* are the rules that count while nothing is known.
    *embedder* turns a text into a vector whose length never changes, which is then learned from as well.
    Estimates may be asked for while another thread learns. The same outcomes in the same order give the same weights.
    """

    def __init__(
        self,
        *,
        tiers: int = 2,
        complexity: Complexity = complexity,
        confidence: Confidence = confidence,
        embedder: Embed | None = None,
    ) -> None:
        if tiers < 1:
            raise ValueError(f"a router has at least one tier, not {tiers!r}")
        self.tiers = tiers
        self.note: str | None = None
        """Why a saved state was not used; None if there was none or it was."""
        self._complexity, self._confidence, self._embedder = complexity, confidence, embedder
        self._dimensions = len(np.ravel(embedder("dimensions"))) if embedder else 0
        self._lock = threading.Lock()
        self._asked: dict[int, _Asked] = {}
        self._before = [_Model(self._centre(t)) for t in range(tiers)]
        self._after = {
            (d, t): _Model(self._centre_of_draft() if t == d else self._centre(t))
            for d in range(tiers)
            for t in range(d, tiers)
        }

    @property
    def knows(self) -> bool:
        """Tell whether there is any outcome."""
        return any(m.outcomes for m in self._models())

    def before(self, question: Question) -> Estimate:
        """Estimate each tier's P(right) before any call."""
        x = self._ask(question)
        return Estimate(
            right=tuple(m.probability(x.features) for m in self._before),
            tier=0,
            outcomes=min(m.outcomes for m in self._before),
            level=x.level,
            why=x.why,
        )

    def after(self, question: Question, answer: Answer, *, drafted: int = 0) -> Estimate:
        """Estimate P(right) of the draft *answer*, which tier *drafted* wrote, and of the tiers above it."""
        x = self.describe(question, answer)
        assert x.after is not None and x.doubt is not None  # noqa: S101, PT018 - there is an answer
        models = [self._after[drafted, t] for t in range(drafted, self.tiers)]
        return Estimate(
            right=tuple(m.probability(x.after) for m in models),
            tier=drafted,
            outcomes=min(m.outcomes for m in models),
            level=x.asked.level,
            why=x.doubt,
            confidence=x.confidence,
        )

    def learn(
        self,
        question: Question,
        score: float,
        *,
        tier: int,
        answer: Answer | None = None,
        drafted: int = 0,
        weight: float = 1.0,
    ) -> None:
        """Learn that *tier* answered with *score* from 0 to 1.

        *answer* is the draft of tier *drafted*, whichever tier the outcome is of. *weight* is one over the probability
        that this outcome was to be known, so that a router's own log can be learned from. The models are fitted again
        now and then, which takes up to a second: do not wait for it where a user waits.
        """
        self._add(
            [Example(question=question, scores={tier: score}, answer=answer, drafted=drafted, weights={tier: weight})]
        )
        with self._lock:
            for model in self._models():
                if model.is_due:
                    model.fit()

    def fit(self, examples: Iterable[Example]) -> None:
        """Learn from many outcomes at once."""
        self._add(examples)
        with self._lock:
            for model in self._models():
                model.fit()

    def to_dict(self) -> dict[str, Any]:
        """Return what was learned as JSON values; no text of a request can be read from it."""
        with self._lock:
            return {**self._form(), "models": [m.to_dict() for m in self._models()]}

    @classmethod
    def from_dict(cls, state: Any, **options: Any) -> "Value":
        """Restore what `to_dict` gave; *options* are those of the constructor.

        A state of other features, of another number of tiers or of another embedder is not used, and `note` says why.
        A state that is none raises `ValueError`.
        """
        value = cls(**options)
        form = value._form()
        try:
            differs = [k for k in form if state[k] != form[k]]
            if differs:
                found = ", ".join(f"{k} {state[k]!r} instead of {form[k]!r}" for k in differs)
                value.note = f"the saved state does not fit, learning starts anew: {found}"
                return value
            for model, saved in zip(value._models(), state["models"], strict=True):
                model.restore(saved)
        except (KeyError, TypeError, IndexError, ValueError, OverflowError) as problem:
            raise ValueError(f"this is no state of a router: {problem}") from problem
        return value

    def _form(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "features": features.FINGERPRINT,
            "tiers": self.tiers,
            "dimensions": self._dimensions,
        }

    def _models(self) -> list[_Model]:
        return [*self._before, *self._after.values()]

    def _add(self, examples: Iterable[Example]) -> None:
        for e in examples:
            self._check(e)
            described = self.describe(e.question, e.answer)
            with self._lock:
                self._put(e, described)

    def _put(self, e: Example, x: Described) -> None:
        for tier, score in e.scores.items():
            weight = e.weights.get(tier, 1.0)
            self._before[tier].add(x.asked.features, score, weight)
            if x.after is not None and tier >= e.drafted:
                self._after[e.drafted, tier].add(x.after, score, weight)

    def _check(self, e: Example) -> None:
        for tier, score in e.scores.items():
            if not 0 <= tier < self.tiers:
                raise ValueError(f"there is no tier {tier!r}, they are counted from 0 to {self.tiers - 1}")
            if not 0 <= score <= 1:
                raise ValueError(f"a score is from 0 to 1, not {score!r}")
            if not e.weights.get(tier, 1.0) >= 1:
                raise ValueError(f"a weight is one over a probability and so at least 1, not {e.weights[tier]!r}")
        if not 0 <= e.drafted < self.tiers:
            raise ValueError(f"there is no tier {e.drafted!r}, they are counted from 0 to {self.tiers - 1}")

    def describe(self, question: Question, answer: Answer | None) -> Described:
        """Say what a request, and the draft *answer* if there is one, look like to the models."""
        asked = self._ask(question)
        if answer is None:
            return Described(asked, None, None, None)
        sure, doubt = sure_of(self._confidence, question, answer)
        after = asked.features + features.of_draft(asked.task, answer.text, sure)
        if self._embedder:
            after += features.of_embedding(self._embedder(answer.text), features.SIZE + self._dimensions)
        return Described(asked, after, sure, doubt)

    def _ask(self, question: Question) -> _Asked:
        """Describe a request once, though it is asked about before and after a draft and learned from."""
        known = self._asked.get(id(question))
        if known is not None and known.question is question:
            return known
        task = task_of(question.messages)
        level, why = level_of(self._complexity, question)
        found = features.of_request(task, question, level)
        if self._embedder:
            found += features.of_embedding(self._embedder(task.text), features.SIZE)
        if len(self._asked) >= REMEMBERED:
            self._asked.clear()
        asked = self._asked[id(question)] = _Asked(question, task, level, why, found)
        return asked

    def _centre(self, tier: int) -> Array:
        """Say what the rules expect of a tier: between the cheapest and the strongest in equal steps."""
        rank = tier / (self.tiers - 1) if self.tiers > 1 else 1.0
        level = {k: (1 - rank) * _CHEAPEST[k] + rank * _STRONGEST[k] for k in _CHEAPEST}
        return self._weights(
            one=level["medium"], simple=level["simple"] - level["medium"], complex=level["complex"] - level["medium"]
        )

    def _centre_of_draft(self) -> Array:
        return self._weights(one=_DRAFT_AT_0, confidence=_DRAFT_SLOPE)

    def _weights(self, **log_odds: float) -> Array:
        found = np.zeros(features.SIZE + 2 * self._dimensions)
        for name, value in log_odds.items():
            found[features.place(name)] = value / features.UNITS.get(name, 1.0)
        return found


def odds_of_draft(confidence: float) -> float:
    """Give P(right) of a draft that the rules score with *confidence*, while nothing is known."""
    return 1 / (1 + math.exp(-(_DRAFT_AT_0 + _DRAFT_SLOPE * confidence)))


def cross_fitted(
    examples: Sequence[Example], *, folds: int = 5, tiers: int = 2, **options: Any
) -> tuple[Array, Array | None]:
    """Estimate each example by a model that has not seen it nor any other of its group.

    Returns P(right) before any call, one row per example and one column per tier, and the same after the draft;
    the second is None unless each example has a draft of the cheapest tier. *options* are those of `Value`.
    """
    scout = Value(tiers=tiers, **options)
    for e in examples:
        scout._check(e)  # noqa: SLF001 - this module's own
    described = [scout.describe(e.question, e.answer) for e in examples]
    return cross_fit(examples, described, begin=lambda: Value(tiers=tiers, **options), folds=folds)


def cross_fit(
    examples: Sequence[Example], described: Sequence[Described], *, begin: Callable[[], Value], folds: int = 5
) -> tuple[Array, Array | None]:
    """Do the same with requests that are *described* already, from what `begin()` knows."""
    tiers = begin().tiers
    has_drafts = all(x.after is not None and e.drafted == 0 for x, e in zip(described, examples, strict=True))
    before, after = np.zeros((len(examples), tiers)), np.zeros((len(examples), tiers))
    fold = _folds(groups_of(examples), folds)
    for k in range(folds):
        value = begin()
        for e, x, of in zip(examples, described, fold, strict=True):
            if of != k:
                value._put(e, x)  # noqa: SLF001 - this module's own
        value.fit(())
        for n in np.flatnonzero(fold == k).tolist():
            x = described[n]
            before[n] = [m.probability(x.asked.features) for m in value._before]  # noqa: SLF001
            if has_drafts and x.after is not None:
                after[n] = [value._after[0, t].probability(x.after) for t in range(tiers)]  # noqa: SLF001
    return before, after if has_drafts else None


def groups_of(examples: Sequence[Example]) -> list[str]:
    """Name the group of each example, one of its own where it has none."""
    return [e.group or f"\0{n}" for n, e in enumerate(examples)]


def _folds(groups: Sequence[str], folds: int) -> NDArray[np.int64]:
    names, which = np.unique(np.array(groups), return_inverse=True)
    order = np.random.default_rng(0).permutation(len(names))
    return (order % folds)[which]


def _finite(values: Any, length: int) -> Array:
    found = np.array(values, dtype=np.float64)
    if found.shape != (length,):
        raise ValueError(f"{length} numbers were expected, not {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError("a weight is not a finite number")
    return found
