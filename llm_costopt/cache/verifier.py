"""The model that weighs the evidence: a logistic one that starts from shipped weights and goes on learning."""

import json
import math
import threading
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_costopt.cache.verify import FEATURES, Evidence

CAUTION = 0.25
"""Standard deviations of the model's own uncertainty that are taken off before a probability is used."""

BATCH = 32
"""Labels after which the weights move."""

MEMORY = 0.98
"""What a batch leaves of the certainty before it, so that some 1,600 labels count and traffic may change."""


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
        self._labels: list[tuple[Evidence, float, float]] = []
        self._believe(np.array(state["weights"]), np.array(state["precision"]))

    def sure(self, found: Evidence, *, caution: float = CAUTION) -> float:
        """Return the probability that the candidate's answer serves, less *caution* standard deviations."""
        log_odds, *deviations = (self._forms @ ((found - self._mean) / self._scale)).tolist()
        return _sigmoid(log_odds - caution * math.hypot(*deviations))

    def learn(self, found: Evidence, *, right: bool, weight: float = 1.0) -> bool:
        """Take in one label; tell whether the weights have moved, so that the state may be kept."""
        with self._lock:
            self._labels.append(((found - self._mean) / self._scale, float(right), weight))
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
        # Of evidence z the first row gives the log odds; the length of what the others give is its standard deviation.
        self._forms = np.vstack([weights, np.linalg.inv(np.linalg.cholesky(precision))])


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
        p = _sigmoids(x @ weights)
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
    p = _sigmoids(x @ weights)
    return weights, (x * (weight * p * (1 - p))[:, None]).T @ x + precision


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-min(30.0, max(-30.0, x))))


def _sigmoids(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))))
