"""Cost cutting for LangChain: a semantic cache, a router, micro-batching and a cost monitor."""

from typing import TYPE_CHECKING

from llm_costopt._lazy import attach

if TYPE_CHECKING:
    from langchain_costopt.batch import BatchingCallbackHandler
    from langchain_costopt.batch_api import use_batch_api
    from langchain_costopt.cache import SemanticCache
    from langchain_costopt.middleware import RouterMiddleware
    from langchain_costopt.monitor import CostCallbackHandler
    from langchain_costopt.rate_limiter import BatchWindow
    from langchain_costopt.router import RouterChatModel
    from llm_costopt.cache.scope import cache_scope
    from llm_costopt.endpoints import endpoint

__all__ = [
    "BatchWindow",
    "BatchingCallbackHandler",
    "CostCallbackHandler",
    "RouterChatModel",
    "RouterMiddleware",
    "SemanticCache",
    "cache_scope",
    "endpoint",
    "use_batch_api",
]

__getattr__ = attach(
    __name__,
    {
        "BatchWindow": "langchain_costopt.rate_limiter",
        "BatchingCallbackHandler": "langchain_costopt.batch",
        "CostCallbackHandler": "langchain_costopt.monitor",
        "RouterChatModel": "langchain_costopt.router",
        "RouterMiddleware": "langchain_costopt.middleware",
        "SemanticCache": "langchain_costopt.cache",
        "cache_scope": "llm_costopt.cache.scope",
        "endpoint": "llm_costopt.endpoints",
        "use_batch_api": "langchain_costopt.batch_api",
    },
    needs={"langchain_core": "langchain", "langchain_openai": "langchain", "langchain": "agents"},
)


def __dir__() -> list[str]:
    return __all__
