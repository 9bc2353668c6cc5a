"""The life of a queue: programs that are killed, closed, cancelled, started again, forked, or two at once."""

import asyncio
import gc
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_costopt import Ledger
from llm_costopt.batch.queue import BatchQueue
from llm_costopt.batch.runs import failed
from llm_costopt.batch.transport import AsyncBatchTransport, BatchTransport
from tests.batch.conftest import Ask, rest, until
from tests.batch_provider import Batch, Provider, Told, all_ok, ok

PROGRAM = Path(__file__).parents[1] / "batch_program.py"
ROWS = 40


def start(provider: Provider, file: Path, *more: str) -> subprocess.Popen[str]:
    """Start the program that asks ROWS questions."""
    root = str(Path(__file__).parents[2])
    command = [sys.executable, str(PROGRAM), provider.url, str(file), str(ROWS), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root})


def another_program(file: Path, **options: Any) -> BatchQueue:
    """Open a queue as another process would."""
    failed(file)
    return BatchQueue(file, **options)


def in_progress(_: Batch) -> Told:
    """Say that a batch is at work."""
    return Told(status="in_progress")


KILL_AT = [
    ("POST", "/v1/files"),
    ("POST", "/v1/batches"),
    ("GET", "/v1/batches/batch_0"),
    ("GET", "/v1/files/out-batch_0/content"),
    ("DELETE", "/v1/files/file-0"),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("method", "path"), KILL_AT)
def test_a_program_that_is_killed_pays_once(tmp_path: Path, method: str, path: str, when: str) -> None:
    """Killed while a call is on its way, before or after the provider acts, and started again: all rows, each paid once."""
    victims: list[subprocess.Popen[str]] = []

    def intercept(called: str, at: str, nth: int) -> str | None:
        if (called, at, nth) == (method, path, 1):
            victims[0].kill()
            victims[0].wait()
            return "drop" if when == "before" else "after"
        return None

    with Provider(intercept=intercept) as provider:
        victims.append(start(provider, tmp_path / "jobs.db"))
        victims[0].communicate()
        out, _ = start(provider, tmp_path / "jobs.db").communicate()

    assert sorted(out.split("\n")[:-2]) == sorted(f"{n} re: q{n}" for n in range(ROWS))
    assert provider.paid() == {f"q{n}": 1 for n in range(ROWS)}


@pytest.mark.parametrize("anthropic", [False, True])
def test_a_program_that_is_killed_at_random_pays_once(tmp_path: Path, anthropic: bool) -> None:
    """Killed when any one of its calls arrives, again and again until it gets through, it loses nothing and pays once."""
    dice = random.Random(5)
    programs: list[subprocess.Popen[str]] = []
    left = 0

    def intercept(*_: object) -> str | None:
        nonlocal left
        left -= 1
        if left == 0:
            programs[-1].kill()
            programs[-1].wait()
            return dice.choice(["drop", "after"])
        return None

    def script(batch: Batch) -> Told:
        return all_ok(batch) if batch.looks > 12 else in_progress(batch)

    more = ["--anthropic"] if anthropic else []
    with Provider(script, intercept) as provider:
        while not programs or programs[-1].returncode:
            left = dice.randint(1, 6) if len(programs) < 6 else 0
            programs.append(start(provider, tmp_path / "jobs.db", *more))
            out, _ = programs[-1].communicate()

    assert len(programs) > 2
    assert sorted(out.splitlines()) == sorted([*(f"{n} re: q{n}" for n in range(ROWS)), "end"])
    assert provider.paid() == {f"q{n}": 1 for n in range(ROWS)}


async def test_what_was_given_out_before_a_crash_is_given_out_again(
    tmp_path: Path, soon: dict[str, Any], ask: Ask
) -> None:
    """A program that did not come to its end gets the same answers for nothing, in the same number as before."""
    with Provider() as provider:
        queue = BatchQueue(tmp_path / "jobs.db", **soon)
        await ask(queue, provider, "q", "q", "other")
        queue.close(finished=False)
        with BatchQueue(tmp_path / "jobs.db", **soon) as again:
            await ask(again, provider, "q", "q", "other")
            assert provider.paid() == {"q": 2, "other": 1}
            await ask(again, provider, "q")

    assert provider.paid() == {"q": 3, "other": 1}


