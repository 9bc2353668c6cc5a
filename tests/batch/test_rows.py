"""What becomes of rows: every one is answered, stored or sent again, whatever the provider says."""

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from llm_costopt.batch.backend import Lane
from llm_costopt.batch.queue import BatchQueue
from llm_costopt.batch.transport import AsyncBatchTransport
from llm_costopt.batch.watch import Pace, Watch
from llm_costopt.batch.wire import Ask as Ask_
from llm_costopt.batch.wire import Http
from tests.batch.conftest import Ask, rest, until
from tests.batch_provider import Batch, Json, Provider, Reply, Told, message, ok, result


def words(reply: Any) -> str:
    """Read the text of a chat completion."""
    return str(reply.json()["choices"][0]["message"]["content"])


def http_error(row: Json, status: int, message: str = "no") -> Json:
    """Write a failed row as an HTTP error in `response`, with `error: null`."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
    return {"custom_id": row["custom_id"], "response": {"status_code": status, "body": body}, "error": None}


def row_error(row: Json, code: str) -> Json:
    """Write a failed row as an `error` of its own, with `response: null`."""
    return {"custom_id": row["custom_id"], "response": None, "error": {"code": code, "message": f"it is {code}"}}


def once(first: Callable[[Batch], Told]) -> Callable[[Batch], Told]:
    """Follow *first* for the first batch; all further ones are answered in full."""
    return lambda batch: first(batch) if batch.id.endswith("_0") else Told(output=[ok(row) for row in batch.rows])


@pytest.mark.parametrize(
    ("line", "status", "outcome"),
    [
        (lambda row: http_error(row, 400), 400, "errored"),
        (lambda row: row_error(row, "invalid_json"), 400, "errored"),
        (lambda row: row_error(row, "batch_cancelled"), 409, "cancelled"),
        (lambda row: {"custom_id": row["custom_id"], "response": {"status_code": 400, "body": "?"}}, 400, "errored"),
    ],
)
async def test_a_failed_row_fails_its_own_caller(
    queue: BatchQueue, ask: Ask, line: Callable[[Json], Json], status: int, outcome: str
) -> None:
    """In both shapes of the error file, a failed row is the provider's HTTP error for whoever asked, and for nobody else."""

    def script(batch: Batch) -> Told:
        bad = [row for row, text in zip(batch.rows, batch.asked, strict=True) if text == "bad"]
        return Told(output=[ok(row) for row in batch.rows if row not in bad], errors=[line(row) for row in bad])

    with Provider(script) as provider:
        good, bad, other = await ask(queue, provider, "one", "bad", "two")

    assert (words(good), words(other)) == ("re: one", "re: two")
    assert bad.status_code == status
    assert bad.headers["x-should-retry"] == "false"
    assert queue.stats().rows == {"succeeded": 2, outcome: 1}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (409, openai.ConflictError),
    ],
)
async def test_the_sdk_raises_what_it_always_raises(
    queue: BatchQueue, status: int, error: type[openai.APIStatusError]
) -> None:
    """A failed row raises the SDK's own error with the provider's message, and the SDK does not ask again by itself."""
    from tests.batch.test_transport import client_of

    with Provider(lambda batch: Told(errors=[http_error(row, status, "so it is") for row in batch.rows])) as provider:
        client = client_of(queue, provider.url, max_retries=5)
        with pytest.raises(error, match="so it is"):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "q"}])

    retried = status in {429, 500}
    assert len(provider.batches) == 1 + retried  # ours, not the SDK's


@pytest.mark.parametrize("told", [lambda row: http_error(row, 429), lambda row: row_error(row, "batch_expired")])
async def test_what_may_pass_goes_into_the_next_batch(
    queue: BatchQueue, ask: Ask, told: Callable[[Json], Json]
) -> None:
    """A row that failed for a passing reason is sent again, once, under a new name; the others are not."""
    script = once(lambda batch: Told(output=[ok(r) for r in batch.rows[1:]], errors=[told(batch.rows[0])]))
    with Provider(script) as provider:
        replies = await ask(queue, provider, "one", "two", "three")

    assert sorted(map(words, replies)) == ["re: one", "re: three", "re: two"]
    assert [len(batch.rows) for batch in provider.batches] == [3, 1]
    assert provider.batches[0].rows[0]["custom_id"] != provider.batches[1].rows[0]["custom_id"]


