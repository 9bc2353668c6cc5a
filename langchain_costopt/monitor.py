"""What LangChain's calls cost and what was saved, as a callback handler."""

import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from typing_extensions import override

from langchain_costopt._convert import MARK, ROUTER, messages_of
from langchain_costopt._usage import is_batch, is_from_cache, usage_of_error, usage_of_metadata, usage_of_result
from llm_costopt.account import Price
from llm_costopt.endpoints import served
from llm_costopt.monitor.keeper import Keeper
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.privacy import Redact, asked
from llm_costopt.reported import decision_of
from llm_costopt.types import CacheKind, CallRecord, Message, OnRecord

_MOST_RUNNING = 10_000
"""Calls remembered at once. A cancelled call never ends, so that the oldest must go some day."""

_OF_THE_HOST = re.compile(
    r"seq:step:\d+|map:key:.*|condition:\d+|branch:(\d+|default)|nostream|langsmith:.*", re.DOTALL
)
"""Tags by which LangChain and LangGraph tell each other where a run stands in a chain, or not to show it."""

_Unpriced = tuple[CallRecord, str | None, str | None]
"""A record that still lacks its amounts, the baseline that its call names, if it names one, and what a model answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """What a handler learns when a call starts, and not again when it ends."""

    run: str
    """The id that a router gave to the call, else the run's."""
    at: float | None = None
    """Seconds since the epoch; None if the start was missed."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """LangChain's own and the user's."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Those of the request; completion models name themselves only here."""
    tags: tuple[str, ...] = ()
    """The user's."""
    prompts: int = 1
    """How many prompts travelled together."""
    serves: Mapping[str, Any] = field(default_factory=dict)
    """The application's endpoint and tenant, as fields of a record."""
    request: str | None = None
    """The hash of the request."""
    asked: str = ""
    """The last turn of the user, if text is kept."""

    @property
    def model(self) -> str | None:
        """The model that was asked."""
        return self.metadata.get("ls_model_name") or self.params.get("model") or self.params.get("model_name")

    @property
    def provider(self) -> str | None:
        """The provider that was asked; a router is none."""
        provider = self.metadata.get("ls_provider")
        return None if provider == ROUTER else provider

    def latency(self, now: float) -> float | None:
        """Seconds until *now*."""
        return None if self.at is None else max(0.0, now - self.at)


