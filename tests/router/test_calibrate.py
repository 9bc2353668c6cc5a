import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llm_costopt.router.calibrate import Calibration, calibrate, cascade_pays, cheapest, choose, estimate

Array = NDArray[np.float64]
PRICES = (0.05, 1.0)


def world(n: int, seed: int, sharp: float = 6.0) -> tuple[Array, Array]:
    """Draw requests: P(right) of two tiers, true probabilities, and outcomes that follow them."""
    rng = np.random.default_rng(seed)
    cheap = 1 / (1 + np.exp(-rng.normal(0.7, sharp, n)))
    right = np.stack((cheap, np.full(n, 0.9)), axis=1)
    return right, (rng.random((n, 2)) < right).astype(float)


def kept(right: Array, quality: Array, threshold: float) -> float:
    """Route with a threshold and give the share of the strong tier's quality that is kept."""
    tier = choose(right, PRICES, threshold)
    return float(quality[np.arange(len(tier)), tier].mean() / quality[:, 1].mean())


def test_a_target_is_met_with_fewer_strong_calls() -> None:
    """With enough outcomes and estimates that tell, the target is held well below all-strong, and the sentence says so."""
    found = calibrate(*world(4000, 0), PRICES, drafts=True, target_quality=0.95)

    assert 0.2 < found.point.strong_share < 0.6
    assert found.point.low >= 0.95
    assert found.point.low < found.point.quality < found.point.high
    assert found.point.cost == pytest.approx(0.05 + found.point.strong_share)
    assert f"at least 95% with 95 % confidence on {found.outcomes} outcomes" in found.explanation


def test_thin_data_means_strong_calls() -> None:
    """On ten outcomes nothing is proven: all calls are strong, and the sentence says why."""
    found = calibrate(*world(10, 0), PRICES, drafts=False, target_quality=0.95)

    assert (found.point.strong_share, found.point.quality) == (1.0, 1.0)
    assert "10 outcomes do not prove" in found.explanation


def test_a_few_good_outcomes_prove_nothing() -> None:
    """A cheap tier that has not failed yet in 15 requests is not taken for one that never fails."""
    right = np.stack((np.linspace(0.5, 0.99, 15), np.full(15, 0.999)), axis=1)

    assert calibrate(right, np.ones((15, 2)), PRICES, drafts=False, target_quality=0.95).point.strong_share == 1


def test_the_more_outcomes_the_fewer_strong_calls() -> None:
    """With more outcomes the same bound is held with fewer strong calls."""
    shares = [
        np.mean(
            [
                calibrate(*world(n, seed), PRICES, drafts=True, target_quality=0.95).point.strong_share
                for seed in range(20)
            ]
        )
        for n in (50, 200, 2000)
    ]

    assert shares[0] > shares[1] > shares[2]


@pytest.mark.parametrize("n", [40, 150, 600])
@pytest.mark.parametrize("sharp", [0.5, 6.0])
def test_a_target_holds_on_fresh_data(n: int, sharp: float) -> None:
    """Over 100 samples the quality of 40,000 fresh requests is below the target in at most 8 % of the cases."""
    fresh = world(40_000, 10_000, sharp)
    points = [
        calibrate(*world(n, seed, sharp), PRICES, drafts=True, target_quality=0.95).point.threshold
        for seed in range(100)
    ]
    missed = sum(kept(*fresh, threshold) < 0.95 for threshold in points)

    assert missed <= 8


def test_what_comes_after_a_failure_is_not_believed() -> None:
    """Where sparing the first calls breaks the target, a later point that looks good again is not taken."""
    right = np.stack((np.linspace(0.99, 0.1, 400), np.full(400, 0.999)), axis=1)
    quality = np.stack((np.arange(400) >= 40, np.where(np.arange(400) < 40, 1.0, 0.5)), axis=1).astype(float)
    found = calibrate(right, quality, PRICES, drafts=True, target_quality=0.95)

    assert found.curve[-1].low > 1
    assert found.point.strong_share > 0.9