@pytest.mark.parametrize("status", ["expired", "cancelled"])
async def test_paid_rows_of_a_batch_that_was_cut_short_are_kept(queue: BatchQueue, ask: Ask, status: str) -> None:
    """Rows that were done before a batch expired or was cancelled are answered; only expired ones are sent again."""
    script = once(lambda batch: Told(status=status, output=[ok(row) for row in batch.rows[:2]]))
    with Provider(script) as provider:
        replies = await ask(queue, provider, "one", "two", "three", "four")

    by_status = sorted(reply.status_code for reply in replies)
    assert by_status == ([200] * 4 if status == "expired" else [200, 200, 409, 409])
    assert max(provider.paid().values()) == (2 if status == "expired" else 1)
    assert sum(provider.paid().values()) == (6 if status == "expired" else 4)


async def test_expired_rows_end_in_an_error_in_the_end(queue: BatchQueue, ask: Ask) -> None:
    """A batch that expires twice leaves its callers with a gateway's timeout that says so."""
    with Provider(lambda _: Told(status="expired")) as provider:
        (reply,) = await ask(queue, provider, "q")

    assert reply.status_code == 504
    assert "expired" in reply.json()["error"]["message"]
    assert len(provider.batches) == 2


async def test_rows_in_none_of_the_files_are_accounted_for(queue: BatchQueue, ask: Ask) -> None:
    """A row of which a completed batch says nothing is sent again, and then its caller is told."""
    with Provider(
        lambda batch: Told(output=[ok(row) for row in batch.rows[1:]], more={"error_file_id": ""})
    ) as provider:
        replies = await ask(queue, provider, "one", "two")

    assert sorted(reply.status_code for reply in replies) == [200, 502]
    assert queue.stats().rows == {"succeeded": 1, "missing": 1}
    assert [len(batch.rows) for batch in provider.batches] == [2, 1]


async def test_a_completed_batch_without_output_is_no_success(queue: BatchQueue, ask: Ask) -> None:
    """`completed` with nothing but an error file gives every caller its error."""
    with Provider(lambda batch: Told(errors=[http_error(row, 400) for row in batch.rows])) as provider:
        replies = await ask(queue, provider, "one", "two")

    assert [reply.status_code for reply in replies] == [400, 400]


async def test_output_that_lags_is_waited_for(queue: BatchQueue, ask: Ask) -> None:
    """A batch that says `completed` before its output file exists, or before it is full, loses no row."""

    def script(batch: Batch) -> Told:
        if batch.looks == 1:
            return Told(
                more={"output_file_id": "", "error_file_id": "", "request_counts": {"completed": 3, "failed": 0}}
            )
        return Told(output=[ok(row) for row in batch.rows[: batch.looks]])

    with Provider(script) as provider:
        replies = await ask(queue, provider, "one", "two", "three")

    assert [reply.status_code for reply in replies] == [200] * 3
    assert len(provider.batches) == 1


async def test_lines_that_are_none_of_ours_are_passed_over(queue: BatchQueue, ask: Ask) -> None:
    """Lines without a name, of another batch, given twice or not JSON at all change nothing."""

    def script(batch: Batch) -> Told:
        good = [ok(row) for row in batch.rows]
        strange: list[Any] = [{"custom_id": None}, {"custom_id": "x-1-1"}, "text", {**good[0], "custom_id": "0-0"}]
        return Told(output=[*strange, *good, http_error(batch.rows[0], 400)])

    with Provider(script) as provider:
        replies = await ask(queue, provider, "one", "two")

    assert [words(reply) for reply in replies] == ["re: one", "re: two"]


async def test_a_file_that_is_gone_takes_no_answer_of_another_away(queue: BatchQueue, ask: Ask) -> None:
    """Where the error file was deleted, those whose answers are in the output file have them, and the others an error."""
    script = lambda batch: Told(output=[ok(batch.rows[0])], errors=[])  # noqa: E731
    with Provider(script, lambda _, path, __: 404 if path.endswith("/err-batch_0/content") else None) as provider:
        replies = await ask(queue, provider, "one", "two")

    assert [reply.status_code for reply in replies] == [200, 502]


async def test_a_download_that_breaks_is_taken_up_again(queue: BatchQueue, ask: Ask) -> None:
    """When the connection breaks in the middle of a line, the rest is read at the next look."""
    script = lambda batch: Told(  # noqa: E731
        output=[ok(row) for row in batch.rows], truncate=700 if batch.looks == 1 else None
    )
    with Provider(script) as provider:
        replies = await ask(queue, provider, "one", "two", "three")

    assert [words(reply) for reply in replies] == ["re: one", "re: two", "re: three"]


