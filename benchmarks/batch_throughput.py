"""How long does it take to submit very many requests as one batch, and how much memory?

    python benchmarks/batch_throughput.py [--requests 50000] [--ways httpx sdk langchain langasync]

Each way asks the same short questions in a process of its own, of the tests' scripted provider on loopback:
`httpx` through the transport alone, `sdk` through `openai.AsyncOpenAI`, `langchain` through `use_batch_api(ChatOpenAI).abatch`,
`langasync` through that peer's `batch_chain(...).submit` (one job as well; it keeps nobody waiting, and needs a second call
for the results). Time to submit is from the start to the creation of the last batch, and includes imports and the 2 s for which a queue
waits for further requests; memory is the peak of the process until all answers are there.
"""

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

WAYS = ("httpx", "sdk", "langchain", "langasync")


async def by_httpx(url: str, file: str, requests: int) -> None:
    """Ask with httpx2 alone."""
    import httpx2

    from llm_costopt import AsyncBatchTransport, BatchQueue

    with BatchQueue(file, poll=(0.5, 1.0)) as queue:
        async with httpx2.AsyncClient(transport=AsyncBatchTransport(queue), timeout=None) as http:

            async def one(n: int) -> None:
                body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"What is {n} and why?"}]}
                (await http.post(f"{url}/v1/chat/completions", json=body)).raise_for_status()

            await asyncio.gather(*(one(n) for n in range(requests)))


async def by_sdk(url: str, file: str, requests: int) -> None:
    """Ask with OpenAI's SDK."""
    import openai

    from llm_costopt import AsyncBatchTransport, BatchQueue

    with BatchQueue(file, poll=(0.5, 1.0)) as queue:
        http = openai.DefaultAsyncHttpxClient(transport=AsyncBatchTransport(queue))
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", http_client=http)

        async def one(n: int) -> None:
            said: list[Any] = [{"role": "user", "content": f"What is {n} and why?"}]
            await client.chat.completions.create(model="gpt-4o-mini", messages=said)

        await asyncio.gather(*(one(n) for n in range(requests)))


async def by_langchain(url: str, file: str, requests: int) -> None:
    """Ask with LangChain."""
    from langchain_openai import ChatOpenAI

    from langchain_costopt import use_batch_api
    from llm_costopt import BatchQueue

    with BatchQueue(file, poll=(0.5, 1.0)) as queue:
        model = use_batch_api(ChatOpenAI(model="gpt-4o-mini", base_url=f"{url}/v1", api_key="k"), queue)
        await model.abatch([f"What is {n} and why?" for n in range(requests)])


async def by_langasync(url: str, file: str, requests: int) -> None:
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


def measure(way: str, requests: int) -> str:
    """Run one way in a process of its own."""
    from tests.batch_provider import Provider

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
            return f"{way:10} failed: {done.stderr.strip().splitlines()[-1]}"
        began, ended, peak = map(float, done.stdout.split()[-3:])
        rows = sum(len(batch.rows) for batch in provider.batches)
        submitted = max(batch.created for batch in provider.batches) - began
        return (
            f"{way:10} {rows} rows in {len(provider.batches)} batches, submitted after {submitted:.1f} s, "
            f"answered after {ended - began:.1f} s, peak {peak / 1024:.0f} MB"
        )


def main() -> None:
    """Measure all ways, or be the process of one."""
    if "--child" in sys.argv:
        way, url, file, requests = sys.argv[2:]
        began = time.time()
        asyncio.run(globals()[f"by_{way}"](url, file, int(requests)))
        print(began, time.time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--requests", type=int, default=50_000)
    options.add_argument("--ways", nargs="*", default=WAYS, choices=WAYS)
    wanted = options.parse_args()
    for way in wanted.ways:
        print(measure(way, wanted.requests), flush=True)


if __name__ == "__main__":
    main()
