"""Prove that a wrapper of a LlamaIndex model changes nothing but what it is for: `assert_llm_conformance(make_inner, wrap)`.

The host calls a model in many ways, and no test suite of its own says which. For each of them a bare and a wrapped
model are held against each other: the same result, the same calls of the model inside, the same events and the same
counts of tokens; with `requests=`, the same request bodies too.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, ToolCallBlock
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.llm import LLMChatStartEvent, LLMCompletionStartEvent
from llama_index.core.llms import LLM
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel

from llamaindex_costopt import _checks

SECRET = "sk-conformance-secret"  # noqa: S105 - nobody's: it is looked for where it must not be
"""A model that takes a key should be given this one by *make_inner*: it must be in no event and in no `to_dict()`."""


def assert_llm_conformance(
    make_inner: Callable[[], LLM],
    wrap: Callable[[LLM], LLM],
    *,
    requests: Callable[[], Sequence[Any]] | None = None,
) -> int:
    """Raise an AssertionError that names every way in which the host notices that a model is wrapped.

    Args:
        make_inner: makes a model that says the same each time; a fresh one for each check.
        wrap: wraps it, so that the first request of each kind reaches it.
        requests: gives the bodies of all requests so far that reached the server which the model asks.

    Returns:
        How many checks were made.

    Raises:
        AssertionError: something differs; it says what, for all checks.
    """
    differences = [
        line for name, way in _checks.WAYS.items() for line in _compared(name, way, make_inner, wrap, requests)
    ]
    differences += [f"{name}: {what}" for name, check in _ALONE.items() if (what := check(make_inner, wrap))]
    assert not differences, "the wrapper is noticed:\n" + "\n".join(differences)  # noqa: S101 - that is what it is for
    return len(_checks.WAYS) + len(_ALONE)


@dataclass(slots=True, kw_only=True)
class _Noticed:
    """What one way of calling a model led to."""

    result: Any = None
    calls: list[Any] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    tokens: tuple[int, int, int] = (0, 0, 0)
    bodies: list[Any] = field(default_factory=list)


class _Listener(BaseEventHandler):
    """Writes down what the host's dispatcher says."""

    events: list[Any]

    @classmethod
    def class_name(cls) -> str:
        return "conformance"

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self.events.append(event)


@contextmanager
def _listening() -> Iterator[list[BaseEvent]]:
    listener = _Listener(events=[])
    root = get_dispatcher()
    root.add_event_handler(listener)
    try:
        yield listener.events
    finally:
        root.event_handlers = [h for h in root.event_handlers if h is not listener]


def _compared(
    name: str,
    way: Callable[[LLM], Any],
    make_inner: Callable[[], LLM],
    wrap: Callable[[LLM], LLM],
    requests: Callable[[], Sequence[Any]] | None,
) -> Iterator[str]:
    bare = _noticed(way, make_inner(), requests)
    wrapped = _noticed(way, wrap(make_inner()), requests)
    for what in ("result", "calls", "events", "tokens", "bodies"):
        expected, got = getattr(bare, what), getattr(wrapped, what)
        if expected != got:
            yield f"{name}: {what}: bare {expected!r}, wrapped {got!r}"


def _noticed(way: Callable[[LLM], Any], model: LLM, requests: Callable[[], Sequence[Any]] | None) -> _Noticed:
    counter = TokenCountingHandler()
    model.callback_manager = CallbackManager([counter])  # as `Settings.llm` does on each access
    before = len(requests()) if requests else 0
    seen = _Noticed()
    with _listening() as events, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the host's own, which a test run may turn into errors
        try:
            seen.result = _plain(way(model))
        except Exception as error:  # noqa: BLE001 - an error is a result as any other
            seen.result = type(error).__name__
    seen.calls = [_call(e) for e in events if isinstance(e, LLMChatStartEvent | LLMCompletionStartEvent)]
    seen.events = Counter(e.class_name() for e in events if e.class_name().startswith("LLM"))
    count = len(counter.llm_token_counts)
    seen.tokens = (count, counter.prompt_llm_token_count, counter.completion_llm_token_count)
    seen.bodies = [_renamed(body, {}) for body in requests()[before:]] if requests else []
    return seen


def _call(event: LLMChatStartEvent | LLMCompletionStartEvent) -> Any:
    said: Any = [_plain(m) for m in event.messages] if isinstance(event, LLMChatStartEvent) else event.prompt
    options = {name: value for name, value in event.additional_kwargs.items() if name not in {"prompt", "formatted"}}
    return _renamed([said, _plain(options)], {})


