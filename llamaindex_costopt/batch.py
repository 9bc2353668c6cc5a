"""Micro-batching in front of a model: `BatchingLLM(llm)` releases concurrent calls in windows, never too many at once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextvars import Context, copy_context
from functools import partial
from itertools import takewhile
from typing import Any, Self

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole
from llama_index.core.llms import LLM
from pydantic import PrivateAttr

from llamaindex_costopt._wrapper import Wrapper
from llm_costopt.batch.window import BatchStats, Ticket, Window


class BatchingLLM(Wrapper):
    """Hold calls of *llm* back until a window of them is full or old enough, then start them, never too many at once.

    It works from any thread and event loop, and does not change what a call costs: it lowers peaks, so that a provider's
    rate limit is not hit. Calls of a window that have the same system prompt start next to each other, while the provider has it in
    its cache. The age of the oldest call releases a window however few it holds, so that the host's `num_workers=4` cannot
    wait for a fifth; raise `num_workers` to fill it sooner. A stream holds its slot until it ends or is closed. A blocking
    call in a thread that runs an event loop is counted but not held back: it would keep the others from ending.

    Args:
        llm: the model, or another wrapper.
        max_batch_size: this many calls make a full window.
        flush_interval: seconds after which a window is released however few it holds, counted from its oldest call.
        max_concurrent: released calls that may be in flight at once.
        lease: seconds after which a slot is taken back from a call that does not end.

    Raises:
        ValueError: an argument is out of its range.
    """

    _window: Window = PrivateAttr()

    def __init__(
        self,
        llm: LLM,
        max_batch_size: int = 20,
        flush_interval: float = 0.5,
        max_concurrent: int = 10,
        *,
        lease: float = 300.0,
        **options: Any,
    ) -> None:
        super().__init__(llm, **options)
        self._window = Window(
            max_batch_size=max_batch_size, flush_interval=flush_interval, max_concurrent=max_concurrent, lease=lease
        )

    @classmethod
    def class_name(cls) -> str:
        """Name the wrapper as the host's models are."""
        return "llm_costopt_batching"

    def stats(self) -> BatchStats:
        """Report what the window did and what it holds."""
        return self._window.stats()

    def close(self) -> None:
        """Release every call that waits; from now on calls wait for a slot only."""
        self._window.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Wait for a place, then ask."""
        with _Place(self._window, _beginning(messages)) as place:
            place.wait()
            return self.llm.chat(messages, **kwargs)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Wait for a place, then ask."""
        with _Place(self._window, _beginning(messages)) as place:
            await place.await_()
            return await self.llm.achat(messages, **kwargs)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Wait for a place, then ask."""
        with _Place(self._window) as place:
            place.wait()
            return self.llm.complete(prompt, formatted, **kwargs)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Wait for a place, then ask."""
        with _Place(self._window) as place:
            await place.await_()
            return await self.llm.acomplete(prompt, formatted, **kwargs)

    # A stream that nobody reads asks nobody: its wait begins with the first chunk. Some integrations make their request
    # before that, so they are called after it, in the context in which the stream was asked for.

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        """Wait for a place, then ask, when the first chunk is wanted."""
        return self._held(partial(copy_context().run, self.llm.stream_chat, messages, **kwargs), _beginning(messages))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Wait for a place, then ask, when the first chunk is wanted."""
        return self._held(partial(copy_context().run, self.llm.stream_complete, prompt, formatted, **kwargs))

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        """Wait for a place, then ask, when the first chunk is wanted."""
        return self._aheld(partial(self.llm.astream_chat, messages, **kwargs), copy_context(), _beginning(messages))

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Wait for a place, then ask, when the first chunk is wanted."""
        return self._aheld(partial(self.llm.astream_complete, prompt, formatted, **kwargs), copy_context())

    def _held(self, ask: Callable[[], Iterator[Any]], group: str = "") -> Iterator[Any]:
        with _Place(self._window, group) as place:
            place.wait()
            yield from ask()

    async def _aheld(
        self, ask: Callable[[], Coroutine[Any, Any, Any]], context: Context, group: str = ""
    ) -> AsyncIterator[Any]:
        with _Place(self._window, group) as place:
            await place.await_()
            async for chunk in await asyncio.create_task(ask(), context=context):
                yield chunk


class _Place:
    """One call's place in a window, given back however the call ends."""

    def __init__(self, window: Window, group: str = "") -> None:
        self._window = window
        self._group = group
        self._ticket: Ticket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ticket:
            self._window.leave(self._ticket)

    def wait(self) -> None:
        """Wait in this thread; not where an event loop runs, whose calls it would keep from ending."""
        self._ticket = self._window.enter(wait=not _has_loop(), group=self._group)
        self._ticket.future.result()

    async def await_(self) -> None:
        """Wait in this task, whichever event loop runs it."""
        self._ticket = self._window.enter(group=self._group)
        await asyncio.wrap_future(self._ticket.future)


def _beginning(messages: Sequence[ChatMessage]) -> str:
    """Give what prompts of one application have in common: the system messages before all else."""
    return "\n".join(str(m.content) for m in takewhile(lambda m: m.role == MessageRole.SYSTEM, messages))


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
