"""Logistic regression on sparse rows with a Gaussian prior, fitted exactly by Newton's method."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from llm_costopt.router.features import Features

Array = NDArray[np.float64]

_STEPS = 25
_TOLERANCE = 1e-3
"""Of the gradient: a prediction is then right to about as many digits."""


def sigmoid(x: Array) -> Array:
    """Turn log odds into probabilities."""
    return 1 / (1 + np.exp(-np.clip(x, -40, 40)))


def fit(
    rows: Sequence[Features], scores: Array, importance: Array, *, start: Array, centre: Array, precision: Array
) -> Array:
    """Find the most probable weights.

    *scores* are in [0, 1], *importance* says how many observations each row stands for. The prior is normal around
    *centre* with *precision* (one over the variance) for each weight. The search begins at *start*.
    """
    columns, places = np.unique(np.concatenate([r.indices for r in rows]), return_inverse=True)
    values = np.concatenate([r.values for r in rows]).astype(np.float64)
    lengths = np.array([len(r.indices) for r in rows])
    begins = np.cumsum(lengths) - lengths

    def forward(w: Array) -> Array:
        return np.add.reduceat(values * w[places], begins)

    def backward(u: Array) -> Array:
        return np.bincount(places, weights=values * np.repeat(u, lengths), minlength=len(columns))

    found = centre.copy()  # a weight that no row speaks of stays at the centre
    found[columns] = _newton(
        forward, backward, scores, importance, start[columns], centre[columns], precision[columns]
    )
    return found


Linear = Callable[[Array], Array]


def _newton(
    forward: Linear, backward: Linear, y: Array, importance: Array, w: Array, centre: Array, precision: Array
) -> Array:
    def loss(w: Array, f: Array) -> float:
        away = w - centre
        return float(importance @ (np.logaddexp(0, f) - y * f) + 0.5 * (precision * away) @ away)

    f = forward(w)
    for _ in range(_STEPS):
        p = sigmoid(f)
        gradient = backward(importance * (p - y)) + precision * (w - centre)
        if np.abs(gradient).max() < _TOLERANCE:
            break
        curvature = importance * p * (1 - p)
        step = _solve(lambda v, c=curvature: backward(c * forward(v)) + precision * v, -gradient)  # type: ignore[misc]
        before, along, length = loss(w, f), forward(step), 1.0
        while length > 1e-4 and loss(w + length * step, f + length * along) > before:
            length /= 2
        w, f = w + length * step, f + length * along
    return w


def _solve(apply: Linear, b: Array) -> Array:
    """Solve by conjugate gradients, to a tenth: Newton's method corrects the rest."""
    x, r = np.zeros_like(b), b.copy()
    p, square = r.copy(), float(r @ r)
    enough = 0.01 * square
    for _ in range(50):
        q = apply(p)
        a = square / float(p @ q)
        x, r = x + a * p, r - a * q
        square, old = float(r @ r), square
        if square <= enough:
            break
        p = r + square / old * p
    return x