def test_members_of_a_group_count_as_one() -> None:
    """Ten copies of each request prove no more than one of each."""
    right, quality = world(100, 1)
    tenfold = np.repeat(right, 10, axis=0), np.repeat(quality, 10, axis=0)
    names = [str(n // 10) for n in range(1000)]
    blind = calibrate(*tenfold, PRICES, drafts=True, target_quality=0.95).point
    single = calibrate(right, quality, PRICES, drafts=True, target_quality=0.95).point
    grouped = calibrate(*tenfold, PRICES, drafts=True, target_quality=0.95, groups=names).point

    assert blind.strong_share < grouped.strong_share <= single.strong_share + 0.05
    assert grouped.high - grouped.low > 2 * (blind.high - blind.low)


@given(st.integers(1, 60), st.integers(0, 1000), st.floats(0, 1), st.booleans())
def test_a_share_is_never_exceeded(n: int, seed: int, share: float, drafts: bool) -> None:
    """The strong share keeps to its limit, without any outcome, and no point of the curve that does has more."""
    right, quality = world(n, seed)
    found = calibrate(right, np.full_like(quality, np.nan), PRICES, drafts=drafts, max_strong_share=share)

    assert found.point.strong_share <= share
    assert found.point.strong_share == max(p.strong_share for p in found.curve if p.strong_share <= share)
    assert math.isnan(found.point.quality)


@given(st.integers(1, 60), st.integers(0, 1000), st.floats(0.05, 1.2), st.booleans())
def test_a_cost_is_never_exceeded(n: int, seed: int, cost: float, drafts: bool) -> None:
    """The mean cost of a request keeps to its limit, in the unit of the prices."""
    found = calibrate(*world(n, seed), (0.001, 0.02), drafts=drafts, max_cost_per_request=cost * 0.02)

    assert found.point.cost <= cost * (1 + 1e-6)


def test_a_limit_below_the_cheapest_price_is_an_error() -> None:
    """A cost that no tier has is refused, with its figure."""
    with pytest.raises(ValueError, match=r"costs at most 0\.01 per request"):
        calibrate(*world(20, 0), PRICES, drafts=True, max_cost_per_request=0.01)


def test_a_limit_goes_before_a_target() -> None:
    """Where a limit leaves too few strong calls for the target, the limit is kept and the sentence says so."""
    found = calibrate(*world(500, 0), PRICES, drafts=True, target_quality=0.99, max_strong_share=0.1)

    assert found.point.strong_share <= 0.1
    assert "10% strong calls" in found.explanation
    assert "but 99% of the strong quality is not proven there" in found.explanation


def test_a_limit_that_leaves_room_does_not_decide() -> None:
    """Where the target needs fewer strong calls than the limit allows, the target decides."""
    sample = world(2000, 0)
    free = calibrate(*sample, PRICES, drafts=True, target_quality=0.95)
    limited = calibrate(*sample, PRICES, drafts=True, target_quality=0.95, max_strong_share=0.9)

    assert limited.point == free.point


def test_without_any_wish_the_strongest_answers() -> None:
    """Without a target or a limit quality comes first, and the sentence says that nothing was asked for."""
    found = calibrate(*world(50, 0), PRICES, drafts=False)

    assert found.point.strong_share == 1
    assert "nothing was asked for" in found.explanation


def test_the_curve_goes_from_all_strong_to_all_cheap() -> None:
    """The curve for a plot begins with strong calls only, ends with none, and its cost falls."""
    points = calibrate(*world(300, 0), PRICES, drafts=False).curve

    assert (points[0].strong_share, points[0].cost) == (1.0, 1.0)
    assert points[-1].strong_share == 0
    assert points[-1].cost == pytest.approx(0.05)
    assert [p.cost for p in points] == sorted((p.cost for p in points), reverse=True)


def test_two_tiers_are_chosen_by_the_gain() -> None:
    """The strong tier is asked if its gain is above the threshold, and not if it is equal."""
    right = np.array([[0.5, 0.75], [0.5, 0.8], [0.5, 0.5]])

    assert choose(right, PRICES, 0.25).tolist() == [0, 1, 0]
    assert choose(right, PRICES, -math.inf).tolist() == [1, 1, 1]
    assert choose(right, PRICES, math.inf).tolist() == [0, 0, 0]


def test_three_tiers_are_chosen_by_gain_per_price() -> None:
    """The middle tier is taken where it gains nearly as much as the strongest for a part of the price."""
    right = np.array([[0.5, 0.8, 0.85], [0.5, 0.55, 0.9], [0.85, 0.88, 0.9]])

    assert choose(right, (0.0, 0.2, 1.0), 0.2).tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="prices rise"):
        choose(right, (0.2, 0.1, 1.0), 0.2)


def test_one_tier_leaves_no_choice() -> None:
    """A router with one tier always asks it."""
    found = calibrate(np.full((5, 1), 0.5), np.ones((5, 1)), (1.0,), drafts=False, target_quality=0.95)

    assert (found.point.strong_share, found.point.cost) == (1.0, 1.0)


def test_a_biased_log_gives_the_right_mean() -> None:
    """What is known with unequal probability is filled in and weighted so that means hold, though estimates are wrong."""
    rng = np.random.default_rng(0)
    right, outcomes = world(20_000, 3)
    chance = np.where(right[:, :1] > 0.5, 0.9, 0.1) * np.array([1.0, 0.5])
    scores = np.where(rng.random(outcomes.shape) < chance, outcomes, np.nan)
    wrong = np.full_like(right, 0.2)
    filled = estimate(wrong, scores, 1 / chance)

    assert filled.mean(axis=0) == pytest.approx(outcomes.mean(axis=0), abs=0.03)
    assert abs(np.nanmean(scores[:, 0]) - outcomes[:, 0].mean()) > 0.1
    assert (estimate(wrong, outcomes) == outcomes).all()


def test_a_cascade_that_costs_more_turns_itself_off() -> None:
    """Where drafts make requests dearer than all-strong, the strongest tier answers at once or a tier is chosen before."""
    right, quality = world(300, 0, sharp=0.01)
    drafted, single = (calibrate(right, quality, (0.6, 1), drafts=d, target_quality=0.95) for d in (True, False))
    alone = cheapest(drafted)

    assert drafted.point.cost > 1
    assert cheapest(drafted, single) == single
    assert (alone.drafts, alone.point.strong_share, alone.point.cost) == (False, 1.0, 1.0)
    assert f"{drafted.point.cost:.2f} times" in alone.explanation


def test_the_cheapest_way_is_taken() -> None:
    """Drafts that tell right from wrong beat a choice before any call that cannot, and the other way round."""
    sharp, quality = world(2000, 0)
    blind = np.tile(sharp.mean(axis=0), (2000, 1)) + np.random.default_rng(0).normal(0, 0.01, (2000, 2))

    def way(right: Array, *, drafts: bool) -> Calibration:
        return calibrate(right, quality, PRICES, drafts=drafts, target_quality=0.95)

    assert cheapest(way(sharp, drafts=True), way(blind, drafts=False)).drafts
    assert not cheapest(way(blind, drafts=True), way(sharp, drafts=False)).drafts


@pytest.mark.parametrize(
    ("price_ratio", "p_right", "escalation_rate", "pays"),
    [
        (0.05, 0.7, 0.0, True),
        (0.05, 0.04, 0.0, False),
        (0.05, 0.9, 0.96, False),
        (0.5, 0.4, 0.0, False),
        (0.5, 0.6, 0.3, True),
        (1.0, 1.0, 0.0, False),
    ],
)
def test_a_draft_must_earn_its_price(price_ratio: float, p_right: float, escalation_rate: float, pays: bool) -> None:
    """A draft pays if its price is less than the share of strong calls that it saves."""
    assert cascade_pays(price_ratio, p_right, escalation_rate) is pays


@pytest.mark.parametrize("target", [0, -1, 1.5, float("nan")])
def test_an_impossible_target_is_refused(target: float) -> None:
    """A target outside (0, 1] is an error, and so are arrays that do not fit together."""
    with pytest.raises(ValueError, match="a target is a share"):
        calibrate(*world(20, 0), PRICES, drafts=False, target_quality=target)
    with pytest.raises(ValueError, match="a row per request"):
        calibrate(np.ones((2, 2)), np.ones((3, 2)), PRICES, drafts=False)
