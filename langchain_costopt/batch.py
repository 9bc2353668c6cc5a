"""Micro-batching as a LangChain callback handler: `model.invoke(..., {"callbacks": [BatchingCallbackHandler()]})`."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import partial
from itertools import takewhile
from typing import Any, Self
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from typing_extensions import override

from langchain_costopt._usage import is_from_cache, usage_of_result
from llm_costopt.account import Price
from llm_costopt.batch.window import BatchStats, Ticket, Window, call_in_forked_child
from llm_costopt.monitor.prices import Prices


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingStats(BatchStats):
    """What the handler's window did, and what the calls cost that passed it."""

    cost: Decimal
    """US dollars of the calls that ended and whose price is known; replies from LangChain's cache cost nothing."""
    unpriced: int
    """Calls that ended and whose price or usage is unknown."""


@dataclass(slots=True, eq=False)
class _Call:
    """A call that was started and has not ended, waiting or in flight."""

    run_id: UUID
    ticket: Ticket
    task: asyncio.Task[Any] | None = None
    """The caller's task, on the async path."""
    watch: Callable[[asyncio.Task[Any]], None] | None = None
    """Is called when that task ends."""
    streams: bool = False
    """Whether its first token came in the caller's task, as `astream` does it."""
    ended: bool = False


@dataclass(slots=True, eq=False)
class _Place:
    """Where in its caller's context a call stands: one that starts in the same context may be part of it."""

    outer: "_Place | None"
    call: _Call | None = None


