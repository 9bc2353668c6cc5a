"""Windows as a rate limiter of LangChain, which waits only where a request is really sent: after its cache has missed."""

import asyncio

from langchain_core.rate_limiters import BaseRateLimiter
from typing_extensions import override

from llm_costopt.batch.window import BatchStats, Window

_UNBOUNDED = 1_000_000
"""A rate limiter is not told when a call ends, so that it cannot bound how many run at once."""


class BatchWindow(BaseRateLimiter):
    """Release requests in windows: `ChatOpenAI(rate_limiter=BatchWindow())`.

    Unlike `BatchingCallbackHandler` it delays no cache hit, and does not bound how many calls run at once. A blocking
    call on an event loop holds the loop up until its window is released, as LangChain's own limiter does.

    Args:
        max_batch_size: this many requests make a full window.
        flush_interval: seconds after which a window is released however few it holds, counted from its oldest request.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, *, max_batch_size: int = 20, flush_interval: float = 0.5) -> None:
        self._window = Window(max_batch_size=max_batch_size, flush_interval=flush_interval, max_concurrent=_UNBOUNDED)

    @override
    def acquire(self, *, blocking: bool = True) -> bool:
        """Wait for the release of the window; without *blocking*, tell whether there is nothing to wait for."""
        ticket = self._window.enter()
        try:
            if not blocking and not ticket.future.done():
                return False
            ticket.future.result()
            return True
        finally:
            self._window.leave(ticket)

    @override
    async def aacquire(self, *, blocking: bool = True) -> bool:
        """Wait for the release of the window; without *blocking*, tell whether there is nothing to wait for."""
        ticket = self._window.enter()
        try:
            if not blocking and not ticket.future.done():
                return False
            await asyncio.wrap_future(ticket.future)
            return True
        finally:
            self._window.leave(ticket)

    def stats(self) -> BatchStats:
        """Report what the window did and what it holds."""
        return self._window.stats()

    def close(self) -> None:
        """Release everybody who waits; from now on nobody waits."""
        self._window.close()
