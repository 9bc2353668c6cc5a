"""What LlamaIndex's calls cost and what was saved, as a handler of the instrumentation dispatcher."""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionInProgressEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.span_handlers import NullSpanHandler
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.utils import get_tokenizer
from llama_index_instrumentation import get_dispatcher
from pydantic import PrivateAttr

from llamaindex_costopt._convert import Reading, messages_of, provider_of
from llamaindex_costopt._events import CacheHitEvent, told
from llamaindex_costopt._tags import tags_of
from llm_costopt.account import Price
from llm_costopt.endpoints import served
from llm_costopt.monitor.keeper import Keeper
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.privacy import Redact, asked
from llm_costopt.monitor.summary import Summary
from llm_costopt.reported import decision_of
from llm_costopt.types import CallRecord, Message, OnRecord, Usage

_MOST_RUNNING = 10_000
"""Calls remembered at once. A stream that nobody reads never ends, so that the oldest must go some day."""

_Start = LLMChatStartEvent | LLMCompletionStartEvent
_Progress = LLMChatInProgressEvent | LLMCompletionInProgressEvent
_End = LLMChatEndEvent | LLMCompletionEndEvent


@dataclass(slots=True, kw_only=True)
class _Call:
    """A call that has started and not ended."""

    event: _Start
    facts: Mapping[str, Any]
    serves: Mapping[str, Any]
    at: float
    reading: Reading
    request: str | None
    asked: str


