"""LangChain's messages, prompt strings and generations → the core's `Question` and `Answer`."""

import json
import re
import sys
import uuid
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.load.dump import dumps
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel

from llm_costopt.reported import finish_of
from llm_costopt.types import Answer, Message, Question, ToolCall

MARK = "llm_costopt"
"""The key in a message's `response_metadata` under which this package says what it did."""

ROUTER = "llm_costopt"
"""The provider that the router gives as its own."""

TEXT = "\ntext"
"""Ends the `Question.model` of a prompt that is plain text."""

_TOOLS = re.compile(r"""['"](?:tools|functions|function_call|tool_choice)['"]\s*[,:](?!\s*(?:None|null|\[\]|\{\}))""")
_SCHEMA = re.compile(
    r"""['"](?:response_format|response_schema|response_json_schema|response_mime_type|json_schema|json_mode"""
    r"""|ls_structured_output_format|format|guided_json)['"]\s*[,:](?!\s*(?:None|null|\[\]|\{\}))"""
)
_MODEL = re.compile(r"""['"](?:model_name|model|model_id)['"]\s*[,:]\s*['"]([^'"]+)['"]""")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{4,}")
_CLASS = re.compile(r"<class '([^']+)'>")

_LONG = 20_000
"""Characters above which a prompt is not remembered: it may hold megabytes of pictures."""

_THIS_PROCESS = uuid.uuid4().hex
"""Stands for what only this process knows, such as the fields of a class that cannot list them."""


def question_of_prompt(prompt: str, llm_string: str) -> Question | None:
    """Read back what a `BaseCache` is handed; None if nothing can tell this request from another one.

    That is so of an object that only has an address, and of a class whose name stands for several that differ, as
    of those that `create_model` makes.
    A prompt that is not LangChain's JSON of messages is one human turn: completion models pass plain text.
    """
    # The same request is what an exact hit is, so reading it once is worth remembering; classes may change meanwhile.
    known = len(prompt) <= _LONG and "<class '" not in llm_string
    return _read_before(prompt, llm_string) if known else _read(prompt, llm_string)


def _read(prompt: str, llm_string: str) -> Question | None:
    schemas = [_schema(name) for name in _CLASS.findall(llm_string)]
    said = _said(llm_string)
    if said is None or None in schemas:
        return None
    # A class is only named there: one whose fields changed is another schema.
    model = llm_string + "".join(s for s in schemas if s)
    serialized = _serialized_messages(prompt)
    if serialized is None:
        # Whoever writes a completion model's prompt may write JSON of messages, which must not be taken for the question in it.
        return Question(messages=(Message(role="human", text=prompt),), model=model + TEXT, **said)
    messages = tuple(_message(str(fields.get("type")), fields) for fields in serialized)
    if "not_implemented" in prompt and any(_ADDRESS.search(str(part)) for m in messages for part in m.parts):
        return None  # the next picture may have the address of this one
    return Question(messages=messages, model=model, **said)


@lru_cache(maxsize=256)  # an application has few models, with the same options again and again
def _said(llm_string: str) -> Mapping[str, Any] | None:
    """Say what a model's string tells of a call; None if it holds an object that only has an address."""
    if _ADDRESS.search(llm_string):
        return None
    return {
        "model_name": name[1] if (name := _MODEL.search(llm_string)) else None,
        "with_tools": bool(_TOOLS.search(llm_string)),
        "with_schema": bool(_SCHEMA.search(llm_string)),
    }


_read_before = lru_cache(maxsize=256)(_read)


def prompt_of(messages: LanguageModelInput) -> str:
    """Write *messages* as a `BaseCache` is handed them."""
    if isinstance(messages, PromptValue):
        turns = messages.to_messages()
    else:
        turns = [HumanMessage(messages)] if isinstance(messages, str) else convert_to_messages(messages)
    return dumps([turn.model_copy(update={"id": None}) for turn in turns])


def llm_string_of(model: Runnable[Any, Any]) -> str:
    """Write *model* with the options that are bound to it as a `BaseCache` is handed it.

    Raises TypeError for what is no chat model.
    """
    bound: Any = model
    options: dict[str, Any] = {}
    while isinstance(bound, RunnableBinding):
        bound, options = bound.bound, {**bound.kwargs, **options}
    if not isinstance(bound, BaseChatModel):
        raise TypeError(f"model is a chat model, with options bound to it or not; got {type(bound).__name__}")
    return bound._get_llm_string(**options)  # noqa: SLF001 - the host's one place for it


