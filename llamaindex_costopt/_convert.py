"""LlamaIndex's messages, responses and models → the core's `Question`, `Answer` and `Model`."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import CodeType
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, TextBlock, ToolCallBlock
from llama_index.core.llms import LLM
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.tools import BaseTool
from pydantic import BaseModel

from llamaindex_costopt._usage import fields_of, finish_reason, is_batch, is_refusal, usage_of
from llm_costopt.router.start import Model
from llm_costopt.types import Answer, Message, Question, ToolCall, Usage

MARK = "llm_costopt"
"""The key in a response's `additional_kwargs` under which this package says what it did.

Not in those of its message: they would travel to the provider with the next turn, and be refused there.
"""

_ROLES = {"user": "human", "assistant": "ai", "chatbot": "ai", "model": "ai", "developer": "system", "function": "tool"}
_TOOLS = ("tools", "functions", "function_call", "tool_choice", "tool_required", "built_in_tools")
_SCHEMA = (
    "output_cls", "response_format", "response_schema", "response_json_schema", "response_mime_type", "json_schema",
    "json_mode", "format", "guided_json", "text_format",
)  # fmt: skip
_AROUND = ("messages_to_prompt", "completion_to_prompt", "query_wrapper_prompt")
"""What models of plain text put around a request, and the host leaves out of `to_dict`."""
_MINTED = (
    "tool_calls", "thought_signatures", "prompt_tokens", "completion_tokens", "total_tokens", "cached_content_tokens",
)  # fmt: skip
"""What stands beside the blocks of a reply and is another each time, whatever it says; calls are read as such."""
_SECRET = re.compile(r"api_key|secret|password|access_token|credential", re.IGNORECASE)
_LLM = re.compile(r"_?llm$", re.IGNORECASE)


def messages_of(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Translate LlamaIndex's messages."""
    return tuple(_message(m) for m in messages)


def question_of(
    messages: tuple[Message, ...], *, model: str, name: str | None, options: Mapping[str, Any], own: Any = None
) -> Question:
    """Put a request in the core's terms; *model* says who is asked, *options* are the keyword arguments of the call.

    What a model was made with may ask for tools or a schema too: *own* is its `identity`.
    """
    return Question(
        messages=messages,
        model=model,
        model_name=name,
        with_tools=any(options.get(key) for key in _TOOLS) or says(own, _TOOLS),
        with_schema=any(options.get(key) for key in _SCHEMA) or says(own, _SCHEMA),
        tools={f["name"]: f.get("parameters") for f in _functions(options.get("tools") or ())},
    )


def says(own: Any, names: Collection[str]) -> bool:
    """Tell whether the `identity` of a model has one of *names* set, itself or in what it passes on."""
    if isinstance(own, Mapping):
        return any((name in names and value) or says(value, names) for name, value in own.items())
    return isinstance(own, list | tuple) and any(says(one, names) for one in own)


def spelled(value: Any) -> str:
    """Write *value* so that it can be told from any other: parameters, tools, classes.

    Raises:
        TypeError: it holds an object that only has an address.
    """
    return json.dumps(value, sort_keys=True, default=_plain)


def identity(model: LLM) -> Any:
    """Say all that an answer of *model* depends on but the request, without secrets."""
    own = getattr(model, "costopt_identity", None)
    if own is not None:
        return own()
    said = {name: value for name, value in model.to_dict().items() if not _SECRET.search(name)}
    if before := getattr(model, "_previous_response_id", None):  # OpenAI's side has the turns before
        said["previous_response_id"] = before
    return [
        f"{type(model).__module__}.{type(model).__qualname__}",
        said,
        [_told(getattr(model, t, None)) for t in _AROUND],
    ]


def model_of(model: LLM) -> Model:
    """Name *model* and its provider; of a wrapper, those of the model inside."""
    own = getattr(model, "costopt_model", None)
    return (
        own
        if isinstance(own, Model)
        else Model(name=model.metadata.model_name, provider=provider_of(model.class_name()))
    )


def provider_of(class_name: str) -> str | None:
    """Make the provider's name of an integration's: `openai_llm`, `Anthropic_LLM`."""
    return _LLM.sub("", class_name).lower() or None


class Reading:
    """What the responses of one call say, chunk by chunk if it is streamed: some facts come with the last, some before."""

    def __init__(self) -> None:
        self.last: ChatResponse | CompletionResponse | None = None
        """The newest response; in a stream it holds the whole text so far."""
        self.usage: Usage | None = None
        """The tokens, as far as they were told."""
        self.model: str | None = None
        """Who replied, by the provider's name."""
        self.id: str | None = None
        """The provider's id of the reply."""
        self.batch = False
        """Whether it was paid at the price of a batch."""
        self._finish: str | None = None
        self._refused = False

    def add(self, response: ChatResponse | CompletionResponse) -> "Reading":
        """Read one more response."""
        said = fields_of(response.raw)
        self.last = response
        self.usage = usage_of(said, response.additional_kwargs) or self.usage
        self.id = said.get("id") if isinstance(said.get("id"), str) else self.id
        model = said.get("model") or said.get("model_version")
        self.model = model if isinstance(model, str) else self.model
        self.batch = self.batch or is_batch(said)
        self._finish = finish_reason(said) or self._finish
        self._refused = self._refused or is_refusal(said)
        return self

    def answer(self) -> Answer:
        """Say what the responses hold."""
        message = self.last.message if isinstance(self.last, ChatResponse) else None
        calls = message_tool_calls(message) if message else ()
        text = _text(message) if message else getattr(self.last, "text", "")
        return Answer(
            text=text,
            finish=self._finish,
            refused=self._refused,
            tool_calls=tuple(call for call in calls if call is not None),
            invalid="tool call" if None in calls else None,
            usage=self.usage,
            model=self.model,
        )


