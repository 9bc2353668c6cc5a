"""Logistic regression on sparse rows with a Gaussian prior, fitted exactly by Newton's method."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_costopt.router.features import Features

Array = NDArray[np.float64]

_STEPS = 25
_TOLERANCE = 1e-3
"""Of the gradient: a prediction is then right to about as many digits."""


def sigmoid(x: Array) -> Array:
    """Turn log odds into probabilities."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -40, 40))), dtype=np.float64)


def fit(
    rows: Sequence[Features], scores: Array, importance: Array, *, start: Array, centre: Array, precision: Array
) -> Array:
    """Find the most probable weights.

    *scores* are in [0, 1], *importance* says how many observations each row stands for. The prior is normal around
    *centre* with *precision* (one over the variance) for each weight. The search begins at *start*.
    """
    columns, places = np.unique(np.concatenate([r.indices for r in rows]), return_inverse=True)
    problem = _Problem(
        places=places,
        values=np.concatenate([r.values for r in rows]).astype(np.float64),
        lengths=np.array([len(r.indices) for r in rows]),
        scores=scores,
        importance=importance,
        centre=centre[columns],
        precision=precision[columns],
    )
    found: Array = centre.copy()  # a weight that no row speaks of stays at the centre
    found[columns] = problem.solve(start[columns])
    return found


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """Rows as one list of places and values, with their scores and the prior."""

    places: NDArray[np.intp]
    values: Array
    lengths: NDArray[np.intp]
    scores: Array
    importance: Array
    centre: Array
    precision: Array

    def forward(self, w: Array) -> Array:
        """Sum up each row."""
        begins = np.cumsum(self.lengths) - self.lengths
        return np.asarray(np.add.reduceat(self.values * w[self.places], begins), dtype=np.float64)

    def backward(self, u: Array) -> Array:
        """Sum up each column."""
        spread = self.values * np.repeat(u, self.lengths)
        return np.asarray(np.bincount(self.places, weights=spread, minlength=len(self.centre)), dtype=np.float64)

    def loss(self, w: Array, f: Array) -> float:
        """Return minus the log of the posterior."""
        away = w - self.centre
        return float(self.importance @ (np.logaddexp(0, f) - self.scores * f) + 0.5 * (self.precision * away) @ away)

    def solve(self, w: Array) -> Array:
        """Take Newton's steps, halved where they would not descend."""
        f = self.forward(w)
        for _ in range(_STEPS):  # pragma: no branch - it converges long before
            p = sigmoid(f)
            gradient = self.backward(self.importance * (p - self.scores)) + self.precision * (w - self.centre)
            if np.abs(gradient).max() < _TOLERANCE:
                break
            step = self.step(gradient, self.importance * p * (1 - p))
            before, along, length = self.loss(w, f), self.forward(step), 1.0
            while length > 1e-4 and self.loss(w + length * step, f + length * along) > before:
                length /= 2
            w, f = w + length * step, f + length * along
        return w

    def step(self, gradient: Array, curvature: Array) -> Array:
        """Solve for a step by conjugate gradients, to a tenth: the next step corrects the rest."""
        x, r = np.zeros_like(gradient), -gradient
        p, square = r.copy(), float(r @ r)
        enough = 0.01 * square
        for _ in range(50):  # pragma: no branch - likewise
            q = self.backward(curvature * self.forward(p)) + self.precision * p
            a = square / float(p @ q)
            x, r = x + a * p, r - a * q
            square, old = float(r @ r), square
            if square <= enough:
                break
            p = r + square / old * p
        return x
