import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_costopt.router.features import Features
from llm_costopt.router.logistic import fit, sigmoid


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_the_most_probable_weights_are_found(seed: int, n: int) -> None:
    """At the weights found, outcomes and prior pull equally: the gradient, worked out densely, is nought."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((n, 12)) < 0.4, rng.normal(0, 2, (n, 12)), 0)
    x[:, 0] = 1
    rows = [Features(np.flatnonzero(r).astype(np.int32), r[r != 0].astype(np.float32)) for r in x]
    scores, importance = rng.random(n).round(), rng.choice([1.0, 20.0], n)
    centre, precision = rng.normal(0, 2, 12), rng.choice([1.0, 50.0], 12)
    w = fit(rows, scores, importance, start=np.zeros(12), centre=centre, precision=precision)

    gradient = x.T @ (importance * (sigmoid(x @ w) - scores)) + precision * (w - centre)

    assert gradient == pytest.approx(np.zeros(12), abs=0.01)


def test_what_no_row_speaks_of_stays() -> None:
    """A weight without a row stays at the centre of its prior."""
    row = Features(np.array([1], dtype=np.int32), np.array([1], dtype=np.float32))
    ones = np.ones(3)
    w = fit([row], np.ones(1), np.ones(1), start=np.zeros(3), centre=7 * ones, precision=ones)

    assert (w[0], w[2]) == (7, 7)
