"""What is worth an alert, with thresholds, hysteresis and floors; rules.yml holds the same for Prometheus."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from llm_costopt.monitor.windows import Facts, Scores

Severity = Literal["warning", "critical"]

Measure = Callable[[Facts], Mapping[str, float]]
"""Gives a value for each subject that it can tell of: a model, a budget, or `""` for all. A subject that is left out
is one of which too little is known, and stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One kind of alert."""

    name: str
    """As in rules.yml."""
    says: str
    """A sentence with places for `{value}`, `{about}` and `{limit}`."""
    measure: Measure
    """What is judged."""
    limit: float
    """The value from which on it fires."""
    clear: float
    """The value from which on it no longer does: on the good side of *limit*, so that it does not flap."""
    severity: Severity = "warning"
    """How urgent it is."""

    def state(self, value: float, *, firing: bool) -> bool:
        """Say whether it fires at *value*, given whether it does now; upwards if *clear* is not above *limit*."""
        edge = self.clear if firing else self.limit
        if self.clear > self.limit:
            return value < edge
        return value > edge


_SURE = 2.0
"""Standard errors by which a rate must be beyond its limit, so that few requests do not fire by chance.

Simulated over 2,000 days of 110 requests an hour: a hit rate of 30 % fires 0.04 times a month, without this 23 times.
"""


def hit_rate(*, below: float = 0.20, clear: float = 0.25, least: int = 100) -> Rule:
    """Judge the share of the last hour's requests that the cache answered, if there were *least*.

    It must be two standard errors below. A cache that has not hit once within a week looks like no cache.
    """

    def measure(facts: Facts) -> dict[str, float]:
        hour = facts.hour
        if hour.requests < least or not facts.week_hits:
            return {}
        rate = hour.hits / hour.requests
        return {"": rate if rate < below - _SURE * _error_of(below, hour.requests) else max(rate, below)}

    says = "The cache answered {value:.0%} of the last hour's requests, less than {limit:.0%}."
    return Rule(name="LLMCacheHitRateLow", says=says, measure=measure, limit=below, clear=clear)


def escalation_rate(*, above: float = 0.30, clear: float = 0.25, least: int = 50) -> Rule:
    """Judge the share of the last hour's routed requests that were escalated, if there were *least*.

    It must be two standard errors above.
    """

    def measure(facts: Facts) -> dict[str, float]:
        hour = facts.hour
        if hour.routed < least:
            return {}
        rate = hour.escalated / hour.routed
        return {"": rate if rate > above + _SURE * _error_of(above, hour.routed) else min(rate, above)}

    says = "{value:.0%} of the last hour's routed requests were escalated, more than {limit:.0%}."
    return Rule(name="LLMEscalationRateHigh", says=says, measure=measure, limit=above, clear=clear)


def cost_per_request(*, times: float = 2, clear: float = 1.5, usd: float = 1, least: int = 50) -> Rule:
    """Judge the last hour's cost per request over that of the 24 hours before, from *usd* and *least* requests on.

    The 24 hours must hold four times as many requests.
    """

    def measure(facts: Facts) -> dict[str, float]:
        hour, before = facts.hour, facts.day_before
        enough = hour.requests >= least and before.requests >= 4 * least and before.cost > 0
        if not enough:
            return {}
        ratio = hour.cost / hour.requests / (before.cost / before.requests)
        return {"": ratio if hour.cost >= usd else min(ratio, times)}

    says = "A request of the last hour cost {value:.1f} times the mean of the day before, more than {limit:g} times."
    return Rule(name="LLMCostPerRequestHigh", says=says, measure=measure, limit=times, clear=clear)


def queue_age(*, above: float = 300) -> Rule:
    """Judge the seconds for which the oldest request waits to be sent."""

    def measure(facts: Facts) -> dict[str, float]:
        return {} if facts.batches is None else {"": facts.batches.oldest_queued or 0.0}

    says = "A request has waited {value:.0f} s to be sent, longer than {limit:.0f} s."
    return Rule(name="LLMQueueOld", says=says, measure=measure, limit=above, clear=above / 2)


def budget_burn(*, times: float = 1.2, clear: float = 1.05, least: float = 0.25) -> Rule:
    """Judge how many times as fast as it lasts a budget is spent, once *least* of it is."""

    def measure(facts: Facts) -> dict[str, float]:
        return {
            name: spent / max(elapsed, 1e-9) if spent >= least else 0.0
            for name, (spent, elapsed) in facts.budgets.items()
        }

    says = "The budget {about} is spent {value:.1f} times as fast as it lasts."
    return Rule(name="LLMBudgetBurn", says=says, measure=measure, limit=times, clear=clear)


def budget_spent(*, above: float = 0.98) -> Rule:
    """Judge the part of a budget that is spent."""

    def measure(facts: Facts) -> dict[str, float]:
        return {name: spent for name, (spent, _) in facts.budgets.items()}

    says = "{value:.0%} of the budget {about} are spent."
    return Rule(name="LLMBudgetSpent", says=says, measure=measure, limit=above, clear=above - 0.05, severity="critical")


def unpriced() -> Rule:
    """Judge the last hour's calls at an unknown cost, by model."""
    says = "The cost of {about} is unknown: {value:.0f} calls of the last hour are missing in all costs."
    return Rule(name="LLMUnpricedRequests", says=says, measure=lambda f: f.hour.unpriced, limit=0, clear=0)


