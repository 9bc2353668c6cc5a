"""LlamaIndex's `instrument_tags` → the tags of records and budgets."""

from collections.abc import Mapping
from typing import Any

from llama_index_instrumentation.dispatcher import active_instrument_tags


def tags_of(said: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Write tags as texts: those listed under `tags` as they are, others as `name=value`; the host's own are left out.

    *said* are those of an event; those that hold here and now if not given.
    """
    named = active_instrument_tags.get() if said is None else said
    listed = named.get("tags") or ()
    own = [f"{name}={value}" for name, value in named.items() if name != "tags" and not name.startswith("llamaindex.")]
    return (*([listed] if isinstance(listed, str) else map(str, listed)), *own)
