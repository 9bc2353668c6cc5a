"""Cost cutting for LlamaIndex: the same four features as `langchain_costopt`, as wrappers of a model and an event handler."""

from typing import TYPE_CHECKING

from llm_costopt._lazy import attach

if TYPE_CHECKING:
    from llamaindex_costopt.cache import CachedLLM
    from llamaindex_costopt.router import RouterLLM
    from llm_costopt.cache.scope import cache_scope

__all__ = [
    "CachedLLM",
    "RouterLLM",
    "cache_scope",
]

__getattr__ = attach(
    __name__,
    {
        "CachedLLM": "llamaindex_costopt.cache",
        "RouterLLM": "llamaindex_costopt.router",
        "cache_scope": "llm_costopt.cache.scope",
    },
    needs={"llama_index": "llamaindex"},
)


def __dir__() -> list[str]:
    return __all__
