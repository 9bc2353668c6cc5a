"""Replay a request log through LlamaIndex's models, first all-strong, then with cache and router."""

from collections.abc import Sequence
from typing import Any

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent
from llama_index.core.llms import LLM
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai.utils import from_openai_message_dicts
from llama_index_instrumentation import get_dispatcher
from pydantic import PrivateAttr

from llamaindex_costopt._usage import fields_of
from llamaindex_costopt.cache import CachedLLM
from llamaindex_costopt.monitor import CostEventHandler
from llamaindex_costopt.router import RouterLLM
from llm_costopt.cache.semantic import SemanticCache
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
        # As LangChain's cache of the process lies below the router, so that both hosts do the same.
        router = RouterLLM(cheap=CachedLLM(cheap, cache=cache), strong=CachedLLM(strong, cache=cache), preset=preset)
        try:
            return _Pass(rows, router, playback, tick).serve()
        finally:
            cache.close()

    with played(rows, models, live=live) as (playback, url):
        strong, cheap = _model(models.strong, url), _model(models.cheap, url)
        return twice(playback, _Pass(rows, strong, playback, tick).serve, after)


def _model(name: str, url: str | None) -> LLM:
    # The key of a loopback server is nobody's secret; live, key and base URL come from the environment.
    return OpenAI(model=name) if url is None else OpenAI(model=name, api_base=url, api_key="recorded", max_retries=0)


class _Pass:
    """One pass over the log."""

    def __init__(self, rows: Sequence[LoggedRequest], model: LLM, playback: Playback | None, tick: Tick) -> None:
        self._model = model
        self._run = Run(rows, self._send, playback, tick)

    def serve(self) -> list[Served]:
        """Send the requests, and listen to what is made of them."""
        root, origins = get_dispatcher(), _Origins(self._run)
        monitor = CostEventHandler(on_record=self._run.records.append).install()
        root.add_event_handler(origins)
        try:
            return self._run.serve()
        finally:
            monitor.uninstall()
            root.event_handlers = [handler for handler in root.event_handlers if handler is not origins]

    def _send(self, row: LoggedRequest) -> str:
        options: dict[str, Any] = {}
        if row.tools:
            options["tools"] = list(row.tools)
        if row.schema:
            options["response_format"] = {"type": "json_schema", "json_schema": dict(row.schema)}
        messages = from_openai_message_dicts([dict(m) for m in row.messages])
        return str(fields_of(self._model.chat(messages, **options).raw).get("id", ""))


class _Origins(BaseEventHandler):
    """Learns which request each completion was made for."""

    _run: Run = PrivateAttr()

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def handle(self, event: BaseEvent, **_: Any) -> None:
        """Note a completion that was really made."""
        if isinstance(event, LLMChatEndEvent) and event.response is not None:
            self._run.completed(str(fields_of(event.response.raw).get("id")))