def _plain(value: Any) -> Any:
    """Say what *value* means to the caller, without what is minted anew each time."""
    if isinstance(value, ChatResponse):
        return ["chat", _plain(value.message), value.delta]
    if isinstance(value, CompletionResponse):
        return ["completion", value.text, value.delta]
    if isinstance(value, ChatMessage):
        calls = [[b.tool_name, b.tool_kwargs] for b in value.blocks if isinstance(b, ToolCallBlock)]
        return [value.role.value, value.content, calls, len(value.additional_kwargs.get("tool_calls") or ())]
    return _plain_data(value)


def _plain_data(value: Any) -> Any:
    if isinstance(value, BaseModel):
        # Partial objects are of a class that the host makes anew each time.
        return [type(value).__name__, value.model_dump(mode="json")]
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _renamed(value: Any, order: dict[str, int]) -> Any:
    """Number the ids of tool calls in order of appearance."""
    if isinstance(value, dict):
        return {
            name: order.setdefault(v, len(order))
            if name in {"id", "tool_call_id", "tool_id"} and isinstance(v, str)
            else _renamed(v, order)
            for name, v in value.items()
        }
    return [_renamed(v, order) for v in value] if isinstance(value, list) else value


def _is_usable_with_tools(make_inner: Callable[[], LLM], wrap: Callable[[LLM], LLM]) -> str | None:
    wrapped = wrap(make_inner())
    return None if hasattr(wrapped, "chat_with_tools") else "no FunctionCallingLLM, so that agents cannot use it"


def _keeps_metadata(make_inner: Callable[[], LLM], wrap: Callable[[LLM], LLM]) -> str | None:
    inner = make_inner()
    wrapped = wrap(inner)
    before = wrapped.metadata
    _checks.WAYS["chat"](wrapped)
    if before != wrapped.metadata:
        return "metadata change from call to call, and with them how chunks are packed"
    fields = ("context_window", "num_output", "is_chat_model", "is_function_calling_model", "system_role")
    changed = [name for name in fields if getattr(before, name) != getattr(inner.metadata, name)]
    return f"metadata differ in {changed}" if changed else None


def _tells_no_secret(make_inner: Callable[[], LLM], wrap: Callable[[LLM], LLM]) -> str | None:
    wrapped = wrap(make_inner())
    with _listening() as events:
        _checks.WAYS["chat"](wrapped)
    said = [str(wrapped.to_dict()), str(wrapped.to_payload()), *(str(event.model_dump()) for event in events)]
    return "a key is in to_dict(), to_payload() or an event" if any(SECRET in text for text in said) else None


def _leaves_history_alone(make_inner: Callable[[], LLM], wrap: Callable[[LLM], LLM]) -> str | None:
    wrapped: Any = wrap(make_inner())
    if not wrapped.metadata.is_function_calling_model:
        return None
    history = [ChatMessage(role="user", content="Hello"), ChatMessage(role="assistant", content="Hi")]
    wrapped.chat_with_tools([_checks.weather_tool()], user_msg=_checks.QUESTION, chat_history=history)
    return None if len(history) == 2 else "chat_history was changed, so that a second attempt sends the turn twice"


def _keeps_system_prompt(make_inner: Callable[[], LLM], wrap: Callable[[LLM], LLM]) -> str | None:
    inner = make_inner()
    inner.system_prompt = "Be brief: conformance."
    wrapped = wrap(inner)
    with _listening() as events:
        _checks.WAYS["predict"](wrapped)
    texts = [str(e.messages if isinstance(e, LLMChatStartEvent) else getattr(e, "prompt", "")) for e in events]
    times = max((text.count("Be brief: conformance.") for text in texts), default=0)
    return None if times == 1 else f"the model's system_prompt is sent {times} times, not once"


def _gives_no_shared_objects(make_inner: Callable[[], LLM], wrap: Callable[[LLM], LLM]) -> str | None:
    wrapped = wrap(make_inner())
    messages = [ChatMessage(role="user", content=_checks.QUESTION)]
    first = wrapped.chat(messages)
    wanted = _plain(first.message)
    first.message.blocks.clear()
    second = wrapped.chat(messages)
    kept = _plain(second.message)
    second.message.blocks.clear()
    same = kept == wanted == _plain(wrapped.chat(messages).message)
    return None if same else "what one caller does to a response reaches the next one"


_ALONE: dict[str, Callable[[Callable[[], LLM], Callable[[LLM], LLM]], str | None]] = {
    "class": _is_usable_with_tools,
    "metadata": _keeps_metadata,
    "secrets": _tells_no_secret,
    "chat history": _leaves_history_alone,
    "system prompt": _keeps_system_prompt,
    "aliasing": _gives_no_shared_objects,
}
