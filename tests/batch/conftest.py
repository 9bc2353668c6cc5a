"""What the tests of batches share."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_costopt.batch.queue import BatchQueue
from llm_costopt.batch.transport import AsyncBatchTransport
from tests.batch_provider import Provider

SOON: dict[str, Any] = {"gather": 0.1, "poll": (0.02, 0.05), "settle": 0.3, "lease": 1.0}
"""Options of a queue that does not dawdle."""

Ask = Callable[..., Coroutine[Any, Any, list[httpx.Response]]]
"""`(queue, provider, *questions)` → their responses."""


@pytest.fixture
def soon() -> dict[str, Any]:
    """Give the options of a queue that does not dawdle."""
    return dict(SOON)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[BatchQueue]:
    """Open a queue that does not dawdle."""
    with BatchQueue(tmp_path / "jobs.db", **SOON) as queue:
        yield queue


@pytest.fixture
def ask() -> Ask:
    """Give a function that asks questions all at once, as an SDK does."""

    async def ask(
        queue: BatchQueue, provider: Provider, *questions: str, anthropic: bool = False, **body: Any
    ) -> list[httpx.Response]:
        path = "messages" if anthropic else "chat/completions"
        async with httpx.AsyncClient(transport=AsyncBatchTransport(queue)) as http:

            async def one(text: str) -> httpx.Response:
                sent = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **body}
                return await http.post(f"{provider.url}/v1/{path}", json=sent, headers={"authorization": "Bearer sk-1"})

            return list(await asyncio.gather(*(one(text) for text in questions)))

    return ask


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    while not condition():  # noqa: ASYNC110 - a thread sets no event of asyncio
        await asyncio.sleep(0.005)


async def rest() -> None:
    """Wait until no queue has anything to do; rows are booked after their callers have them."""
    await until(lambda: all(thread.name != "llm-costopt-batch" for thread in threading.enumerate()))