def openai_tools(tools: Sequence[Any]) -> list[dict[str, Any]] | None:
    """Write *tools* in OpenAI's form; None if one of them is in a provider's own form, or cannot be written."""
    try:
        written = [convert_to_openai_tool(tool) for tool in tools]
    except (KeyError, TypeError, ValueError):
        return None
    return written if all("name" in tool.get("function", {}) for tool in written) else None


def messages_of(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """Translate LangChain's message objects."""
    return tuple(_message(m.type, vars(m)) for m in messages)


def answer_of(generation: Generation) -> Answer:
    """Say what one generation holds."""
    if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
        return answer_of_message(generation.message, generation.generation_info or {})
    return Answer(text=generation.text, finish=finish_of(generation.generation_info or {}))


def answer_of_message(message: AIMessage, info: Mapping[str, Any] | None = None) -> Answer:
    """Say what one reply of a chat model holds."""
    from langchain_costopt._usage import usage

    metadata = message.response_metadata
    return Answer(
        text=str(message.text),
        finish=finish_of(metadata) or finish_of(info or {}),
        refused=bool(message.additional_kwargs.get("refusal")) or "refusal" in _block_types(message.content),
        tool_calls=tuple(_tool_call(call) for call in message.tool_calls),
        invalid=message.invalid_tool_calls[0].get("error") or "tool call" if message.invalid_tool_calls else None,
        usage=usage(message),
        model=metadata.get("model_name") or metadata.get("model"),
    )


def _serialized_messages(prompt: str) -> list[dict[str, Any]] | None:
    if not prompt.startswith("["):
        return None
    try:
        items = json.loads(prompt)
    except ValueError:
        return None
    if not items or not all(isinstance(i, dict) and i.keys() >= {"lc", "type", "id"} for i in items):
        return None
    # A message that LangChain could not serialise has no fields, but a text that names its class and address.
    return [i["kwargs"] if isinstance(i.get("kwargs"), dict) else {"type": "unknown", "content": [i]} for i in items]


def _message(role: str, fields: Mapping[str, Any]) -> Message:
    text, parts = _content(fields.get("content", ""))
    extra = fields.get("additional_kwargs", {})
    # What hosts send to the provider again, though it is no content.
    elsewhere = [extra[key] for key in ("function_call", "audio") if extra.get(key)]
    parts = (*parts, *elsewhere, *(fields.get("invalid_tool_calls") or ()))
    return Message(
        role=str(fields.get("role", role)) if role == "chat" else role,
        text=text,
        parts=parts,
        name=fields.get("name") or extra.get("name"),  # OpenAI is sent either
        tool_calls=tuple(_tool_call(call) for call in fields.get("tool_calls") or ()),
        tool_call_id=fields.get("tool_call_id"),
        status="error" if fields.get("status") == "error" else None,
    )


def _content(content: Any) -> tuple[str, tuple[Any, ...]]:
    if isinstance(content, str):
        return content, ()
    blocks = [{"type": "text", "text": b} if isinstance(b, str) else b for b in content]
    text = "".join(b.get("text", "") for b in blocks if b.get("type") == "text")
    return text, () if all(b.get("type") == "text" for b in blocks) else tuple(blocks)


def _tool_call(call: Mapping[str, Any]) -> ToolCall:
    return ToolCall(id=call.get("id"), name=str(call.get("name")), args=call.get("args") or {})


def _block_types(content: str | list[Any]) -> set[str]:
    return set() if isinstance(content, str) else {str(b.get("type")) for b in content if isinstance(b, dict)}


def _schema(name: str) -> str | None:
    """Spell out a class that is only named; None if the name may stand for several."""
    if (found := _find_class(name)) is None:
        return _living_schema(name)
    return (
        json.dumps(found.model_json_schema(), sort_keys=True) if hasattr(found, "model_json_schema") else _THIS_PROCESS
    )


def _find_class(name: str) -> Any:
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        if found := sys.modules.get(".".join(parts[:cut])):
            for attribute in parts[cut:]:
                found = getattr(found, attribute, None)
            return found
    return None


def _living_schema(name: str) -> str | None:
    """Look among all classes that live, the caller's among them: one made in a function is in no module."""
    schemas, classes = set(), [BaseModel]
    while classes:
        classes += (candidate := classes.pop()).__subclasses__()
        if f"{candidate.__module__}.{candidate.__qualname__}" == name:
            schemas.add(json.dumps(candidate.model_json_schema(), sort_keys=True))
    return schemas.pop() if len(schemas) == 1 else None