async def test_a_program_that_came_to_its_end_starts_anew(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """Run again tomorrow, a program that closed its queue gets new answers."""
    with Provider() as provider:
        for _ in range(2):
            with BatchQueue(tmp_path / "jobs.db", **soon) as queue:
                await ask(queue, provider, "q")

    assert provider.paid() == {"q": 2}


@pytest.mark.parametrize(("end", "paid"), [("", 2), ("raise SystemError", 1), ("queue.close(); raise SystemError", 1)])
def test_the_end_of_the_interpreter_is_an_end_unless_it_failed(tmp_path: Path, end: str, paid: int) -> None:
    """A program has come to its end when the interpreter ends, but not by an unhandled error, whatever it closed before."""
    with Provider() as provider:
        code = (
            "import httpx\n"
            "from llm_costopt.batch.queue import BatchQueue\n"
            "from llm_costopt.batch.transport import BatchTransport\n"
            f"queue = BatchQueue({str(tmp_path / 'jobs.db')!r}, gather=0.05, poll=(0.02, 0.05))\n"
            "body = {'model': 'm', 'messages': [{'role': 'user', 'content': 'q'}]}\n"
            f"url = '{provider.url}/v1/chat/completions'\n"
            "httpx.Client(transport=BatchTransport(queue)).post(url, json=body)\n" + end
        )
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        for _ in range(2):
            done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
            assert ("SystemError" in done.stderr) is bool(end), done.stderr

    assert provider.paid() == {"q": paid}


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no SIGINT for one process")
def test_one_interrupt_ends_a_pool_of_threads_that_waits(tmp_path: Path) -> None:
    """Ctrl-C is heard by the main thread alone: those of a pool are let go too, and the next start goes on where this one was."""
    code = (
        "import httpx\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from llm_costopt.batch.queue import BatchQueue\n"
        "from llm_costopt.batch.transport import BatchTransport\n"
        "def ask(n):\n"
        "    body = {'model': 'm', 'messages': [{'role': 'user', 'content': f'q{n}'}]}\n"
        "    return http.post(URL, json=body).status_code\n"
        "with BatchQueue(FILE, gather=0.1, poll=(0.02, 0.05)) as queue, ThreadPoolExecutor(3) as pool:\n"
        "    http = httpx.Client(transport=BatchTransport(queue))\n"
        "    print(list(pool.map(ask, range(3))))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with Provider(in_progress) as provider:
        code = code.replace("URL", repr(f"{provider.url}/v1/chat/completions")).replace(
            "FILE", repr(str(tmp_path / "f"))
        )
        run = partial(subprocess.Popen, [sys.executable, "-c", code], env=env, text=True)
        program = run(stderr=subprocess.PIPE)
        while not provider.batches:
            assert program.poll() is None
        program.send_signal(signal.SIGINT)
        _, said = program.communicate()
        provider.script = all_ok
        again, _ = run(stdout=subprocess.PIPE).communicate()

    assert "3 requests have no answer yet: start the program again" in said
    assert again == "[200, 200, 200]\n"
    assert sorted(provider.paid().values()) == [1, 1, 1]


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no SIGINT for one process")
def test_a_wait_at_the_end_is_said_and_may_be_interrupted(tmp_path: Path) -> None:
    """A program that waits for its jobs before it ends says so, ends at one Ctrl-C, and goes on where it was when it starts again."""
    code = (
        "import httpx, threading\n"
        "from llm_costopt.batch.queue import BatchQueue\n"
        "from llm_costopt.batch.transport import BatchTransport\n"
        f"queue = BatchQueue({str(tmp_path / 'jobs.db')!r}, gather=0.05, poll=(0.02, 0.05), lease=1, on_close='wait')\n"
        "body = {'model': 'm', 'messages': [{'role': 'user', 'content': 'q'}]}\n"
        "post = httpx.Client(transport=BatchTransport(queue)).post\n"
        "threading.Thread(target=post, args=[URL], kwargs={'json': body}, daemon=True).start()\n"
        "while not queue.stats().rows: pass\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with Provider(in_progress) as provider:
        code = code.replace("URL", repr(f"{provider.url}/v1/chat/completions"))
        program = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True)
        assert program.stderr is not None
        said = program.stderr.readline()
        program.send_signal(signal.SIGINT)
        program.communicate()
        provider.script = all_ok
        subprocess.run([sys.executable, "-c", code], env=env, check=True)

    assert "Ctrl-C is safe" in said
    assert provider.paid() == {"q": 1}


def test_a_queue_that_closes_takes_nothing_from_another_of_its_program(tmp_path: Path) -> None:
    """Of two queues of one program on one file, the end of the first leaves what the second waits for to that one."""
    with Provider(lambda batch: all_ok(batch) if batch.looks > 5 else in_progress(batch)) as provider:
        code = (
            "import httpx, threading\n"
            "from llm_costopt.batch.queue import BatchQueue\n"
            "from llm_costopt.batch.transport import BatchTransport\n"
            f"one, two = (BatchQueue({str(tmp_path / 'jobs.db')!r}, gather=0.05, poll=(0.02, 0.05)) for _ in range(2))\n"
            "body = {'model': 'm', 'messages': [{'role': 'user', 'content': 'q'}]}\n"
            "http = httpx.Client(transport=BatchTransport(two))\n"
            f"ask = threading.Thread(target=http.post, args=['{provider.url}/v1/chat/completions'], kwargs={{'json': body}})\n"
            "ask.start()\n"
            "while ask.is_alive() and not two.stats().jobs.get('running'): pass\n"
            "one.close()\n"
            "ask.join()\n"
        )
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        for _ in range(2):
            subprocess.run([sys.executable, "-c", code], env=env, check=True)

    assert provider.paid() == {"q": 2}


def test_a_file_that_was_deleted_is_not_made_anew(tmp_path: Path) -> None:
    """A program that deletes the file before it ends leaves none behind, and ends without a word."""
    code = (
        "from pathlib import Path\nfrom llm_costopt.batch.queue import BatchQueue\n"
        f"folder = Path({str(tmp_path)!r})\nBatchQueue(folder / 'jobs.db').close()\n"
        "[file.unlink() for file in folder.iterdir()]\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)

    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


async def test_a_named_job_is_given_out_whenever_it_is_asked(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """Under the same name the same requests get the same answers for ever; under another one they are new."""
    with Provider() as provider:
        for job in ("monday", "monday", "tuesday"):
            with BatchQueue(tmp_path / "jobs.db", **soon, job=job) as queue:
                await ask(queue, provider, "q")

    assert provider.paid() == {"q": 2}


async def test_what_was_given_out_long_ago_is_not_given_out_again(
    tmp_path: Path, soon: dict[str, Any], ask: Ask
) -> None:
    """After `resume` seconds, even a program that failed gets new answers."""
    with Provider() as provider:
        for ahead in (0.0, 3601.0):
            queue = BatchQueue(tmp_path / "jobs.db", **soon, resume=3600, clock=partial(_time_plus, ahead))
            await ask(queue, provider, "q")
            queue.close(finished=False)

    assert provider.paid() == {"q": 2}


def _time_plus(ahead: float) -> float:
    return time.time() + ahead


async def test_a_program_that_never_ends_keeps_nothing_for_ever(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """Rows that nobody can ask for any more are deleted while the queue lives, too."""
    ahead = 0.0
    clock = lambda: time.time() + ahead  # noqa: E731
    with Provider() as provider, BatchQueue(tmp_path / "jobs.db", **soon, clock=clock) as queue:
        await ask(queue, provider, "old", "older")
        ahead = 31 * 86400.0
        await ask(queue, provider, "new")
        await rest()

        assert queue.stats().rows == {"succeeded": 1}


async def test_errors_are_not_given_out_twice(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """A failed row is asked again by whoever asks again, even by a program that crashed."""
    refused = Told(status="failed", more={"errors": {"data": [{"code": "x", "message": "y"}]}})
    with Provider(lambda batch: refused if batch.id == "batch_0" else all_ok(batch)) as provider:
        queue = BatchQueue(tmp_path / "jobs.db", **soon)
        (first,) = await ask(queue, provider, "q")
        queue.close(finished=False)
        with BatchQueue(tmp_path / "jobs.db", **soon) as again:
            (second,) = await ask(again, provider, "q")

    assert (first.status_code, second.status_code) == (400, 200)


async def test_two_programs_share_a_job_and_one_collects_it(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """Two queues on one file that ask the same at once get the same rows, which are sent and read by one of them."""
    script = lambda batch: all_ok(batch) if batch.looks > 5 else in_progress(batch)  # noqa: E731
    with (
        Provider(script) as provider,
        BatchQueue(tmp_path / "jobs.db", **soon) as one,
        another_program(tmp_path / "jobs.db", **soon) as two,
    ):
        found = await asyncio.gather(ask(one, provider, "a", "b"), ask(two, provider, "a", "b"))

    assert [[reply.json()["choices"][0]["message"]["content"] for reply in replies] for replies in found] == [
        ["re: a", "re: b"],
        ["re: a", "re: b"],
    ]
    assert provider.paid() == {"a": 1, "b": 1}
    assert provider.count("GET", "/v1/files/out-batch_0/content") == 1


async def test_what_a_living_program_was_given_is_not_taken_from_it(
    tmp_path: Path, soon: dict[str, Any], ask: Ask
) -> None:
    """A program that began before another was answered is no restart of it: asked later, it gets an answer of its own."""
    with (
        Provider() as provider,
        BatchQueue(tmp_path / "jobs.db", **soon) as one,
        another_program(tmp_path / "jobs.db", **soon) as two,
    ):
        await ask(one, provider, "q")
        one._runner._take_acks()
        await ask(two, provider, "q")

    assert provider.paid() == {"q": 2}


async def _post(queue: BatchQueue, provider: Provider) -> httpx.Response:
    async with httpx.AsyncClient(transport=AsyncBatchTransport(queue)) as http:
        body = {"model": "m", "messages": [{"role": "user", "content": "q"}]}
        return await http.post(f"{provider.url}/v1/chat/completions", json=body)


async def _start_asking(queue: BatchQueue, provider: Provider) -> asyncio.Task[httpx.Response]:
    task = asyncio.create_task(_post(queue, provider))
    await until(lambda: queue.stats().jobs.get("running"))
    return task


async def test_a_cancelled_caller_loses_no_paid_row(tmp_path: Path, soon: dict[str, Any]) -> None:
    """A caller that gives up leaves its row where it is; who asks the same again gets it without paying."""
    with Provider(in_progress) as provider:
        with BatchQueue(tmp_path / "jobs.db", **soon) as queue:
            task = await _start_asking(queue, provider)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        provider.script = all_ok
        with BatchQueue(tmp_path / "jobs.db", **soon) as queue:
            reply = await _post(queue, provider)

    assert reply.status_code == 200
    assert provider.paid() == {"q": 1}


def test_a_loop_that_was_closed_stops_nobody_else(queue: BatchQueue, caplog: pytest.LogCaptureFixture) -> None:
    """An answer for a caller whose loop was closed without cancelling it goes nowhere, and the others get theirs."""
    loop = asyncio.new_event_loop()
    with Provider(in_progress) as provider, httpx.Client(transport=BatchTransport(queue)) as http:
        left = loop.create_task(_post(queue, provider))
        loop.run_until_complete(until(lambda: queue.stats().jobs.get("running")))
        loop.close()
        provider.script = all_ok
        body = {"model": "m", "messages": [{"role": "user", "content": "other"}]}
        reply = http.post(f"{provider.url}/v1/chat/completions", json=body)

    assert reply.status_code == 200
    assert queue.stats().rows == {"succeeded": 2}
    assert [record.name for record in caplog.records if record.name.startswith("llm_costopt")] == []
    left._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_a_cancelled_caller_may_ask_again(queue: BatchQueue) -> None:
    """The same program asks again after a timeout of its own, and gets the row that is under way."""
    with Provider(in_progress) as provider:
        task = await _start_asking(queue, provider)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        provider.script = all_ok
        reply = await _post(queue, provider)

    assert reply.status_code == 200
    assert provider.paid() == {"q": 1}


async def test_an_equal_request_while_one_is_under_way_is_another(queue: BatchQueue) -> None:
    """In one program, a question that is asked again before it is answered is a sample of its own."""
    with Provider(in_progress) as provider:
        first = await _start_asking(queue, provider)
        second = asyncio.create_task(_post(queue, provider))
        await until(lambda: len(provider.batches) == 2)
        provider.script = all_ok
        await asyncio.gather(first, second)

    assert provider.paid() == {"q": 2}


async def test_a_caller_that_is_cancelled_before_its_row_is_sent_pays_nothing(
    tmp_path: Path, soon: dict[str, Any], ask: Ask
) -> None:
    """A row whose caller left before the batch was full is not in it."""
    with Provider() as provider, BatchQueue(tmp_path / "jobs.db", **(soon | {"gather": 0.5})) as queue:
        gone = asyncio.create_task(ask(queue, provider, "gone"))
        stays = asyncio.create_task(ask(queue, provider, "stays"))
        await until(lambda: queue.stats().rows.get("queued") == 2)
        gone.cancel()
        await stays

        assert provider.paid() == {"stays": 1}
        assert queue.stats().rows == {"succeeded": 1}


async def test_closing_leaves_jobs_where_they_are(tmp_path: Path, soon: dict[str, Any]) -> None:
    """`detach`: who still waits is told to come again, the batch goes on, and who comes again gets the row."""
    with Provider(in_progress) as provider:
        queue = BatchQueue(tmp_path / "jobs.db", **soon)
        task = await _start_asking(queue, provider)
        await asyncio.to_thread(queue.close)
        told = await task
        provider.script = all_ok
        with BatchQueue(tmp_path / "jobs.db", **soon) as again:
            reply = await _post(again, provider)

    assert told.status_code == 503
    assert "ask again and the row is picked up" in told.json()["error"]["message"]
    assert reply.status_code == 200
    assert not provider.batches[0].cancelled
    assert provider.paid() == {"q": 1}


async def test_closing_may_wait(tmp_path: Path, soon: dict[str, Any]) -> None:
    """`wait`: closing returns when everybody has an answer."""
    script = lambda batch: all_ok(batch) if batch.looks > 5 else in_progress(batch)  # noqa: E731
    with Provider(script) as provider:
        queue = BatchQueue(tmp_path / "jobs.db", **soon, on_close="wait")
        task = await _start_asking(queue, provider)
        await asyncio.to_thread(queue.close)

        assert (await task).status_code == 200


async def test_closing_that_waits_for_long_says_so(
    tmp_path: Path, soon: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """`wait`: who closes the queue learns after a while what it waits for, and that it may interrupt it."""
    with Provider(in_progress) as provider:
        queue = BatchQueue(tmp_path / "jobs.db", **soon, on_close="wait")
        task = await _start_asking(queue, provider)
        closing = asyncio.create_task(asyncio.to_thread(queue.close))
        await until(lambda: "Ctrl-C is safe" in caplog.text)
        provider.script = all_ok
        await closing

        assert (await task).status_code == 200


def test_whoever_waits_while_an_interrupt_is_handled_is_sent_away(
    tmp_path: Path, soon: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A thread that waits for its row is let go while the main thread ends over Ctrl-C, and the queue says how to go on."""
    found: list[httpx.Response] = []
    with Provider(in_progress) as provider:
        queue = BatchQueue(tmp_path / "jobs.db", **soon)
        thread = threading.Thread(target=lambda: found.append(asyncio.run(_post(queue, provider))))
        thread.start()
        try:
            raise KeyboardInterrupt  # noqa: TRY301 - as Ctrl-C does
        except KeyboardInterrupt:
            thread.join()
        queue.close(finished=False)

    assert found[0].status_code == 503
    assert "was interrupted; ask again" in found[0].text
    assert "1 requests have no answer yet" in caplog.text


async def test_closing_may_cancel(tmp_path: Path, soon: dict[str, Any]) -> None:
    """`cancel`: the provider is asked for the end of the batch, and what was paid until then is there for who asks again."""
    with Provider(in_progress) as provider:
        queue = BatchQueue(tmp_path / "jobs.db", **soon, on_close="cancel")
        task = await _start_asking(queue, provider)
        await asyncio.to_thread(queue.close)
        told = await task
        provider.script = lambda batch: Told(status="cancelled", output=[ok(row) for row in batch.rows])
        with BatchQueue(tmp_path / "jobs.db", **soon) as again:
            reply = await _post(again, provider)

    assert told.status_code == 503
    assert provider.batches[0].cancelled
    assert reply.status_code == 200
    assert provider.paid() == {"q": 1}


async def test_a_deadline_falls_back_to_real_time(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """What is not back in time is asked in real time; the batch is cancelled, and its paid rows are stored."""

    def script(batch: Batch) -> Told:
        return Told(status="cancelled", output=[ok(batch.rows[0])]) if batch.cancelled else in_progress(batch)

    with Provider(script) as provider, BatchQueue(tmp_path / "jobs.db", **soon, deadline=0.4) as queue:
        replies = await ask(queue, provider, "one", "two")
        await until(lambda: queue.stats().jobs.get("done") == 1)
        stats = queue.stats()

    assert [reply.json()["choices"][0]["message"]["content"] for reply in replies] == ["re: one", "re: two"]
    assert len(provider.real_time) == 2
    assert stats.rows == {"succeeded": 1, "cancelled": 1}


@pytest.mark.parametrize("closes", [False, True])
async def test_whoever_gives_up_leaves_a_job_to_others(tmp_path: Path, soon: dict[str, Any], closes: bool) -> None:
    """A job is not cancelled by the program whose deadline passes, or that closes, while another one waits for its rows."""
    ahead = 0.0
    slow = soon | {"lease": 60.0, "clock": lambda: time.time() + ahead}
    with (
        Provider(in_progress) as provider,
        BatchQueue(tmp_path / "jobs.db", **slow, deadline=10, on_close="cancel") as hasty,
        another_program(tmp_path / "jobs.db", **slow) as patient,
    ):
        first = await _start_asking(hasty, provider)
        second = asyncio.create_task(_post(patient, provider))
        await until(lambda: patient._store._db.run("SELECT 1 FROM claims LIMIT 1 OFFSET 1"))
        if closes:
            await asyncio.to_thread(hasty.close)
        ahead = 11.0
        await first
        provider.script = lambda b: Told(status="cancelled", output=[]) if b.cancelled else all_ok(b)
        reply = await second

    assert reply.status_code == 200
    assert not provider.batches[0].cancelled
    assert provider.paid() == {"q": 1}


async def test_a_program_that_died_wants_nothing(tmp_path: Path, soon: dict[str, Any]) -> None:
    """A program that was killed and started again has its job cancelled at the deadline, whatever the dead one waited for."""
    ahead = 0.0
    clock = lambda: time.time() + ahead  # noqa: E731
    with Provider(in_progress) as provider:
        dead = BatchQueue(tmp_path / "jobs.db", **soon)
        left = await _start_asking(dead, provider)
        store = sqlite3.connect(tmp_path / "jobs.db")
        claims = store.execute("SELECT run, row FROM claims").fetchall()
        await asyncio.to_thread(dead.close)
        await left
        store.executemany("INSERT INTO claims VALUES (?, ?)", claims)
        store.commit()
        store.close()
        ahead = 3600.0
        with another_program(tmp_path / "jobs.db", **soon, deadline=0, clock=clock) as again:
            reply = await _post(again, provider)
            await until(lambda: provider.batches[0].cancelled)
            provider.script = lambda batch: Told(status="cancelled", output=[])

    assert reply.status_code == 200
    assert len(provider.real_time) == 1


async def test_what_a_deadline_cancelled_is_no_answer_for_whoever_asks_again(
    tmp_path: Path, soon: dict[str, Any]
) -> None:
    """Asked again while its batch ends, it is asked in real time as well; asked by the next program, it is sent anew."""
    with Provider(in_progress) as provider:
        with BatchQueue(tmp_path / "jobs.db", **soon, deadline=0.3) as queue:
            replies = [await _post(queue, provider)]
            again = asyncio.create_task(_post(queue, provider))
            await until(lambda: queue.stats().waiting)
            provider.script = lambda b: Told(status="cancelled") if b.id == "batch_0" else all_ok(b)
            replies.append(await again)
            await rest()
        with another_program(tmp_path / "jobs.db", **soon) as queue:
            replies.append(await _post(queue, provider))

    assert [reply.status_code for reply in replies] == [200, 200, 200]
    assert len(provider.real_time) == 2
    assert provider.paid() == {"q": 2}


async def test_a_deadline_before_sending_pays_once(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """A row that was not even sent when its deadline came is asked in real time only."""
    slow = soon | {"gather": 60.0}
    with Provider() as provider, BatchQueue(tmp_path / "jobs.db", **slow, deadline=0.2) as queue:
        (reply,) = await ask(queue, provider, "q")

        assert reply.status_code == 200
        assert (len(provider.batches), len(provider.real_time)) == (0, 1)
        assert queue.stats().rows == {}


def test_a_blocking_caller_falls_back_too(tmp_path: Path, soon: dict[str, Any]) -> None:
    """The blocking transport asks in real time when the deadline has passed."""
    with (
        Provider(in_progress) as provider,
        BatchQueue(tmp_path / "jobs.db", **soon, deadline=0.3) as queue,
        httpx.Client(transport=BatchTransport(queue)) as http,
    ):
        body = {"model": "m", "messages": [{"role": "user", "content": "q"}]}

        assert http.post(f"{provider.url}/v1/chat/completions", json=body).status_code == 200
        assert len(provider.real_time) == 1


def _ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "llm-costopt-batch"]


async def test_no_thread_is_left(queue: BatchQueue, ask: Ask) -> None:
    """When nobody waits the thread is over, without closing anything, and the next request starts another."""
    with Provider() as provider:
        for n in range(2):
            await ask(queue, provider, f"q{n}")
            await until(lambda: not _ours())

    assert queue.stats().waiting == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_it_works_in_a_forked_child(queue: BatchQueue) -> None:
    """A child that was forked after the parent had asked asks and is answered on its own."""
    with Provider() as provider, httpx.Client(transport=BatchTransport(queue)) as http:
        body = {"model": "m", "messages": [{"role": "user", "content": "q"}]}
        assert http.post(f"{provider.url}/v1/chat/completions", json=body).status_code == 200
        child = os.fork()
        if not child:
            with httpx.Client(transport=BatchTransport(queue)) as own:
                reply = own.post(f"{provider.url}/v1/chat/completions", json={**body, "seed": 1})
            os._exit(0 if reply.status_code == 200 else 1)

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert provider.paid() == {"q": 2}


def _written(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_the_file_holds_no_password_of_a_base_url(tmp_path: Path, queue: BatchQueue) -> None:
    """A password in the base URL travels as a header, as ever, and is not written."""
    with Provider() as provider:
        url = provider.url.replace("http://", "http://user:pa55word@")
        async with httpx.AsyncClient(transport=AsyncBatchTransport(queue)) as http:
            body = {"model": "m", "messages": [{"role": "user", "content": "q"}]}
            reply = await http.post(f"{url}/v1/chat/completions", json=body)
    queue.close()

    assert reply.status_code == 200
    assert all(headers["authorization"].startswith("Basic ") for headers in provider.headers)
    assert b"pa55word" not in _written(tmp_path)


async def test_the_file_is_private_and_holds_no_key(tmp_path: Path, queue: BatchQueue, ask: Ask) -> None:
    """Nobody else can read the file; the key is not in it, and neither is a prompt that has its answer."""
    with Provider() as provider:
        await ask(queue, provider, "a prompt that is rather secret")
    queue.close()
    files = list(tmp_path.iterdir())  # noqa: ASYNC240 - nothing else runs
    content = b"".join(file.read_bytes() for file in files)

    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert b"sk-1" not in content
    with BatchQueue(tmp_path / "jobs.db") as again:
        assert again._store._db.run("SELECT count(*) AS n FROM rows WHERE body IS NOT NULL")[0]["n"] == 0


async def test_a_closed_queue_says_so(queue: BatchQueue, ask: Ask) -> None:
    """A request after the end is an error that names the way out; closing twice is none."""
    queue.close()
    queue.close()
    with Provider() as provider, pytest.raises(ValueError, match="make another one for the same path"):
        await ask(queue, provider, "q")


@pytest.mark.parametrize(
    "options",
    [
        {"on_close": "leave"},
        *({"poll": poll} for poll in ((0, 1), (2, 1), 5, (1,), ("1", "2"), (1, float("nan")))),
        *(
            {name: wrong}
            for name in ("deadline", "gather", "max_wait", "resume", "settle", "retries")
            for wrong in (-1, "2")
        ),
        *({"gather": wrong} for wrong in (float("nan"), None, True)),
        {"max_wait": float("inf")},
        *({"lease": wrong} for wrong in (0, "120")),
        *({"job": wrong} for wrong in ("", 5)),
        {"on_record": Ledger()},
        {"prices": {"gpt-4o": 1}},
    ],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    """A wrong option is refused at once with what it may be: found later, it would leave callers waiting for ever."""
    with pytest.raises((ValueError, TypeError), match="must be"):
        BatchQueue(None, **options)


async def test_a_file_that_cannot_be_written_is_an_error_for_the_caller(queue: BatchQueue, ask: Ask) -> None:
    """When a row cannot be stored, its caller is told so by an HTTP error at once, and nothing is paid."""
    queue._store._db.run("PRAGMA query_only = ON")
    with Provider() as provider:
        (reply,) = await ask(queue, provider, "q")
        queue._store._db.run("PRAGMA query_only = OFF")

    assert reply.status_code == 503
    assert "cannot write its file" in reply.json()["error"]["message"]
    assert provider.calls == []


def test_a_file_that_is_gone_is_an_error_for_the_caller(tmp_path: Path, soon: dict[str, Any]) -> None:
    """Where the file cannot be opened again after a fork, callers are told so, and closing the queue raises nothing."""
    folder = tmp_path / "gone"
    folder.mkdir()
    with Provider() as provider, BatchQueue(folder / "jobs.db", **soon) as queue:
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)
        shutil.rmtree(folder)
        reply = asyncio.run(_post(queue, provider))

    assert reply.status_code == 503
    assert "cannot open the job store" in reply.json()["error"]["message"]


async def test_a_file_that_was_damaged_is_an_error_for_who_waits(tmp_path: Path, soon: dict[str, Any]) -> None:
    """When the file cannot be read any more, nobody waits for what it held: callers are told why."""
    with Provider(in_progress) as provider, BatchQueue(tmp_path / "jobs.db", **soon) as queue:
        task = await _start_asking(queue, provider)
        _spoil(tmp_path)
        reply = await task
    failed(tmp_path / "jobs.db")

    assert reply.status_code == 503
    assert "is damaged" in reply.json()["error"]["message"]


def _spoil(folder: Path) -> None:
    for file in (folder / "jobs.db", folder / "jobs.db-wal"):
        file.write_bytes(b"\xff" * file.stat().st_size)
    if (child := os.fork()) == 0:  # a fork closes the file, which is read anew at the next use
        os._exit(0)
    os.waitpid(child, 0)


async def test_a_full_disk_takes_no_answer_away(
    tmp_path: Path, soon: dict[str, Any], ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing more can be noted, who waits is answered all the same, and closing the queue is a line in the log."""
    script = lambda batch: all_ok(batch) if batch.looks > 3 else in_progress(batch)  # noqa: E731
    with Provider(script) as provider, BatchQueue(tmp_path / "jobs.db", **soon) as queue:
        waits = asyncio.create_task(_start_and_wait(queue, provider))
        await ask(queue, provider, "first")
        other = sqlite3.connect(tmp_path / "jobs.db")
        other.execute("CREATE TRIGGER a BEFORE UPDATE OF delivered ON rows BEGIN SELECT raise(FAIL, 'full'); END")
        other.execute("CREATE TRIGGER b BEFORE DELETE ON claims BEGIN SELECT raise(FAIL, 'full'); END")
        replies = [await waits, *await ask(queue, provider, "second")]
    other.execute("DROP TRIGGER a")
    other.execute("DROP TRIGGER b")
    other.close()

    assert [reply.status_code for reply in replies] == [200, 200]
    assert "cannot note in its file" in caplog.text


async def _start_and_wait(queue: BatchQueue, provider: Provider) -> httpx.Response:
    return await (await _start_asking(queue, provider))


def test_a_thread_that_cannot_start_fails_one_caller_alone(queue: BatchQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no thread is to be had, its caller is told, and the next one tries again."""
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "llm-costopt-batch":
            raise RuntimeError("can't start new thread")
        start(thread)

    with Provider() as provider:
        monkeypatch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start"):
            asyncio.run(_post(queue, provider))
        monkeypatch.undo()
        reply = asyncio.run(_post(queue, provider))

    assert reply.status_code == 200


async def test_a_deadline_is_for_its_own_caller(tmp_path: Path, soon: dict[str, Any]) -> None:
    """A caller that left before its row was sent leaves no deadline behind for the next, whose row has the same number."""
    ahead = 0.0
    slow = soon | {"gather": 3600.0, "max_wait": 3600.0}
    clock = lambda: time.time() + ahead  # noqa: E731
    with Provider() as provider, BatchQueue(tmp_path / "jobs.db", **slow, deadline=1000, clock=clock) as queue:
        gone = asyncio.create_task(_post(queue, provider))
        await until(lambda: queue.stats().rows)
        gone.cancel()
        await until(lambda: not queue.stats().rows)
        ahead = 900.0
        asked = asyncio.create_task(_post(queue, provider))
        await until(lambda: queue.stats().rows)
        ahead = 1100.0
        other = asyncio.create_task(ask_other(queue, provider))  # its coming makes the queue look at the clock
        await until(lambda: queue.stats().rows == {"queued": 2})
        early = list(provider.real_time)
        ahead = 3000.0
        third = asyncio.create_task(ask_other(queue, provider))
        await asyncio.gather(asked, other)
        third.cancel()

    assert early == []
    assert len(provider.real_time) == 2


async def ask_other(queue: BatchQueue, provider: Provider) -> httpx.Response:
    """Ask what nobody else asks."""
    async with httpx.AsyncClient(transport=AsyncBatchTransport(queue)) as http:
        body = {"model": "m", "messages": [{"role": "user", "content": "other"}]}
        return await http.post(f"{provider.url}/v1/chat/completions", json=body)


async def test_what_is_given_while_the_queue_closes_counts_as_given(tmp_path: Path, soon: dict[str, Any]) -> None:
    """A loop that closing with `wait` holds up hears of its answers afterwards, and the next run gets new ones."""
    script = lambda batch: all_ok(batch) if batch.looks > 3 else in_progress(batch)  # noqa: E731
    with Provider(script) as provider:
        for _ in range(2):
            with BatchQueue(tmp_path / "jobs.db", **soon, on_close="wait") as queue:
                task = await _start_asking(queue, provider)
            assert (await task).status_code == 200

    assert provider.paid() == {"q": 2}


def test_a_queue_that_is_let_go_by_its_own_thread_closes(tmp_path: Path, soon: dict[str, Any]) -> None:
    """The garbage collector may find a forgotten queue in the thread of that queue: it ends, and its file is in order."""
    dropped = threading.Event()
    unraisable: list[object] = []

    def on_record(_: object) -> None:
        dropped.wait()
        gc.collect()

    with Provider() as provider, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", unraisable.append)
        queue: Any = BatchQueue(tmp_path / "jobs.db", **soon, on_record=on_record)
        queue.itself = queue
        asyncio.run(_post(queue, provider))
        thread = next(thread for thread in threading.enumerate() if thread.name == "llm-costopt-batch")
        del queue
        dropped.set()
        thread.join()

    store = sqlite3.connect(tmp_path / "jobs.db")
    assert store.execute("SELECT owner FROM jobs").fetchall() == [(None,)]
    assert store.execute("SELECT delivered IS NULL FROM rows").fetchall() == [(0,)]
    store.close()
    assert unraisable == []


def test_a_forgotten_queue_is_not_waited_for_in_the_middle_of_something(tmp_path: Path, soon: dict[str, Any]) -> None:
    """The garbage collector may find it where its thread waits for a lock of the one that collects: both go on."""
    lock = threading.Lock()
    telling = threading.Event()

    def on_record(_: object) -> None:
        telling.set()
        with lock:
            pass

    with Provider() as provider:
        queue: Any = BatchQueue(tmp_path / "jobs.db", **soon, on_record=on_record)
        queue.itself = queue
        with lock:
            asyncio.run(_post(queue, provider))
            telling.wait()
            thread = next(thread for thread in threading.enumerate() if thread.name == "llm-costopt-batch")
            del queue
            gc.collect()
        thread.join()

    store = sqlite3.connect(tmp_path / "jobs.db")
    assert store.execute("SELECT delivered IS NULL FROM rows").fetchall() == [(0,)]
    store.close()


def test_a_queue_that_is_let_go_just_before_the_end_notes_what_was_given(tmp_path: Path) -> None:
    """The end of the interpreter waits for what a forgotten queue has to note, so that the next run gets new answers."""
    with Provider() as provider:
        code = (
            "import gc, httpx\n"
            "from llm_costopt.batch.queue import BatchQueue\n"
            "from llm_costopt.batch.transport import BatchTransport\n"
            f"queue = BatchQueue({str(tmp_path / 'jobs.db')!r}, gather=0.05, poll=(0.02, 0.05))\n"
            "body = {'model': 'm', 'messages': [{'role': 'user', 'content': 'q'}]}\n"
            f"httpx.Client(transport=BatchTransport(queue)).post('{provider.url}/v1/chat/completions', json=body)\n"
            "del queue\n"
            "gc.collect()\n"
        )
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        for _ in range(2):
            subprocess.run([sys.executable, "-c", code], env=env, check=True)

    assert provider.paid() == {"q": 2}


def test_a_missing_http_library_names_the_install_line() -> None:
    """Without httpx2 and httpx, a queue says what to install."""
    code = (
        "import sys; sys.modules['httpx'] = sys.modules['httpx2'] = None\n"
        "from llm_costopt import BatchQueue\n"
        "try: BatchQueue(None)\n"
        "except ImportError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert "pip install 'llm-costopt[batch]'" in out.stdout
