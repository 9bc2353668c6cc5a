import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from typing import Any, TypeVar, cast
from uuid import uuid4

import httpx
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_openai import ChatOpenAI
from llmock.pytest_plugin import LLMock

from langchain_costopt.batch import BatchingCallbackHandler
from llm_costopt.types import Usage

T = TypeVar("T")

SOON = 10.0
"""Seconds after which a test that waits gives up; nothing here takes as long."""

NEVER = 30.0
"""Seconds that no test lives: a window with it is released by its size or not at all, and threads of a failed test end."""

REPLY = AIMessage(
    "yes",
    usage_metadata={"input_tokens": 100, "output_tokens": 10, "total_tokens": 110},
    response_metadata={"model_name": "gpt-4o-mini", "model_provider": "openai"},
)


class Flight:
    """Counts the calls that are in flight together; `with` marks one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.peak = 0

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.peak = max(self.peak, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


def nothing() -> None:
    """Do nothing in a call."""


class Model(BaseChatModel):
    """A model that does in each call what the test says; async calls run `ado`, or `do` in a thread as models do."""

    flight: Flight
    do: Callable[[], Any] = nothing
    ado: Callable[[], Awaitable[Any]] | None = None

    @property
    def _llm_type(self) -> str:
        return "test"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self.flight:
            self.do()
            return ChatResult(generations=[ChatGeneration(message=REPLY.model_copy())])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.ado is None:
            return await super()._agenerate(messages, stop, run_manager, **kwargs)
        with self.flight:
            await self.ado()
            return ChatResult(generations=[ChatGeneration(message=REPLY.model_copy())])


class Telling(Model):
    """A model that tells of a token and then does what the test says, as `invoke` does under a streaming listener."""

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        assert run_manager
        run_manager.on_llm_new_token("yes")
        return super()._generate(messages, stop, run_manager, **kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        assert run_manager
        if self.ado:
            await run_manager.on_llm_new_token("yes")
        return await super()._agenerate(messages, stop, run_manager, **kwargs)


class Streaming(Model):
    """A model that streams two words."""

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with self.flight:
            self.do()
            for word in ("well ", "yes"):
                yield ChatGenerationChunk(message=AIMessageChunk(content=word))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        with self.flight:
            if self.ado:
                await self.ado()
            for word in ("well ", "yes"):
                yield ChatGenerationChunk(message=AIMessageChunk(content=word))


@pytest.fixture
def flight() -> Flight:
    """Count the calls of this test's models."""
    return Flight()


Make = Callable[..., BatchingCallbackHandler]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make handlers, and send away whoever still waits at the end: no thread may outlive a test that failed."""
    made: list[BatchingCallbackHandler] = []

    def make_one(*args: Any, **options: Any) -> BatchingCallbackHandler:
        made.append(BatchingCallbackHandler(*args, **{"lease": NEVER} | options))
        return made[-1]

    yield make_one
    for window in (handler._window for handler in made):
        window.close()
        list(map(window.leave, (*window._released, *window._filling)))


@pytest.fixture
def only_one(make: Make) -> BatchingCallbackHandler:
    """Make a handler that starts every call at once, but never two together."""
    return make(1, max_concurrent=1)


def using(handler: BatchingCallbackHandler, **config: Any) -> RunnableConfig:
    """Write the config of a call that *handler* holds back."""
    return cast("RunnableConfig", {"callbacks": [handler], **config})


def in_time(play: Callable[[], T]) -> T:
    """Run *play* in a thread that no hang can keep the tests from leaving behind."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(play())
        except Exception as error:  # noqa: BLE001 - the test's thread raises it
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result.result(timeout=SOON)


