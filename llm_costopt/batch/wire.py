"""What travels between the HTTP clients, the queue and the providers: plain records, and blocking calls."""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import IO, Any, NoReturn
from urllib.parse import urlsplit

from llm_costopt.errors import MissingExtraError

_CHUNK = 1 << 16

_A_DAY = 86400.0

_TIMEOUT = 60.0
"""Seconds without a byte after which a call counts as lost; well below the lease of a job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One HTTP request of an SDK."""

    url: str
    """Without the query."""
    headers: Mapping[str, str] = field(repr=False)
    """By lower-case name."""
    body: bytes
    """As the SDK wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One HTTP response for an SDK."""

    status: int
    """The HTTP status."""
    body: bytes
    """JSON, as the provider would have sent it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Those that a provider's answer had; empty for a row of a batch."""


class RefusedError(Exception):
    """A provider answered with an HTTP error."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"HTTP {reply.status}: {reply.body[:500].decode(errors='replace')}")
        self.reply = reply

    @property
    def retry_after(self) -> float | None:
        """Seconds that the provider asked to wait; None if it said none, or what no provider means."""
        try:
            asked = float(self.reply.headers["retry-after"])
        except (KeyError, ValueError):
            return None
        return asked if 0 <= asked <= _A_DAY else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """Blocking calls to one provider with one account's headers.

    Each raises RefusedError for an HTTP error and ConnectionError for all that may pass by itself.
    """

    client: Any
    """An `httpx.Client` or `httpx2.Client`."""
    headers: Mapping[str, str] = field(repr=False)
    """Sent with every call: the key, the version."""
    alive: Callable[[], None]
    """Is called while a long body is sent."""

    def call(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send JSON and return the JSON object that came back."""
        sent = {"content": json.dumps(body).encode(), "headers": self._json()} if body is not None else {}
        return self._send(method, url, **{"headers": self.headers, **sent})

    def upload(self, url: str, fields: Mapping[str, str], name: str, file: IO[bytes]) -> dict[str, Any]:
        """Send *file* as a form."""
        part = (name, _Watched(file, self.alive), "application/jsonl")
        return self._send("POST", url, headers=self.headers, data=fields, files={"file": part})

    def stream(self, url: str, file: IO[bytes]) -> dict[str, Any]:
        """Send *file*, which is JSON, as the body."""
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        watched = _Watched(file, self.alive)
        chunks = iter(lambda: watched.read(_CHUNK), b"")
        return self._send("POST", url, headers={**self._json(), "content-length": str(size)}, content=chunks)

    def lines(self, url: str) -> Iterator[dict[str, Any]]:
        """Read JSON objects, one a line; a line that is none is left out."""
        for line in self._lines(url):
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                yield found

    def _lines(self, url: str) -> Iterator[bytes]:
        # Not `iter_lines`: it also splits at U+2028 and its like, which JSON allows inside a string.
        rest = b""
        try:
            with self.client.stream("GET", url, headers=self.headers, timeout=_TIMEOUT) as response:
                _check(response)
                for chunk in response.iter_bytes():
                    *lines, rest = (rest + chunk).split(b"\n")
                    yield from lines
        except Exception as problem:  # noqa: BLE001 - two libraries have two trees of errors
            _translate(problem, url)
        yield rest

    def _send(self, method: str, url: str, **sent: Any) -> dict[str, Any]:
        try:
            response = self.client.request(method, url, timeout=_TIMEOUT, **sent)
        except Exception as problem:  # noqa: BLE001 - two libraries have two trees of errors
            _translate(problem, url)
        try:
            found = response.json()
        except ValueError:
            found = None
        _check(response)
        if not isinstance(found, dict):
            raise ConnectionError(f"no JSON object came back from {url}")
        # Some servers answer for a batch that is gone with status 200 and an error.
        if found.get("error") and "id" not in found:
            raise RefusedError(Reply(status=404, body=response.content))
        return found

    def _json(self) -> dict[str, str]:
        return {**self.headers, "content-type": "application/json"}


def name_of(found: Mapping[str, Any]) -> str:
    """Read the provider's name for what it speaks of; ConnectionError if it says none."""
    if found.get("id") is None:
        raise ConnectionError("the provider's answer names nothing")
    return str(found["id"])


def _translate(problem: Exception, url: str) -> NoReturn:
    # Both libraries call them so and share no class.
    if type(problem).__name__ == "UnsupportedProtocol" or "Illegal header" in str(problem):
        # No patience mends that. Without its message, which may quote the key, for a line break at its end.
        told = b"the request cannot be sent: look at the base URL, and for line breaks in the key"
        raise RefusedError(Reply(status=400, body=told)) from None
    if any(kind.__name__ in {"TransportError", "DecodingError"} for kind in type(problem).__mro__):
        host = urlsplit(url).netloc.rpartition("@")[2]  # before that may stand a password
        raise ConnectionError(f"{host}: {type(problem).__name__}: {problem}") from problem
    raise problem


def _check(response: Any) -> None:
    if 300 <= response.status_code < 400:
        # An empty body, which would pass for results without a single row: all would be paid again.
        told = (
            f"the provider sends this call elsewhere (HTTP {response.status_code}): give the base URL that it leads to, "
            f"or BatchQueue(client=) one that follows redirects"
        )
        raise RefusedError(Reply(status=400, body=told.encode()))
    if response.status_code >= 400:
        headers = {name.lower(): value for name, value in response.headers.items()}
        raise RefusedError(Reply(status=response.status_code, body=response.read(), headers=headers))


class _Watched:
    """A file that tells when it is read."""

    def __init__(self, file: IO[bytes], alive: Callable[[], None]) -> None:
        self._file = file
        self._alive = alive
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        self._alive()
        return self._file.read(size)


def http_library() -> Any:
    """Import the HTTP library that is installed.

    Raises MissingExtraError if there is none.
    """
    try:
        return import_module("httpx2")
    except ModuleNotFoundError:
        try:
            return import_module("httpx")
        except ModuleNotFoundError as missing:
            raise MissingExtraError("the Batch API", "batch") from missing
