"""What this package tells the host's dispatcher, and what it tells its own handler of a call that is about to start."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from llama_index.core.instrumentation.events import BaseEvent
from llama_index_instrumentation import get_dispatcher

from llm_costopt.types import CacheKind

dispatcher = get_dispatcher(__name__)

_facts: ContextVar[Mapping[str, Any]] = ContextVar("llm_costopt_call", default=MappingProxyType({}))


class CacheHitEvent(BaseEvent):
    """An answer came from the cache, and no model was called; a hit has no other event, so that nobody counts its tokens."""

    hit: str
    """Names the hit for `feedback`."""
    kind: CacheKind
    """How it was found."""
    model: str | None
    """The model that once gave the answer."""
    provider: str | None
    """Its provider."""
    usage: Any
    """The `llm_costopt.Usage` that was not paid again; None if unknown."""
    baseline: str | None
    """The model that a miss would be held against; None if no router says so."""
    seconds: float
    """How long the lookup took."""

    @classmethod
    def class_name(cls) -> str:
        """Name the event as the host's do."""
        return "CacheHitEvent"


@contextmanager
def telling(facts: Mapping[str, Any]) -> Iterator[None]:
    """Say what the calls inside the block are for."""
    token = _facts.set(facts)
    try:
        yield
    finally:
        _facts.reset(token)


def told() -> Mapping[str, Any]:
    """Return what the innermost block says; nothing without a router."""
    return _facts.get()