class CostCallbackHandler(Keeper, BaseCallbackHandler):
    """Keep what every call cost and saved: `model.invoke(..., config={"callbacks": [handler]})`.

    Hits of the host's cache are counted as hits, not as calls. A failure of the price list, the ledger or
    *on_record* is logged once and counted in `failures`; it never reaches the call. The `endpoint` and the `tenant` of a
    call are those of its `metadata`, else what `endpoint` and `cache_scope` say where it starts.

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
        super().__init__(
            baseline=baseline,
            ledger=ledger,
            prices=prices,
            on_record=on_record,
            clock=clock,
            hash_key=hash_key,
            keep_text=keep_text,
            redact=redact,
        )
        self._running: OrderedDict[UUID, _Start] = OrderedDict()

    @override
    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        self.guarded("start", self._remember, run_id, lambda: messages_of(messages[0]), kwargs)

    @override
    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        self.guarded("start", self._remember, run_id, lambda: _turn(prompts), kwargs)

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        self.guarded("end", self._ended, run_id, partial(_answers, response))

    @override
    def on_llm_error(
        self, error: BaseException, *, run_id: UUID, response: LLMResult | None = None, **kwargs: Any
    ) -> None:
        self.guarded("error", self._ended, run_id, partial(_failure, error, response))

    # An event costs an async call the hop to another thread, used or not.
    ignore_chain = ignore_agent = ignore_retriever = property(lambda _: True)

    def _remember(self, run_id: UUID, read: Callable[[], Sequence[Message]], told: Mapping[str, Any]) -> None:
        metadata, params = told.get("metadata") or {}, told.get("invocation_params") or {}
        serves = served(metadata)
        messages = self.guarded("messages", read) or ()
        start = _Start(
            run=str(metadata.get("llm_costopt_call") or run_id),
            at=self._clock(),
            metadata=metadata,
            params=params,
            tags=tuple(tag for tag in told.get("tags") or () if not _OF_THE_HOST.fullmatch(str(tag))),
            prompts=told.get("batch_size") or 1,
            serves=serves,
            request=self.hashed(messages, serves["tenant"], params) if messages else None,
            asked=asked(messages) if self.keeps_text else "",
        )
        with self._lock:
            self._running[run_id] = start
            if len(self._running) > _MOST_RUNNING:
                self._running.popitem(last=False)

    def _ended(self, run_id: UUID, read: Callable[[_Start, float], list[_Unpriced]]) -> None:
        with self._lock:
            start = self._running.pop(run_id, None) or _Start(run=str(run_id))
        for record, baseline, answer in read(start, self._clock()):
            self.keep(record, baseline, None if answer is None else (start.asked, answer))


def _answers(response: LLMResult, start: _Start, now: float) -> list[_Unpriced]:
    """Read one answer, or those of all attempts if a router answered whose tiers ran silently."""
    message = next((g.message for gs in response.generations for g in gs if isinstance(g, ChatGeneration)), None)
    said = message.response_metadata if message else {}
    ours = said.get(MARK) or {}
    cache = _cache(ours.get("cache"), getattr(message, "usage_metadata", None))
    if start.metadata.get("ls_provider") == ROUTER and ours.get("attempts"):
        attempts = [_attempt(attempt, start, now) for attempt in ours["attempts"]]
        # From a cache above the router, the answer still tells of the attempts that were made for it back then.
        if cache == attempts[-1][0].cache:
            return attempts
    output = response.llm_output or {}
    record = CallRecord(
        id=start.run,
        at=now,
        model=_once(said.get("model_name") or said.get("model") or output.get("model_name")) or start.model,
        provider=start.provider or said.get("model_provider"),
        usage=usage_of_result(response, prompts=start.prompts),
        cost=None,
        latency=start.latency(now),
        cache=cache,
        batch=cache is None and is_batch(said),
        tags=start.tags,
        request=None if cache else start.request,
        **start.serves,
        **decision_of(start.metadata, "llm_costopt_"),
    )
    text = next((g.text for gs in response.generations for g in gs), None)
    return [(record, start.metadata.get("llm_costopt_baseline"), None if cache else text)]


def _attempt(attempt: Mapping[str, Any], start: _Start, now: float) -> _Unpriced:
    same: dict[str, Any] = {name: attempt.get(name) for name in ("model", "provider", "latency", "error")}
    record = CallRecord(
        id=attempt["id"],
        at=now,
        usage=usage_of_metadata(attempt.get("usage")),
        cost=None,
        cache=_cache(attempt.get("cache"), attempt.get("usage")),
        batch=bool(attempt.get("batch")),
        tags=start.tags,
        **start.serves,
        **same,
        **decision_of(attempt),
    )
    return record, attempt.get("baseline"), None


def _failure(error: BaseException, said: LLMResult | None, start: _Start, now: float) -> list[_Unpriced]:
    """Read a call that failed; what a stream had *said* before it broke, or was closed, is paid for.

    Where a router failed whose tiers ran silently, the error tells of their attempts, and its last one is what failed.
    """
    decided = decision_of(start.metadata, "llm_costopt_")
    # No other tier stands in for an answer of which something was shown, nor for a call that was interrupted.
    decided["spare"] &= isinstance(error, Exception) and not _has_begun(said)
    record = CallRecord(
        id=start.run,
        at=now,
        model=start.model,
        provider=start.provider,
        usage=usage_of_error(error) or (usage_of_result(said) if said else None),
        cost=None,
        latency=start.latency(now),
        tags=start.tags,
        error=type(error).__name__,
        request=start.request,
        **start.serves,
        **decided,
    )
    baseline = start.metadata.get("llm_costopt_baseline")
    tried = getattr(error, MARK, None) if start.metadata.get("ls_provider") == ROUTER else None
    if tried:
        *before, (last, baseline, _) = [_attempt(attempt, start, now) for attempt in tried]
        return [*before, (replace(last, usage=record.usage, spare=False), baseline, None)]
    return [(record, baseline, None)]


def _has_begun(said: LLMResult | None) -> bool:
    return said is not None and any(isinstance(g, ChatGenerationChunk) for gs in said.generations for g in gs)


def _turn(prompts: list[str]) -> tuple[Message, ...]:
    """Read the prompt of a completion model as a turn of the user."""
    return (Message(role="human", text=prompts[0]),)


def _once(name: str | None) -> str | None:
    """Undo what core does to a stream of several choices: it joins the names, as in `gpt-4ogpt-4o`."""
    return name and name[: (name + name).find(name, 1)]


def _cache(kind: CacheKind | None, reported: Mapping[str, Any] | None) -> CacheKind | None:
    return kind or ("exact" if is_from_cache(reported) else None)
