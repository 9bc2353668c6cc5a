"""Micro-batching in front of LlamaIndex's models."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.extractors import SummaryExtractor
from llama_index.core.schema import TextNode

from llamaindex_costopt import BatchingLLM
from llm_costopt.endpoints import current_endpoint, endpoint
from tests.llamaindex.echo import Echo

SOON = 10.0


def _user(text: str = "Hi") -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


def _all_of(number: int) -> Callable[[], Any]:
    """Make a wait that ends when *number* calls are in flight at once: a test that gets by has seen them together."""
    barrier = threading.Barrier(number)
    return lambda: asyncio.to_thread(barrier.wait, SOON)


async def test_a_full_window_is_released_at_once() -> None:
    """As many calls as fill a window start together, long before it is old enough."""
    model = BatchingLLM(Echo(wait=_all_of(4)), max_batch_size=4, flush_interval=3600)
    await asyncio.wait_for(asyncio.gather(*(model.achat(_user()) for _ in range(4))), SOON)

    assert (model.stats().batches, model.stats().average_batch_size) == (1, 4)
    assert model.stats().in_flight == 0


async def test_calls_with_the_same_system_prompt_start_next_to_each_other() -> None:
    """Of a window with one slot, calls and streams that begin alike go one after the other: the prompt is cached then."""

    def said(system: str, n: int) -> list[ChatMessage]:
        return [ChatMessage(role="system", content=system), *_user(str(n))]

    inner = Echo()
    model = BatchingLLM(inner, max_batch_size=6, flush_interval=3600, max_concurrent=1)

    async def stream(messages: list[ChatMessage]) -> None:
        async for _ in await model.astream_chat(messages):
            pass

    calls = [
        model.achat(said("A", 0)), model.achat(said("B", 1)), model.acomplete("2"),
        stream(said("A", 3)), model.achat(said("B", 4)), model.achat(said("A", 5)),
    ]  # fmt: skip
    await asyncio.wait_for(asyncio.gather(*calls), SOON)

    assert [messages[-1].content for messages, _ in inner.seen] == ["0", "3", "5", "1", "4", "2"]


async def test_an_extractor_of_four_workers_does_not_deadlock() -> None:
    """The host never makes more than four calls at once: a window of twenty is released by its age."""
    model = BatchingLLM(Echo(), max_batch_size=20, flush_interval=0.01)
    nodes = [TextNode(text=f"part {n}") for n in range(10)]
    found = await asyncio.wait_for(SummaryExtractor(llm=model, num_workers=4).aextract(nodes), SOON)

    assert len(found) == 10
    assert model.stats().requests == 10
    assert model.stats().waiting == 0


def test_event_loops_share_a_window() -> None:
    """Calls of several event loops in several threads fill one window, and each loop wakes its own."""
    model = BatchingLLM(Echo(wait=_all_of(3)), max_batch_size=3, flush_interval=3600)
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(lambda: asyncio.run(model.achat(_user()))) for _ in range(3)]
        replies = [one.result(SOON) for one in asked]

    assert len(replies) == 3
    assert model.stats().batches == 1


def test_threads_share_a_window() -> None:
    """Blocking calls of several threads fill one window."""
    model = BatchingLLM(Echo(), max_batch_size=2, flush_interval=3600)
    with ThreadPoolExecutor(2) as threads:
        completed, chatted = threads.submit(model.complete, "Hi"), threads.submit(model.chat, _user())
        said = completed.result(SOON).text, chatted.result(SOON).message.content

    assert said == ("You asked: Hi", "You asked: Hi")
    assert model.stats().batches == 1


async def test_a_blocking_call_on_an_event_loop_is_not_held_back() -> None:
    """A blocking call where a loop runs would keep it from releasing others, so it goes through."""
    model = BatchingLLM(Echo(), max_batch_size=2, flush_interval=3600)
    model.chat(_user())

    assert (model.stats().requests, model.stats().batches) == (1, 0)


async def test_never_more_than_the_limit_are_in_flight() -> None:
    """The next call starts when a slot comes back, after a failure and after a cancelled call too."""
    running = most = 0

    async def wait() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    inner = Echo(wait=wait, replies=[RuntimeError("down"), "ok"])
    model = BatchingLLM(inner, flush_interval=0, max_concurrent=2)
    cancelled = asyncio.create_task(model.achat(_user()))
    cancelled.cancel()
    asked = asyncio.gather(*(model.achat(_user()) for _ in range(8)), cancelled, return_exceptions=True)
    replies = await asyncio.wait_for(asked, SOON)

    assert most <= 2
    assert sum(isinstance(r, RuntimeError) for r in replies) == 1
    assert isinstance(replies[-1], asyncio.CancelledError)
    assert model.stats().in_flight == 0


async def test_a_stream_holds_its_slot_until_it_ends() -> None:
    """A stream that is being read keeps the only slot; read to its end or closed, it gives it back."""
    model = BatchingLLM(Echo(replies=["one two three"]), flush_interval=0, max_concurrent=1)
    stream: Any = await model.astream_chat(_user())
    await anext(stream)
    assert model.stats().in_flight == 1
    await stream.aclose()
    assert model.stats().in_flight == 0
    assert [c.delta async for c in await model.astream_complete("Hi")] == ["one", " two", " three"]
    assert model.stats().in_flight == 0


class Eager(Echo):
    """Ask as soon as a stream is wanted, as LlamaIndex's `Anthropic` does."""

    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        """Ask, and give the chunks."""
        return iter(list(super().stream_chat(messages, **kwargs)))

    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        """Ask, and give the chunks."""
        chunks = [chunk async for chunk in await super().astream_chat(messages, **kwargs)]

        async def given() -> Any:
            for chunk in chunks:
                yield chunk

        return given()


