"""Other routers, each as a score per request: the higher, the sooner the strong model is asked."""

import os
import re
from collections.abc import Callable
from types import SimpleNamespace

Rank = Callable[[str, str | None], float]

INSTALL = "pip install cascadeflow langchain-model-router litellm"
"""Into an environment of their own; then run the benchmark with its Python."""


def peers() -> tuple[dict[str, tuple[Rank, bool]], list[str]]:
    """Give each peer that can be imported, with whether it judges a draft; and the names of the others."""
    found: dict[str, tuple[Rank, bool]] = {}
    missing = []
    for name, (make, drafts) in _PEERS.items():
        try:
            found[name] = make(), drafts
        except ImportError:
            missing.append(name)
    return found, missing


def _cascadeflow_complexity() -> Rank:
    from cascadeflow.integrations.langchain.complexity import ComplexityDetector

    detector = ComplexityDetector()
    levels = {name: n for n, name in enumerate(("trivial", "simple", "moderate", "hard", "expert"))}
    return lambda prompt, _: float(levels[str(detector.detect(prompt)["complexity"])])


def _cascadeflow_quality() -> Rank:
    from cascadeflow.integrations.langchain.utils import calculate_quality

    return lambda _, draft: -float(calculate_quality(SimpleNamespace(content=draft)))


def _langchain_model_router() -> Rank:
    from langchain_model_router.strategies.heuristic import HeuristicStrategy
    from langchain_model_router.strategy import RoutingRequest

    strategy = HeuristicStrategy("cheap", "strong")

    def rank(prompt: str, _: str | None) -> float:
        request = RoutingRequest(
            text=prompt,
            content_blocks=[{"type": "text", "text": prompt}],
            modalities=frozenset({"text"}),
            routes=("cheap", "strong"),
            tools_bound=False,
        )
        # What `decide` compares with its threshold; the sum itself is not public.
        return float(sum(strategy.weights[name] * signal(request) for name, signal in strategy.signals.items()))

    return rank


def _litellm() -> Rank:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it asks the network when it is imported
    from unittest.mock import MagicMock

    from litellm.router_strategy.complexity_router.complexity_router import ComplexityRouter

    router = ComplexityRouter("router", MagicMock())
    return lambda prompt, _: float(router.classify(prompt)[1])


_PEERS: dict[str, tuple[Callable[[], Rank], bool]] = {
    "cascadeflow complexity": (_cascadeflow_complexity, False),
    "cascadeflow quality": (_cascadeflow_quality, True),
    "langchain-model-router": (_langchain_model_router, False),
    "litellm complexity": (_litellm, False),
}


def length(prompt: str, _: str | None) -> float:
    """Rank by words."""
    return float(len(re.findall(r"\S+", prompt)))
