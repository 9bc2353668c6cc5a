"""What whoever counts the money is told of rows: each once, at the batch price, even across a crash."""

import asyncio
import os
import sqlite3
import threading
import time
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llm_costopt import Ledger, Prices, cache_scope, endpoint
from llm_costopt.batch.queue import BatchQueue
from llm_costopt.batch.runs import failed
from llm_costopt.types import CallRecord, Saved, Usage
from tests.batch.conftest import Ask, rest, until
from tests.batch_provider import Batch, Provider, Told, all_ok, chat, message, ok, result

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


async def test_of_two_programs_one_tells(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """Of rows that two programs share, the one that collects them tells, and the other one does not tell again meanwhile."""
    told: list[CallRecord] = []
    both = threading.Event()

    def slowly(record: CallRecord) -> None:
        told.append(record)
        both.wait()

    script = lambda batch: all_ok(batch) if batch.looks > 5 else Told(status="in_progress")  # noqa: E731
    with Provider(script) as provider:
        one = BatchQueue(tmp_path / "jobs.db", **(soon | {"lease": 60.0}), on_record=slowly)
        failed(tmp_path / "jobs.db")  # the other one is another program
        two = BatchQueue(tmp_path / "jobs.db", **(soon | {"lease": 60.0}), on_record=slowly)
        await asyncio.gather(ask(one, provider, "a", "b"), ask(two, provider, "a", "b"))
        await until(lambda: sum(thread.name == "llm-costopt-batch" for thread in threading.enumerate()) < 2)
        both.set()
        await rest()
        one.close()
        two.close()

    assert len({record.id for record in told}) == 2
    assert len(told) == 2


def test_a_row_that_a_dying_program_was_telling_of_is_told_again(
    tmp_path: Path, soon: dict[str, Any], ask: Ask
) -> None:
    """Nobody knows whether whoever died while telling had told: it is told again by who comes a minute later, once."""
    told: list[CallRecord] = []
    with Provider() as provider:
        if (child := os.fork()) == 0:
            queue = BatchQueue(tmp_path / "jobs.db", **soon, on_record=lambda _: os._exit(0))
            asyncio.run(ask(queue, provider, "q"))
            threading.Event().wait()
        os.waitpid(child, 0)
        for ahead in (0.0, 61.0, 122.0):
            clock = partial(_time_plus, ahead)
            with BatchQueue(tmp_path / "jobs.db", **soon, on_record=told.append, clock=clock) as again:
                asyncio.run(ask(again, provider, f"other {ahead}"))

    assert len(told) == 4
    assert len({record.id for record in told}) == 4


def _time_plus(ahead: float) -> float:
    return time.time() + ahead


async def test_a_file_in_which_nothing_can_be_noted_stops_nobody(
    tmp_path: Path, soon: dict[str, Any], ask: Ask
) -> None:
    """Where what was told cannot be noted, callers get their rows all the same, and the failures are counted."""
    with Provider() as provider, BatchQueue(tmp_path / "jobs.db", **soon) as queue:
        other = sqlite3.connect(tmp_path / "jobs.db")
        other.execute("CREATE TRIGGER full BEFORE UPDATE OF recorded ON rows BEGIN SELECT raise(FAIL, 'full'); END")
        other.close()
        first = await ask(queue, provider, "one")
        again = await ask(queue, provider, "two")
        await rest()

        assert [reply.status_code for reply in first + again] == [200, 200]
        assert queue.stats().failures > 0


@pytest.mark.parametrize(
    "usage",
    ["text", {"prompt_tokens": "12"}, {"prompt_tokens": 5, "prompt_tokens_details": "x"}, {"prompt_tokens": -1}],
)
async def test_usage_that_makes_no_sense_is_unpriced(
    tmp_path: Path, soon: dict[str, Any], ask: Ask, usage: Any
) -> None:
    """A row whose tokens are no counts is told of, with no usage and no cost."""
    told: list[CallRecord] = []
    script = lambda batch: Told(output=[ok(row, {**chat(row), "usage": usage}) for row in batch.rows])  # noqa: E731
    with (
        Provider(script) as provider,
        BatchQueue(tmp_path / "jobs.db", **soon, on_record=told.append, prices=Prices()) as queue,
    ):
        await ask(queue, provider, "q")
        queue.close()

    assert [(record.usage, record.cost) for record in told] == [(None, None)]


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


async def test_what_the_prompt_cache_took_off_is_told_apart(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """Of 1,000 tokens the prompt cache served 600: what it saved is a cause of its own, and none of the batch's."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 600}}
    told: list[CallRecord] = []
    with (
        Provider(lambda batch: Told(output=[ok(row, {**chat(row), "usage": usage}) for row in batch.rows])) as provider,
        BatchQueue(tmp_path / "jobs.db", **soon, on_record=told.append, prices=Prices()) as queue,
    ):
        await ask(queue, provider, "q")
        await rest()
        figures = queue.stats()

    # 0.15, 0.075 (cached) and 0.60 dollars a million in real time; 0.075, 0.075 and 0.30 in a batch.
    assert told[0].cost == Decimal("0.000105")
    assert told[0].saved == Saved(batch=Decimal("0.00006"), prompt_cache=Decimal("0.000045"))
    assert told[0].cost + told[0].saved.batch + told[0].saved.prompt_cache == 2 * HALF
    assert figures.saved == Decimal("0.00006")


async def test_rows_tell_whom_they_serve(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """What `endpoint` and `cache_scope` say around a request is in its row's record; a row that serves nobody named says so."""
    ledger = Ledger()
    with Provider() as provider, BatchQueue(tmp_path / "jobs.db", **soon, on_record=ledger.append) as queue:
        with endpoint("POST /ask"), cache_scope(tenant="acme"):
            named = asyncio.create_task(ask(queue, provider, "a", "b"))
        with endpoint("POST /sum"):
            other = asyncio.create_task(ask(queue, provider, "c"))
        await asyncio.gather(named, other, ask(queue, provider, "d"))
        await rest()
    served = sorted((str(record.endpoint), str(record.tenant)) for record in ledger.records())

    assert served == [("None", "None"), ("POST /ask", "acme"), ("POST /ask", "acme"), ("POST /sum", "None")]


async def test_half_a_character_loses_no_row(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """What UTF-8 cannot hold, as the half of a cut emoji, becomes a question mark."""
    told: list[CallRecord] = []
    with Provider() as provider, BatchQueue(tmp_path / "jobs.db", **soon, on_record=told.append) as queue:
        with endpoint("GET /\ud83d"):
            (reply,) = await ask(queue, provider, "q")
        queue.close()

    assert reply.status_code == 200
    assert [record.endpoint for record in told] == ["GET /?"]


async def test_a_row_tells_after_a_restart_whom_it_serves(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """Who tells of a row that a program left behind knows from the file whom it served, or from whoever asks for it again."""
    ledger = Ledger()

    def broken(_: CallRecord) -> None:
        raise OSError("disk full")

    with Provider() as provider:
        queue = BatchQueue(tmp_path / "jobs.db", **soon, on_record=broken)
        with endpoint("POST /ask"), cache_scope(tenant="acme"):
            await asyncio.create_task(ask(queue, provider, "left"))
        queue.close(finished=False)
        queue = BatchQueue(tmp_path / "jobs.db", **soon, on_record=ledger.append)
        provider.script = lambda _: Told(status="in_progress")
        with endpoint("POST /first"):
            waiting = asyncio.create_task(ask(queue, provider, "taken up"))
        await until(lambda: len(provider.batches) == 2)
        queue.close(finished=False)
        await waiting
        provider.script = lambda batch: Told(output=[ok(row) for row in batch.rows])
        with BatchQueue(tmp_path / "jobs.db", **soon, on_record=ledger.append) as again:
            with endpoint("POST /second"):
                await asyncio.create_task(ask(again, provider, "taken up"))
            await rest()

    assert {(r.endpoint, r.tenant) for r in ledger.records()} == {("POST /ask", "acme"), ("POST /second", None)}
    assert provider.paid() == {"left": 1, "taken up": 1}


async def test_a_job_store_of_version_1_goes_on(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """A file that knew no endpoints keeps its rows and takes new ones: both are told of, and the tables are those of a new file."""
    old = sqlite3.connect(tmp_path / "jobs.db")
    old.executescript((Path(__file__).parent / "jobs_v1.sql").read_text(encoding="utf-8"))
    old.close()
    ledger = Ledger()
    soon["clock"] = lambda: (
        1_795_855_000 + time.monotonic()
    )  # of the days of that file: rows of a month ago are forgotten
    with (
        Provider() as provider,
        BatchQueue(tmp_path / "jobs.db", **soon, on_record=ledger.append, prices=Prices()) as queue,
        BatchQueue(tmp_path / "new.db") as new,
    ):
        with endpoint("POST /ask"):
            await asyncio.create_task(ask(queue, provider, "new"))
        await rest()
        shapes = [sorted(map(tuple, q._store._db.run("PRAGMA table_info(rows)"))) for q in (queue, new)]

    assert [(record.endpoint, record.cost) for record in ledger.records()] == [(None, HALF), ("POST /ask", HALF)]
    assert shapes[0] == shapes[1]


async def test_figures(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """The queue tells its depth, its oldest row, jobs by state and rows by outcome."""
    with Provider() as provider, BatchQueue(tmp_path / "jobs.db", **soon, prices=Prices()) as queue:
        empty = queue.stats()
        slow = asyncio.create_task(ask(queue, provider, "a", "b"))
        await until(lambda: queue.stats().rows.get("queued") == 2)
        full = queue.stats()
        await slow
        await rest()
        after = queue.stats()

    assert (empty.waiting, empty.oldest, empty.rows) == (0, None, {})
    assert full.oldest is not None
    assert full.oldest_queued == full.oldest
    assert (after.oldest_queued, after.next_expiry) == (None, None)
    assert full.waiting == 2
    assert (after.waiting, after.oldest) == (0, None)
    assert (after.jobs, after.rows) == ({"done": 1}, {"succeeded": 2})
    assert (after.cost, after.saved, after.unpriced, after.failures) == (2 * HALF, 2 * HALF, 0, 0)
