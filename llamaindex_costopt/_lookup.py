"""One request in a cache: find its answer or let it be given, and store that."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse

from llamaindex_costopt._convert import Reading, whole
from llamaindex_costopt._events import CacheHitEvent, dispatcher
from llamaindex_costopt._stored import dump, load
from llm_costopt.cache.records import Hit
from llm_costopt.cache.semantic import SemanticCache
from llm_costopt.router.start import Model
from llm_costopt.types import Question

R = TypeVar("R", ChatResponse, CompletionResponse)


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """One request in a cache."""

    cache: SemanticCache
    """The cache."""
    question: Question | None
    """The request; None if nothing can tell it from another one, so that it is neither looked up nor stored."""
    model: Model
    """Who is asked."""
    baseline: str | None
    """The model that the answer is held against; None if no router says so."""
    context: Context = field(default_factory=copy_context)
    """What is said around the call: a stream may be read elsewhere, and belongs to whom it was asked for."""

    def answer(self, ask: Callable[[], R]) -> R:
        """Return a stored response, or the one that *ask* gives."""
        if (stored := self._find()) is not None:
            return cast("R", stored)
        try:
            response = ask()
        except BaseException:
            self._leave()
            raise
        self._save(Reading().add(response))
        return response

    async def aanswer(self, ask: Callable[[], Awaitable[R]]) -> R:
        """Return a stored response, or the one that *ask* gives."""
        if (stored := await self._afind()) is not None:
            return cast("R", stored)
        try:
            response = await ask()
        except BaseException:
            self._leave()
            raise
        await asyncio.to_thread(self._save, Reading().add(response))
        return response

    def stream(self, ask: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """Replay a stored response, or pass on the stream that *ask* gives; the look-up is made at once."""
        if (stored := self._find()) is not None:
            return _once(whole(stored))
        try:
            kept = self._kept(ask())
        except BaseException:
            self._leave()
            raise
        next(kept)
        return kept

    async def astream(self, ask: Callable[[], Awaitable[AsyncIterator[Any]]]) -> AsyncIterator[Any]:
        """Replay a stored response, or pass on the stream that *ask* gives; the look-up is made at once."""
        if (stored := await self._afind()) is not None:
            return _aonce(whole(stored))
        try:
            kept = self._akept(await ask())
        except BaseException:
            self._leave()
            raise
        await anext(kept)
        return kept

    def _kept(self, chunks: Iterator[Any]) -> Iterator[Any]:
        reading = Reading()
        try:
            yield  # begun, so that it hears of its end even if nobody reads it
            for chunk in chunks:
                reading.add(_copy(chunk))
                yield chunk
        except BaseException:  # it failed, or was closed before its end: half an answer is none
            self._leave()
            raise
        self._save(reading)

    async def _akept(self, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        reading = Reading()
        try:
            yield  # as above
            async for chunk in chunks:
                reading.add(_copy(chunk))
                yield chunk
        except BaseException:
            self._leave()
            raise
        await asyncio.to_thread(self._save, reading)

    def _find(self) -> Any:
        began = time.perf_counter()
        with self.cache.failsafe("lookup"):
            if self.question is not None:
                return self._loaded(self.cache.find(self.question), began)
        return None

    async def _afind(self) -> Any:
        began = time.perf_counter()
        with self.cache.failsafe("lookup"):
            if self.question is not None:
                aembed = getattr(self.cache.embedder, "aembed", None)
                return self._loaded(await self.cache.afind(self.question, aembed), began)
        return None

    def _loaded(self, hit: Hit | None, began: float) -> ChatResponse | CompletionResponse | None:
        if hit is None:
            return None
        response, about = load(hit)
        seconds = time.perf_counter() - began
        dispatcher.event(CacheHitEvent(hit=hit.id, kind=hit.kind, seconds=seconds, baseline=self.baseline, **about))
        return response

    def _save(self, reading: Reading) -> None:
        with self.cache.failsafe("update"):
            if self.question is not None and reading.last is not None:
                self.context.run(self.cache.save, self.question, reading.answer(), dump(reading, self.model))
                return
        self._leave()

    def _leave(self) -> None:
        """Let those go on that wait for the answer: it does not come."""
        with self.cache.failsafe("update"):
            if self.question is not None:
                self.context.run(self.cache.leave, self.question)


def _copy(chunk: Any) -> Any:
    """Copy of *chunk* what is stored: whoever reads the stream may change the last one before it ends."""
    if not isinstance(chunk, ChatResponse):
        return chunk.model_copy()
    said = chunk.message
    blocks, extra = [block.model_copy() for block in said.blocks], dict(said.additional_kwargs)
    return chunk.model_copy(update={"message": said.model_copy(update={"blocks": blocks, "additional_kwargs": extra})})


def _once(response: Any) -> Iterator[Any]:
    yield response


async def _aonce(response: Any) -> AsyncIterator[Any]:
    yield response