async def test_a_model_that_asks_before_the_first_chunk_waits_for_its_slot_too() -> None:
    """A stream asks nobody until it has a slot, and then in the context in which it was wanted."""
    served: list[str | None] = []

    async def note() -> None:
        served.append(current_endpoint())

    inner = Eager(wait=note)
    model = BatchingLLM(inner, flush_interval=0, max_concurrent=1)
    with endpoint("GET /"):
        streams: list[Any] = [await model.astream_chat(_user(str(n))) for n in range(2)]
    assert inner.seen == []
    await anext(streams[0])
    waits = asyncio.create_task(anext(streams[1]))
    await asyncio.sleep(0)
    assert len(inner.seen) == 1
    await streams[0].aclose()
    await waits
    await streams[1].aclose()

    assert len(inner.seen) == 2
    assert served == ["GET /", "GET /"]


def test_a_blocking_model_that_asks_before_the_first_chunk_waits_too() -> None:
    """So does a blocking stream."""
    inner = Eager()
    model = BatchingLLM(inner, flush_interval=0, max_concurrent=1)
    stream = model.stream_chat(_user())
    assert inner.seen == []

    assert next(stream).delta
    assert model.stats().in_flight == 1
    stream.close()


def test_blocking_streams_hold_a_slot_too() -> None:
    """Both blocking streams come whole and give their slot back."""
    model = BatchingLLM(Echo(replies=["one two"]), flush_interval=0, max_concurrent=1)

    assert [c.delta for c in model.stream_chat(_user())] == ["one", " two"]
    assert [c.delta for c in model.stream_complete("Hi")] == ["one", " two"]
    assert asyncio.run(model.acomplete("Hi")).text == "one two"
    assert model.stats().in_flight == 0


def test_closing_releases_all_that_wait() -> None:
    """What waits in a window that never fills goes on when it is closed."""
    with ThreadPoolExecutor(1) as threads, BatchingLLM(Echo(), max_batch_size=9, flush_interval=3600) as model:
        asked = threads.submit(model.chat, _user())
        while not model.stats().waiting and not asked.done():
            threading.Event().wait(0.001)
        model.close()
        assert asked.result(SOON).message.content == "You asked: Hi"


def test_an_argument_out_of_range_is_refused() -> None:
    """The window's own bounds hold."""
    with pytest.raises(ValueError, match="max_batch_size"):
        BatchingLLM(Echo(), max_batch_size=0)
