"""What a router begins with, read off its tiers: their prices, what was learned, who judges."""

from typing import TYPE_CHECKING

from langchain_costopt._route import model_name, provider_of
from llm_costopt.monitor.prices import Prices
from llm_costopt.router.cooldown import CoolDown
from llm_costopt.router.costs import Costs, rates_of
from llm_costopt.router.learned import LearnedRules, Targets
from llm_costopt.router.router import Memory
from llm_costopt.router.shadow import Shadow
from llm_costopt.router.spending import Allowance

if TYPE_CHECKING:
    from langchain_costopt.router import RouterChatModel


def memory_of(router: "RouterChatModel") -> Memory:
    """Make what *router* and its copies share.

    Raises:
        ValueError: a limit in US dollars or a target needs a price that nobody knows, rules were learned for another
            number of tiers, or a share is to be compared and nobody judges.
    """
    tiers = len(router.tiers)
    if router.shadow_rate and router.judge is None:
        raise ValueError("shadow_rate= compares answers: give judge=, a function or a chat model")
    if router.learned is not None and router.learned.tiers != tiers:
        raise ValueError(f"learned= holds rules for {router.learned.tiers} tiers, there are {tiers}")
    price = router.prices or Prices()
    costs = Costs([rates_of(price, model_name(tier), provider_of(tier)) for tier in router.tiers])
    targets = Targets(
        target_quality=router.target_quality,
        max_strong_share=router.max_strong_share,
        max_cost_per_request=router.max_cost_per_request,
    )
    if (targets.max_cost_per_request or router.budgets or targets.target_quality) and not costs.known:
        unknown = [model_name(t) for t, r in zip(router.tiers, costs.rates, strict=True) if r is None]
        hint = f"prices=Prices({{{unknown[0]!r}: (input, output)}}), in US dollars per million tokens"
        raise ValueError(
            f"a target or a limit in US dollars needs the price of each tier, {unknown} are unknown: give {hint}"
        )
    usual = costs.usual()
    learned = router.learned or LearnedRules(
        tiers=tiers, prices=usual, complexity=router.complexity, confidence=router.confidence
    )
    if targets.any and learned.prices:
        learned.aim(targets)
    return Memory(
        learned=learned,
        costs=costs,
        cool_down=CoolDown(router.cool_down),
        shadow=Shadow(router.shadow_rate),
        share=None if targets.max_strong_share is None else Allowance(targets.max_strong_share, strong=1.0),
        mean_cost=Allowance(targets.max_cost_per_request, strong=usual[-1])
        if targets.max_cost_per_request and usual
        else None,
    )
