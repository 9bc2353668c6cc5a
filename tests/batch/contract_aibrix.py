"""The batch queue against AIBrix's batch service, which somebody else wrote: `scripts/test-aibrix` runs this, the test suite does not.

The service runs on loopback in its dry-run mode, with an engine of ours in place of its echo: it answers with `re: ` and the
question, slowly where a test says so, and refuses what is `bad`.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llm_costopt import AsyncBatchTransport, BatchQueue
from llm_costopt.batch.openai import OpenAIBatches
from tests.batch.conftest import rest

LAUNCH = """
import sys
from aibrix.batch.client import GatewayEndpointSource
from aibrix.metadata import app
engine = sys.argv.pop(1)
app.NoopEndpointSource = lambda: GatewayEndpointSource(engine)
app.main()
"""


class Engine(BaseHTTPRequestHandler):
    """Answers chat requests."""

    delay = 0.0

    def do_POST(self) -> None:
        """Answer one."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = body["messages"][-1]["content"]
        time.sleep(self.delay)
        said = {"role": "assistant", "content": f"re: {text}"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        choices = [{"index": 0, "message": said, "finish_reason": "stop"}]
        good = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}
        bad = {"error": {"message": "this is bad", "type": "invalid_request_error", "code": None, "param": None}}
        content = json.dumps(bad if text.startswith("bad") else good).encode()
        self.send_response(400 if text.startswith("bad") else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start the engine and the service; gives the service's address."""
    folder = tmp_path_factory.mktemp("aibrix")
    engine = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=engine.serve_forever, daemon=True).start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine_url = f"http://127.0.0.1:{engine.server_address[1]}"
    command = [os.environ["AIBRIX_PYTHON"], "-c", LAUNCH, engine_url, "--host", "127.0.0.1", "--port", str(port)]
    with Path(folder, "log").open("wb") as log:
        service = subprocess.Popen(
            [*command, "--dry-run"], cwd=folder, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": ""}
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/v1/batches", service)
        yield f"http://127.0.0.1:{port}"
    finally:
        service.terminate()
        service.wait()
        engine.shutdown()
        engine.server_close()
        sys.stdout.write(Path(folder, "log").read_text()[-3000:])  # pytest shows it if a test fails


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[BatchQueue]:
    """Open a queue that does not dawdle, and sends nothing twice."""
    with BatchQueue(tmp_path / "jobs.db", gather=0.5, poll=(0.5, 1.0), retries=0) as queue:
        yield queue


async def ask(queue: BatchQueue, url: str, texts: list[str]) -> list[httpx2.Response]:
    """Ask all questions at once."""
    async with httpx2.AsyncClient(transport=AsyncBatchTransport(queue), timeout=None) as http:

        async def one(text: str) -> httpx2.Response:
            body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text}]}
            return await http.post(f"{url}/v1/chat/completions", json=body)

        return list(await asyncio.gather(*(one(text) for text in texts)))


def by_status(replies: list[httpx2.Response]) -> dict[int, int]:
    """Count replies by HTTP status, and check that each answer is that of its own question."""
    for reply in replies:
        if reply.status_code == 200:
            asked = json.loads(reply.request.content)["messages"][-1]["content"]
            assert reply.json()["choices"][0]["message"]["content"] == f"re: {asked}"
    return dict(Counter(reply.status_code for reply in replies))


async def test_a_whole_batch(queue: BatchQueue, url: str) -> None:
    """Twenty questions are one batch, and each has its own answer."""
    assert by_status(await ask(queue, url, [f"q{n}" for n in range(20)])) == {200: 20}
    await rest()
    assert queue.stats().jobs == {"done": 1}


async def test_a_partial_failure(queue: BatchQueue, url: str) -> None:
    """Two rows that the engine refuses fail their own callers, and the other three are answered."""
    replies = await ask(queue, url, ["one", "bad 1", "two", "bad 2", "three"])

    # AIBrix tells of the engine's 400 in words only, under a code of its own, so it is no 400 for the caller.
    assert [reply.status_code for reply in replies] == [200, 500, 200, 500, 200]
    assert by_status(replies) == {200: 3, 500: 2}
    assert "HTTP 400" in replies[1].json()["error"]["message"]


async def test_a_cancelled_batch(queue: BatchQueue, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were done before somebody else cancelled the batch are given out, and the others are HTTP 409."""
    monkeypatch.setattr(Engine, "delay", 0.5)
    asked = asyncio.create_task(ask(queue, url, [f"slow {n}" for n in range(60)]))
    running = await asyncio.to_thread(_in_the_middle, url)
    async with httpx2.AsyncClient() as http:
        await http.post(f"{url}/v1/batches/{running}/cancel")
    counts = by_status(await asked)

    assert set(counts) == {200, 409}
    assert queue.stats().rows == {"succeeded": counts[200], "cancelled": counts[409]}


async def test_an_expired_batch(queue: BatchQueue, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were done when the time of the batch was over are given out, and the others are HTTP 504."""
    monkeypatch.setattr(Engine, "delay", 4.0)
    monkeypatch.setattr(OpenAIBatches, "window", "1m")  # OpenAI takes 24 hours only, and so does a queue
    counts = by_status(await ask(queue, url, [f"late {n}" for n in range(2000)]))

    assert set(counts) == {200, 504}
    assert queue.stats().rows == {"succeeded": counts[200], "expired": counts[504]}


def _wait_for(url: str, service: "subprocess.Popen[bytes]") -> None:
    while service.poll() is None:
        try:
            httpx2.get(url)
        except httpx2.TransportError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError("the service did not start")


def _in_the_middle(url: str) -> str:
    """Wait until some rows of the latest batch are through; returns the service's name for it."""
    while True:
        for batch in httpx2.get(f"{url}/v1/batches").json()["data"]:
            if batch["status"] == "in_progress" and (batch["request_counts"] or {}).get("completed"):
                return str(batch["id"])
        time.sleep(0.2)
