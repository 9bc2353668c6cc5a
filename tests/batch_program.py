"""A program that asks many questions through a batch queue, to be killed: `python batch_program.py URL FILE ROWS [--anthropic]`.

It writes a line for each answer that it has. Neither it nor what it imports knows of the tests.
"""

import asyncio
import sys
from typing import Any

import httpx2

from llm_costopt.batch.queue import BatchQueue
from llm_costopt.batch.transport import AsyncBatchTransport


async def ask_all(url: str, file: str, rows: int, *, anthropic: bool) -> None:
    """Ask *rows* different questions at once."""
    queue = BatchQueue(file, gather=0.05, poll=(0.02, 0.05), lease=1.0, settle=1.0)
    limits = httpx2.Limits(max_connections=None)
    with queue:
        async with httpx2.AsyncClient(transport=AsyncBatchTransport(queue), limits=limits, timeout=None) as http:

            async def one(n: int) -> None:
                body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": f"q{n}"}]}
                path = "messages" if anthropic else "chat/completions"
                reply = await http.post(f"{url}/v1/{path}", json=body, headers={"authorization": "Bearer sk-secret"})
                told = reply.json()
                text = told["content"][0]["text"] if anthropic else told["choices"][0]["message"]["content"]
                sys.stdout.write(f"{n} {text}\n")

            await asyncio.gather(*(one(n) for n in range(rows)))
    sys.stdout.write("end\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(ask_all(sys.argv[1], sys.argv[2], int(sys.argv[3]), anthropic="--anthropic" in sys.argv))
