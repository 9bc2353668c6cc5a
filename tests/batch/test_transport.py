"""The transports behind real SDKs and a real server: `llmock` and, for what it does not offer, a scripted one."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest
from llmock.pytest_plugin import LLMock
from llmock.routers import batch as llmock_batches
from openai import AsyncOpenAI, OpenAI

from llm_costopt.batch.queue import BatchQueue
from llm_costopt.batch.transport import AsyncBatchTransport, BatchTransport
from tests.batch.conftest import until
from tests.batch_provider import Batch, Provider, Told, chat, ok, result


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llmock_batches, "_BATCH_DELAY", 0.1)


async def ask(client: AsyncOpenAI, text: str, **more: Any) -> str | None:
    """Ask one question."""
    reply = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": text}], **more
    )
    return reply.choices[0].message.content  # type: ignore[no-any-return]


def client_of(queue: BatchQueue, url: str, library: Any = httpx, **more: Any) -> AsyncOpenAI:
    """Make OpenAI's client with the transport in it."""
    http = library.AsyncClient(transport=AsyncBatchTransport(queue))
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-secret", http_client=http, **more)


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_many_requests_become_one_batch(queue: BatchQueue, llmock: LLMock, library: Any) -> None:
    """With either HTTP library, requests made at once travel as one batch, and each gets an answer."""
    client = client_of(queue, llmock.url, library)
    answers = await asyncio.gather(*(ask(client, f"question {n}") for n in range(50)))

    assert all(answers)
    made = [r for r in llmock.requests if r.path == "/v1/batches" and r.method == "POST"]
    assert len(made) == 1
    assert not [r for r in llmock.requests if r.path.endswith("/chat/completions")]


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_waiting_requests_share_what_is_equal(queue: BatchQueue, library: Any) -> None:
    """Requests to one URL hold it once while they wait; each keeps its own body, and headers that only it changes."""
    with Provider() as provider:
        async with library.AsyncClient(transport=AsyncBatchTransport(queue)) as http:

            async def one(text: str, trace: str) -> Any:
                body = {"model": "m", "messages": [{"role": "user", "content": text}]}
                url = f"{provider.url}/v1/chat/completions?n=1"
                return (await http.post(url, json=body, headers={"X-Trace": trace})).request

            first, second, other = await asyncio.gather(one("q1", "same"), one("q2", "same"), one("q3", "other"))

    assert first.url is second.url
    assert str(first.url) == str(other.url) == f"{provider.url}/v1/chat/completions?n=1"
    assert [b'"q%d"' % n in request.content for n, request in enumerate((first, second, other), 1)] == [True] * 3
    assert first.headers == second.headers
    assert other.headers["x-trace"] == "other"
    first.headers["x-trace"] = "changed"
    assert second.headers["x-trace"] == "same"


async def test_headers_that_always_differ_do_not_add_up(queue: BatchQueue) -> None:
    """A program that gives every request headers of its own is answered, and the transport lets go of old ones."""
    with Provider() as provider:
        async with httpx.AsyncClient(transport=AsyncBatchTransport(queue)) as http:
            kept: list[weakref.ref[httpx.URL]] = []

            async def one(n: int) -> str:
                body = {"model": "m", "messages": [{"role": "user", "content": f"q{n}"}]}
                url = httpx.URL(f"{provider.url}/v1/chat/completions?n={n}")
                reply = await http.post(url, json=body)
                kept.append(weakref.ref(reply.request.url))
                return str(reply.json()["choices"][0]["message"]["content"])

            answers = await asyncio.gather(*(one(n) for n in range(300)))
            gc.collect()

            assert answers == [f"re: q{n}" for n in range(300)]
            assert sum(ref() is not None for ref in kept) <= 100


async def test_rows_in_any_order_reach_whoever_asked(queue: BatchQueue) -> None:
    """Results come back in reverse order and in both files, and every caller gets the answer to its own question."""

    def script(batch: Batch) -> Told:
        lines = [ok(row) for row in reversed(batch.rows)]
        return Told(output=lines[::2], errors=lines[1::2])

    with Provider(script) as provider:
        client = client_of(queue, provider.url)
        answers = await asyncio.gather(*(ask(client, f"q{n}") for n in range(30)))

    assert answers == [f"re: q{n}" for n in range(30)]


