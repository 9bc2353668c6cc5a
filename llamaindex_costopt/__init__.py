"""Cost cutting for LlamaIndex: the same four features as `langchain_costopt`, as wrappers of a model and an event handler."""

from typing import TYPE_CHECKING

from llm_costopt._lazy import attach

if TYPE_CHECKING:
    from llamaindex_costopt.batch import BatchingLLM
    from llamaindex_costopt.batch_api import use_batch_api
    from llamaindex_costopt.cache import CachedLLM
    from llamaindex_costopt.monitor import CostEventHandler
    from llamaindex_costopt.router import RouterLLM
    from llm_costopt.cache.scope import cache_scope
    from llm_costopt.endpoints import endpoint

__all__ = [
    "BatchingLLM",
    "CachedLLM",
    "CostEventHandler",
    "RouterLLM",
    "cache_scope",
    "endpoint",
    "use_batch_api",
]

__getattr__ = attach(
    __name__,
    {
        "BatchingLLM": "llamaindex_costopt.batch",
        "CachedLLM": "llamaindex_costopt.cache",
        "CostEventHandler": "llamaindex_costopt.monitor",
        "RouterLLM": "llamaindex_costopt.router",
        "cache_scope": "llm_costopt.cache.scope",
        "endpoint": "llm_costopt.endpoints",
        "use_batch_api": "llamaindex_costopt.batch_api",
    },
    needs={"llama_index": "llamaindex"},
)


def __dir__() -> list[str]:
    return __all__
