"""What a comparison of two arms shows and what it does not, in sentences."""

from llm_costopt.monitor.ab import Comparison
from llm_costopt.monitor.intervals import ENOUGH, ENOUGH_SKEWED, Estimate

TOO_FEW = "too few to tell"


def verdict(found: Comparison, *, target_quality: float | None = None) -> list[str]:
    """Say what routing does to cost and quality, and whether it keeps *target_quality* of the control's quality.

    A difference whose interval includes none is "not shown", which is no proof that there is none.
    Raises ValueError if *target_quality* is not above 0 and at most 1.
    """
    if target_quality is not None and not 0 < target_quality <= 1:
        raise ValueError(f"a target quality is a share of the control's, such as 0.95, not {target_quality!r}")
    sentences = [_cost(found), _quality(found)]
    if target_quality is not None:
        sentences.append(_target(found, target_quality))
    if found.errors and found.errors.excludes(0):
        sentences.append(f"Failures: {found.routed.name} requests differ by {points(found.errors)}.")
    return sentences


def _cost(found: Comparison) -> str:
    least = min(found.routed.priced, found.control.priced)
    if least < ENOUGH_SKEWED:
        return f"Cost: {TOO_FEW}, {ENOUGH_SKEWED} requests a side are needed and one has {least} of known cost."
    if found.cost is None:
        return "Cost: nothing to tell, since one side may well cost nothing."
    if not found.cost.excludes(1):
        return f"Cost: no difference shown ({interval(found.cost)})."
    less = found.cost.value < 1
    ends = sorted(abs(end - 1) for end in (found.cost.low, found.cost.high))
    return (
        f"Cost: {found.routed.name} requests cost {percent(abs(found.cost.value - 1))} {'less' if less else 'more'} "
        f"({percent(ends[0])} to {percent(ends[1])})."
    )


def _quality(found: Comparison) -> str:
    if found.score is None:
        return f"Quality: {_too_few_scores(found)}."
    if not found.score.excludes(0):
        return f"Quality: no difference shown ({points(found.score)})."
    return f"Quality: {found.routed.name} answers differ by {points(found.score)}."


def _target(found: Comparison, target: float) -> str:
    claim = f"At least {percent(target)} of the control's quality"
    if found.quality is None:
        return f"{claim}: not shown, {_too_few_scores(found)}."
    shown = "shown" if found.quality.low >= target else "not shown"
    return f"{claim}: {shown} ({percent(found.quality.value)}, lower bound {percent(found.quality.low)})."


def _too_few_scores(found: Comparison) -> str:
    least = min(found.routed.scored, found.control.scored)
    return f"{TOO_FEW}, {ENOUGH} scores a side are needed and one has {least}"


def interval(of: Estimate) -> str:
    """Write a multiple as a change with its interval: `+61.0 %, +55.1 to +66.2 %`."""
    change, low, high = (_signed(100 * (x - 1)) for x in (of.value, of.low, of.high))
    return f"{change} %, {low} to {high} %"


def points(of: Estimate) -> str:
    """Write a difference of shares in points of 100 with its interval: `+0.4 points, +0.1 to +0.8`."""
    value, low, high = (_signed(100 * x) for x in (of.value, of.low, of.high))
    return f"{value} points, {low} to {high}"


def percent(value: float) -> str:
    """Write a share: `94.2 %`."""
    return f"{100 * value:.1f} %"


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0:+.1f}".replace("-", "−")  # adding 0 takes the sign from -0.0
