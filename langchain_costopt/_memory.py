"""What a router begins with, read off its tiers."""

from typing import TYPE_CHECKING

from langchain_costopt._route import model_name, provider_of
from llm_costopt.monitor.prices import Prices
from llm_costopt.router.learned import Targets
from llm_costopt.router.router import Memory
from llm_costopt.router.start import Model, memory_of

if TYPE_CHECKING:
    from langchain_costopt.router import RouterChatModel


def memory_for(router: "RouterChatModel") -> Memory:
    """Make what *router* and its copies share."""
    return memory_of(
        [Model(name=model_name(tier), provider=provider_of(tier)) for tier in router.tiers],
        price=router.prices or Prices(),
        targets=Targets(
            target_quality=router.target_quality,
            max_strong_share=router.max_strong_share,
            max_cost_per_request=router.max_cost_per_request,
        ),
        with_budgets=bool(router.budgets),
        learned=router.learned,
        shadow_rate=router.shadow_rate,
        is_judged=router.judge is not None,
        cool_down=router.cool_down,
        complexity=router.complexity,
        confidence=router.confidence,
    )