def test_blocking_callers_share_a_batch(queue: BatchQueue) -> None:
    """Threads that block on the blocking transport travel together."""
    with Provider() as provider, httpx.Client(transport=BatchTransport(queue)) as http:
        client = OpenAI(base_url=f"{provider.url}/v1", api_key="k", http_client=http)

        def one(n: int) -> str | None:
            said = client.chat.completions.create(model="m", messages=[{"role": "user", "content": f"q{n}"}])
            return said.choices[0].message.content

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(one, range(8)))

    assert answers == [f"re: q{n}" for n in range(8)]
    assert len(provider.batches) == 1


@pytest.mark.parametrize("mode", ["off", "observe"])
async def test_the_kill_switch_asks_in_real_time(
    queue: BatchQueue, llmock: LLMock, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """With `LLM_COSTOPT=off` both transports pass chat requests through at once; without it they travel as rows again."""
    monkeypatch.setenv("LLM_COSTOPT", mode)
    client = client_of(queue, llmock.url)
    with httpx.Client(transport=BatchTransport(queue)) as http:
        blocking = OpenAI(base_url=f"{llmock.url}/v1", api_key="k", http_client=http)
        said = blocking.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "at once"}])
    assert said.choices[0].message.content
    assert await ask(client, "now")
    assert [r.path for r in llmock.requests] == ["/v1/chat/completions"] * 2
    assert queue.stats().rows == {}

    monkeypatch.delenv("LLM_COSTOPT")
    assert await ask(client, "later")
    assert [r.path for r in llmock.requests if r.path.endswith("/batches") and r.method == "POST"]


def test_two_event_loops_share_a_queue(queue: BatchQueue) -> None:
    """Callers in two event loops each get their answer in their own loop."""
    found: dict[int, str | None] = {}
    with Provider() as provider:

        def run(n: int) -> None:
            found[n] = asyncio.run(ask(client_of(queue, provider.url), f"q{n}"))

        threads = [threading.Thread(target=run, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert found == {0: "re: q0", 1: "re: q1"}


async def test_new_requests_are_taken_in_while_a_batch_runs(queue: BatchQueue) -> None:
    """A batch that is under way holds nobody up: it ends only after a second one has come in."""
    with Provider() as provider:
        provider.script = lambda batch: (
            Told(output=[ok(row) for row in batch.rows]) if len(provider.batches) > 1 else Told(status="in_progress")
        )
        client = client_of(queue, provider.url)
        first = asyncio.create_task(ask(client, "first"))
        await until(lambda: provider.batches)
        second = await ask(client, "second")

        assert [await first, second] == ["re: first", "re: second"]


async def test_a_trickle_does_not_hold_up_the_first(tmp_path: Path, soon: dict[str, Any]) -> None:
    """However long a quiet moment is waited for, a batch is sent when its oldest request has waited long enough."""
    with (
        BatchQueue(tmp_path / "jobs.db", **(soon | {"gather": 3600.0, "max_wait": 0.1})) as queue,
        Provider() as provider,
    ):
        assert await ask(client_of(queue, provider.url), "q") == "re: q"


async def test_everything_else_passes_through(queue: BatchQueue, llmock: LLMock) -> None:
    """Embeddings and models are answered by the real-time API, through the same client."""
    client = client_of(queue, llmock.url)
    vectors = await client.embeddings.create(model="text-embedding-3-small", input=["a"])

    assert vectors.data
    assert queue.stats().rows == {}


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_what_passes_through_goes_by_the_proxy(
    queue: BatchQueue, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxies of the environment hold for what is no row of a batch, as they do without us."""
    url = "http://nowhere.invalid/v1/models"
    with Provider() as provider:
        monkeypatch.setenv("HTTP_PROXY", provider.url)
        async with library.AsyncClient(transport=AsyncBatchTransport(queue)) as http:
            await http.get(url)
        with library.Client(transport=BatchTransport(queue)) as http:
            http.get(url)

    assert provider.calls == [("GET", url), ("GET", url)]


async def test_blocking_requests_pass_through(queue: BatchQueue, llmock: LLMock) -> None:
    """The blocking transport, too, lets embeddings pass."""
    with httpx2.Client(transport=BatchTransport(queue)) as http:
        reply = http.post(f"{llmock.url}/v1/embeddings", json={"model": "text-embedding-3-small", "input": ["a"]})

    assert reply.json()["data"]


@pytest.mark.parametrize("body", [b"not JSON", b"[1]"])
def test_what_is_no_request_passes_through(queue: BatchQueue, body: bytes) -> None:
    """A body that is no JSON object is for the provider to judge."""
    with Provider(intercept=lambda *_: 422) as provider, httpx.Client(transport=BatchTransport(queue)) as http:
        assert http.post(f"{provider.url}/v1/chat/completions", content=body).status_code == 422


async def test_streaming_is_refused(queue: BatchQueue) -> None:
    """A streaming request fails at once, with a sentence that says what to do."""
    with Provider() as provider:
        client = client_of(queue, provider.url)
        with pytest.raises(openai.BadRequestError, match="cannot stream: call invoke, ainvoke, batch or abatch"):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "q"}], stream=True)

        assert provider.calls == []


def test_blocking_streaming_is_refused(queue: BatchQueue) -> None:
    """The blocking transport refuses a stream as well."""
    with httpx.Client(transport=BatchTransport(queue)) as http:
        reply = http.post("http://127.0.0.1:9/v1/messages", json={"model": "m", "stream": True})

    assert reply.status_code == 400
    assert "cannot stream" in reply.json()["error"]["message"]


async def test_azure_is_refused(queue: BatchQueue) -> None:
    """Azure has a Batch API of another shape: it is refused in so many words instead of being paid in full."""
    async with httpx.AsyncClient(transport=AsyncBatchTransport(queue)) as http:
        reply = await http.post("http://a/openai/deployments/d/chat/completions?api-version=1", json={"model": "m"})

    assert "Azure's Batch API is not supported yet" in reply.json()["error"]["message"]


async def test_all_parameters_travel(queue: BatchQueue) -> None:
    """What the SDK sends is what the row holds: nothing is picked by hand, and only `stream` is left out."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    sent: dict[str, Any] = {
        "reasoning_effort": "low",
        "max_completion_tokens": 7,
        "logprobs": True,
        "n": 2,
        "seed": 3,
        "tools": [tool],
        "response_format": {"type": "json_object"},
        "stream": False,
    }
    with Provider() as provider:
        await ask(client_of(queue, provider.url), "é\u2028ü", **sent)
        row = provider.batches[0].rows[0]

    del sent["stream"]
    assert row["body"] == {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "é\u2028ü"}], **sent}
    assert (row["method"], row["url"]) == ("POST", "/v1/chat/completions")


