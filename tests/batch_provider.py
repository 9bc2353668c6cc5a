"""A scripted provider on loopback: files and batches of OpenAI, Message Batches of Anthropic.

It holds no rules of a provider. It stores what it is sent, and answers what a test's script says; `tests/batch/README.md`
says from which documented contract each script was taken.
"""

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Json = dict[str, Any]


@dataclass
class Batch:
    """A batch that was created."""

    id: str
    rows: list[Json]
    """As they were sent: `custom_id`, and `body` (`params` with Anthropic)."""
    created: float
    metadata: Json = field(default_factory=dict)
    input_file: str = ""
    looks: int = 0
    """How often its status was asked for, this time included."""
    cancelled: bool = False

    @property
    def asked(self) -> list[str]:
        """The last words of each row's conversation."""
        return [question(row) for row in self.rows]


@dataclass
class Told:
    """What a script says of a batch when it is looked at."""

    status: str = "completed"
    output: list[Json] | None = None
    """Lines of the output file, or of the results; None if there is no such file."""
    errors: list[Json] | None = None
    """Lines of OpenAI's error file."""
    more: Json = field(default_factory=dict)
    """Fields of the batch object that differ."""
    truncate: int | None = None
    """Bytes of the output after which the connection breaks."""


def question(row: Json) -> str:
    """Read the last words of a row's conversation."""
    body = row.get("body") or row.get("params") or {}
    asked = body["messages"] if "messages" in body else body["input"]
    return str(asked[-1]["content"])


def chat(row: Json, message: Json | None = None, **choice: Any) -> Json:
    """Answer a row as chat completions do, by default with `re: ` and its question."""
    said = {"role": "assistant", "content": f"re: {question(row)}", **(message or {})}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": row["body"]["model"],
        "service_tier": "default",
        "choices": [{"index": 0, "message": said, "finish_reason": "stop", "logprobs": None, **choice}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }


def ok(row: Json, body: Json | None = None) -> Json:
    """Write a line of an output file."""
    answer = chat(row) if body is None else body
    return {
        "id": "r1",
        "custom_id": row["custom_id"],
        "response": {"status_code": 200, "request_id": "q1", "body": answer},
        "error": None,
    }


def message(row: Json) -> Json:
    """Answer a row as Anthropic's messages do."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": row["params"]["model"],
        "content": [{"type": "text", "text": f"re: {question(row)}"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1000, "output_tokens": 100},
    }


def result(row: Json, kind: str = "succeeded", **more: Any) -> Json:
    """Write a line of Anthropic's results."""
    if kind == "succeeded":
        more = {"message": message(row), **more}
    return {"custom_id": row["custom_id"], "result": {"type": kind, **more}}


def all_ok(batch: Batch) -> Told:
    """Say that every row is answered."""
    if "params" in batch.rows[0]:
        return Told(status="ended", output=[result(row) for row in batch.rows])
    return Told(output=[ok(row) for row in batch.rows])


Reply = tuple[int, bytes, dict[str, str]]