def run(play: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run *play* on an event loop that even a blocked loop cannot keep the tests from leaving behind."""
    return in_time(lambda: asyncio.run(asyncio.wait_for(play(), SOON)))


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until *condition* holds."""
    while not condition():  # noqa: ASYNC110 - what it waits for sets no event
        await asyncio.sleep(0)


def together(number: int) -> Callable[[], object]:
    """Make calls wait in their threads until *number* of them are in flight."""
    barrier = threading.Barrier(number)
    return lambda: barrier.wait(SOON)


@pytest.fixture(autouse=True)
def _nothing_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """LangChain logs and swallows what a handler raises; no test passes with such a failure."""
    yield

    assert not [record for record in caplog.get_records("call") if record.name == "langchain_core.callbacks.manager"]


def test_invoke_waits_for_the_flush_and_answers(make: Make, flight: Flight) -> None:
    """A lone blocking call is released when its window is old enough, and its slot comes back."""
    handler = make(flush_interval=0.01)
    reply = in_time(lambda: Model(flight=flight).invoke("?", using(handler)))

    assert reply.content == "yes"
    assert (handler.stats().batches, handler.stats().in_flight) == (1, 0)


def test_a_completion_model_is_held_back_too(
    make: Make,
) -> None:
    """Models that are no chat models go through the same window, blocking or not."""
    handler = make(flush_interval=0.01)
    model = FakeListLLM(responses=["yes"])
    replies = [in_time(lambda: model.invoke("?", using(handler))), run(lambda: model.ainvoke("?", using(handler)))]

    assert replies == ["yes", "yes"]
    assert (handler.stats().batches, handler.stats().in_flight) == (2, 0)


def test_batch_fills_windows_and_keeps_the_limit(make: Make, flight: Flight) -> None:
    """The threads of `batch` are released by the full window, four run together, and never more."""
    handler = make(8, NEVER, 4)
    model = Model(flight=flight, do=together(4))
    replies = in_time(lambda: model.batch(["?"] * 16, using(handler, max_concurrency=16)))

    assert len(replies) == 16
    assert flight.peak == 4
    assert (handler.stats().batches, handler.stats().average_batch_size) == (2, 8.0)


def test_calls_with_the_same_system_prompt_start_next_to_each_other(make: Make, flight: Flight) -> None:
    """Of a window with one slot, calls that begin alike go one after the other: the provider has the prompt in its cache then."""
    handler = make(5, NEVER, max_concurrent=1)
    order: list[str] = []

    async def ask(system: str | None, text: str) -> None:
        async def seen() -> None:
            order.append(text)

        messages = [*([SystemMessage(system)] if system else []), HumanMessage(text)]
        await Model(flight=flight, ado=seen).ainvoke(messages, using(handler))

    async def play() -> None:
        await asyncio.gather(ask("A", "0"), ask("B", "1"), ask(None, "2"), ask("A", "3"), ask("B", "4"))

    run(play)

    assert order == ["0", "3", "1", "4", "2"]


def test_fewer_threads_than_the_window_holds(make: Make, flight: Flight) -> None:
    """Two threads never fill a window of twenty, so the flush interval lets them go on."""
    handler = make(20, 0.01)
    replies = in_time(lambda: Model(flight=flight).batch(["?"] * 6, using(handler, max_concurrency=2)))

    assert len(replies) == 6
    assert handler.stats().batches >= 3


def test_abatch_fills_windows_and_keeps_the_limit(make: Make, flight: Flight) -> None:
    """Of sixteen async calls four run together, never more, in two full windows."""
    handler = make(8, NEVER, 4)

    async def play() -> list[AIMessage]:
        barrier = asyncio.Barrier(4)
        return await Model(flight=flight, ado=barrier.wait).abatch(["?"] * 16, using(handler))

    assert len(run(play)) == 16
    assert flight.peak == 4
    assert (handler.stats().batches, handler.stats().average_batch_size) == (2, 8.0)


def test_gathered_calls_share_a_window(make: Make, flight: Flight) -> None:
    """Calls of different models that are gathered are released together."""
    handler = make(4, NEVER)

    async def play() -> list[AIMessage]:
        barrier = asyncio.Barrier(4)
        models = [Model(flight=flight, ado=barrier.wait) for _ in range(4)]
        return await asyncio.gather(*[model.ainvoke("?", using(handler)) for model in models])

    assert len(run(play)) == 4
    assert handler.stats().batches == 1


def test_a_blocking_call_on_a_running_loop_is_held_back(make: Make, flight: Flight) -> None:
    """`invoke` inside a coroutine waits for its window in LangChain's pool and gives its slot back."""
    handler = make(flush_interval=0.01, max_concurrent=1)

    async def play() -> list[BaseMessage]:
        return [Model(flight=flight).invoke("?", using(handler)) for _ in range(2)]

    assert len(run(play)) == 2
    assert (handler.stats().batches, handler.stats().in_flight) == (2, 0)


def test_a_blocking_call_does_not_wait_for_the_loop_that_it_blocks(
    flight: Flight, only_one: BatchingCallbackHandler
) -> None:
    """While an async call holds the only slot, a blocking call on its loop goes through: neither could end otherwise."""

    async def play() -> None:
        done = asyncio.Event()
        task = asyncio.create_task(Model(flight=flight, ado=done.wait).ainvoke("?", using(only_one)))
        await until(lambda: flight.now == 1)
        Model(flight=flight).invoke("?", using(only_one))
        done.set()
        await task

    run(play)

    assert flight.peak == 2
    assert (only_one.stats().requests, only_one.stats().in_flight) == (2, 0)


def test_generate_with_more_prompts_than_slots(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """`generate` starts all its prompts before it sends one: they are counted and not held back."""
    prompts: list[list[BaseMessage]] = [[HumanMessage("?")]] * 3
    result = in_time(lambda: Model(flight=flight).generate(prompts, callbacks=[only_one]))

    assert len(result.generations) == 3
    assert (only_one.stats().requests, only_one.stats().batches) == (3, 0)


def test_agenerate_with_more_prompts_than_slots(make: Make, flight: Flight) -> None:
    """`agenerate` with four prompts and two slots does not wait for itself."""
    handler = make(1, max_concurrent=2)
    prompts: list[list[BaseMessage]] = [[HumanMessage("?")]] * 4
    result = run(lambda: Model(flight=flight).agenerate(prompts, callbacks=[handler]))

    assert len(result.generations) == 4
    assert (handler.stats().requests, handler.stats().in_flight) == (4, 0)


def test_a_model_inside_a_model(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """With one slot a blocking model that calls a model, that calls a model, gets its answer, twice."""
    innermost = Model(flight=flight)
    inner = Model(flight=flight, do=lambda: innermost.invoke("?", using(only_one)))
    outer = Model(flight=flight, do=lambda: [inner.invoke("?", using(only_one)) for _ in range(2)])
    in_time(lambda: [outer.invoke("?", using(only_one)) for _ in range(2)])

    assert (only_one.stats().requests, only_one.stats().in_flight) == (10, 0)


def test_a_model_inside_a_model_after_several_prompts(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """Prompts that travelled together in between do not hide the outer call from the next inner one."""
    prompts: list[list[BaseMessage]] = [[HumanMessage("?")]] * 2
    inner = Model(flight=flight)
    outer = Model(
        flight=flight,
        do=lambda: (inner.generate(prompts, callbacks=[only_one]), inner.invoke("?", using(only_one))),
    )

    assert in_time(lambda: outer.invoke("?", using(only_one))).content == "yes"


def test_an_async_model_inside_an_async_model(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """With one slot an async model that calls several at once gets its answers, one after the other."""
    inner_flight = Flight()
    inner = Model(flight=inner_flight, ado=lambda: asyncio.sleep(0))
    outer = Model(flight=flight, ado=lambda: inner.abatch(["?"] * 3, using(only_one)))
    run(lambda: outer.abatch(["?"] * 3, using(only_one)))

    assert (flight.peak, inner_flight.peak) == (1, 1)
    assert (only_one.stats().requests, only_one.stats().in_flight) == (12, 0)


def test_a_blocking_model_inside_an_async_call(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """A model without async code runs in a thread for `ainvoke`; a model inside it uses its slot all the same."""
    inner = Model(flight=flight)
    outer = Model(flight=flight, do=lambda: inner.batch(["?"] * 2, using(only_one)))
    run(lambda: outer.ainvoke("?", using(only_one)))

    assert (only_one.stats().requests, only_one.stats().in_flight) == (3, 0)


def test_a_model_inside_a_model_on_a_running_loop(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """Nesting is seen though LangChain starts blocking calls on a running loop from other threads."""
    inner = Model(flight=flight)
    outer = Model(flight=flight, do=lambda: inner.invoke("?", using(only_one)))

    async def play() -> None:
        outer.invoke("?", using(only_one))

    run(play)

    assert only_one.stats().in_flight == 0


def test_a_model_inside_a_streaming_model(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """A stream that calls models before its first word uses its own slot for them, blocking or not."""
    inner = Model(flight=flight, ado=lambda: asyncio.sleep(0))
    outer = Streaming(
        flight=flight,
        do=lambda: inner.invoke("?", using(only_one)),
        ado=lambda: inner.ainvoke("?", using(only_one)),
    )

    async def play() -> list[Any]:
        return [chunk.content async for chunk in outer.astream("?", using(only_one))]

    blocking = in_time(lambda: [chunk.content for chunk in outer.stream("?", using(only_one))])

    assert blocking[:2] == run(play)[:2] == ["well ", "yes"]
    assert only_one.stats().in_flight == 0


def test_a_stream_holds_its_slot_to_its_end(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """The slot of a blocking stream comes back after its last chunk, and when it is closed before."""
    model = Streaming(flight=flight)

    def play() -> list[int]:
        seen = [only_one.stats().in_flight for _ in model.stream("?", using(only_one))]
        seen.append(only_one.stats().in_flight)
        next(model.stream("?", using(only_one)))  # the generator is dropped, and closed by that
        return [*seen, only_one.stats().in_flight]

    assert in_time(play) == [1, 1, 1, 0, 0]


def test_an_async_stream_holds_its_slot_to_its_end(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """In a chain each chunk is fetched in a task of its own; the end of the first is not the end of the call."""
    model = RunnableLambda(lambda question: question) | Streaming(flight=flight)

    async def play() -> list[int]:
        seen = [only_one.stats().in_flight async for _ in model.astream("?", using(only_one))]
        return [*seen, only_one.stats().in_flight]

    assert run(play) == [1, 1, 1, 0]


def test_a_reader_may_call_a_model_between_the_chunks_of_a_stream(
    flight: Flight, only_one: BatchingCallbackHandler
) -> None:
    """Calls that a stream's reader makes with one slot go through, and the stream keeps its slot after them."""
    stream, other = Streaming(flight=flight), Model(flight=flight, ado=lambda: asyncio.sleep(0))

    async def play() -> list[int]:
        seen = []
        async for _ in stream.astream("?", using(only_one)):
            await other.ainvoke("?", using(only_one))
            seen.append(only_one.stats().in_flight)
        return [*seen, only_one.stats().in_flight]

    assert run(play) == [1, 1, 1, 0]


def test_a_call_cancelled_while_it_waits_makes_room(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """Cancelling a call that waits for a slot withdraws it, and the call behind it gets through."""

    async def play() -> int:
        done = asyncio.Event()
        model = Model(flight=flight, ado=done.wait)
        calls = []
        for number in range(3):
            calls.append(asyncio.create_task(model.ainvoke("?", using(only_one))))
            await until(lambda number=number: only_one.stats().requests == number + 1)  # type: ignore[misc]
        calls[1].cancel()
        await until(calls[1].cancelled)
        waiting = only_one.stats().waiting
        done.set()
        await asyncio.gather(calls[0], calls[2])
        return waiting

    assert run(play) == 1
    assert only_one.stats().in_flight == 0


@pytest.mark.parametrize("kind", [Model, Telling])
def test_a_call_cancelled_while_it_runs_returns_its_slot(
    flight: Flight, only_one: BatchingCallbackHandler, kind: type[Model]
) -> None:
    """LangChain tells no end of a cancelled call, before or after its first token; the end of its task is one."""

    async def play() -> AIMessage:
        stuck = kind(flight=flight, ado=asyncio.Event().wait)
        task = asyncio.create_task(stuck.ainvoke("?", using(only_one)))
        await until(lambda: flight.now == 1)
        task.cancel()
        return await kind(flight=flight).ainvoke("?", using(only_one))  # tells of its token in another thread

    assert run(play).content == "yes"
    assert only_one.stats().expired == 0


async def time_out(flight: Flight, handler: BatchingCallbackHandler) -> None:
    """Let a call time out in the caller's own task, once it is in flight."""

    async def expire() -> None:
        scope.reschedule(asyncio.get_running_loop().time())
        await asyncio.Event().wait()

    try:
        async with asyncio.timeout(None) as scope:
            await Model(flight=flight, ado=expire).ainvoke("?", using(handler))
    except TimeoutError:
        await asyncio.sleep(0)  # coverage does not see what follows in frames that the error was thrown through


def test_a_task_that_goes_on_after_a_timeout_keeps_its_slot(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """The next call of the task takes the slot over, however often, and returns it for everybody."""

    async def play() -> list[object]:
        for _ in range(3):
            await time_out(flight, only_one)
        after_timeout = only_one.stats().in_flight
        await Model(flight=flight).ainvoke("?", using(only_one))
        after_next = only_one.stats().in_flight
        await asyncio.create_task(Model(flight=flight).ainvoke("?", using(only_one)))
        place = only_one._place.get()
        return [after_timeout, after_next, place and place.outer]

    assert run(play) == [1, 0, None]


def test_calls_after_a_timeout_keep_the_limit(make: Make, flight: Flight) -> None:
    """A slot that a timed-out call left behind lets its task's later calls through one at a time, not all at once."""
    handler = make(1, max_concurrent=2)

    async def play() -> None:
        await time_out(flight, handler)
        barrier = asyncio.Barrier(2)
        await Model(flight=flight, ado=barrier.wait).abatch(["?"] * 6, using(handler))

    run(play)

    assert flight.peak == 2


def test_only_calls_that_run_are_remembered(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """Neither the handler nor a long-lived task gathers what belongs to calls that ended."""

    async def play() -> list[object]:
        for _ in range(3):
            await Model(flight=flight, ado=lambda: asyncio.sleep(0)).ainvoke("?", using(only_one))
        callbacks: list[Any] = getattr(asyncio.current_task(), "_callbacks", None) or []
        place = only_one._place.get()
        return [place and place.call and place.call.task, *(c for c in callbacks if "BatchingCallback" in repr(c))]

    assert run(play) == [None]
    assert only_one._calls == {}


def fail() -> None:
    """Fail as a provider does."""
    raise ConnectionError("no route")


def test_a_call_that_fails_returns_its_slot(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """After an error, blocking or async, the next call gets through with one slot."""
    broken, sound = Model(flight=flight, do=fail), Model(flight=flight)
    with pytest.raises(ConnectionError):
        in_time(lambda: broken.invoke("?", using(only_one)))
    with pytest.raises(ConnectionError):
        run(lambda: broken.ainvoke("?", using(only_one)))

    assert in_time(lambda: sound.invoke("?", using(only_one))).content == "yes"
    assert only_one.stats().expired == 0


def test_one_handler_serves_two_event_loops(make: Make, flight: Flight) -> None:
    """Calls on two loops in two threads fill one window and keep one limit."""
    handler = make(4, 0.01, 2)
    loops = threading.Barrier(2)

    async def play() -> int:
        loops.wait(SOON)
        model = Model(flight=flight, ado=lambda: asyncio.sleep(0))
        return len(await model.abatch(["?"] * 20, using(handler)))

    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(run, play) for _ in range(2)]

    assert [result.result() for result in results] == [20, 20]
    assert flight.peak <= 2
    assert (handler.stats().requests, handler.stats().in_flight) == (40, 0)


def test_a_blocking_call_waits_for_calls_on_other_loops(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """A blocking call on a running loop goes through only if that very loop has calls to end."""
    started, done = threading.Event(), threading.Event()

    def hold() -> None:
        started.set()
        done.wait(SOON)

    async def play_blocking() -> AIMessage:
        return Model(flight=flight).invoke("?", using(only_one))

    with ThreadPoolExecutor(2) as pool:
        slow = Model(flight=flight, ado=lambda: asyncio.to_thread(hold))
        other = pool.submit(run, lambda: slow.ainvoke("?", using(only_one)))
        started.wait(SOON)
        blocking = pool.submit(run, play_blocking)
        while not (only_one.stats().waiting or blocking.done()):
            done.wait(0.001)
        waited = only_one.stats().waiting
        done.set()

    assert (waited, flight.peak) == (1, 1)
    assert other.result().content == blocking.result().content == "yes"


@pytest.mark.parametrize("blocking", [True, False])
def test_closing_releases_those_who_wait(make: Make, flight: Flight, *, blocking: bool) -> None:
    """Whoever waits for a window when the handler closes gets an answer, and so does whoever comes later."""
    model = Model(flight=flight)

    async def play() -> int:
        async with make(20, NEVER) as handler:
            ask = RunnableLambda(model.invoke).ainvoke if blocking else model.ainvoke
            calls = [asyncio.create_task(ask("?", using(handler))) for _ in range(3)]
            await until(lambda: handler.stats().waiting == 3)
        return len([*await asyncio.gather(*calls), await ask("?", using(handler))])

    assert run(play) == 4


def test_the_handler_closes_as_a_context_manager(make: Make, flight: Flight) -> None:
    """After `with`, a call waits for no window."""
    with make(20, NEVER) as handler:
        pass

    assert in_time(lambda: Model(flight=flight).invoke("?", using(handler))).content == "yes"


def test_the_figures_add_up_what_calls_cost(make: Make, flight: Flight) -> None:
    """Calls cost what the price list says, a reply from LangChain's cache nothing, an unknown price is counted."""

    def prices(model: str, usage: Usage, *, provider: str | None = None, batch: bool = False) -> Decimal | None:
        return Decimal("0.25") * usage.output_tokens if (model, provider) == ("gpt-4o-mini", "openai") else None

    handler = make(1, prices=prices)
    model = Model(flight=flight, cache=InMemoryCache())
    for question in ("one", "one", "two"):
        in_time(lambda question=question: model.invoke(question, using(handler)))  # type: ignore[misc]
    in_time(lambda: FakeListLLM(responses=["yes"]).invoke("?", using(handler)))
    stats = handler.stats()

    assert (stats.cost, stats.unpriced) == (Decimal("5.00"), 1)
    assert (stats.requests, stats.batches, stats.average_batch_size) == (4, 4, 1.0)


def test_prices_come_from_the_kept_list(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """Without `prices`, 100 tokens read and 10 written cost what gpt-4o-mini costs."""
    in_time(lambda: Model(flight=flight).invoke("?", using(only_one)))

    assert only_one.stats().cost == Decimal("0.000021")


def test_a_price_list_that_fails_breaks_no_call(make: Make, flight: Flight, caplog: pytest.LogCaptureFixture) -> None:
    """A failing `prices` leaves the call unpriced, with a warning of LangChain's, and its slot comes back."""

    def prices(*_: Any, **__: Any) -> Decimal:
        raise LookupError("no list")

    handler = make(1, prices=prices)
    reply = in_time(lambda: Model(flight=flight).invoke("?", using(handler)))
    said = [record.getMessage() for record in caplog.records]
    caplog.clear()

    assert reply.content == "yes"
    assert (handler.stats().unpriced, handler.stats().in_flight) == (1, 0)
    assert said == ["Error in BatchingCallbackHandler.on_llm_end callback: LookupError('no list')"]


def test_a_run_id_that_is_given_twice_confuses_nobody(flight: Flight, only_one: BatchingCallbackHandler) -> None:
    """Two calls at once under one run id both get an answer, though LangChain cannot tell their ends apart."""
    run_id = uuid4()
    inner = Model(flight=flight)
    outer = Model(flight=flight, do=lambda: inner.invoke("?", using(only_one, run_id=run_id)))
    in_time(lambda: outer.invoke("?", using(only_one, run_id=run_id)))

    assert only_one.stats().in_flight == 0


def test_a_forked_child_starts_with_nothing(make: Make, flight: Flight, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a child the handler's figures begin anew, as its window does."""
    hooks: list[Callable[[], None]] = []
    monkeypatch.setattr(os, "register_at_fork", lambda *, after_in_child: hooks.append(after_in_child))
    handler = make(1)
    in_time(lambda: Model(flight=flight).invoke("?", using(handler)))
    before = handler.stats()
    for hook in hooks:
        hook()

    assert (before.requests, before.cost > 0) == (1, True)
    assert (handler.stats().requests, handler.stats().cost) == (0, Decimal(0))


def test_a_real_client_keeps_the_limit(make: Make, llmock: LLMock) -> None:
    """Over HTTP, blocking and async, the server never sees more than two requests of `ChatOpenAI` at once."""
    handler = make(6, NEVER, 2)
    llmock.delay(0.02, times=None)

    async def play() -> list[AIMessage]:
        async with httpx.AsyncClient() as client:
            return await ChatOpenAI(model="gpt-4o-mini", http_async_client=client).abatch(["?"] * 6, using(handler))

    with httpx.Client() as client:
        blocking = ChatOpenAI(model="gpt-4o-mini", http_client=client)
        replies = in_time(lambda: blocking.batch(["?"] * 6, using(handler, max_concurrency=6)))
    replies += run(play)
    at_once = [
        sum(other.started_at <= request.started_at < other.ended_at for other in llmock.requests)
        for request in llmock.requests
    ]

    assert all(reply.content for reply in replies)
    assert (len(at_once), max(at_once) <= 2) == (12, True)
    assert (handler.stats().batches, handler.stats().average_batch_size, handler.stats().unpriced) == (2, 6.0, 0)
    assert handler.stats().cost > 0
