"""Replay a request log through a real chain, first all-strong, then with cache and router."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import convert_to_messages
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable

from langchain_costopt.cache import SemanticCache
from langchain_costopt.monitor import CostCallbackHandler
from langchain_costopt.router import RouterChatModel
from llm_costopt.demo.log import LoggedRequest, Tier
from llm_costopt.demo.playback import Playback, serving
from llm_costopt.demo.result import Result, Served
from llm_costopt.errors import CostOptError
from llm_costopt.types import CallRecord

PATIENCE = 3
"""Failures at the start after which a run ends: a wrong key or address fails every time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """Which models play the two tiers."""

    cheap: str = "gpt-4o-mini"
    """The model that is asked first."""
    strong: str = "gpt-4o"
    """The model of the first run, and of what is escalated in the second."""


def replay(
    rows: Sequence[LoggedRequest],
    *,
    models: Models,
    max_error: float = 0.01,
    threshold: float | None = None,
    live: bool = False,
    tick: Callable[[], object] = lambda: None,
) -> Result:
    """Replay *rows* twice against recorded answers, or with *live* against the real models.

    *max_error* and *threshold* are the cache's; *tick* is called after each request of each run.
    """
    cache = SemanticCache(max_error=max_error, threshold=threshold)
    tiers: dict[str, Tier] = {models.cheap: "cheap", models.strong: "strong"}
    playback = None if live else Playback(rows, tiers)
    with serving(playback) if playback else nullcontext() as url:
        strong, cheap = _model(models.strong, url), _model(models.cheap, url)
        before = _Run(rows, strong, playback, tick).serve()
        if playback:
            playback.rewind()
        previous = get_llm_cache()
        set_llm_cache(cache)
        try:
            after = _Run(rows, RouterChatModel(cheap=cheap, strong=strong), playback, tick).serve()
        finally:
            set_llm_cache(previous)
            cache.close()
    return Result(before=before, after=after)


def _model(name: str, url: str | None) -> BaseChatModel:
    from langchain_openai import ChatOpenAI

    # The key of a loopback server is nobody's secret; live, key and base URL come from the environment.
    return (
        ChatOpenAI(model=name)
        if url is None
        else ChatOpenAI(model=name, base_url=url, api_key="recorded", max_retries=0)
    )


class _Run(BaseCallbackHandler):
    """One pass over the log; as a handler it learns which request each completion was made for."""

    run_inline = True

    def __init__(
        self, rows: Sequence[LoggedRequest], model: BaseChatModel, playback: Playback | None, tick: Callable[[], object]
    ) -> None:
        self._rows = rows
        self._model = model
        self._playback = playback
        self._tick = tick
        self._row = rows[0]
        self._origin: dict[str, LoggedRequest] = {}
        self._records: list[CallRecord] = []
        self._monitor = CostCallbackHandler(on_record=self._records.append)

    def serve(self) -> list[Served]:
        """Send the requests in order, one at a time: which answers are stored when decides what hits."""
        served = []
        for row in self._rows:
            served.append(self._serve(row))
            self._tick()
            if len(served) == PATIENCE and all(s.error for s in served):
                raise CostOptError(
                    f"none of the first {PATIENCE} requests was answered; the last error: {served[-1].error}"
                )
        return served

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Note the origin of a completion that was really made."""
        for generation in response.generations[0]:
            if isinstance(generation, ChatGeneration) and "cache" not in _mark(generation.message):
                self._origin.setdefault(str(generation.message.response_metadata.get("id")), self._row)

    def _serve(self, row: LoggedRequest) -> Served:
        self._row = row
        self._records.clear()
        began = time.perf_counter()
        reply, error = self._reply(row)
        elapsed = 1000 * (time.perf_counter() - began)
        message = reply["raw"] if isinstance(reply, dict) else reply
        completion = str(message.response_metadata.get("id")) if message else ""
        source = self._origin.get(completion)
        return Served(
            request=row,
            records=tuple(self._records),
            source=source,
            right=_right(row, source, completion) if self._playback else None,
            latency_ms=elapsed + (self._playback.model_ms() if self._playback else 0.0),
            error=error,
        )

    def _reply(self, row: LoggedRequest) -> tuple[Any, str | None]:
        """Send one request; whatever a provider or its client raises is that request's failure, not the run's."""
        messages = convert_to_messages([dict(m) for m in row.messages])
        try:
            return self._chain(row).invoke({"messages": messages}, {"callbacks": [self._monitor, self]}), None
        except Exception as problem:  # noqa: BLE001
            return None, f"{type(problem).__name__}: {problem}"

    def _chain(self, row: LoggedRequest) -> Runnable[Any, Any]:
        prompt = ChatPromptTemplate([MessagesPlaceholder("messages")])
        if row.tools:
            return prompt | self._model.bind_tools(row.tools)
        if row.schema:
            schema = {"title": row.schema["name"], **row.schema["schema"]}
            return prompt | self._model.with_structured_output(schema, include_raw=True)
        return prompt | self._model


def _mark(message: Any) -> Mapping[str, Any]:
    mark = message.response_metadata.get("llm_costopt", {})
    return mark if isinstance(mark, dict) else {}


def _right(row: LoggedRequest, source: LoggedRequest | None, completion: str) -> bool | None:
    """Look up whether the answer is right: another request's answer is right if both ask the same."""
    if not completion:
        return False
    if source is None:
        return None
    tier: Tier = "cheap" if completion.endswith("-cheap") else "strong"
    recorded = source.answers[tier].right
    return recorded if source.same_as == row.same_as else (None if recorded is None else False)
