"""How sure a hit is: evidence about a candidate → probability that its answer serves → serve it or not.

Similarity alone never decides. What a cache knows and a pair of questions does not is what was answered
to the *other* neighbours; a small logistic model weighs both. It starts from weights that ship with the
package (made by `benchmarks/fit_verifier.py`) and goes on learning from the answers that arrive after misses.
"""

import json
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llm_costopt.cache.guards import (
    CERTAIN,
    GUARDS,
    Candidate,
    Guard,
    asks,
    content_words,
    dates,
    order,
    persons,
    refusal,
)

Evidence: TypeAlias = NDArray[np.float64]
"""One number for each of `FEATURES`."""

FEATURES = (
    "similarity",
    "similarity squared",
    "gap to the nearest with another answer",
    "share of the neighbours that say the same",
    "share of the neighbours that say something else",
    "support of the answer, by closeness",
    "log odds of that support",
    "similarity times support",
    "shared words with the candidate",
    "shared words with the closest that says the same",
    "mean similarity of the nearest three",
    "words of the question",
    "size of the scope",
    "differs in dates",
    "differs in the kind of question",
    "differs in persons",
    "differs in the order of words",
    "one",
)

NEIGHBOURS = 8
"""How many of the nearest entries are heard."""

FLOOR = 0.3
"""Cosine below which nothing is a candidate, whatever the neighbours say."""

WITNESSES = 3
"""Neighbours that say the same, the candidate among them, from which on an answer counts as confirmed."""

CAUTION = 0.5
"""Standard deviations of the model's own uncertainty that are taken off before a probability is used."""

BATCH = 32
"""Labels after which the weights move."""

MEMORY = 0.98
"""What a batch leaves of the certainty before it, so that some 1,600 labels count and traffic may change."""

_SOFT: tuple[Guard, ...] = (dates, asks, persons, order)
"""Guards whose word is evidence here; the others refuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A stored question near the one that was asked."""

    entry: int
    """The id of its entry."""
    similarity: float
    """Cosine similarity to the question that was asked."""
    text: str
    """The stored question."""
    says: int
    """Entries with the same number have answers that say the same."""


def candidate(asked: str, neighbours: Sequence[Neighbour]) -> int | None:
    """Find the nearest of *neighbours* that no guard refuses; None if there is none.

    What other entries confirm is refused only for what is certain. What stands alone has nothing but its words to
    speak for it, so that there every guard is heard.
    """
    witnesses = Counter(near.says for near in neighbours if near.similarity >= FLOOR)
    for n, near in enumerate(neighbours):
        if near.similarity < FLOOR:
            return None
        guards = CERTAIN if witnesses[near.says] >= WITNESSES else (*CERTAIN, *GUARDS)
        if not refusal(Candidate(asked=asked, stored=near.text, similarity=near.similarity), guards):
            return n
    return None


def evidence(asked: str, neighbours: Sequence[Neighbour], chosen: int, entries: int) -> Evidence:
    """Describe the *chosen* one of *neighbours*, nearest first, in a scope of so many *entries*."""
    near = neighbours[chosen]
    similar = np.array([n.similarity for n in neighbours])
    same = np.array([n.says == near.says for n in neighbours])
    others = similar[~same]
    closeness = np.exp(12 * (similar - similar[0]))
    support = float((closeness * same).sum() / closeness.sum())
    # What is not among the neighbours counts as something else at a cosine of 0.2.
    odds = np.log(np.exp(8 * similar[same]).sum() / (np.exp(8 * similar[~same]).sum() + np.exp(1.6)))
    rival = (
        float(others[0])
        if others.size
        else min(float(similar[-1]), near.similarity)
        if len(similar) >= NEIGHBOURS
        else 0.2
    )
    words = frozenset(content_words(asked))
    overlap = [_overlap(words, n.text) if n.says == near.says else 0.0 for n in neighbours]
    pair = Candidate(asked=asked, stored=near.text, similarity=near.similarity)
    return np.array(
        [
            near.similarity,
            near.similarity**2,
            near.similarity - rival,
            same.sum() / NEIGHBOURS,
            (~same).sum() / NEIGHBOURS,
            support,
            odds,
            near.similarity * support,
            overlap[chosen],
            max(overlap),
            similar[:3].mean(),
            np.log1p(len(asked.split())),
            np.log1p(entries) / 10,
            *(guard(pair) is not None for guard in _SOFT),
            1.0,
        ],
        dtype=np.float64,
    )