async def test_tools_logprobs_and_odd_characters_come_back(queue: BatchQueue) -> None:
    """An answer with tool calls, log probabilities and a line separator inside a string arrives whole."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    probs = {"content": [{"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}

    def script(batch: Batch) -> Told:
        return Told(
            output=[ok(r, chat(r, {"content": "a\u2028b", "tool_calls": [call]}, logprobs=probs)) for r in batch.rows]
        )

    with Provider(script) as provider:
        said = await client_of(queue, provider.url).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "q"}]
        )

    choice = said.choices[0]
    assert choice.message.content == "a\u2028b"
    assert choice.message.tool_calls is not None
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert choice.logprobs.content[0].logprob == -0.5
    assert said.service_tier == "batch"  # type: ignore[comparison-overlap]


async def test_the_responses_api_travels_too(queue: BatchQueue) -> None:
    """Requests of OpenAI's Responses API are rows of their own endpoint."""

    def script(batch: Batch) -> Told:
        body = {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": "m",
            "output": [],
            "status": "completed",
        }
        return Told(output=[ok(row, body) for row in batch.rows])

    with Provider(script) as provider:
        said = await client_of(queue, provider.url).responses.create(
            model="m", input=[{"role": "user", "content": "q"}]
        )

    assert said.id == "resp_1"
    assert provider.batches[0].rows[0]["url"] == "/v1/responses"


