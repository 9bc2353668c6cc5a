"""Ids of tool calls are minted anew on a hit: two turns of one conversation must not share them."""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

_IDS = frozenset({"id", "call_id", "tool_call_id", "tool_id"})

_DATA = frozenset({"args", "input", "arguments", "parsed", "tool_kwargs"})
"""What a model wrote for a tool or a schema: an `id` in there names something of the caller's."""


def with_fresh_ids(stored: Any, ids: Iterable[str | None]) -> Any:
    """Replace *ids* in the JSON value *stored* wherever a host repeats them: tool calls, raw provider fields, blocks."""
    fresh = {old: _fresh_id(old) for old in ids if old}
    return _renamed(stored, fresh) if fresh else stored


def _fresh_id(old: str) -> str:
    """Keep the provider's prefix (`call_`, `toolu_`): some providers check it."""
    prefix, _, rest = old.rpartition("_")
    return f"{prefix}_{uuid.uuid4().hex[:24]}" if prefix and rest else uuid.uuid4().hex


def _renamed(value: Any, fresh: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        # Gemini's signatures stand under the ids of the calls that they belong to.
        return {fresh.get(name, name): _renamed_field(name, v, fresh) for name, v in value.items()}
    if isinstance(value, list):
        return [_renamed(v, fresh) for v in value]
    return value


def _renamed_field(name: str, value: Any, fresh: Mapping[str, str]) -> Any:
    if name in _DATA:
        return value
    if name in _IDS and isinstance(value, str):
        return fresh.get(value, value)
    return _renamed(value, fresh)
