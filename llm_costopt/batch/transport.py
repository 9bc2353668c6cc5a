"""HTTP transports that turn an SDK's requests into rows of batches; for `httpx` and for `httpx2`."""

import asyncio
import os
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from llm_costopt import switch
from llm_costopt.batch.queue import BatchQueue
from llm_costopt.batch.stored import Answered
from llm_costopt.batch.wire import Ask, Reply

if TYPE_CHECKING:
    import httpx
    import httpx2

    class _Blocking(httpx.BaseTransport, httpx2.BaseTransport):  # type: ignore[misc]
        """What a type checker wants to see in both libraries' clients."""

    class _NotBlocking(httpx.AsyncBaseTransport, httpx2.AsyncBaseTransport):  # type: ignore[misc]
        """Likewise."""

else:  # at run time both ask for nothing but the methods, and either may be absent
    _Blocking = _NotBlocking = object

_KNOWN = 100
"""How many different headers are kept to be shared; a program that gives each request its own shares nothing."""

_PATHS = ("/chat/completions", "/responses", "/v1/messages")


class _Transport:
    """What both transports share; a request knows the library that it is of."""

    def __init__(self, queue: BatchQueue | str | os.PathLike[str], *, through: Any = None) -> None:
        self._own = not isinstance(queue, BatchQueue)
        self._queue = queue if isinstance(queue, BatchQueue) else BatchQueue(queue)
        self._through = through
        self._client: Any = None
        self._known: dict[Any, tuple[Any, Any, Mapping[str, str]]] = {}

    def _pass(self, request: Any, handle: str, client: str) -> Any:
        """Send *request* straight through; what returns is to be awaited if the client is asynchronous."""
        if self._through is not None:
            return getattr(self._through, handle)(request)
        if self._client is None:
            # Not a transport: a client alone knows the proxies that the environment names.
            self._client = getattr(_library(request), client)()
        return self._client.send(request, stream=True)

    def _ask(self, request: Any, body: bytes) -> Ask:
        """Read *request*, and let it share what it has in common with those before it: of 50,000, that saves a sixth of the memory."""
        like = (request.url, tuple(request.headers.raw))
        known = self._known.get(like)
        if known is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            lower = {name.lower(): value for name, value in request.headers.items()}
            known = self._known[like] = (request.url, request.headers.copy(), lower)
        request.url, headers, told = known
        request.headers = headers.copy()  # whoever changes it later changes no other's
        url = request.url.copy_with(userinfo=b"")  # a password in it has become a header, and stays out of the file
        return Ask(url=str(url).partition("?")[0], headers=told, body=body)


class BatchTransport(_Transport, _Blocking):
    """Answer an SDK's chat requests from the Batch API: `OpenAI(http_client=httpx.Client(transport=BatchTransport(…)))`.

    A caller blocks its thread until its row is back. Every other request goes straight through.

    Args:
        queue: a `BatchQueue`, which several transports may share and which its owner closes; or the path of its file.
        through: the transport of the same library for all that is no row of a batch; a usual client if None.
    """

    def handle_request(self, request: Any) -> Any:
        """Answer *request*, as both libraries want it."""
        box: SimpleQueue[Answered | None] = SimpleQueue()
        found = self._queue.enter(self._ask(request, request.read()), box.put) if _may_travel(request) else None
        if isinstance(found, Reply):
            return _response(request, found)
        if found is not None:
            try:
                answered = box.get()
            except BaseException:
                self._queue.missed(found)
                raise
            if answered is not None:
                self._queue.took(answered)
                return _response(request, answered.reply)
        return self._pass(request, "handle_request", "Client")

    def close(self) -> None:
        """Close what is the transport's own."""
        self._close(finished=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        self._close(finished=kind is None)

    def _close(self, *, finished: bool) -> None:
        if self._own:
            self._queue.close(finished=finished)
        for ours in filter(None, (self._through, self._client)):
            ours.close()


class AsyncBatchTransport(_Transport, _NotBlocking):
    """Answer an SDK's chat requests from the Batch API: `ChatOpenAI(http_async_client=httpx.AsyncClient(transport=…))`.

    Every other request goes straight through. Needs an event loop of asyncio.

    Args:
        queue: a `BatchQueue`, which several transports may share and which its owner closes; or the path of its file.
        through: the transport of the same library for all that is no row of a batch; a usual client if None.
    """

    async def handle_async_request(self, request: Any) -> Any:
        """Answer *request*, as both libraries want it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered | None] = loop.create_future()
        tell = partial(_tell, loop, future)
        found = self._queue.enter(self._ask(request, await request.aread()), tell) if _may_travel(request) else None
        if isinstance(found, Reply):
            return _response(request, found)
        if found is not None:
            try:
                answered = await future
            except BaseException:
                self._queue.missed(found)
                raise
            if answered is not None:
                self._queue.took(answered)
                return _response(request, answered.reply)
        return await self._pass(request, "handle_async_request", "AsyncClient")

    async def aclose(self) -> None:
        """Close what is the transport's own."""
        await self._close(finished=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        await self._close(finished=kind is None)

    async def _close(self, *, finished: bool) -> None:
        if self._own:
            await asyncio.to_thread(self._queue.close, finished=finished)
        for ours in filter(None, (self._through, self._client)):
            await ours.aclose()


def _tell(
    loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Answered | None]", answered: Answered | None
) -> None:
    loop.call_soon_threadsafe(_settle, future, answered)


def _settle(future: "asyncio.Future[Answered | None]", answered: Answered | None) -> None:
    if not future.done():
        future.set_result(answered)


def _may_travel(request: Any) -> bool:
    """Tell whether *request* is one of a chat, and the kill switch does not send it straight through."""
    return request.method == "POST" and str(request.url.path).endswith(_PATHS) and switch.mode() == "on"


def _response(request: Any, reply: Reply) -> Any:
    # Both SDKs obey this header; what is worth another try was already tried in another batch.
    headers = {"content-type": "application/json", "x-should-retry": "false"}
    return _library(request).Response(reply.status, headers=headers, content=reply.body, request=request)


def _library(request: Any) -> Any:
    return import_module(type(request).__module__.partition(".")[0])
