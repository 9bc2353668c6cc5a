"""Which endpoint of the application a call serves, and for whom: what the application knows and no request says."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_endpoint: ContextVar[str | None] = ContextVar("llm_costopt_endpoint", default=None)

around_tenant: ContextVar[str] = ContextVar("llm_costopt_tenant", default="")
"""Whose calls they are, as the innermost `cache_scope` says; empty outside of any."""


@contextmanager
def endpoint(name: str) -> Iterator[None]:
    """Say of all calls inside the `with` block which endpoint of the application they serve, such as `"POST /ask"`.

    It holds for the thread or task that enters it and for those that they start with their context, as both hosts do.
    An inner block replaces what the outer one says. What it says while a call starts counts, for all of the call.

    Args:
        name: of a few dozen at most, since costs are summed up under each; a route, not a URL with ids in it.

    Raises:
        TypeError: a name that is no text.
        ValueError: an empty name.
    """
    if not isinstance(name, str):
        raise TypeError(f"an endpoint's name is a text, such as 'POST /ask'; got {name!r}")
    if not name:
        raise ValueError("an endpoint's name is not empty: leave the block out for calls that serve none")
    token = _endpoint.set(name)
    try:
        yield
    finally:
        _endpoint.reset(token)


def current_endpoint() -> str | None:
    """Return what the innermost `endpoint` block says; None outside of any."""
    return _endpoint.get()


def served(said: Mapping[str, Any]) -> dict[str, Any]:
    """Tell whom a call serves, as fields of its `CallRecord`.

    What the host's own way *said* with the call comes first; then what `endpoint` and `cache_scope` say around it.
    """
    named = {name: str(said.get(name) or "") for name in ("endpoint", "tenant")}
    return {
        "endpoint": named["endpoint"] or current_endpoint(),
        "tenant": named["tenant"] or around_tenant.get() or None,
    }