async def test_what_cannot_travel_together_is_parted(queue: BatchQueue) -> None:
    """Requests of two models, of two keys or of two endpoints are not put into one batch."""
    with Provider() as provider:
        one, other = client_of(queue, provider.url), client_of(queue, provider.url).with_options(api_key="sk-other")

        async def say(client: AsyncOpenAI, model: str) -> None:
            await client.chat.completions.create(model=model, messages=[{"role": "user", "content": "q"}])

        async def respond() -> None:
            with suppress(openai.APIError, ValueError):  # it is answered as a chat, which is no matter here
                await one.responses.create(model="b", input=[{"role": "user", "content": "q"}])

        await asyncio.gather(say(one, "a"), say(one, "b"), say(one, "b"), say(other, "b"), respond())

    assert sorted(len(batch.rows) for batch in provider.batches) == [1, 1, 1, 2]
    assert all(len({(row["url"], row["body"]["model"]) for row in batch.rows}) == 1 for batch in provider.batches)


async def test_anthropic_answers(queue: BatchQueue) -> None:
    """Anthropic's messages travel as one batch of theirs, with the version and the key of the request."""
    with Provider() as provider:
        provider.script = lambda batch: Told(status="ended", output=[result(row) for row in reversed(batch.rows)])
        async with httpx2.AsyncClient(transport=AsyncBatchTransport(queue)) as http:

            async def say(text: str) -> Any:
                body = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": text}]}
                headers = {"x-api-key": "sk-ant", "anthropic-version": "2023-06-01"}
                return (await http.post(f"{provider.url}/v1/messages", json=body, headers=headers)).json()

            said = await asyncio.gather(*(say(f"q{n}") for n in range(5)))

    assert [m["content"][0]["text"] for m in said] == [f"re: q{n}" for n in range(5)]
    assert said[0]["usage"]["service_tier"] == "batch"
    assert len(provider.batches) == 1
    assert all(h["x-api-key"] == "sk-ant" and h["anthropic-version"] == "2023-06-01" for h in provider.headers)


def test_the_anthropic_sdk_works_unchanged(queue: BatchQueue) -> None:
    """`anthropic.Anthropic(http_client=…)` and its async twin get their messages, and its own errors."""
    anthropic = pytest.importorskip("anthropic")

    def script(batch: Batch) -> Told:
        bad = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
        return Told(
            status="ended",
            output=[
                result(r, "errored", error=bad) if t == "bad" else result(r)
                for r, t in zip(batch.rows, batch.asked, strict=True)
            ],
        )

    with Provider(script) as provider:
        options: dict[str, Any] = {"api_key": "k", "base_url": provider.url}
        asked: Callable[[str], dict[str, Any]] = lambda text: {  # noqa: E731
            "model": "claude-haiku-4-5",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": text}],
        }

        async def both() -> Any:
            client = anthropic.AsyncAnthropic(
                http_client=httpx2.AsyncClient(transport=AsyncBatchTransport(queue)), **options
            )
            return await asyncio.gather(
                client.messages.create(**asked("q")), client.messages.create(**asked("bad")), return_exceptions=True
            )

        good, bad = asyncio.run(both())
        blocking = anthropic.Anthropic(http_client=httpx2.Client(transport=BatchTransport(queue)), **options)

        assert good.content[0].text == "re: q"
        assert type(bad) is anthropic.BadRequestError
        assert blocking.messages.create(**asked("sync")).content[0].text == "re: sync"
        assert len(provider.batches) == 2


async def test_llama_index_works_unchanged(queue: BatchQueue, llmock: LLMock) -> None:
    """LlamaIndex's `OpenAI(async_http_client=…)` is answered from a batch."""
    llm = pytest.importorskip("llama_index.llms.openai").OpenAI(
        model="gpt-4o-mini",
        api_base=f"{llmock.url}/v1",
        api_key="k",
        async_http_client=httpx.AsyncClient(transport=AsyncBatchTransport(queue)),
    )
    said = await asyncio.gather(llm.acomplete("one"), llm.acomplete("two"))

    assert all(s.text for s in said)
    assert [r.path for r in llmock.requests].count("/v1/batches") == 1
    assert queue.stats().rows == {"succeeded": 2}


def test_a_transport_with_a_path_owns_its_queue(tmp_path: Path) -> None:
    """Given a path, the transport opens the file and closes it with the client."""
    with httpx.Client(transport=BatchTransport(tmp_path / "jobs.db")) as http:
        assert http.post("http://a/v1/messages", json={"stream": True}).status_code == 400

    with pytest.raises(ValueError, match="make another one for the same path"):
        http._transport.handle_request(httpx.Request("POST", "http://a/v1/messages", json={"model": "m"}))