class Provider:
    """Serve on a free port while the `with` block runs.

    Args:
        script: says how a batch is each time that it is looked at.
        intercept: is asked first about every call, as `("POST", "/v1/batches", n-th such call from 1)`; it may return a
            status, which is sent with an error, `"drop"` (nothing is done and the connection breaks), `"after"` (all is
            done and the connection breaks), or None.
    """

    def __init__(
        self,
        script: Callable[[Batch], Told] = all_ok,
        intercept: Callable[[str, str, int], int | str | None] = lambda *_: None,
    ) -> None:
        self.script = script
        self.intercept = intercept
        self.counts: Json | None = None
        """What OpenAI's batches say of how far they are, unless a script says otherwise."""
        self.batches: list[Batch] = []
        self.calls: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.files: dict[str, bytes] = {}
        self.size = 0
        """Bytes of the body of the latest call."""
        self.real_time: list[Json] = []
        """Chat requests that were not for a batch."""
        self._cut: dict[str, int] = {}
        self._names = itertools.count()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Where it is, for an SDK: add `/v1` for OpenAI's."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def paid(self) -> Counter[str]:
        """Count in how many batches each question was."""
        return Counter(text for batch in self.batches for text in batch.asked)

    def count(self, method: str, path: str) -> int:
        """Count the calls of *path*."""
        return self.calls.count((method, path))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, body: bytes) -> Reply | str:
        """Answer one call; a string says how the connection breaks."""
        path, _, query = path.partition("?")
        with self._lock:
            self.calls.append((method, path))
            self.size = len(body)
            fault = self.intercept(method, path, self.count(method, path))
            if isinstance(fault, int):
                told = {"type": "error", "error": {"type": "api_error", "message": f"scripted {fault}", "code": None}}
                return fault, json.dumps(told).encode(), {"retry-after": "0"}
            if fault == "drop":
                return fault
            reply = self._route(method, path, query, body)
            return fault or reply

    def _route(self, method: str, path: str, query: str, body: bytes) -> Reply | str:  # noqa: C901, PLR0911 - a table
        parts = path.removeprefix("/v1/").split("/")
        match method, parts:
            case "POST", ["files"]:
                name = f"file-{next(self._names)}"
                self.files[name] = _form_file(body)
                return _json({"id": name, "object": "file", "purpose": "batch"})
            case "GET", ["files", name, "content"]:
                return self._content(name, self.files.get(name))
            case "DELETE", ["files", name]:
                self.files.pop(name, None)
                return _json({"id": name, "deleted": True})
            case "POST", ["batches"]:
                return _json(self._create_openai(json.loads(body)))
            case "POST", ["messages", "batches"]:
                return _json(self._create(json.loads(body)["requests"], "msgbatch"))
            case "GET", ["batches"] | ["messages", "batches"]:
                return self._list(query)
            case "GET", ["batches", name] | ["messages", "batches", name]:
                return self._look(name)
            case "GET", ["messages", "batches", name, "results"]:
                return self._content(f"out-{name}", self.files.get(f"out-{name}"))
            case "POST", ["batches", name, "cancel"] | ["messages", "batches", name, "cancel"]:
                self._batch(name).cancelled = True
                return self._look(name)
            case "POST", ["chat", "completions"]:
                self.real_time.append(json.loads(body))
                return _json(chat({"body": json.loads(body)}))
            case "POST", ["messages"]:
                self.real_time.append(json.loads(body))
                return _json(message({"params": json.loads(body)}))
        return 404, json.dumps({"error": {"message": f"no {method} {path}"}}).encode(), {}

    def _create_openai(self, wanted: Json) -> Json:
        lines = self.files[wanted["input_file_id"]].decode().splitlines()
        made = self._create([json.loads(line) for line in lines], "batch")
        self.batches[-1].metadata = wanted.get("metadata") or {}
        self.batches[-1].input_file = wanted["input_file_id"]
        return made

    def _create(self, rows: list[Json], kind: str) -> Json:
        batch = Batch(id=f"{kind}_{len(self.batches)}", rows=rows, created=time.time())
        self.batches.append(batch)
        return self._object(batch, Told(status="in_progress"))

    def _batch(self, name: str) -> Batch:
        return next(b for b in self.batches if b.id == name)

    def _list(self, query: str) -> Reply:
        found = [self._object(b, Told(status="in_progress")) for b in reversed(self.batches)]
        after = [p.partition("=")[2] for p in query.split("&") if p.startswith("after")]
        if after:
            found = found[[b["id"] for b in found].index(after[0]) + 1 :]
        return _json({"object": "list", "data": found[:2], "has_more": len(found) > 2})

    def _look(self, name: str) -> Reply:
        batch = self._batch(name)
        batch.looks += 1
        told = self.script(batch)
        if told.status == "gone":
            return _json({"error": {"message": "no such batch"}})
        if told.status == "gone, in words":
            return _json({"error": "no such batch"})
        for kind, lines in (("out", told.output), ("err", told.errors)):
            if lines is not None:
                self.files[f"{kind}-{name}"] = _lines(lines)
        if told.truncate is not None:
            self._cut[f"out-{name}"] = told.truncate
        return _json(self._object(batch, told))

    def _object(self, batch: Batch, told: Told) -> Json:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(batch.created))
        if batch.id.startswith("msgbatch"):
            counts = {"processing": len(batch.rows), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
            if told.status == "ended":
                counts |= {"processing": 0, "succeeded": len(batch.rows)}
            same = {"id": batch.id, "type": "message_batch", "processing_status": told.status, "created_at": at}
            return {**same, "request_counts": counts, "results_url": None, **told.more}
        return {
            "id": batch.id,
            "object": "batch",
            "status": told.status,
            "metadata": batch.metadata,
            "input_file_id": batch.input_file,
            "created_at": int(batch.created),
            "output_file_id": f"out-{batch.id}" if told.output is not None else None,
            "error_file_id": f"err-{batch.id}" if told.errors is not None else None,
            "errors": None,
            "request_counts": self.counts,
            **told.more,
        }

    def _content(self, name: str, content: bytes | None) -> Reply | str:
        if content is None:
            return 404, json.dumps({"error": {"message": "no such file"}}).encode(), {}
        if (cut := self._cut.pop(name, None)) is not None:
            return content[:cut].decode()
        return 200, content, {"content-type": "application/jsonl"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # one packet a reply: two would wait for each other

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                provider.headers.append({name.lower(): value for name, value in self.headers.items()})
                reply = provider.answer(self.command, self.path, body)
                if isinstance(reply, str):
                    self._break(reply)
                    return
                status, content, headers = reply
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _break(self, sent: str) -> None:
                self.close_connection = True
                if sent not in {"drop", "after"}:
                    self.send_response(200)
                    self.send_header("content-length", str(len(sent) + 1000))
                    self.end_headers()
                    self.wfile.write(sent.encode())

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - names of the base class

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _json(told: Json) -> Reply:
    return 200, json.dumps(told).encode(), {}


def _lines(lines: Iterable[Json]) -> bytes:
    # Not ASCII only: a line separator inside a string is legal JSON.
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def _form_file(body: bytes) -> bytes:
    boundary = body.partition(b"\r\n")[0]
    parts = body.split(boundary)
    content = next(part for part in parts if b'filename="' in part)
    return content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
