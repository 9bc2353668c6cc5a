"""Cost cutting for LangChain: a semantic cache, a router, micro-batching and a cost monitor."""

from typing import TYPE_CHECKING

from llm_costopt._lazy import attach

if TYPE_CHECKING:
    from langchain_costopt.batch import BatchingCallbackHandler
    from langchain_costopt.cache import SemanticCache
    from langchain_costopt.monitor import CostCallbackHandler
    from langchain_costopt.router import RouterChatModel

__all__ = ["BatchingCallbackHandler", "CostCallbackHandler", "RouterChatModel", "SemanticCache"]

__getattr__ = attach(
    __name__,
    {
        "BatchingCallbackHandler": "langchain_costopt.batch",
        "CostCallbackHandler": "langchain_costopt.monitor",
        "RouterChatModel": "langchain_costopt.router",
        "SemanticCache": "langchain_costopt.cache",
    },
    needs={"langchain_core": "langchain", "langchain_openai": "langchain"},
)


def __dir__() -> list[str]:
    return __all__
