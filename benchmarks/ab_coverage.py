"""How often do the intervals of `llm-costopt ab` hold the truth?

    python benchmarks/ab_coverage.py [--repeats 2000] [--sizes 30 50 100 200 1000] [--all-sizes] [--json]

Two arms of n requests each are drawn from known distributions, many times over; a row of the table says in which share
of the draws the 95 % interval of the difference holds the true one, how often it lies wholly above or below it, and how
wide it is in the middle.
`percentile bootstrap` is the usual way (1,000 resamples, a quarter of the draws), for comparison.

Costs: lognormal, and a router's, where a share of the requests is hits (0), most others are cheap, and the rest costs
17 times as much. Latency: the 95th percentile of lognormal times. Scores: rates, graded ones, ones near the top.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_costopt.monitor import intervals
from llm_costopt.monitor.intervals import Estimate, difference, mean_amount, percentile_95, ratio, share

Values = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Values]
Z95 = 1.6448536


def lognormal(median: float, spread: float) -> tuple[Draw, float, float]:
    """Make amounts, their mean and their 95th percentile."""
    middle = math.log(median)
    return (
        lambda rng, n: rng.lognormal(middle, spread, n),
        math.exp(middle + spread**2 / 2),
        math.exp(middle + Z95 * spread),
    )


def routed(strong: float, *, hits: float = 0.3, spread: float = 0.7) -> tuple[Draw, float]:
    """Make costs of which the share *strong* is 17 times as high, and their mean."""

    def draw(rng: np.random.Generator, n: int) -> Values:
        price = np.where(rng.random(n) < strong, 17.0, 1.0) * (rng.random(n) >= hits)
        return rng.lognormal(0, spread, n) * price

    return draw, (1 - hits) * math.exp(spread**2 / 2) * (1 + 16 * strong)


def rate(p: float) -> tuple[Draw, float]:
    """Make outcomes that are 0 or 1, and their mean."""
    return lambda rng, n: (rng.random(n) < p).astype(float), p


def graded(good: float, bad: float) -> tuple[Draw, float]:
    """Make scores between 0 and 1, and their mean."""
    return lambda rng, n: rng.beta(good, bad, n), good / (good + bad)


def near_top(perfect: float) -> tuple[Draw, float]:
    """Make scores of which the share *perfect* is 1 and the rest anything up to 0.6, and their mean."""

    def draw(rng: np.random.Generator, n: int) -> Values:
        return np.where(rng.random(n) < perfect, 1.0, 0.6 * rng.random(n))

    return draw, perfect + (1 - perfect) * 0.3


COSTS = {
    "cost, lognormal 1, both": (lognormal(0.4, 1), lognormal(1, 1)),
    "cost, lognormal 1.5, both": (lognormal(0.4, 1.5), lognormal(1, 1.5)),
    "cost, 1 in 20 strong / lognormal 0.7": (routed(0.05), lognormal(7, 0.7)),
    "cost, 1 in 10 strong / lognormal 0.7": (routed(0.1), lognormal(7, 0.7)),
    "cost, 3 in 10 strong / lognormal 0.7": (routed(0.3), lognormal(7, 0.7)),
    "cost, lognormal 2 / lognormal 1": (lognormal(1, 2), lognormal(1, 1)),
}
TIMES = {
    "p95, lognormal 1, both": (lognormal(0.4, 1), lognormal(1, 1)),
    "p95, lognormal 0.5 / lognormal 1": (lognormal(0.4, 0.5), lognormal(1, 1)),
}
SHARES = {
    "rate, 0.5 % / 0.5 %": (rate(0.005), rate(0.005)),
    "rate, 5 % / 2 %": (rate(0.05), rate(0.02)),
    "rate, 90 % / 93 %": (rate(0.9), rate(0.93)),
    "score, beta(8, 2) / beta(9, 2)": (graded(8, 2), graded(9, 2)),
    "score, 97 % / 98 % perfect": (near_top(0.97), near_top(0.98)),
    "score, 80 % / 85 % perfect": (near_top(0.8), near_top(0.85)),
}


def bootstrap(one: Values, other: Values, rng: np.random.Generator, resamples: int = 1000) -> Estimate:
    """Take the 2.5th and 97.5th percentile of the resampled ratio."""
    means = [v[rng.integers(0, len(v), (resamples, len(v)))].mean(axis=1) for v in (one, other)]
    low, high = np.quantile(means[0] / means[1], [0.025, 0.975])
    return Estimate(value=float(one.mean() / other.mean()), low=float(low), high=float(high))


def measure(
    case: str,
    *,
    n: int,
    repeats: int,
    draws: tuple[Draw, Draw],
    truth: float,
    estimate: Callable[[Values, Values], Any],
) -> dict[str, Any]:
    """Count where the truth lies."""
    rng = np.random.default_rng(n)
    drawn = [estimate(*(draw(rng, n) for draw in draws)) for _ in range(repeats)]
    found = [e for e in drawn if e is not None]
    row: dict[str, Any] = {"case": case, "n": n, "draws": repeats, "given": len(found) / repeats}
    if not found:
        return row
    above, below = sum(e.low > truth for e in found), sum(e.high < truth for e in found)
    return row | {
        "held": 1 - (above + below) / len(found),
        "above": above / len(found),
        "below": below / len(found),
        "width": float(np.median([e.high - e.low for e in found])),
    }


def rows(n: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Measure every case with *n* requests an arm."""
    rng = np.random.default_rng(0)
    for name, (one, other) in COSTS.items():
        draws, truth = (one[0], other[0]), one[1] / other[1]
        yield measure(
            name,
            n=n,
            repeats=repeats,
            draws=draws,
            truth=truth,
            estimate=lambda a, b: ratio(mean_amount(a), mean_amount(b)),
        )
        usual = f"{name}: percentile bootstrap"
        yield measure(
            usual,
            n=n,
            repeats=max(1, repeats // 4),
            draws=draws,
            truth=truth,
            estimate=lambda a, b: bootstrap(a, b, rng),
        )
    for name, (one, other) in TIMES.items():
        draws, truth = (one[0], other[0]), one[2] / other[2]
        yield measure(
            name,
            n=n,
            repeats=repeats,
            draws=draws,
            truth=truth,
            estimate=lambda a, b: ratio(percentile_95(a), percentile_95(b)),
        )
    for name, (first, second) in SHARES.items():
        draws, truth = (first[0], second[0]), first[1] - second[1]
        yield measure(
            name, n=n, repeats=repeats, draws=draws, truth=truth, estimate=lambda a, b: difference(share(a), share(b))
        )


def main() -> None:
    """Print the table, or JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 50, 100, 200, 1000])
    parser.add_argument("--all-sizes", action="store_true", help="costs below the least number, to see why it is one")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.all_sizes:
        intervals.ENOUGH_SKEWED = 2
    for n in args.sizes:
        for row in rows(n, args.repeats):
            if args.json:
                print(json.dumps(row), flush=True)
            elif "held" not in row:
                print(f"n {n:5}  {row['case']:58} too few to tell")
            else:
                print(
                    f"n {n:5}  {row['case']:58} held {row['held']:.3f}  above {row['above']:.3f}  below {row['below']:.3f}"
                    f"  width {row['width']:.3f}"
                )


if __name__ == "__main__":
    main()
