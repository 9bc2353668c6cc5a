"""Replay a request log through a real chain, first all-strong, then with cache and router."""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import convert_to_messages
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI

from langchain_costopt.cache import SemanticCache
from langchain_costopt.monitor import CostCallbackHandler
from langchain_costopt.router import RouterChatModel
from llm_costopt.demo.log import LoggedRequest
from llm_costopt.demo.playback import Playback
from llm_costopt.demo.result import Result, Served
from llm_costopt.demo.run import Models, Run, Tick, played, twice
from llm_costopt.presets import Preset


def replay(
    rows: Sequence[LoggedRequest],
    *,
    models: Models,
    preset: Preset = "balanced",
    max_error: float | None = None,
    threshold: float | None = None,
    live: bool = False,
    tick: Tick = lambda: None,
) -> Result:
    """Replay *rows* twice against recorded answers, or with *live* against the real models.

    *preset* is that of cache and router, *max_error* and *threshold* are the cache's; *tick* is called after each request of each run.
    """
    cache = SemanticCache(preset=preset, max_error=max_error, threshold=threshold)

    def after() -> list[Served]:
        previous = get_llm_cache()
        set_llm_cache(cache)
        try:
            return _Pass(rows, RouterChatModel(cheap=cheap, strong=strong, preset=preset), playback, tick).serve()
        finally:
            set_llm_cache(previous)
            cache.close()

    with played(rows, models, live=live) as (playback, url):
        strong, cheap = _model(models.strong, url), _model(models.cheap, url)
        return twice(playback, _Pass(rows, strong, playback, tick).serve, after)


def _model(name: str, url: str | None) -> BaseChatModel:
    # The key of a loopback server is nobody's secret; live, key and base URL come from the environment.
    return (
        ChatOpenAI(model=name)
        if url is None
        else ChatOpenAI(model=name, base_url=url, api_key="recorded", max_retries=0)
    )


class _Pass(BaseCallbackHandler):
    """One pass over the log; as a handler it learns which request each completion was made for."""

    run_inline = True

    def __init__(
        self, rows: Sequence[LoggedRequest], model: BaseChatModel, playback: Playback | None, tick: Tick
    ) -> None:
        self._model = model
        self._run = Run(rows, self._send, playback, tick)
        self._monitor = CostCallbackHandler(on_record=self._run.records.append)

    def serve(self) -> list[Served]:
        """Send the requests."""
        return self._run.serve()

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Note the origin of a completion that was really made."""
        for generation in response.generations[0]:
            if isinstance(generation, ChatGeneration) and "cache" not in _mark(generation.message):
                self._run.completed(str(generation.message.response_metadata.get("id")))

    def _send(self, row: LoggedRequest) -> str:
        messages = convert_to_messages([dict(m) for m in row.messages])
        reply = self._chain(row).invoke({"messages": messages}, {"callbacks": [self._monitor, self]})
        message = reply["raw"] if isinstance(reply, dict) else reply
        return str(message.response_metadata.get("id")) if message else ""

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
