"""Cost cutting for LangChain: a semantic cache, a router, micro-batching and a cost monitor."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_costopt.batch import BatchingCallbackHandler
    from langchain_costopt.cache import SemanticCache
    from langchain_costopt.monitor import CostCallbackHandler
    from langchain_costopt.router import RouterChatModel

__all__ = ["BatchingCallbackHandler", "CostCallbackHandler", "RouterChatModel", "SemanticCache"]

_HOME = {
    "BatchingCallbackHandler": "batch",
    "CostCallbackHandler": "monitor",
    "RouterChatModel": "router",
    "SemanticCache": "cache",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: importing the package costs nothing."""
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as missing:
        if not (missing.name or "").startswith("langchain"):
            raise
        from llm_costopt.errors import MissingExtraError

        raise MissingExtraError(f"{__name__}.{name}", "langchain") from missing


def __dir__() -> list[str]:
    return __all__
