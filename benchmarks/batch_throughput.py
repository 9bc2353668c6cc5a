"""How long does it take to submit very many requests as one batch, and how much memory?

    python benchmarks/batch_throughput.py [--requests 50000] [--runs 3] [--ways httpx sdk langchain langasync …] [--json]

Each way asks the same short questions in a process of its own, of the tests' scripted provider on loopback:
`httpx` through the transport alone, `sdk` through `openai.AsyncOpenAI`, `langchain` through `use_batch_api(ChatOpenAI).abatch`,
`langasync` through that peer's `batch_chain(...).submit` (one job as well; it keeps nobody waiting, and needs a second call
for the results). Time to submit is from the start to the creation of the last batch, and includes imports and the 2 s for which a queue
waits for further requests; memory is the peak of the process until all answers are there. `httpx-alone`, `sdk-alone` and
`langchain-alone` are the same callers without us: a transport that holds every request until all are there, and answers.
What it shows is the price of that many tasks that wait at once; the difference is ours.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.batch_provider import Provider, chat  # noqa: E402

WAYS = ("httpx", "httpx-alone", "sdk", "sdk-alone", "langchain", "langchain-alone", "langasync")


class Hold:
    """Answer by itself once *requests* requests wait."""

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._waiting: list[tuple[asyncio.Future[bytes], bytes]] = []

    async def handle_async_request(self, request: Any) -> Any:
        """Wait until all are there."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((future, await request.aread()))
        if len(self._waiting) == self._requests:
            for waiting, asked in self._waiting:
                waiting.set_result(json.dumps(chat({"body": json.loads(asked)})).encode())
            self._waiting.clear()
        told = {"content": await future, "headers": {"content-type": "application/json"}}
        return import_module(type(request).__module__.partition(".")[0]).Response(200, request=request, **told)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    aclose = __aexit__


@contextmanager
def transport(file: str, requests: int, *, alone: bool) -> Iterator[Any]:
    """Give what answers: ours, or one that shows what all the rest takes."""
    if alone:
        yield Hold(requests)
        return
    from llm_costopt import AsyncBatchTransport, BatchQueue

    with BatchQueue(file, poll=(0.5, 1.0)) as queue:
        yield AsyncBatchTransport(queue)


async def by_httpx(url: str, file: str, requests: int, *, alone: bool) -> None:
    """Ask with httpx2 alone."""
    import httpx2

    with transport(file, requests, alone=alone) as answers:
        async with httpx2.AsyncClient(transport=answers, timeout=None) as http:

            async def one(n: int) -> None:
                body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"What is {n} and why?"}]}
                (await http.post(f"{url}/v1/chat/completions", json=body)).raise_for_status()

            await asyncio.gather(*(one(n) for n in range(requests)))


async def by_sdk(url: str, file: str, requests: int, *, alone: bool) -> None:
    """Ask with OpenAI's SDK."""
    import openai

    with transport(file, requests, alone=alone) as answers:
        http = openai.DefaultAsyncHttpxClient(transport=answers)
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", http_client=http)

        async def one(n: int) -> None:
            said: list[Any] = [{"role": "user", "content": f"What is {n} and why?"}]
            await client.chat.completions.create(model="gpt-4o-mini", messages=said)

        await asyncio.gather(*(one(n) for n in range(requests)))


async def by_langchain(url: str, file: str, requests: int, *, alone: bool) -> None:
    """Ask with LangChain."""
    import openai
    from langchain_openai import ChatOpenAI

    from langchain_costopt import use_batch_api
    from llm_costopt import BatchQueue

    questions = [f"What is {n} and why?" for n in range(requests)]
    if alone:
        http = openai.DefaultAsyncHttpxClient(transport=Hold(requests))
        model = ChatOpenAI(model="gpt-4o-mini", base_url=f"{url}/v1", api_key="k", http_async_client=http)
        await model.abatch(questions)
        return
    with BatchQueue(file, poll=(0.5, 1.0)) as queue:
        model = use_batch_api(ChatOpenAI(model="gpt-4o-mini", base_url=f"{url}/v1", api_key="k"), queue)
        await model.abatch(questions)


async def by_langasync(url: str, file: str, requests: int, *, alone: bool) -> None:  # noqa: ARG001
    """Submit with langasync, and fetch once."""
    from langasync import LangasyncSettings, batch_chain
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_openai import ChatOpenAI

    settings = LangasyncSettings(OPENAI_API_KEY="k", OPENAI_BASE_URL=f"{url}/v1", LANGASYNC_BASE_STORAGE_PATH=file)
    chain = ChatPromptTemplate.from_template("{text}") | ChatOpenAI(
        model="gpt-4o-mini", base_url=f"{url}/v1", api_key="k"
    )
    job = await batch_chain(chain, settings).submit([{"text": f"What is {n} and why?"} for n in range(requests)])
    for _ in range(5):
        results = await job.get_results()
        if results.results:
            break
        await asyncio.sleep(0.5)
    assert results.results is not None


def measure(way: str, requests: int) -> dict[str, Any]:
    """Run one way in a process of its own; seconds and megabytes."""
    with tempfile.TemporaryDirectory() as folder, Provider() as provider:
        provider.counts = {"total": 0, "completed": 0, "failed": 0}  # langasync needs them
        command = [sys.executable, __file__, "--child", way, provider.url, str(Path(folder, "jobs")), str(requests)]
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            cwd=folder,
            check=False,
        )
        if done.returncode:
            return {"way": way, "failed": done.stderr.strip().splitlines()[-1]}
        began, ended, peak, cpu = map(float, done.stdout.split()[-4:])
        rows = sum(len(batch.rows) for batch in provider.batches)
        submitted = max((batch.created - began for batch in provider.batches), default=0.0)
        return {
            "way": way, "rows": rows, "batches": len(provider.batches), "submitted_s": round(submitted, 1),
            "answered_s": round(ended - began, 1), "cpu_s": round(cpu, 1), "peak_mb": round(peak / 1024),
            "load": round(os.getloadavg()[0], 1),
        }  # fmt: skip


def main() -> None:
    """Measure all ways, or be the process of one."""
    if "--child" in sys.argv:
        way, url, file, requests = sys.argv[2:]
        began = time.time()
        asyncio.run(globals()[f"by_{way.removesuffix('-alone')}"](url, file, int(requests), alone="-alone" in way))
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(began, time.time(), used.ru_maxrss, used.ru_utime + used.ru_stime)
        return
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--requests", type=int, default=50_000)
    options.add_argument("--runs", type=int, default=1)
    options.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    options.add_argument("--json", action="store_true", help="one object a line")
    wanted = options.parse_args()
    for way in wanted.ways * wanted.runs:
        found = measure(way, wanted.requests)
        print(json.dumps(found) if wanted.json else ", ".join(f"{k} {v}" for k, v in found.items()), flush=True)


if __name__ == "__main__":
    main()
