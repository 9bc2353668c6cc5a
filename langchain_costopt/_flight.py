"""Tell the caches that a call has failed: a `BaseCache` is never told, and others may be waiting for the answer."""

import asyncio
import weakref
from contextvars import ContextVar
from functools import cache
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from llm_costopt.cache.semantic import SemanticCache


class _Failures(BaseCallbackHandler):
    """Hears of every call that fails in a thread; of tasks, the cache itself knows when they end."""

    ignore_chain = ignore_agent = ignore_retriever = ignore_chat_model = True
    ignore_retry = ignore_custom_event = True

    def __init__(self) -> None:
        self.caches: weakref.WeakSet[SemanticCache] = weakref.WeakSet()

    @property
    def ignore_llm(self) -> bool:
        """Tell whether this thread runs an event loop, where each event would cost a change of threads."""
        return asyncio._get_running_loop() is not None  # noqa: SLF001 - the public one raises

    def on_llm_error(self, error: BaseException, **_: Any) -> None:
        """Let those go on that wait for a call of this thread."""
        del error
        for one in list(self.caches):
            one.leave()


@cache
def _failures() -> _Failures:
    handler = _Failures()
    # LangChain adds what such a variable holds to the callbacks of every call.
    register_configure_hook(ContextVar("llm_costopt_failures", default=handler), inheritable=False)
    return handler


def watch(one: SemanticCache) -> None:
    """Tell *one* of the calls that fail from now on."""
    _failures().caches.add(one)
