"""Hold the batch queue against AIBrix's batch service, which somebody else wrote: `python scripts/contract_aibrix.py AIBRIX_PYTHON`.

AIBRIX_PYTHON is the interpreter of an environment of its own with `aibrix==0.8.0`. The service runs on loopback in its
dry-run mode, with an engine of ours in place of its echo: it answers with `re: ` and the question, slowly, and refuses
what is `bad`. Checked are a whole batch, a partial failure, a cancelled batch with partial results and one that expires.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

from llm_costopt import AsyncBatchTransport, BatchQueue
from llm_costopt.batch.openai import OpenAIBatches

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


async def ask(queue: BatchQueue, url: str, texts: list[str]) -> list[httpx2.Response]:
    """Ask all questions at once."""
    async with httpx2.AsyncClient(transport=AsyncBatchTransport(queue), timeout=None) as http:

        async def one(text: str) -> httpx2.Response:
            body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text}]}
            return await http.post(f"{url}/v1/chat/completions", json=body)

        return list(await asyncio.gather(*(one(text) for text in texts)))


def wait_for_progress(queue: BatchQueue) -> str | None:
    """Wait until some rows of a running batch are through; returns the service's name for it."""
    while True:
        for job in queue._store.jobs():
            if job.state == "running" and queue._store.through(job.id):
                return job.remote
        time.sleep(0.2)


def by_status(replies: list[httpx2.Response]) -> dict[int, int]:
    """Count replies by HTTP status."""
    return dict(Counter(reply.status_code for reply in replies))


async def check(url: str, folder: str) -> None:
    """Run all checks."""
    with BatchQueue(Path(folder, "jobs.db"), gather=0.5, poll=(0.5, 1.0), retries=0, job="contract") as queue:
        texts = [f"q{n}" for n in range(20)]
        replies = await ask(queue, url, texts)
        assert [r.json()["choices"][0]["message"]["content"] for r in replies] == [f"re: {t}" for t in texts], replies
        print("a whole batch:", by_status(replies))

        replies = await ask(queue, url, ["one", "bad 1", "two", "bad 2", "three"])
        print("a partial failure:", by_status(replies), replies[1].text[:200])
        # AIBrix tells of the engine's 400 in words only, under a code of its own, so it is no 400 for the caller.
        assert by_status(replies) == {200: 3, 500: 2}

        Engine.delay = 0.5
        task = asyncio.create_task(ask(queue, url, [f"slow {n}" for n in range(60)]))
        running = await asyncio.to_thread(wait_for_progress, queue)
        async with httpx2.AsyncClient() as http:
            await http.post(f"{url}/v1/batches/{running}/cancel")
        replies = await task
        print("a cancelled batch:", by_status(replies))
        assert set(by_status(replies)) == {200, 409}

        Engine.delay = 4.0
        OpenAIBatches.window = "1m"
        replies = await ask(queue, url, [f"late {n}" for n in range(2000)])
        print("an expired batch:", by_status(replies))
        assert set(by_status(replies)) == {200, 504}
        print("statuses seen at the end:", [job.status for job in queue._store.jobs()], queue.stats().rows)


def main() -> None:
    """Start the service and the engine, check, and stop both."""
    engine = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=engine.serve_forever, daemon=True).start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        engine_url = f"http://127.0.0.1:{engine.server_address[1]}"
        command = [sys.argv[1], "-c", LAUNCH, engine_url, "--host", "127.0.0.1", "--port", str(port), "--dry-run"]
        with Path(folder, "log").open("wb") as log:
            service = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": ""}
            )
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(120):
                time.sleep(0.5)
                try:
                    httpx2.get(f"{url}/v1/batches")
                    break
                except httpx2.TransportError:
                    continue
            asyncio.run(check(url, folder))
        except BaseException:
            print(Path(folder, "log").read_text()[-3000:], file=sys.stderr)
            raise
        finally:
            service.terminate()
            service.wait()


if __name__ == "__main__":
    main()
