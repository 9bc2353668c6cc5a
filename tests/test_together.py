"""Features that meet without knowing each other."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_costopt import AsyncBatchTransport, BatchQueue
from llm_costopt.monitor.alerts import Alert, Alerts
from tests.batch_provider import Provider, Told


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    while not condition():  # noqa: ASYNC110 - a thread sets no event of asyncio
        await asyncio.sleep(0.005)


class Clock:
    """The time, and what a test adds to it."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@asynccontextmanager
async def asked(path: Path, clock: Clock, state: str, **options: Any) -> AsyncIterator[BatchQueue]:
    """Ask one question of a provider that stays at work, and go on when its row is in *state*."""
    with (
        Provider(lambda _: Told(status="in_progress")) as provider,
        BatchQueue(path, poll=(0.02, 0.05), clock=clock, **options) as queue,
    ):
        async with httpx.AsyncClient(transport=AsyncBatchTransport(queue)) as http:
            body = {"model": "m", "messages": [{"role": "user", "content": "q"}]}
            task = asyncio.create_task(http.post(f"{provider.url}/v1/chat/completions", json=body))
            await until(
                lambda: queue.stats().rows.get(state) and (state == "queued" or queue.stats().jobs.get("running"))
            )
            yield queue
            await asyncio.to_thread(queue.close)
            await task


async def test_alerts_watch_a_batch_queue(tmp_path: Path) -> None:
    """`Alerts(batches=queue.stats)`: a request that is not sent for 5 minutes, and a job two hours before its end, are told."""
    told: list[Alert] = []
    clock = Clock()
    async with (
        asked(tmp_path / "a.db", clock, "queued", gather=1e6, max_wait=1e6) as waits,
        asked(tmp_path / "b.db", clock, "sent", gather=0.05) as runs,
    ):
        for queue, ahead in ((waits, 0.0), (waits, 310.0), (runs, 21.9 * 3600), (runs, 22.1 * 3600)):
            clock.ahead = ahead
            with Alerts([told.append], every=None, batches=queue.stats) as alerts:
                alerts.check()

    assert [(alert.name, alert.state) for alert in told] == [
        ("LLMQueueOld", "firing"),
        ("LLMBatchNearExpiry", "firing"),
    ]


async def test_prometheus_scrapes_a_batch_queue(tmp_path: Path) -> None:
    """`PrometheusExporter(batches=queue.stats)` shows jobs by state, the age of the oldest unsent row and the next expiry."""
    pytest.importorskip("prometheus_client")
    from llm_costopt.monitor.prometheus import PrometheusExporter

    clock = Clock()
    async with asked(tmp_path / "b.db", clock, "sent", gather=0.05) as queue:
        clock.ahead = 3600.0
        read = PrometheusExporter(batches=queue.stats).registry.get_sample_value

        assert read("llm_batch_jobs", {"state": "running"}) == 1
        assert read("llm_batch_oldest_pending_seconds") == 0
        assert read("llm_batch_next_expiry_seconds") == pytest.approx(23 * 3600, abs=60)


def test_an_idle_queue_has_nothing_to_tell() -> None:
    """Nothing queued and nothing at work is no age and no end."""
    with BatchQueue(None) as queue:
        stats = queue.stats()

    assert (stats.oldest_queued, stats.next_expiry, stats.jobs) == (None, None, {})
