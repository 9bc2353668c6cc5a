"""`llm-costopt batch`: jobs from a shell, without the program that made them."""

import asyncio
import json
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from llm_costopt import Ledger, Prices
from llm_costopt.batch.queue import BatchQueue
from llm_costopt.batch.transport import AsyncBatchTransport
from llm_costopt.batch.watch import Pace
from llm_costopt.cli import app
from tests.batch.conftest import Ask, until
from tests.batch_provider import Batch, Provider, Told, all_ok, ok

Run = Callable[..., Result]


def in_progress(batch: Batch) -> Told:
    """Say that a batch is at work, and half of it is through."""
    return Told(
        status="in_progress", more={"request_counts": {"total": 2, "completed": len(batch.rows) // 2, "failed": 0}}
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Give a function that runs a command on the file, with keys in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-shell")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-shell")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj")
    monkeypatch.setenv("COLUMNS", "200")
    file = str(tmp_path / "jobs.db")
    return lambda command, *more: CliRunner().invoke(app, ["batch", command, file, *more])


async def leave(tmp_path: Path, soon: dict[str, Any], provider: Provider, path: str = "chat/completions") -> None:
    """Ask two questions, and go away as soon as their batch is made."""
    with BatchQueue(tmp_path / "jobs.db", **soon) as queue:
        before = queue.stats().jobs.get("running", 0)
        async with httpx.AsyncClient(transport=AsyncBatchTransport(queue)) as http:
            for text in ("a", "b"):
                body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}
                task = asyncio.ensure_future(http.post(f"{provider.url}/v1/{path}", json=body))
            await until(lambda: queue.stats().jobs.get("running", 0) > before)
            await asyncio.to_thread(queue.close)
            await task


@pytest.mark.parametrize("path", ["chat/completions", "messages"])
async def test_collect_stores_what_a_program_then_gets(
    tmp_path: Path, soon: dict[str, Any], ask: Ask, run: Run, path: str
) -> None:
    """What `collect` stores is given to the program that asks again, with the shell's key and without another call."""
    anthropic = path == "messages"
    with Provider(in_progress) as provider:
        await leave(tmp_path, soon, provider, path)
        early = await asyncio.to_thread(run, "collect")
        provider.script = all_ok
        late = await asyncio.to_thread(run, "collect")
        headers = provider.headers[-1]
        calls = len(provider.calls)
        with BatchQueue(tmp_path / "jobs.db", **soon) as queue:
            replies = await ask(queue, provider, "a", "b", anthropic=anthropic)
        after = len(provider.calls)

    assert "running, 2 sent" in early.stdout
    assert "done, 2 succeeded" in late.stdout
    assert headers["x-api-key" if anthropic else "authorization"] in {"sk-ant-shell", "Bearer sk-shell"}
    assert [reply.status_code for reply in replies] == [200, 200]
    assert after == calls


async def test_list_and_show(tmp_path: Path, soon: dict[str, Any], run: Run) -> None:
    """`list` has a line for each job, in words or as JSON; `show` has all that is known of one."""
    with Provider(in_progress) as provider:
        await leave(tmp_path, soon, provider)
    listed = json.loads(run("list", "--json").stdout)
    table = run("list").stdout
    shown = json.loads(run("show", listed[0]["id"][:6]).stdout)

    assert "gpt-4o-mini" in table
    assert "2 sent" in table
    assert shown == listed[0]
    assert (shown["state"], shown["rows"], shown["remote"]) == ("running", 2, "batch_0")
    assert "sk-1" not in json.dumps(shown)


async def test_wait_waits(tmp_path: Path, soon: dict[str, Any], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait` returns when all is stored; its progress bar is on stderr, so that stdout is for scripts."""
    from llm_costopt.batch import cli

    monkeypatch.setattr(cli, "_PACE", Pace(first=0.02, most=0.02, lease=1.0, settle=1.0))
    with Provider(in_progress) as provider:
        await leave(tmp_path, soon, provider)
        looks = provider.batches[0].looks
        provider.script = lambda batch: all_ok(batch) if batch.looks > looks + 3 else in_progress(batch)
        done = await asyncio.to_thread(run, "wait")

    assert done.stdout.endswith("done, 2 succeeded\n")
    assert len(done.stdout.splitlines()) == 1
    assert "2/2" in done.stderr


async def test_cancel_asks_the_provider(tmp_path: Path, soon: dict[str, Any], run: Run) -> None:
    """`cancel` asks for the end of a job, and `collect` then stores what was paid and what was not."""

    def script(batch: Batch) -> Told:
        return Told(status="cancelled", output=[ok(batch.rows[0])]) if batch.cancelled else in_progress(batch)

    with Provider(script) as provider:
        await leave(tmp_path, soon, provider)
        job = json.loads(run("list", "--json").stdout)[0]["id"]
        cancelled = await asyncio.to_thread(run, "cancel", job)
        collected = await asyncio.to_thread(run, "collect", job)
        again = await asyncio.to_thread(run, "cancel", job)

    assert "the provider was asked to cancel it" in cancelled.stdout
    assert "done, 1 cancelled, 1 succeeded" in collected.stdout
    assert "cannot be cancelled" in str(again.exception)


async def test_a_refusal_is_said(tmp_path: Path, soon: dict[str, Any], run: Run) -> None:
    """When the provider does not take the key, the command says so."""
    with Provider(in_progress) as provider:
        await leave(tmp_path, soon, provider)
        provider.intercept = lambda *_: 401
        refused = await asyncio.to_thread(run, "collect")

    assert "the provider refused to tell" in str(refused.exception)
    assert "HTTP 401" in str(refused.exception)


@pytest.mark.parametrize(
    ("command", "has_key"), [("collect", True), ("collect", False), ("wait", True), ("wait", False)]
)
async def test_one_job_holds_up_no_other(
    tmp_path: Path, soon: dict[str, Any], run: Run, command: str, has_key: bool
) -> None:
    """A job that its provider tells nothing of, or that there is no key for, is complained of when the others are stored and booked."""
    with Provider(in_progress) as provider:
        for path in ("chat/completions", "messages"):
            await leave(tmp_path, soon, provider, path)
        provider.script = all_ok
        if has_key:
            provider.intercept = lambda _method, path, _n: 401 if "messages" in path else None
        else:
            del os.environ["ANTHROPIC_API_KEY"]  # which the fixture puts back
        done = await asyncio.to_thread(run, command, "--ledger", str(tmp_path / "costs.db"))

    assert ("HTTP 401" if has_key else "set ANTHROPIC_API_KEY") in str(done.exception)
    assert "done, 2 succeeded" in done.stdout
    assert Ledger(tmp_path / "costs.db").summary().calls == 2


async def test_queued_requests_are_mentioned(tmp_path: Path, soon: dict[str, Any], ask: Ask, run: Run) -> None:
    """Requests that were never sent are counted, with what will send them."""
    with Provider() as provider:
        queue = BatchQueue(tmp_path / "jobs.db", **(soon | {"gather": 60.0}))
        task = asyncio.create_task(ask(queue, provider, "a"))
        await until(lambda: queue.stats().rows)
        await asyncio.to_thread(queue.close)
        await task

    assert "1 requests are queued: they are sent when a program asks them again" in run("list").stdout


async def test_a_provider_that_cannot_be_reached_is_said(
    tmp_path: Path, soon: dict[str, Any], ask: Ask, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """While a program cannot send its rows, log, figures and list name the host and the error; then they do no more."""
    down = True
    with (
        Provider(intercept=lambda *_: "drop" if down else None) as provider,
        BatchQueue(tmp_path / "jobs.db", **soon) as queue,
    ):
        task = asyncio.create_task(ask(queue, provider, "a"))
        await until(lambda: queue.stats().troubles)
        (trouble,) = queue.stats().troubles
        said = " ".join(run("list").stdout.split())
        down = False
        await task
        after = queue.stats().troubles

    assert provider.url.removeprefix("http://") in trouble
    assert f"tries again: {trouble}" in said
    assert trouble in caplog.text
    assert after == []


def test_what_the_user_can_mend_is_said(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, an id that fits no job and a missing key are one sentence each."""
    missing = run("list")
    BatchQueue(tmp_path / "jobs.db").close()
    unknown = run("show", "abc")

    assert "there is no file" in str(missing.exception)
    assert "'abc' is the beginning of 0 jobs' ids" in str(unknown.exception)


async def test_a_missing_key_is_said(
    tmp_path: Path, soon: dict[str, Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the key in the environment, `collect` says which to set."""
    with Provider(in_progress) as provider:
        await leave(tmp_path, soon, provider)
    monkeypatch.delenv("OPENAI_API_KEY")

    assert "set OPENAI_API_KEY: the file holds no keys" in str(run("collect").exception)


async def test_no_id_is_no_job(tmp_path: Path, soon: dict[str, Any], run: Run) -> None:
    """An empty id, as of a shell's variable that is not set, does not cancel the only job that there is."""
    with Provider(in_progress) as provider:
        await leave(tmp_path, soon, provider)
        failed = await asyncio.to_thread(run, "cancel", "")

    assert "'' is the beginning of 0 jobs' ids" in str(failed.exception)
    assert not provider.batches[0].cancelled


@pytest.mark.parametrize("command", ["collect", "wait"])
async def test_rows_are_booked_once(tmp_path: Path, soon: dict[str, Any], ask: Ask, run: Run, command: str) -> None:
    """With `--ledger`, rows are booked at the batch price, and not again by the shell or by the program that takes them."""
    path = tmp_path / "costs.db"
    with Provider(in_progress) as provider:
        await leave(tmp_path, soon, provider)
        provider.script = all_ok
        first = await asyncio.to_thread(run, command, "--ledger", str(path))
        again = await asyncio.to_thread(run, command, "--ledger", str(path))
        ledger = Ledger(path)
        with BatchQueue(tmp_path / "jobs.db", **soon, on_record=ledger.append, prices=Prices()) as queue:
            replies = await ask(queue, provider, "a", "b")
    records = ledger.records()

    assert f"{path}: 2 rows booked, $0.000210" in first.stdout
    assert f"{path}: 0 rows booked" in again.stdout
    assert [reply.status_code for reply in replies] == [200, 200]
    assert [(record.cost, record.batch) for record in records] == [(Decimal("0.0001050"), True)] * 2


async def test_rows_that_could_not_be_booked_are_booked_later(
    tmp_path: Path, soon: dict[str, Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that fails is said and loses no row: the next command, or the program, books it; under the same id it counts once."""
    path = tmp_path / "costs.db"
    with Provider(in_progress) as provider:
        await leave(tmp_path, soon, provider)
        provider.script = all_ok
        with monkeypatch.context() as broken:
            broken.setattr(Ledger, "append", _disk_full)
            failed = await asyncio.to_thread(run, "collect", "--ledger", str(path))
        stored = await asyncio.to_thread(run, "collect")
        again = await asyncio.to_thread(run, "collect", "--ledger", str(path))

    assert "cannot be written; rows are stored" in str(failed.exception)
    assert stored.stdout == ""
    assert "2 rows booked" in again.stdout
    assert len(Ledger(path).records()) == 2


def _disk_full(*_: object) -> None:
    raise OSError("disk full")
