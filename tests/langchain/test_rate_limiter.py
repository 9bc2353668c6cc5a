"""Windows as LangChain's rate limiter."""

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache

from langchain_costopt import BatchWindow
from tests.scripted import SOON, SURE, Scripted, each_colour, scripted


def limited(window: BatchWindow, **options: Any) -> Scripted:
    """Make a model behind *window*."""
    return scripted("m", SURE).model_copy(update={"rate_limiter": window, **options})


async def test_a_window_is_released_when_it_is_full() -> None:
    """Requests wait until there are as many as make a window, and then all are sent."""
    window = BatchWindow(max_batch_size=3, flush_interval=SOON * 10)
    model = limited(window)
    first = [asyncio.create_task(model.ainvoke("a")), asyncio.create_task(model.ainvoke("b"))]
    while window.stats().waiting < 2:  # noqa: ASYNC110 - a window tells nobody
        await asyncio.sleep(0)
    assert model.seen == []
    await asyncio.wait_for(asyncio.gather(*first, model.ainvoke("c")), SOON)

    assert len(model.seen) == 3
    assert (window.stats().batches, window.stats().in_flight) == (1, 0)


def test_threads_share_a_window() -> None:
    """`batch` sends its requests together."""
    window = BatchWindow(max_batch_size=4, flush_interval=SOON * 10)
    limited(window).batch(["a", "b", "c", "d"], {"max_concurrency": 4})

    assert window.stats().average_batch_size == 4


@each_colour
def test_a_few_are_released_in_time(call: Any) -> None:
    """A single request goes when its window is old enough."""
    window = BatchWindow(max_batch_size=100, flush_interval=0.01)

    assert call(limited(window), "a").text == SURE


@each_colour
def test_a_cache_hit_does_not_wait(call: Any) -> None:
    """What LangChain's cache answers never comes to the window."""
    window = BatchWindow(max_batch_size=1, flush_interval=SOON * 10)
    model = limited(window, cache=InMemoryCache())
    for _ in range(3):
        assert call(model, "a").text == SURE

    assert window.stats().requests == 1


async def test_without_blocking_nobody_waits() -> None:
    """An attempt tells whether there is anything to wait for, and leaves nothing behind."""
    closed, open_ = BatchWindow(max_batch_size=1), BatchWindow(flush_interval=SOON * 10)

    assert closed.acquire(blocking=False)
    assert await closed.aacquire(blocking=False)
    assert not open_.acquire(blocking=False)
    assert not await open_.aacquire(blocking=False)
    assert open_.stats().waiting == 0


async def test_a_cancelled_request_leaves_its_place() -> None:
    """Who no longer wants to be sent does not fill a window."""
    window = BatchWindow(flush_interval=SOON * 10)
    task = asyncio.create_task(window.aacquire())
    while not window.stats().waiting:  # noqa: ASYNC110 - a window tells nobody
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert window.stats().waiting == 0


def test_closing_releases_everybody() -> None:
    """After `close` who waits goes, and nobody waits any more."""
    window = BatchWindow(flush_interval=SOON * 10)
    thread = threading.Thread(target=window.acquire)
    thread.start()
    while not window.stats().waiting:
        pass
    window.close()
    thread.join(SOON)

    assert not thread.is_alive()
    assert window.acquire()