class CostEventHandler(BaseEventHandler):
    """Keep what every call cost and saved: `handler = CostEventHandler().install()`.

    Starts and ends of calls are joined by their span, whichever wrappers stand around the model; hits of the cache are
    counted as hits, not as calls. Tokens that no provider reported, as of OpenAI's streams without
    `stream_options={"include_usage": True}`, are counted with the host's tokenizer, and marked: `usage.estimated`.
    Tags come from `instrument_tags`, and so do `endpoint` and `tenant`, else from what `endpoint` and `cache_scope` say
    where a call starts. A failure of the price list, the ledger or *on_record* is logged
    once and counted in `failures`; it never reaches the call.

    Args:
        baseline: the model that would have been asked without us; a router says so itself.
        ledger: where the calls are kept: a `Ledger`, or the path of one; in memory if None.
        prices: `(model, usage, *, provider=None, batch=False)` → US dollars or None; `Prices()` if not given.
        on_record: is told of each call, after the ledger.
        clock: tells the time in seconds since the epoch.
        hash_key: of the hashes by which repeated requests are told; if None, that of `LLM_COSTOPT_HASH_KEY`, else one that is
            drawn once and kept beside the ledger's file.
        keep_text: keep the last turn of the user and the answer of each call that succeeds in the ledger, 4,000 characters
            each, and nowhere else; by default no text is kept.
        redact: takes out of each text what must not be kept; where it fails, nothing is.

    Raises:
        TypeError: what should be called cannot be, or what should be a text is none.
        ValueError: the ledger cannot be opened.
    """

    _keeper: Keeper = PrivateAttr()
    _running: OrderedDict[str, _Call] = PrivateAttr(default_factory=OrderedDict)
    _spans: "_Spans" = PrivateAttr()

    def __init__(
        self,
        *,
        baseline: str | None = None,
        ledger: Ledger | str | os.PathLike[str] | None = None,
        prices: Price | None = None,
        on_record: OnRecord | None = None,
        clock: Callable[[], float] = time.time,
        hash_key: str | None = None,
        keep_text: bool = False,
        redact: Redact | None = None,
    ) -> None:
        super().__init__()
        self._keeper = Keeper(
            baseline=baseline,
            ledger=ledger,
            prices=prices,
            on_record=on_record,
            clock=clock,
            hash_key=hash_key,
            keep_text=keep_text,
            redact=redact,
        )
        self._spans = _Spans(partial(self._keeper.guarded, "drop", self._broke))

    @classmethod
    def class_name(cls) -> str:
        """Name the handler as the host's are."""
        return "CostEventHandler"

    def install(self) -> Self:
        """Listen to all that the host does in this process from now on; again does nothing."""
        root = get_dispatcher()
        if not any(handler is self for handler in root.event_handlers):
            root.add_event_handler(self)
            root.add_span_handler(self._spans)
        return self

    def uninstall(self) -> None:
        """Stop listening."""
        root = get_dispatcher()
        root.event_handlers = [handler for handler in root.event_handlers if handler is not self]
        root.span_handlers = [handler for handler in root.span_handlers if handler is not self._spans]

    @property
    def ledger(self) -> Ledger:
        """Where the calls are kept."""
        return self._keeper.ledger

    @property
    def failures(self) -> int:
        """How often something failed, and was only counted."""
        return self._keeper.failures

    def summary(self, hours: float | None = 24) -> Summary:
        """Sum up the last *hours*; all there is if None."""
        return self._keeper.summary(hours)

    def records(self, since: float | None = None) -> list[CallRecord]:
        """List the calls that ended at *since* (seconds since the epoch) or later, the oldest first."""
        return self._keeper.records(since)

    def handle(self, event: BaseEvent, **_: Any) -> None:
        """Take note of one event."""
        self._keeper.guarded("event", self._handle, event)

    def _handle(self, event: BaseEvent) -> None:
        span = event.span_id or ""
        if isinstance(event, CacheHitEvent):
            self._hit(event)
        elif isinstance(event, _Start):
            self._started(span, event)
        elif isinstance(event, _Progress):
            if call := self._running.get(span):
                call.reading.add(event.response)
        elif isinstance(event, _End):
            self._ended(span, event)
        elif isinstance(event, ExceptionEvent):
            self._broke(span, event.exception)

    def _started(self, span: str, event: _Start) -> None:
        if event.model_dict.get("class_name") == StructuredLLM.class_name():
            return  # it tells of itself as well as of the model inside, which alone knows what was used
        if self._spans.is_inside(span, self._running):
            return  # some models chat by completing, and tell of both: it is one call
        if self._feeds_another(span, event):
            self._spans.belongs_to_another(span)
            return
        serves, messages = _serves(event), self._keeper.guarded("messages", _messages, event) or ()
        self._running[span] = _Call(
            event=event,
            facts=told(),
            serves=serves,
            at=self._keeper.now(),
            reading=Reading(),
            request=self._keeper.hashed(messages, serves["tenant"], event.model_dict, event.additional_kwargs)
            if messages
            else None,
            asked=asked(messages) if self._keeper.keeps_text else "",
        )
        if len(self._running) > _MOST_RUNNING:
            self._running.popitem(last=False)

    def _feeds_another(self, span: str, event: _Start) -> bool:
        """Tell whether a stream that starts is that from which an asynchronous one will take all it says.

        `CustomLLM` streams so, and begins the inner stream when the first chunk is asked for: then the span of the outer
        one has ended, and nothing but what is asked tells that they are one call.
        """
        twin = f"a{_function(span)}"
        return twin.startswith("astream") and any(
            _function(other) == twin and call.reading.last is None and _asks(call.event) == _asks(event)
            for other, call in list(self._running.items())
        )

    def _ended(self, span: str, event: _End) -> None:
        call = self._running.pop(span, None)
        if call is None:
            return
        if event.response is not None:
            call.reading.add(event.response)
        self._keep(call, estimate=True, error=None)

    def _broke(self, span: str, error: BaseException | None) -> None:
        if call := self._running.pop(span, None):
            # What a stream said before it broke or was closed is paid for.
            said = call.reading.last is not None
            # No other tier stands in for an answer of which something was shown, nor for a call that was interrupted.
            is_final = said or not isinstance(error, Exception)
            self._keep(call, estimate=said, error=type(error).__name__, is_final=is_final)

    def _keep(self, call: _Call, *, estimate: bool, error: str | None, is_final: bool = False) -> None:
        now, model, decided = self._keeper.now(), call.event.model_dict, decision_of(call.facts)
        decided["spare"] &= not is_final
        record = CallRecord(
            id=str(call.facts.get("call") or call.event.id_),
            at=now,
            model=call.reading.model or model.get("model_name"),
            provider=provider_of(str(model.get("class_name", ""))),
            usage=call.reading.usage or (_estimated(call) if estimate else None),
            cost=None,
            latency=max(0.0, now - call.at),
            batch=call.reading.batch,
            tags=tags_of(call.event.tags),
            error=error,
            request=call.request,
            **call.serves,
            **decided,
        )
        texts = (call.asked, call.reading.answer().text) if error is None and self._keeper.keeps_text else None
        self._keeper.keep(record, call.facts.get("baseline"), texts)

    def _hit(self, event: CacheHitEvent) -> None:
        facts = told()
        record = CallRecord(
            id=str(facts.get("call") or event.id_),
            at=self._keeper.now(),
            model=event.model,
            provider=event.provider,
            usage=event.usage,
            cost=None,
            latency=event.seconds,
            cache=event.kind,
            tags=tags_of(event.tags),
            **_serves(event),
            **decision_of(facts),
        )
        self._keeper.keep(record, event.baseline or facts.get("baseline"))


