"""What whoever counts the money is told of rows: each once, at the batch price, even across a crash."""

import asyncio
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llm_costopt import Ledger, Prices
from llm_costopt.batch.queue import BatchQueue
from llm_costopt.types import CallRecord, Usage
from tests.batch.conftest import Ask, until
from tests.batch_provider import Batch, Provider, Told, chat, message, ok, result

HALF = Decimal("0.0001050")
"""1,000 tokens in and 100 out of gpt-4o-mini, 0.15 and 0.60 dollars a million, at half the price."""


async def test_rows_are_priced_as_a_batch(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """The ledger has each row once, at half the price, with as much saved by batching; a failed row cost nothing."""

    def script(batch: Batch) -> Told:
        bad = {"custom_id": batch.rows[0]["custom_id"], "response": None, "error": {"code": "invalid", "message": "x"}}
        return Told(output=[ok(row) for row in batch.rows[1:]], errors=[bad])

    ledger = Ledger()
    with (
        Provider(script) as provider,
        BatchQueue(tmp_path / "jobs.db", **soon, on_record=ledger.append, prices=Prices()) as queue,
    ):
        await ask(queue, provider, "a", "b", "c")
        queue.close()
    records = ledger.records()
    summary = ledger.summary(None)

    assert {(record.error, record.cost) for record in records} == {("errored", Decimal(0)), (None, HALF)}
    assert len(records) == 3
    assert all(record.batch and record.provider == "openai" for record in records)
    assert sum(record.saved.batch for record in records if record.saved) == 2 * HALF
    assert summary.saved.batch == 2 * HALF


async def test_a_row_is_told_once_across_a_crash(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """A program that dies before it could tell of its rows tells of them when it starts again, under the same ids."""
    told: list[CallRecord] = []

    def broken(record: CallRecord) -> None:
        told.append(record)
        raise OSError("disk full")

    ledger = Ledger()
    with Provider() as provider:
        queue = BatchQueue(tmp_path / "jobs.db", **soon, on_record=broken)
        (reply,) = await ask(queue, provider, "q")
        queue.close(finished=False)
        assert queue._records.failures > 0
        for _ in range(2):
            queue = BatchQueue(tmp_path / "jobs.db", **soon, on_record=ledger.append)
            await ask(queue, provider, "q")
            queue.close(finished=False)

    assert reply.status_code == 200
    assert {record.id for record in told} == {record.id for record in ledger.records()}
    assert len(ledger.records()) == 1


@pytest.mark.parametrize("prices", [None, lambda *_, **__: None])
async def test_an_unknown_price_is_none(tmp_path: Path, soon: dict[str, Any], ask: Ask, prices: Any) -> None:
    """Without a price list, or without a price in it, a row's cost is unknown and counted as such."""
    told: list[CallRecord] = []
    with (
        Provider() as provider,
        BatchQueue(tmp_path / "jobs.db", **soon, on_record=told.append, prices=prices) as queue,
    ):
        await ask(queue, provider, "q")
        queue.close()

    assert (told[0].cost, told[0].saved) == (None, None)
    assert told[0].usage == Usage(input_tokens=1000, output_tokens=100)
    assert queue._records.unpriced == 1


async def test_a_row_without_usage_is_unpriced(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """An answer that does not tell its tokens has no cost, for either provider."""

    def script(batch: Batch) -> Told:
        if "params" in batch.rows[0]:
            return Told(status="ended", output=[result(r, message={**message(r), "usage": None}) for r in batch.rows])
        return Told(output=[ok(row, {**chat(row), "usage": None}) for row in batch.rows])

    told: list[CallRecord] = []
    with (
        Provider(script) as provider,
        BatchQueue(tmp_path / "jobs.db", **soon, on_record=told.append, prices=Prices()) as queue,
    ):
        await asyncio.gather(ask(queue, provider, "q"), ask(queue, provider, "q", anthropic=True))
        queue.close()

    assert all(record.cost is None for record in told)
    assert len(told) == 2


async def test_cached_tokens_of_both_providers_are_told(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """What the prompt cache read and wrote is in the record in one form: part of the input."""
    openai_usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 600},
        "completion_tokens_details": {"reasoning_tokens": 40},
    }
    anthropic_usage = {
        "input_tokens": 100,
        "output_tokens": 10,
        "cache_read_input_tokens": 50,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_1h_input_tokens": 20},
    }

    def script(batch: Batch) -> Told:
        if "params" in batch.rows[0]:
            lines = [result(r, message={**message(r), "usage": anthropic_usage}) for r in batch.rows]
            return Told(status="ended", output=lines)
        return Told(output=[ok(row, {**chat(row), "usage": openai_usage}) for row in batch.rows])

    told: list[CallRecord] = []
    with Provider(script) as provider, BatchQueue(tmp_path / "jobs.db", **soon, on_record=told.append) as queue:
        await asyncio.gather(ask(queue, provider, "q"), ask(queue, provider, "q", anthropic=True))
        queue.close()
    by_provider = {record.provider: record.usage for record in told}

    assert by_provider["openai"] == Usage(
        input_tokens=1000, output_tokens=100, cache_read_tokens=600, reasoning_tokens=40
    )
    assert by_provider["anthropic"] == Usage(
        input_tokens=180, output_tokens=10, cache_read_tokens=50, cache_write_tokens=30, cache_write_1h_tokens=20
    )


async def test_figures(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """The queue tells its depth, its oldest row, jobs by state and rows by outcome."""
    with Provider() as provider, BatchQueue(tmp_path / "jobs.db", **soon, prices=Prices()) as queue:
        empty = queue.stats()
        slow = asyncio.create_task(ask(queue, provider, "a", "b"))
        await until(lambda: queue.stats().rows.get("queued") == 2)
        full = queue.stats()
        await slow
        await until(lambda: all(thread.name != "llm-costopt-batch" for thread in threading.enumerate()))
        after = queue.stats()

    assert (empty.waiting, empty.oldest, empty.rows) == (0, None, {})
    assert full.oldest is not None
    assert full.waiting == 2
    assert (after.waiting, after.oldest) == (0, None)
    assert (after.jobs, after.rows) == ({"done": 1}, {"succeeded": 2})
    assert (after.cost, after.saved, after.unpriced, after.failures) == (2 * HALF, 2 * HALF, 0, 0)
