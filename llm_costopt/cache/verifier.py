"""The model that weighs the evidence: a logistic one that starts from shipped weights and goes on learning."""

import json
import math
import threading
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llm_costopt.cache.verify import FEATURES, Evidence

CAUTION = 0.25
"""Standard deviations of the model's own uncertainty that are taken off before a probability is used."""

BATCH = 32
"""Labels after which the weights move."""

MEMORY = 0.98
"""What a batch leaves of the certainty before it, so that some 1,600 labels count and traffic may change."""


Label: TypeAlias = tuple[Evidence, bool, float, float]
"""Standardised evidence, whether the answers were seen to say the same, what it weighs, and the share of right
candidates where this is seen."""


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
        self._lock = threading.Lock()
        self._labels: list[Label] = []
        self._believe(np.array(state["weights"]), np.array(state["precision"]))

    def sure(self, found: Evidence, *, caution: float = CAUTION) -> float:
        """Return the probability that the candidate's answer serves, less *caution* standard deviations."""
        log_odds, *deviations = (self._forms @ found).tolist()
        return _sigmoid(log_odds - caution * math.hypot(*deviations))

    def learn(self, found: Evidence, *, right: bool, weight: float = 1.0, seen: float = 1.0) -> bool:
        """Take in one label; tell whether the weights have moved, so that the state may be kept.

        *seen* is the share of right candidates that are seen to be right: the smaller, the less "wrong" means.
        """
        with self._lock:
            self._labels.append(((found - self._mean) / self._scale, right, weight, seen))
            if len(self._labels) < BATCH:
                return False
            labels, self._labels = self._labels, []
            self._believe(*fit(self._weights, MEMORY * self._precision, labels))
            return True

    def to_dict(self) -> dict[str, Any]:
        """Give the state as JSON values."""
        return {"features": list(FEATURES), "weights": self._weights.tolist(), "precision": self._precision.tolist()}

    def _believe(self, weights: NDArray[np.float64], precision: NDArray[np.float64]) -> None:
        self._weights, self._precision = weights, precision
        # Of evidence the first row gives the log odds; the length of what the others give is its standard deviation.
        forms = np.vstack([weights, np.linalg.inv(np.linalg.cholesky(precision))]) / self._scale
        forms[:, -1] -= forms @ self._mean  # the last number of all evidence is 1
        self._forms = forms


def fit(
    prior: NDArray[np.float64], precision: NDArray[np.float64], labels: Sequence[Label]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the most probable weights given *labels* and the prior, by Fisher scoring with a line search.

    A candidate that is right with probability p is seen to be right with probability *seen* times p.
    """
    x, right = np.array([label[0] for label in labels]), np.array([label[1] for label in labels])
    weight, seen = np.array([label[2] for label in labels]), np.array([label[3] for label in labels])

    def loss(weights: NDArray[np.float64]) -> float:
        p, off = _sigmoids(x @ weights), weights - prior
        return float(-(weight * np.log(np.where(right, p, 1 - seen * p))).sum() + 0.5 * off @ precision @ off)

    def information(p: NDArray[np.float64]) -> NDArray[np.float64]:
        each = weight * seen * p * (1 - p) ** 2 / (1 - seen * p)
        return np.asarray((x * each[:, None]).T @ x + precision)

    weights, current = prior, loss(prior)
    for _ in range(25):
        p = _sigmoids(x @ weights)
        slope = np.where(right, p - 1, seen * p * (1 - p) / (1 - seen * p))
        step = np.linalg.solve(information(p), x.T @ (weight * slope) + precision @ (weights - prior))
        size = 1.0
        while size > 1e-3 and loss(weights - size * step) > current:
            size /= 2
        weights = weights - size * step
        previous, current = current, loss(weights)
        if previous - current <= 1e-7 * abs(previous) + 1e-9:
            break
    return weights, information(_sigmoids(x @ weights))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-min(30.0, max(-30.0, x))))


def _sigmoids(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))))