class _Spans(NullSpanHandler):
    """Knows which span lies in which, and tells of those that fail; a span that has ended is forgotten."""

    _dropped: Callable[[str, BaseException | None], Any] = PrivateAttr()
    _parents: dict[str, str | None] = PrivateAttr(default_factory=dict)
    _others: set[str] = PrivateAttr(default_factory=set)

    def __init__(self, dropped: Callable[[str, BaseException | None], Any]) -> None:
        super().__init__()
        self._dropped = dropped

    @classmethod
    def class_name(cls) -> str:
        """Name the handler as the host's are."""
        return "llm_costopt_spans"

    def is_inside(self, span: str, others: Mapping[str, Any]) -> bool:
        """Tell whether *span* lies in one of *others*, or in what belongs to one, whose function is still running."""
        parent = self._parents.get(span)
        while parent is not None and parent in self._parents:
            if parent in others or parent in self._others:
                return True
            parent = self._parents.get(parent)
        return False

    def belongs_to_another(self, span: str) -> None:
        """Note that *span*, while it runs, works for a call that is told of elsewhere."""
        if span in self._parents:
            self._others.add(span)

    def span_enter(self, *_: Any, **kwargs: Any) -> None:
        """Note a span and what it lies in."""
        self._parents[kwargs["id_"]] = kwargs.get("parent_id")

    def span_exit(self, *_: Any, **kwargs: Any) -> None:
        """Forget a span."""
        self._parents.pop(kwargs["id_"], None)
        self._others.discard(kwargs["id_"])

    def span_drop(self, *_: Any, **kwargs: Any) -> None:
        """Forget a span that failed, and tell of it."""
        self.span_exit(id_=kwargs["id_"])
        self._dropped(kwargs["id_"], kwargs.get("err"))


def _function(span: str) -> str:
    """Read the method's name in the id of a span: `stream_chat` of `CustomLLM.stream_chat-…`."""
    return span.partition("-")[0].rpartition(".")[2]


def _asks(event: _Start) -> tuple[Any, ...]:
    """Say what is asked of which model."""
    what = event.messages if isinstance(event, LLMChatStartEvent) else event.prompt
    return what, event.model_dict


def _serves(event: BaseEvent) -> dict[str, Any]:
    """Say which endpoint and tenant of the application a call or a hit serves, as fields of its record."""
    return served(event.tags)


def _messages(event: _Start) -> tuple[Message, ...]:
    """Read what is asked; the prompt of a completion as a turn of the user."""
    if isinstance(event, LLMChatStartEvent):
        return messages_of(event.messages)
    return (Message(role="human", text=event.prompt),)


def _estimated(call: _Call) -> Usage:
    """Count with the host's tokenizer what nobody reported."""
    tokens = get_tokenizer()
    event, last = call.event, call.reading.last
    asked = [str(m.content or "") for m in event.messages] if isinstance(event, LLMChatStartEvent) else [event.prompt]
    said = (last.message.content or "") if isinstance(last, ChatResponse) else getattr(last, "text", "")
    return Usage(input_tokens=sum(len(tokens(text)) for text in asked), output_tokens=len(tokens(said)), estimated=True)