def batch_expiry(*, below: float = 7200) -> Rule:
    """Judge the seconds until the first running job of the Batch API expires."""

    def measure(facts: Facts) -> dict[str, float]:
        if facts.batches is None:
            return {}
        return {"": math.inf if facts.batches.next_expiry is None else facts.batches.next_expiry}

    says = "A job of the Batch API expires in {value:.0f} s and has not ended."
    # A job's time never goes up, so there is nothing to flap; `clear` only says which side is good.
    return Rule(name="LLMBatchNearExpiry", says=says, measure=measure, limit=below, clear=below + 1)


def batch_failures(*, above: float = 0.05, clear: float = 0.03, least: int = 20) -> Rule:
    """Judge the share of the last hour's rows of batches that failed, if there were *least*."""

    def measure(facts: Facts) -> dict[str, float]:
        hour = facts.hour
        return {"": hour.failed_rows / hour.rows} if hour.rows >= least else {}

    says = "{value:.0%} of the last hour's rows of batches failed, more than {limit:.0%}."
    return Rule(name="LLMBatchRowsFailed", says=says, measure=measure, limit=above, clear=clear)


def error_drift(*, above: float = 0.02, errors: float = 3, least: int = 50) -> Rule:
    """Judge by how much the measured error of the router's and the cache's answers rose against the week before.

    It must be more than *errors* standard errors, and both sides must have *least* scores. Scores vary at most as much as
    0s and 1s with the same mean.
    """

    def measure(facts: Facts) -> dict[str, float]:
        return {
            about: rise if rise > errors * _standard_error(day, week) else min(rise, above)
            for about, (day, week) in facts.scores.items()
            if min(day.count, week.count) >= least
            for rise in [day.error - week.error]
        }

    says = "The measured error of the {about} rose by {value:.1%} against the week before."
    return Rule(name="LLMAnswerErrorDrift", says=says, measure=measure, limit=above, clear=above / 2)


def _error_of(rate: float, count: float) -> float:
    return math.sqrt(rate * (1 - rate) / count)


def _standard_error(one: Scores, other: Scores) -> float:
    mean = (one.error * one.count + other.error * other.count) / (one.count + other.count)
    return math.sqrt(mean * (1 - mean) * (1 / one.count + 1 / other.count))


def default_rules() -> tuple[Rule, ...]:
    """List all kinds of alerts, as rules.yml has them."""
    return (
        hit_rate(),
        escalation_rate(),
        cost_per_request(),
        queue_age(),
        budget_burn(),
        budget_spent(),
        unpriced(),
        batch_expiry(),
        batch_failures(),
        error_drift(),
    )