class BatchingCallbackHandler(BaseCallbackHandler):
    """Hold model calls back until a window of them is full or old enough, then start them, never too many at once.

    Works the same for `invoke`, `batch`, `stream` and their async twins, from any thread and event loop. It does not
    change what a call costs: it lowers peaks, so that a provider's rate limit is not hit. A call inside another
    call goes through on the outer one's slot. Calls with the same system prompt start next to each other, so that the
    provider's prompt cache serves them. `generate` with several prompts starts all of them before it
    sends the first, so they are counted but not held back, and so is a blocking call on an event loop with async
    calls under way, which it would keep from ending. A reply from LangChain's cache waits like any other.

    Args:
        max_batch_size: this many calls make a full window.
        flush_interval: seconds after which a window is released however few it holds, counted from its oldest call.
        max_concurrent: released calls that may be in flight at once.
        lease: seconds after which a slot is taken back if LangChain never says that its call ended.
        prices: tells the cost of a call, as `llm_costopt.monitor.prices.Prices` does; that one if not given.

    Raises:
        ValueError: an argument is out of its range.
    """

    # On the async path LangChain then runs the start in its caller's own task, so that the end of the task is the end
    # of the call: cancelling a call fires no end event. (For completion models, though not for chat models, LangChain
    # 1.7 does not tell handlers that are not inline of the start if there is one that is.)
    run_inline = True

    def __init__(
        self,
        max_batch_size: int = 20,
        flush_interval: float = 0.5,
        max_concurrent: int = 10,
        *,
        lease: float = 300.0,
        prices: Price | None = None,
    ) -> None:
        self._window = Window(
            max_batch_size=max_batch_size, flush_interval=flush_interval, max_concurrent=max_concurrent, lease=lease
        )
        self._prices = Prices() if prices is None else prices
        # Not shared by all handlers, as is the custom: a call may be inside one handler's call and not inside another's.
        self._place: ContextVar[_Place | None] = ContextVar("llm_costopt_place", default=None)
        self._start_over()
        call_in_forked_child(self._start_over)

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[UUID, _Call] = {}
        self._cost, self._unpriced = Decimal(0), 0

    def stats(self) -> BatchingStats:
        """Report what the handler did and what it holds."""
        window = asdict(self._window.stats())
        with self._lock:
            return BatchingStats(**window, cost=self._cost, unpriced=self._unpriced)

    def close(self) -> None:
        """Release every call that waits; from now on calls wait for a slot only."""
        self._window.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    # Properties, because on the sync path the body runs in a context that LangChain throws away, and in another
    # thread if the caller's has a running loop; but LangChain looks the method up where the caller is.

    @property
    def on_chat_model_start(self) -> Callable[..., Awaitable[None]]:
        """Wait for the release of this call's window."""
        return self._starter()

    @property
    def on_llm_start(self) -> Callable[..., Awaitable[None]]:
        """Wait for the release of this call's window."""
        return self._starter()

    def _starter(self) -> Callable[..., Awaitable[None]]:
        outer = self._place.get()
        while outer and (outer.call is None or outer.call.ended):
            outer = outer.outer
        place = _Place(outer)
        self._place.set(place)
        return partial(self._start, place, _running_loop())

    async def _start(
        self,
        place: _Place,
        callers_loop: asyncio.AbstractEventLoop | None,
        _serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        batch_size: int = 1,
        **_: Any,
    ) -> None:
        inline = callers_loop is asyncio.get_running_loop()
        blocked = callers_loop is not None and not inline and self._has_calls_on(callers_loop)
        if batch_size > 1 or blocked or run_id in self._calls:
            self._window.enter(wait=False)
            return
        outer = place.outer.call if place.outer else None
        ticket = self._window.enter(under=outer.ticket if outer else None, group=_beginning(inputs))
        call = _Call(run_id, ticket)
        place.call = self._calls[run_id] = call
        if inline and (task := asyncio.current_task()):
            self._follow(task, call)
            self._take_over(place, call)
        try:
            await asyncio.wrap_future(call.ticket.future)
        except asyncio.CancelledError:
            self._end(call)
            raise

    def _has_calls_on(self, loop: asyncio.AbstractEventLoop) -> bool:
        return any(call.task and call.task.get_loop() is loop for call in list(self._calls.values()))

    def _follow(self, task: asyncio.Task[Any], call: _Call) -> None:
        def watch(_: object) -> None:
            # `chain.astream` fetches each chunk in a task of its own; but a stream tells its end, however it ends.
            if not call.streams:
                self._end(call)

        call.task, call.watch = task, watch
        task.add_done_callback(watch)

    def _take_over(self, place: _Place, call: _Call) -> None:
        # A task that awaits a call cannot start another, so one of the same task was cancelled, by a timeout for
        # instance, and no event will end it. Its slot goes to the new call.
        outer = place.outer
        if outer and outer.call and outer.call.task is call.task and not outer.call.streams:
            place.outer = outer.outer
            self._end(outer.call)

    @override
    def on_llm_new_token(self, token: Any, *, run_id: UUID, **_: Any) -> None:
        """Note which calls stream."""
        call = self._calls.get(run_id)
        if call and call.task and not call.streams:
            call.streams = _running_loop() is not None and asyncio.current_task() is call.task

    # The ends are plain functions: on the sync path each event of an `async def` costs an event loop, or a
    # thread of a pool that starts may have filled.

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """Return the call's slot, and add up what the call cost."""
        self._on_end(run_id)
        if is_from_cache(getattr(_message(response), "usage_metadata", None)):
            return
        cost = None
        try:
            cost = self._price(response)
        finally:
            with self._lock:
                self._cost += cost or 0
                self._unpriced += cost is None

    @override
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Return the call's slot."""
        self._on_end(run_id)

    def _on_end(self, run_id: UUID) -> None:
        if call := self._calls.get(run_id):
            self._end(call)

    def _end(self, call: _Call) -> None:
        call.ended = True
        if call.task and call.watch:
            call.task.remove_done_callback(call.watch)
            call.task = call.watch = None
        self._calls.pop(call.run_id, None)
        self._window.leave(call.ticket)

    def _price(self, response: LLMResult) -> Decimal | None:
        usage, message = usage_of_result(response), _message(response)
        said = message.response_metadata if message else response.llm_output or {}
        model = said.get("model_name") or said.get("model")
        return self._prices(model, usage, provider=said.get("model_provider")) if model and usage else None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _message(response: LLMResult) -> BaseMessage | None:
    return next((g.message for gs in response.generations for g in gs if isinstance(g, ChatGeneration)), None)


def _beginning(inputs: Any) -> str:
    """Give what prompts of one application have in common: the system messages before all else."""
    messages = inputs[0] if inputs and isinstance(inputs[0], list) else []
    return "\n".join(str(m.content) for m in takewhile(lambda m: m.type == "system", messages))
