"""Responses ↔ the JSON that the cache stores: fields, never objects; a hit is a fresh copy with fresh ids."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.llms.llm import ToolSelection
from pydantic import BaseModel, ConfigDict

from llamaindex_costopt._convert import MARK, Reading, message_tool_calls
from llm_costopt.cache.fresh import with_fresh_ids
from llm_costopt.cache.marks import mark_of
from llm_costopt.cache.records import Hit
from llm_costopt.router.start import Model
from llm_costopt.types import Usage

_SELECTION = frozenset(ToolSelection.model_fields)


def dump(reading: Reading, asked: Model) -> str:
    """Write what was read of a call of *asked* as JSON, with who replied and what it used.

    Raises TypeError or ValueError for fields that JSON cannot hold.
    """
    response = reading.last
    who = _answered_by(response, Model(name=reading.model or asked.name, provider=asked.provider))
    about = {
        "model": who.name,
        "provider": who.provider,
        "usage": None if reading.usage is None else asdict(reading.usage),
        "id": reading.id,
        "finish_reason": reading.answer().finish,
    }
    if isinstance(response, ChatResponse):
        return json.dumps({"message": _fields(response.message), **about}, ensure_ascii=False)
    return json.dumps({"text": getattr(response, "text", ""), **about}, ensure_ascii=False)


def load(hit: Hit) -> tuple[ChatResponse | CompletionResponse, dict[str, Any]]:
    """Build a fresh response from *hit*, with a mark of how it was found, and say who once gave it."""
    stored = json.loads(hit.payload)
    extra = {MARK: mark_of(hit)}
    raw = {name: stored[name] for name in ("id", "model", "finish_reason", "usage")}
    about = {
        "model": stored["model"],
        "provider": stored["provider"],
        "usage": None if stored["usage"] is None else Usage(**stored["usage"]),
    }
    if "text" in stored:
        return CompletionResponse(text=stored["text"], raw=raw, additional_kwargs=extra), about
    message = ChatMessage.model_validate(stored["message"])
    # Google's integration calls a call by the name of its tool, and the result is sent back under that.
    calls = [call.id for call in message_tool_calls(message) if call and call.id != call.name]
    message = ChatMessage.model_validate(with_fresh_ids(stored["message"], calls)) if calls else message
    if raw_calls := message.additional_kwargs.get("tool_calls"):
        message.additional_kwargs["tool_calls"] = [_object(call) for call in raw_calls]
    if signed := message.additional_kwargs.get("thought_signatures"):
        message.additional_kwargs["thought_signatures"] = [text and text.encode("latin-1") for text in signed]
    return ChatResponse(message=message, raw=raw, additional_kwargs=extra), about


def _answered_by(response: Any, asked: Model) -> Model:
    """Name who replied; behind a router that is one of several."""
    attempts = (getattr(response, "additional_kwargs", {}).get(MARK) or {}).get("attempts")
    return Model(name=attempts[-1]["model"], provider=attempts[-1]["provider"]) if attempts else asked


def _fields(message: ChatMessage) -> dict[str, Any]:
    # Of what integrations put beside the blocks, only tool calls mean something to whoever reads the reply: streamed
    # structured output looks for them there, and nowhere else. Gemini takes no call back without its signature.
    calls, signed = (message.additional_kwargs.get(name) for name in ("tool_calls", "thought_signatures"))
    kept = {"tool_calls": [_dumped(call) for call in calls]} if calls else {}
    if signed:
        kept["thought_signatures"] = [known and known.decode("latin-1") for known in signed]
    fields = message.model_dump(mode="json", exclude={"additional_kwargs"})
    return {**fields, "additional_kwargs": kept}


def _dumped(call: Any) -> Any:
    return call.model_dump(mode="json") if isinstance(call, BaseModel) else call


class _Fields(BaseModel):
    """Fields by attribute, as integrations read those of their SDK's objects."""

    model_config = ConfigDict(extra="allow")


def _object(call: Any) -> Any:
    if not isinstance(call, Mapping):
        return call
    if call.keys() == _SELECTION:
        return ToolSelection(**call)
    return _Fields(**{name: _object(value) if name == "function" else value for name, value in call.items()})