@pytest.mark.parametrize("status", ["scheduling", "validating", "in_progress", "finalizing", "paused", "None"])
async def test_an_unknown_status_is_no_end(queue: BatchQueue, ask: Ask, status: str) -> None:
    """Whatever a server calls the time before the end, it is waited for."""
    script = lambda batch: Told(status=status) if batch.looks < 3 else Told(output=[ok(r) for r in batch.rows])  # noqa: E731
    with Provider(script) as provider:
        (reply,) = await ask(queue, provider, "q")

    assert words(reply) == "re: q"


@pytest.mark.parametrize("fault", ["gone", "gone, in words", 404])
async def test_a_vanished_batch_is_not_waited_for(queue: BatchQueue, ask: Ask, fault: str | int) -> None:
    """A batch that the provider no longer knows, with a 404 or an error under status 200, ends in an error for each row."""

    def intercept(method: str, path: str, _: int) -> int | None:
        return 404 if fault == 404 and method == "GET" and "/batches/" in path else None

    with Provider(lambda _: Told(status=str(fault)), intercept) as provider:
        (reply,) = await ask(queue, provider, "q")

    assert reply.status_code == 502
    assert "no longer knows" in reply.json()["error"]["message"]
    assert queue.stats().rows == {"lost": 1}


async def test_a_batch_that_is_not_seen_for_a_while_is_not_lost(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """404s right after a batch was made, or while a gateway is set up anew, are waited out: its rows are paid."""

    def intercept(method: str, path: str, nth: int) -> int | None:
        return 404 if method == "GET" and "/batches/" in path and nth < 6 else None

    with (
        Provider(intercept=intercept) as provider,
        BatchQueue(tmp_path / "jobs.db", **(soon | {"settle": 60.0})) as queue,
    ):
        (reply,) = await ask(queue, provider, "q")

    assert words(reply) == "re: q"


async def test_bad_lines_do_not_spoil_the_batch(queue: BatchQueue, ask: Ask) -> None:
    """When a whole batch is refused for some lines, those fail with what was said of them and the rest goes again."""
    errors = {"data": [{"code": "invalid_request", "message": "line is bad", "line": 2, "param": None}]}
    script = once(lambda _: Told(status="failed", more={"errors": errors}))
    with Provider(script) as provider:
        replies = await ask(queue, provider, "one", "two", "three")

    bad = [reply for reply in replies if reply.status_code == 400]
    assert [reply.json()["error"]["message"] for reply in bad] == ["line is bad"]
    assert sorted(reply.status_code for reply in replies) == [200, 200, 400]
    assert [len(batch.rows) for batch in provider.batches] == [3, 2]


async def test_a_batch_refused_as_a_whole_fails_everybody(queue: BatchQueue, ask: Ask) -> None:
    """When the provider names no line, every caller gets its reason and nothing is sent again."""
    errors = {"data": [{"code": "model_not_found", "message": "no such model"}]}
    with Provider(lambda _: Told(status="failed", more={"errors": errors})) as provider:
        replies = await ask(queue, provider, "one", "two")

    assert ["no such model" in reply.text for reply in replies] == [True, True]
    assert len(provider.batches) == 1


async def test_too_much_at_once_is_held_back(
    tmp_path: Path, soon: dict[str, Any], ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch refused for the limit of queued tokens is halved until it fits, no row is lost or failed, and a log says so."""
    errors = {"data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]}

    def script(batch: Batch) -> Told:
        if len(batch.rows) > 2:
            return Told(status="failed", more={"errors": errors})
        return Told(output=[ok(row) for row in batch.rows])

    with BatchQueue(tmp_path / "jobs.db", **soon, retries=0) as queue, Provider(script) as provider:
        replies = await ask(queue, provider, *(f"q{n}" for n in range(8)))

    assert [words(reply) for reply in replies] == [f"re: q{n}" for n in range(8)]
    assert [len(batch.rows) for batch in provider.batches] == [8, 4, 4, 2, 2, 2, 2]
    assert "Enqueued token limit reached" in caplog.text


async def test_what_was_held_back_goes_when_another_job_ends(tmp_path: Path, soon: dict[str, Any], ask: Ask) -> None:
    """A batch that does not fit beside one at work waits for the end of that one, not for the next look, and goes unhalved."""
    errors = {"data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]}
    ended = False

    def script(batch: Batch) -> Told:
        if batch.id == "batch_0":
            return Told(output=[ok(row) for row in batch.rows]) if ended else Told(status="in_progress")
        if not ended:
            return Told(status="failed", more={"errors": errors})
        return Told(output=[ok(row) for row in batch.rows])

    slow = soon | {"poll": (0.02, 3600.0)}
    with BatchQueue(tmp_path / "jobs.db", **slow) as queue, Provider(script) as provider:
        first = asyncio.create_task(ask(queue, provider, "first"))
        await until(lambda: queue.stats().jobs.get("running"))
        rest = asyncio.create_task(ask(queue, provider, "a", "b", "c", "d"))
        await until(lambda: len(provider.batches) == 2 and queue.stats().rows.get("queued") == 4)
        ended = True
        replies = [*await first, *await rest]

    assert [words(reply) for reply in replies] == ["re: first", "re: a", "re: b", "re: c", "re: d"]
    assert [len(batch.rows) for batch in provider.batches] == [1, 4, 4]


@pytest.mark.parametrize(("limit", "value"), [("max_rows", 3), ("max_bytes", 1000)])
async def test_what_is_too_large_is_split(
    queue: BatchQueue, ask: Ask, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """No batch holds more requests or bytes than the provider takes."""
    from llm_costopt.batch.openai import OpenAIBatches

    monkeypatch.setattr(OpenAIBatches, limit, value)
    with Provider() as provider:
        replies = await ask(queue, provider, *(f"q{n}" for n in range(7)))

    assert [words(reply) for reply in replies] == [f"re: q{n}" for n in range(7)]
    assert [len(batch.rows) for batch in provider.batches] == [3, 3, 1]


@pytest.mark.parametrize("anthropic", [False, True])
async def test_a_body_that_is_too_large_is_halved(queue: BatchQueue, ask: Ask, anthropic: bool) -> None:
    """HTTP 413 halves the job until it fits; a row that is too large alone gets that error, and the others stay many in a job."""
    sizes: list[int] = []

    def intercept(method: str, path: str, _: int) -> int | None:
        large = path == ("/v1/messages/batches" if anthropic else "/v1/files") and method == "POST"
        sizes.extend([provider.size] if large else [])
        return 413 if large and provider.size > 4000 else None

    huge = "x" * 5000
    with Provider(intercept=intercept) as provider:
        replies = await ask(queue, provider, *(f"q{n}" for n in range(20)), huge, anthropic=anthropic)

    assert [reply.status_code for reply in replies] == [200] * 20 + [413]
    assert "scripted 413" in replies[-1].json()["error"]["message"]
    assert set(provider.paid().values()) == {1}
    assert sum(size > 4000 for size in sizes) <= 4  # what was refused: all, a half, and the huge one alone
    assert len(provider.batches) <= 4


async def test_a_wrong_key_fails_everybody_at_once(queue: BatchQueue, ask: Ask) -> None:
    """What the provider says to the upload is what every caller is told."""
    with Provider(intercept=lambda _m, path, _n: 401 if path == "/v1/files" else None) as provider:
        replies = await ask(queue, provider, "one", "two")

    assert [reply.status_code for reply in replies] == [401, 401]
    assert provider.count("POST", "/v1/files") == 1


async def test_what_can_never_be_sent_fails_at_once_and_no_log_quotes_the_key(
    queue: BatchQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that was read with the line break after it, or a base URL without `https://`, is an error and not waited out."""
    body = {"model": "m", "messages": [{"role": "user", "content": "q"}]}
    with Provider() as provider:
        async with httpx.AsyncClient(transport=AsyncBatchTransport(queue)) as http:
            replies = await asyncio.gather(
                *(
                    http.post(f"{url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
                    for url, key in ((provider.url, "sk-secret\n"), ("ftp://127.0.0.1", "sk-1"))
                )
            )

    assert [reply.status_code for reply in replies] == [400, 400]
    assert all("line breaks in the key" in reply.json()["error"]["message"] for reply in replies)
    assert "sk-secret" not in caplog.text + str(queue._store.jobs())


def test_what_holds_a_key_does_not_show_it() -> None:
    """Neither a request nor the calls for a batch have the key in their `repr`, which error trackers keep."""
    headers = {"authorization": "Bearer sk-secret"}
    ask = Ask_(url="http://a", headers=headers, body=b"{}")
    http = Http(client=None, headers=headers, alive=lambda: None)

    assert "sk-secret" not in repr([ask, http])


async def test_a_redirect_is_no_empty_result(queue: BatchQueue, ask: Ask) -> None:
    """Where results are said to be elsewhere, callers are told, and nothing is sent or paid again."""

    class Elsewhere(Provider):
        def answer(self, method: str, path: str, body: bytes) -> Reply | str:
            reply = super().answer(method, path, body)
            return (307, b"", {"location": "/elsewhere"}) if path.endswith("/content") else reply

    with Elsewhere() as provider:
        (reply,) = await ask(queue, provider, "q")

    assert (reply.status_code, "follows redirects" in reply.text) == (400, True)
    assert provider.paid() == {"q": 1}


async def test_an_upload_without_a_name_is_tried_again(queue: BatchQueue, ask: Ask) -> None:
    """When what comes back for an upload or a batch is none, it is uploaded again, or looked for, and paid once."""

    class Nameless(Provider):
        def answer(self, method: str, path: str, body: bytes) -> Reply | str:
            reply = super().answer(method, path, body)
            return (200, b"{}", {}) if method == "POST" and self.count(method, path) == 1 else reply

    with Nameless() as provider:
        (reply,) = await ask(queue, provider, "q")

    assert words(reply) == "re: q"
    assert provider.paid() == {"q": 1}


async def test_a_key_that_expires_leaves_the_job_for_a_better_one(queue: BatchQueue, ask: Ask) -> None:
    """A look that is refused for good fails the callers, and who asks again with a valid key gets the paid row."""
    intercept = lambda _m, path, nth: 403 if "/batches/" in path and nth == 1 else None  # noqa: E731
    with Provider(intercept=intercept) as provider:
        (refused,) = await ask(queue, provider, "q")
        queue.close(finished=False)
        with BatchQueue(Path(str(queue._store._db._path)), gather=0.1, poll=(0.02, 0.05)) as again:
            (reply,) = await ask(again, provider, "q")

    assert refused.status_code == 403
    assert words(reply) == "re: q"
    assert len(provider.batches) == 1


@pytest.mark.parametrize("fault", [429, 500, "drop"])
async def test_what_passes_is_waited_out(queue: BatchQueue, ask: Ask, fault: int | str) -> None:
    """Two failures of every call, before anything exists, on the way and at the end, are waited out; nothing is paid twice."""

    def intercept(method: str, path: str, nth: int) -> int | str | None:
        return fault if nth <= 2 and not (method == "POST" and path == "/v1/batches" and fault != 429) else None

    with Provider(intercept=intercept) as provider:
        replies = await ask(queue, provider, "one", "two")

    assert [words(reply) for reply in replies] == ["re: one", "re: two"]
    assert max(provider.paid().values()) == 1


@pytest.mark.parametrize("after", ["inf", "nan", "-1", "1e300", "Wed, 21 Oct 2099 07:28:00 GMT"])
async def test_what_no_provider_means_is_not_waited_for(queue: BatchQueue, ask: Ask, after: str) -> None:
    """A `Retry-After` that is no number of seconds within a day counts as none, before and after the batch is made."""

    class Odd(Provider):
        def answer(self, method: str, path: str, body: bytes) -> Reply | str:
            reply = super().answer(method, path, body)
            asked = (method, path) in {("POST", "/v1/files"), ("GET", "/v1/batches/batch_0")}
            return (429, b"{}", {"retry-after": after}) if asked and self.count(method, path) == 1 else reply

    with Odd() as provider:
        (reply,) = await ask(queue, provider, "q")

    assert words(reply) == "re: q"


def test_looks_become_rarer() -> None:
    """Each wait for the next look is half as long again, up to the most, and as long as the provider asks for at least."""
    lane = Lane(provider="openai", base_url="http://a", endpoint="/v1/chat/completions", model="m", account="k")
    watch = Watch(job="j", lane=lane, due=0.0)
    pace = Pace(first=4.0, most=10.0, lease=1.0, settle=1.0)
    waits = []
    for _ in range(4):
        watch.wait(100.0, pace)
        waits.append(watch.due - 100.0)
    watch.wait(100.0, pace, at_least=60.0)

    assert waits == [4.0, 6.0, 9.0, 10.0]
    assert watch.due == 160.0


async def test_one_thread_looks_after_all_jobs(queue: BatchQueue, ask: Ask) -> None:
    """Three jobs of three models at once are looked after by one thread, and by no task of the caller's loop."""
    models = [f"m{n}" for n in range(3)]
    with Provider(lambda _: Told(status="in_progress")) as provider:
        asked = [asyncio.create_task(ask(queue, provider, "q", model=model)) for model in models]
        await until(lambda: len(provider.batches) == 3 and all(batch.looks for batch in provider.batches))
        threads = [thread for thread in threading.enumerate() if thread.name == "llm-costopt-batch"]
        provider.script = lambda batch: Told(output=[ok(row) for row in batch.rows])
        await asyncio.gather(*asked)

    assert len(provider.batches) == 3
    assert len(threads) == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("anthropic", [False, True])
async def test_a_create_that_timed_out_but_succeeded_is_found(queue: BatchQueue, ask: Ask, anthropic: bool) -> None:
    """When nobody hears that a batch was made, it is found by its mark, or by count and time, and not made again."""

    def intercept(method: str, path: str, nth: int) -> str | None:
        return "after" if method == "POST" and path.endswith("/batches") and nth == 1 else None

    with Provider(intercept=intercept) as provider:
        # Other batches of the account: one has as many rows, but is older.
        provider._create([{"params": {"messages": [{"content": "x"}], "model": "m"}}] * 2, "msgbatch")
        provider.batches[0].created -= 3600
        replies = await ask(queue, provider, "one", "two", anthropic=anthropic)

    assert [reply.status_code for reply in replies] == [200, 200]
    assert len(provider.batches) == 2


@pytest.mark.parametrize("anthropic", [False, True])
async def test_a_batch_that_is_listed_late_is_found(
    tmp_path: Path, soon: dict[str, Any], ask: Ask, anthropic: bool
) -> None:
    """A call that took longer than a batch takes to settle leaves it the same time after it: nothing is paid twice."""
    ahead = 0.0

    class Late(Provider):
        def answer(self, method: str, path: str, body: bytes) -> Reply | str:
            nonlocal ahead
            reply = super().answer(method, path, body)
            if not path.partition("?")[0].endswith("/batches"):
                return reply
            if method == "POST":
                ahead += 61.0
                return "after"
            return reply if self.count(method, path.partition("?")[0]) > 2 else (200, b'{"data": []}', {})

    clock = lambda: time.time() + ahead  # noqa: E731
    with (
        Late() as provider,
        BatchQueue(tmp_path / "jobs.db", **(soon | {"settle": 60.0, "lease": 120.0}), clock=clock) as queue,
    ):
        (reply,) = await ask(queue, provider, "q", anthropic=anthropic)

    assert reply.status_code == 200
    assert provider.paid() == {"q": 1}


@pytest.mark.parametrize("anthropic", [False, True])
async def test_a_list_of_batches_without_an_end_is_left(queue: BatchQueue, ask: Ask, anthropic: bool) -> None:
    """A server that gives the same page for ever is not asked for ever: the batch is made again, and the others go on."""

    class Round(Provider):
        def _list(self, _: str) -> Reply:
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) if anthropic else time.time()
            return 200, json.dumps({"data": [{"id": "x", "created_at": at}], "has_more": True}).encode(), {}

    lost = lambda method, path, nth: "drop" if method == "POST" and path.endswith("/batches") and nth == 1 else None  # noqa: E731
    with Round(intercept=lost) as provider:
        (reply,) = await ask(queue, provider, "q", anthropic=anthropic)

    assert reply.status_code == 200


@pytest.mark.parametrize("anthropic", [False, True])
async def test_a_create_that_never_arrived_is_made_again(queue: BatchQueue, ask: Ask, anthropic: bool) -> None:
    """When the call that makes a batch is lost, it is looked for in vain and made once."""

    def intercept(method: str, path: str, nth: int) -> str | None:
        return "drop" if method == "POST" and path.endswith("/batches") and nth == 1 else None

    with Provider(intercept=intercept) as provider:
        replies = await ask(queue, provider, "one", "two", anthropic=anthropic)

    assert [reply.status_code for reply in replies] == [200, 200]
    assert len(provider.batches) == 1


async def test_a_batch_that_only_looks_like_ours_is_not_taken_for_it(queue: BatchQueue, ask: Ask) -> None:
    """Anthropic: a batch of somebody else's with as many rows at the same time is told by its results, and ours is found."""

    def intercept(method: str, path: str, nth: int) -> str | None:
        if method == "POST" and path.endswith("/batches") and nth == 1:
            foreign = {"custom_id": "theirs", "params": {"model": "m", "messages": [{"content": "theirs"}]}}
            provider._create([foreign], "msgbatch")
            return "after"
        return None

    with Provider(intercept=intercept) as provider:
        (reply,) = await ask(queue, provider, "q", anthropic=True)

    assert reply.json()["content"][0]["text"] == "re: q"
    assert len(provider.batches) == 2


@pytest.mark.parametrize(
    ("line", "status", "name"),
    [
        ({"kind": "errored", "error": {"error": {"type": "authentication_error"}}}, 401, "authentication_error"),
        ({"kind": "errored", "error": {"type": "invalid_request", "message": "x"}}, 400, "invalid_request"),
        ({"kind": "canceled"}, 409, "api_error"),
        ({"kind": "something"}, 500, "api_error"),
    ],
)
async def test_anthropic_rows_fail_as_anthropic_says_it(
    queue: BatchQueue, ask: Ask, line: Json, status: int, name: str
) -> None:
    """Errored, cancelled and unknown rows of Anthropic are its HTTP errors; what was paid beside them is kept."""

    def script(batch: Batch) -> Told:
        return Told(
            status="ended",
            output=[
                result(r, **line) if t == "two" else result(r) for r, t in zip(batch.rows, batch.asked, strict=True)
            ],
        )

    with Provider(script) as provider:
        replies = await ask(queue, provider, "one", "two", anthropic=True)

    failed = next(reply for reply in replies if reply.status_code != 200)
    assert failed.status_code == status
    assert failed.json()["type"] == "error"
    assert failed.json()["error"]["type"] == name


@pytest.mark.parametrize(
    ("said", "status", "message"),
    [
        ({"response": "oops"}, 502, "cannot be read"),
        ({"response": ["oops"]}, 502, "cannot be read"),
        ({"response": {"status_code": "fine", "body": {}}}, 502, "cannot be read"),
        ({"response": {"status_code": 200, "body": {"error": {"message": "inside"}}}}, 502, "inside"),
        ({"response": None, "error": "in words"}, 500, "in words"),
        ({"result": {"type": "errored", "error": "in words"}}, 500, "in words"),
        ({"result": {"type": "errored", "error": {"error": "in words"}}}, 500, "in words"),
        ({"result": {"type": "errored", "error": ["oops"]}}, 502, "cannot be read"),
    ],
)
async def test_a_row_that_makes_no_sense_keeps_no_answer_back(
    queue: BatchQueue, ask: Ask, said: Json, status: int, message: str
) -> None:
    """One row that cannot be read is an error for its own caller; all the others, paid as well, are given out."""
    anthropic = "result" in said

    def script(batch: Batch) -> Told:
        good = result if anthropic else ok
        rows = [
            {"custom_id": r["custom_id"], **said} if "bad" in batch.asked[n] else good(r)
            for n, r in enumerate(batch.rows)
        ]
        return Told(status="ended" if anthropic else "completed", output=rows)

    with Provider(script) as provider:
        bad, good = await ask(queue, provider, "bad", "good", anthropic=anthropic)

    assert (bad.status_code, good.status_code) == (status, 200)
    assert message in bad.text


async def test_a_message_whose_usage_makes_no_sense_is_an_answer(queue: BatchQueue, ask: Ask) -> None:
    """The answer is there whatever stands where its tokens should."""
    script = lambda batch: Told(  # noqa: E731
        status="ended", output=[result(r, message={**message(r), "usage": "many"}) for r in batch.rows]
    )
    with Provider(script) as provider:
        (reply,) = await ask(queue, provider, "q", anthropic=True)

    assert reply.json()["content"][0]["text"] == "re: q"


@pytest.mark.parametrize("errors", ["text", ["text"], {"data": "text"}, {"data": ["text"]}])
async def test_a_batch_refused_for_no_reason_that_can_be_read_fails_everybody(
    queue: BatchQueue, ask: Ask, errors: Any
) -> None:
    """Whatever stands where the reasons should, callers are told that the batch was refused."""
    script = lambda _: Told(status="failed", more={"errors": errors, "request_counts": "none"})  # noqa: E731
    with Provider(script) as provider:
        (reply,) = await ask(queue, provider, "q")

    assert (reply.status_code, "refused the batch" in reply.text) == (400, True)


async def test_anthropic_rows_that_expired_go_again(queue: BatchQueue, ask: Ask) -> None:
    """A row that Anthropic did not get to in 24 hours goes into the next batch."""

    def script(batch: Batch) -> Told:
        return Told(
            status="ended",
            output=[result(r, "expired" if batch.id.endswith("_0") else "succeeded") for r in batch.rows],
        )

    with Provider(script) as provider:
        (reply,) = await ask(queue, provider, "q", anthropic=True)

    assert reply.status_code == 200
    assert len(provider.batches) == 2


async def test_results_after_their_time_are_lost_and_stored_ones_are_not(
    tmp_path: Path, soon: dict[str, Any], ask: Ask
) -> None:
    """Rows are in our file as soon as they are seen; what was not read before the provider deleted it is a plain error."""
    gone = False
    intercept = lambda method, path, _n: 404 if gone and method == "GET" and "/files/" in path else None  # noqa: E731
    with Provider(intercept=intercept) as provider:
        with BatchQueue(tmp_path / "jobs.db", **soon) as queue:
            await ask(queue, provider, "kept")
            queue.close(finished=False)
        gone = True
        with BatchQueue(tmp_path / "jobs.db", **soon) as queue:
            kept, lost = await ask(queue, provider, "kept", "lost")

    assert words(kept) == "re: kept"
    assert lost.status_code == 502


async def test_input_files_are_deleted(queue: BatchQueue, ask: Ask) -> None:
    """When a batch is read, the file that was uploaded for it is gone; that it cannot be deleted harms nobody."""
    fail = lambda method, _p, _n: 500 if method == "DELETE" and "file-1" in _p else None  # noqa: E731
    with Provider(intercept=fail) as provider:
        await ask(queue, provider, "one")
        (reply,) = await ask(queue, provider, "two")

    assert words(reply) == "re: two"
    assert "file-0" not in provider.files


@pytest.mark.parametrize(("fault", "status"), [(400, 400), (429, 200), ("drop", 200)])
async def test_the_input_file_of_a_batch_that_was_not_made_is_deleted(
    queue: BatchQueue, ask: Ask, fault: int | str, status: int
) -> None:
    """Where the provider refuses to make a batch, or was never asked to, the file that was uploaded for it goes, too."""

    def intercept(method: str, path: str, nth: int) -> int | str | None:
        create = (method, path) == ("POST", "/v1/batches") and nth == 1
        failing = method == "DELETE" and nth == 1 and fault == 400  # as the deletion of the refused one's file may
        return fault if create else 500 if failing else None

    with Provider(intercept=intercept) as provider:
        (reply,) = await ask(queue, provider, "q")
        await rest()

    assert reply.status_code == status
    assert provider.count("DELETE", "/v1/files/file-0") == 1
    assert "file-0" not in provider.files or fault == 400


async def test_the_input_file_of_a_job_that_was_taken_over_is_deleted(
    tmp_path: Path, soon: dict[str, Any], ask: Ask
) -> None:
    """Where another program takes a job over while its file is being uploaded, nobody makes a batch of that file, and it goes."""

    def intercept(_method: str, path: str, nth: int) -> None:
        if path == "/v1/files" and nth == 1:
            other = sqlite3.connect(tmp_path / "jobs.db")
            with other:
                other.execute("UPDATE jobs SET owner = 'another'")
            other.close()

    with BatchQueue(tmp_path / "jobs.db", **soon) as queue, Provider(intercept=intercept) as provider:
        (reply,) = await ask(queue, provider, "q")
        await rest()

    assert words(reply) == "re: q"
    assert provider.paid() == {"q": 1}
    assert provider.files.keys() == {"out-batch_0"}


async def test_equal_requests_each_get_a_row(queue: BatchQueue, ask: Ask) -> None:
    """A question asked three times at once and once more later is four samples, each paid."""
    with Provider() as provider:
        await ask(queue, provider, "q", "q", "q")
        await ask(queue, provider, "q")

    assert provider.paid() == {"q": 4}


async def test_a_broken_look_does_not_keep_others_waiting(queue: BatchQueue, ask: Ask) -> None:
    """An answer that no provider should give about one batch leaves the other to end."""
    script = lambda batch: (  # noqa: E731
        Told(more={"request_counts": {"completed": "many"}})
        if "bad" in batch.asked and batch.looks < 4
        else Told(output=[ok(row) for row in batch.rows])
    )
    with Provider(script) as provider:
        (one,), (two,) = await asyncio.gather(
            ask(queue, provider, "bad", seed=1), ask(queue, provider, "good", model="other")
        )

    assert [words(one), words(two)] == ["re: bad", "re: good"]
