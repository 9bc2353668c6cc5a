"""Generations ↔ the JSON that the cache stores: fields of messages, never objects; a hit is a fresh copy."""

import itertools
import json
import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation
from pydantic import BaseModel

from langchain_costopt._convert import MARK
from llm_costopt.cache.fresh import with_fresh_ids
from llm_costopt.cache.marks import mark_of
from llm_costopt.cache.records import Hit

_PROCESS, _count = uuid.uuid4().hex, itertools.count()


def dump(generations: Sequence[Generation], llm_string: str) -> str:
    """Write *generations*, which the model that *llm_string* says has given, as JSON.

    Raises TypeError for a message that is not an AIMessage and for fields that JSON cannot hold.
    """
    keep_blocks = "output_version" in llm_string  # asked for
    # By that id the next turn would go on with the conversation of whoever paid, in his words, which may be gone by then.
    left_out = {MARK, "id"} if "use_previous_response_id" in llm_string else {MARK}
    return json.dumps([_dump(g, keep_blocks, left_out) for g in generations], ensure_ascii=False)


def load(hit: Hit) -> list[Generation]:
    """Build fresh generations from *hit*, chat messages with fresh ids and a mark of how they were found."""
    mark = mark_of(hit)
    return [_load(stored, mark) for stored in json.loads(hit.payload)]


def _dump(generation: Generation, keep_blocks: bool, left_out: Collection[str]) -> dict[str, Any]:
    if not isinstance(generation, ChatGeneration):
        return {"text": generation.text, "info": generation.generation_info}
    message = generation.message
    if not isinstance(message, AIMessage):
        raise TypeError(f"only an AIMessage can be stored, not {type(message).__name__}")
    extra = dict(message.additional_kwargs)
    if isinstance(parsed := extra.get("parsed"), BaseModel):
        # langchain-openai validates a dict against the schema of the day, and refuses a reply without one.
        extra["parsed"] = parsed.model_dump(mode="json", by_alias=True)
    metadata = {k: v for k, v in message.response_metadata.items() if k not in left_out}
    content = message.content
    if not keep_blocks and (text := _only_text(content)) is not None:
        # A reply that was streamed to a v3 listener has blocks; the next caller expects what `invoke` gives.
        content = text
        metadata.pop("output_version", None)
    return {
        "message": {
            "content": content,
            "name": message.name,
            "tool_calls": message.tool_calls,
            "invalid_tool_calls": message.invalid_tool_calls,
            "usage_metadata": message.usage_metadata,
            "response_metadata": metadata,
            "additional_kwargs": extra,
        },
        "info": generation.generation_info,
    }


def _only_text(content: str | list[Any]) -> str | None:
    """Join content blocks that hold nothing but text."""
    if isinstance(content, str) or not content:
        return None
    plain = all(
        isinstance(b, dict) and b.get("type") == "text" and b.keys() <= {"type", "text", "index"} for b in content
    )
    return "".join(b["text"] for b in content) if plain else None


def _load(stored: Mapping[str, Any], mark: Mapping[str, Any]) -> Generation:
    if "message" not in stored:
        return Generation(text=stored["text"], generation_info=stored["info"])
    fields = stored["message"]
    calls = (*fields["tool_calls"], *fields["invalid_tool_calls"])
    fields = with_fresh_ids(fields, [call.get("id") for call in calls])
    fields["response_metadata"][MARK] = dict(mark)
    # Unlike a UUID per message this asks the system for nothing, which would be a tenth of an exact hit's time.
    message = AIMessage(**fields, id=f"lc_cache--{_PROCESS}-{os.getpid()}-{next(_count)}")
    return ChatGeneration(message=message, generation_info=stored["info"])