def whole(response: Any) -> Any:
    """Make a response the only chunk of a stream."""
    text = response.message.content if isinstance(response, ChatResponse) else response.text
    return response.model_copy(update={"delta": text or ""})


def message_tool_calls(message: ChatMessage) -> tuple[ToolCall | None, ...]:
    """Read the tool calls of *message*; None for one whose arguments are no JSON object."""
    blocks = [b for b in message.blocks if isinstance(b, ToolCallBlock)]
    if blocks:
        return tuple(_tool_call(b.tool_call_id, b.tool_name, b.tool_kwargs) for b in blocks)
    # Integrations that know no blocks: OpenAI's objects or dicts, or the host's `ToolSelection`.
    return tuple(_tool_call(*_selection(fields_of(call))) for call in message.additional_kwargs.get("tool_calls") or ())


def _told(around: Any) -> Any:
    """Tell a template by its text, and a function by its code and what it takes from around it."""
    if isinstance(around, BasePromptTemplate):
        return [around.get_template(), _held(around.kwargs)]
    if isinstance(around, partial):
        return [_told(around.func), *map(_held, around.args), _held(around.keywords)]
    if not hasattr(around, "__code__"):
        return type(around).__qualname__
    code, cells = around.__code__, around.__closure__ or ()
    texts = {name: text for name in code.co_names if isinstance(text := around.__globals__.get(name), str)}
    held = [*(cell.cell_contents for cell in cells), *(around.__defaults__ or ()), around.__kwdefaults__ or {}]
    return [_code(code), texts, *map(_held, held)]


def _held(value: Any) -> Any:
    """Tell what a function or template holds: texts and numbers by themselves, objects by their kind."""
    if isinstance(value, Mapping):
        return {str(name): _held(one) for name, one in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    return _code(value.__code__) if hasattr(value, "__code__") else type(value).__qualname__


def _code(code: CodeType) -> list[Any]:
    constants = [_code(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return [code.co_code.hex(), code.co_names, constants]


def _selection(said: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    function = fields_of(said.get("function"))
    if function:
        return said.get("id"), function.get("name"), function.get("arguments")
    return said.get("tool_id"), said.get("tool_name"), said.get("tool_kwargs")


def _tool_call(id_: str | None, name: Any, args: Any) -> ToolCall | None:
    try:
        read = json.loads(args) if isinstance(args, str) and args else args or {}
    except ValueError:
        return None
    return ToolCall(id=id_, name=str(name), args=read) if isinstance(read, dict) else None


def _message(message: ChatMessage) -> Message:
    extra = dict(message.additional_kwargs)
    id_ = extra.pop("tool_call_id", None) or extra.pop("call_id", None)
    name = extra.pop("name", None)
    for beside in _MINTED:
        extra.pop(beside, None)
    calls = message_tool_calls(message)
    unread = (
        [b.model_dump(mode="json") for b in message.blocks if isinstance(b, ToolCallBlock)] if None in calls else []
    )
    role = str(message.role.value)
    return Message(
        role=_ROLES.get(role, role),
        text=_text(message),
        # What else a message carries may change the request: then only the very same one is the same.
        parts=(*_parts(message), *unread, *([{"type": "extra", "extra": extra}] if extra else [])),
        name=name,
        tool_calls=tuple(call for call in calls if call is not None),
        tool_call_id=id_,
    )


def _text(message: ChatMessage) -> str:
    return "".join(b.text for b in message.blocks if isinstance(b, TextBlock))


def _parts(message: ChatMessage) -> tuple[Any, ...]:
    blocks = [b for b in message.blocks if not isinstance(b, ToolCallBlock)]
    if all(isinstance(b, TextBlock) for b in blocks):
        return ()
    return tuple(map(_part, blocks))


def _part(block: Any) -> dict[str, Any]:
    said = {"type": block.block_type, **json.loads(json.dumps(block.model_dump(), default=_written))}
    if path := said.get("path"):  # what is there may be another picture by the next call
        with suppress(OSError):
            said["file"] = sha256(Path(path).read_bytes()).hexdigest()
    return said


def _written(value: Any) -> str:
    """Write bytes of any kind, which pydantic takes for UTF-8, and what has a text of its own: paths and addresses."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _functions(tools: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Read tools in OpenAI's form, or the host's; nothing if one of them is in a provider's own form."""
    written = [_plain(tool) if isinstance(tool, BaseTool) else tool for tool in tools]
    found = [tool.get("function") for tool in written if isinstance(tool, Mapping)]
    return [f for f in found if f and "name" in f] if len(found) == len(written) and all(found) else []


def _plain(value: Any) -> Any:
    if isinstance(value, BaseTool):
        return value.metadata.to_openai_tool(skip_length_check=True)
    if isinstance(value, type) and issubclass(value, BaseModel):
        return [f"{value.__module__}.{value.__qualname__}", value.model_json_schema()]
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} cannot be told from another object of its kind")