class Verifier:
    """A logistic model with a Gaussian belief about its weights, which each batch of labels sharpens.

    The belief after a batch is the prior of the next (Laplace approximation), so that the state is a
    vector and a matrix whatever the number of labels.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        shipped = json.loads((resources.files("llm_costopt.cache") / "verifier.json").read_text(encoding="utf-8"))
        if state is None or state.get("features") != list(FEATURES):  # another release's evidence: begin anew
            state = shipped
        self._mean, self._scale = np.array(shipped["mean"]), np.array(shipped["scale"])
        self._weights, self._precision = np.array(state["weights"]), np.array(state["precision"])
        self._spread = np.linalg.inv(self._precision)
        self._labels: list[tuple[Evidence, float, float]] = []
        self._lock = threading.Lock()

    def sure(self, found: Evidence, *, caution: float = CAUTION) -> float:
        """Return the probability that the candidate's answer serves, less *caution* standard deviations."""
        z = (found - self._mean) / self._scale
        doubt = float(np.sqrt(max(0.0, z @ self._spread @ z)))
        return float(_sigmoid(z @ self._weights - caution * doubt))

    def learn(self, found: Evidence, *, right: bool, weight: float = 1.0) -> bool:
        """Take in one label; tell whether the weights have moved, so that the state may be kept."""
        with self._lock:
            self._labels.append(((found - self._mean) / self._scale, float(right), weight))
            if len(self._labels) < BATCH:
                return False
            labels, self._labels = self._labels, []
            self._weights, self._precision = fit(self._weights, MEMORY * self._precision, labels)
            self._spread = np.linalg.inv(self._precision)
            return True

    def to_dict(self) -> dict[str, Any]:
        """Give the state as JSON values."""
        return {"features": list(FEATURES), "weights": self._weights.tolist(), "precision": self._precision.tolist()}


class ErrorBudget:
    """Serve while the expected share of requests that are answered wrongly stays within *max_error*.

    The bar is where the doubts of all that would be served, over the recent requests, add up to the budget.
    """

    RECENT = 2000
    """Requests that the bar is set by: enough for 1 % to be a number."""
    EVERY = 25
    """Requests after which the bar is set again."""

    def __init__(self, max_error: float) -> None:
        self._max_error = max_error
        self._recent: deque[float] = deque(maxlen=self.RECENT)
        self._bar = 1 - max_error
        self._seen = 0
        self._lock = threading.Lock()

    def admits(self, sure: float) -> bool:
        """Decide about one request whose candidate is *sure* to serve; 0 if it has none."""
        with self._lock:
            self._recent.append(sure)
            self._seen += 1
            if self._seen % self.EVERY == 0:
                self._bar = self._new_bar()
            return sure > 0 and sure >= self._bar

    def _new_bar(self) -> float:
        best_first = np.sort(np.array(self._recent))[::-1]
        expected = np.cumsum(1 - best_first) / len(best_first)
        served = int(np.searchsorted(expected, self._max_error))
        # More likely wrong than right is never served, however little there is to serve.
        return max(0.5, float(best_first[served - 1])) if served else 1.0


def _overlap(words: frozenset[str], text: str) -> float:
    others = frozenset(content_words(text))
    return len(words & others) / max(1, len(words | others))


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def fit(
    prior: NDArray[np.float64], precision: NDArray[np.float64], labels: Sequence[tuple[Evidence, float, float]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the most probable weights given *labels* and the prior, by Newton's method with a line search."""
    x = np.array([z for z, _, _ in labels])
    y, weight = np.array([r for _, r, _ in labels]), np.array([w for _, _, w in labels])

    def loss(weights: NDArray[np.float64]) -> float:
        u, off = x @ weights, weights - prior
        return float((weight * (np.logaddexp(0, u) - y * u)).sum() + 0.5 * off @ precision @ off)

    weights, current = prior, loss(prior)
    for _ in range(25):
        p = _sigmoid(x @ weights)
        gradient = x.T @ (weight * (p - y)) + precision @ (weights - prior)
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + precision
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-3 and loss(weights - size * step) > current:
            size /= 2
        weights = weights - size * step
        previous, current = current, loss(weights)
        if previous - current <= 1e-7 * abs(previous) + 1e-9:
            break
    p = _sigmoid(x @ weights)
    return weights, (x * (weight * p * (1 - p))[:, None]).T @ x + precision
