"""Intervals: they hold the truth as often as they say, and say nothing where there is too little to say it of."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from llm_costopt.monitor.intervals import Estimate, difference, mean_amount, percentile_95, ratio, share

Values = NDArray[np.float64]


def coverage(truth: float, estimate: Callable[[np.random.Generator], Estimate | None], repeats: int = 500) -> float:
    """Say how many of *repeats* intervals hold *truth*."""
    rng = np.random.default_rng(1)
    found = [estimate(rng) for _ in range(repeats)]

    return sum(e is not None and not e.excludes(truth) for e in found) / repeats


def uneven(rng: np.random.Generator) -> Values:
    """Draw the costs of 200 requests of which 30 % are hits and 5 % of the others cost 17 times as much."""
    dear = np.where(rng.random(200) < 0.05, 17.0, 1.0)
    return rng.lognormal(0, 0.7, 200) * dear * (rng.random(200) < 0.7)


UNEVEN = 0.7 * np.exp(0.7**2 / 2) * (1 + 0.05 * 16)


def test_a_mean_of_skewed_costs_is_held() -> None:
    """Of intervals for lognormal costs 93 % or more hold the mean, and so do those for a few dear among many cheap."""
    assert coverage(np.exp(0.5), lambda rng: mean_amount(rng.lognormal(0, 1, 200))) >= 0.93
    assert coverage(UNEVEN, lambda rng: mean_amount(uneven(rng))) >= 0.93


def test_a_ratio_of_skewed_costs_is_held() -> None:
    """Of two arms of 200 requests, 93 % or more of the intervals hold how many times as much one costs."""
    even = coverage(0.5, lambda rng: ratio(*(mean_amount(rng.lognormal(np.log(m), 1, 200)) for m in (1, 2))))
    mixed = coverage(
        UNEVEN / np.exp(0.5), lambda rng: ratio(mean_amount(uneven(rng)), mean_amount(rng.lognormal(0, 1, 200)))
    )

    assert min(even, mixed) >= 0.93


@pytest.mark.parametrize("n", [100, 1000])
def test_a_percentile_is_held(n: int) -> None:
    """95 % or more of the intervals hold the 95th percentile."""
    assert coverage(np.exp(1.644854), lambda rng: percentile_95(rng.lognormal(0, 1, n))) >= 0.95


@pytest.mark.parametrize(("one", "other"), [(0.02, 0.05), (0.5, 0.4), (0.97, 0.98)])
def test_a_difference_of_rates_is_held(one: float, other: float) -> None:
    """94 % or more of the intervals hold the difference, near the ends of the scale too."""

    def drawn(rng: np.random.Generator) -> Estimate | None:
        return difference(*(share((rng.random(100) < p).astype(float)) for p in (one, other)))

    assert coverage(one - other, drawn) >= 0.94


def test_a_difference_of_graded_scores_is_held_and_narrow() -> None:
    """Scores that vary little get an interval that is narrower than that of a rate, and still holds the truth."""

    def drawn(rng: np.random.Generator) -> Estimate | None:
        return difference(share(rng.beta(8, 2, 200)), share(rng.beta(9, 2, 200)))

    narrow, wide = drawn(np.random.default_rng(1)), share((np.arange(200) < 160).astype(float))

    assert coverage(8 / 10 - 9 / 11, drawn) >= 0.94
    assert narrow
    assert wide
    assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low)


def test_a_rate_has_wilsons_interval() -> None:
    """1 of 100 gives the ends of Wilson's formula, and 0 of 100 does not end at 0."""
    one, none = share(np.eye(1, 100)[0]), share(np.zeros(100))

    assert one
    assert none
    assert (one.value, one.low, one.high) == pytest.approx((0.01, 0.00177, 0.05449), abs=1e-5)
    assert (none.value, none.low, none.high) == pytest.approx((0, 0, 0.03699), abs=1e-5)


def test_a_difference_of_rates_is_newcombes() -> None:
    """56 of 70 less 48 of 80 is 0.2 from 0.0524 to 0.3339, the example of Newcombe's paper."""
    one, other = (share((np.arange(n) < k).astype(float)) for k, n in ((56, 70), (48, 80)))
    found = difference(one, other)

    assert found
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_equal_scores_prove_little() -> None:
    """40 scores that are all alike leave room for others."""
    for score in (0.0, 0.8, 1.0):
        found = share(np.full(40, score))
        assert found
        assert found.high - found.low > 0.07


def test_too_few_values_have_no_interval() -> None:
    """Below 30 shares and 100 amounts there is none, nor for what is made of it."""
    assert (share(np.ones(29)), mean_amount(np.ones(99)), percentile_95(np.ones(99))) == (None, None, None)
    known = share(np.ones(30))
    assert known is not None
    assert (difference(known, None), difference(None, known), ratio(known, None), ratio(None, known)) == (None,) * 4


def test_equal_amounts_have_an_exact_mean() -> None:
    """Where nothing varies, the mean is known."""
    assert mean_amount(np.full(100, 2.0)) == Estimate(value=2, low=2, high=2)


def test_even_amounts_have_the_interval_of_students_t() -> None:
    """Without skew, mean and 1.96 standard errors."""
    found = mean_amount(np.tile([1.0, 3.0], 100))

    assert found
    assert (found.low, found.high) == pytest.approx((2 - 1.96 / 199**0.5, 2 + 1.96 / 199**0.5), abs=1e-4)


def test_the_ends_of_a_skewed_mean_are_halls() -> None:
    """Put through Hall's polynomial, both ends are 1.96 standard errors away."""
    values = np.random.default_rng(2).lognormal(0, 1, 200)
    found, error = mean_amount(values), values.std(ddof=1) / 200**0.5
    g = ((values - values.mean()) ** 3).mean() / values.std(ddof=1) ** 3 / 200**0.5

    assert found
    for end, expected in ((found.low, 1.96), (found.high, -1.96)):
        t = (values.mean() - end) / error
        assert t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6 == pytest.approx(expected, abs=1e-4)


def test_a_mean_of_amounts_is_not_below_nothing() -> None:
    """Where one of 100 costs something, the interval ends at 0."""
    found = mean_amount(np.eye(1, 100)[0])

    assert found
    assert (found.value, found.low) == (0.01, 0.0)


def test_a_ratio_to_nothing_is_unknown() -> None:
    """What may be 0 is no measure, and 0 has no logarithm."""
    some, none, maybe = (Estimate(value=v, low=low, high=3) for v, low in ((2, 1), (0, 0), (1, 0)))

    assert (ratio(some, none), ratio(some, maybe), ratio(none, some)) == (None, None, None)
    found = ratio(maybe, some)
    assert found
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0, 1.8328), abs=1e-4)
