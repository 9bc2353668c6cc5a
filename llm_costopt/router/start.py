"""What a router begins with: the prices of its tiers, what was learned, and its limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from llm_costopt.account import Price
from llm_costopt.router.complexity import Complexity
from llm_costopt.router.confidence import Confidence
from llm_costopt.router.cooldown import CoolDown
from llm_costopt.router.costs import Costs, rates_of
from llm_costopt.router.learned import LearnedRules, Targets
from llm_costopt.router.router import Memory
from llm_costopt.router.shadow import Shadow
from llm_costopt.router.spending import Allowance


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The model of a tier, as its host names it."""

    name: str | None
    """By its provider's name; None if the host does not say."""
    provider: str | None
    """Who sells it; None if the host does not say."""


def memory_of(
    models: Sequence[Model],
    *,
    price: Price,
    targets: Targets,
    with_budgets: bool,
    learned: LearnedRules | None,
    shadow_rate: float,
    is_judged: bool,
    cool_down: float,
    complexity: Complexity,
    confidence: Confidence,
) -> Memory:
    """Make what a router over *models* and its copies share.

    Raises:
        ValueError: a limit in US dollars or a target needs a price that nobody knows, rules were learned for another
            number of tiers, or a share is to be compared and nobody judges.
    """
    if shadow_rate and not is_judged:
        raise ValueError("shadow_rate= compares answers: give judge=, a function or a chat model")
    if learned is not None and learned.tiers != len(models):
        raise ValueError(f"learned= holds rules for {learned.tiers} tiers, there are {len(models)}")
    costs = Costs([rates_of(price, model.name, model.provider) for model in models])
    if (targets.max_cost_per_request or with_budgets or targets.target_quality) and not costs.known:
        unknown = [m.name for m, r in zip(models, costs.rates, strict=True) if r is None]
        hint = f"prices=Prices({{{unknown[0]!r}: (input, output)}}), in US dollars per million tokens"
        if unknown[0] is None:
            hint = "the model a field `model` or `model_name`, since a price is found by its name"
        raise ValueError(
            f"a target or a limit in US dollars needs the price of each tier, {unknown} are unknown: give {hint}"
        )
    usual = costs.usual()
    rules = learned or LearnedRules(tiers=len(models), prices=usual, complexity=complexity, confidence=confidence)
    if targets.any and rules.prices:
        rules.aim(targets)
    mean = targets.max_cost_per_request
    return Memory(
        learned=rules,
        costs=costs,
        cool_down=CoolDown(cool_down),
        shadow=Shadow(shadow_rate),
        share=None if targets.max_strong_share is None else Allowance(targets.max_strong_share, strong=1.0),
        mean_cost=Allowance(mean, strong=usual[-1]) if mean and usual and usual[-1] else None,
    )


def rule_name(rule: Any) -> str:
    """Name a rule in a cache key: by its address where its name may stand for several."""
    is_unique = isinstance(rule, FunctionType) and "<" not in rule.__qualname__
    return f"{rule.__module__}.{rule.__qualname__}" if is_unique else repr(rule)
