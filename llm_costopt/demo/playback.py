"""A loopback server that speaks the OpenAI protocol and plays a log's recorded answers back.

It answers at once and adds up the recorded model time, so that a replay of minutes takes seconds.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from llm_costopt.demo.log import LoggedRequest, Tier


class Playback:
    """The recorded answers, by what was asked; a request that was logged twice gets its answers in turn."""

    def __init__(self, rows: Iterable[LoggedRequest], models: Mapping[str, Tier]) -> None:
        self._models = models
        self._rows: dict[str, list[LoggedRequest]] = defaultdict(list)
        for row in rows:
            self._rows[_asked(row.messages)].append(row)
        self._served: dict[tuple[str, Tier], int] = defaultdict(int)
        self._lock = threading.Lock()
        self._model_ms = 0.0

    def model_ms(self) -> float:
        """Return the recorded model time of the calls since the last call of this, and begin anew."""
        with self._lock:
            total, self._model_ms = self._model_ms, 0.0
        return total

    def rewind(self) -> None:
        """Begin every request's answers anew."""
        with self._lock:
            self._served.clear()

    def reply(self, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer a chat completion request with status and body."""
        tier = self._models.get(body.get("model", ""))
        asked = _asked(body.get("messages", []))
        if tier is None or asked not in self._rows or body.get("stream"):
            problem = "this server only plays back the requests of its log, to the models of its log, without streaming"
            return 404, {"error": {"message": problem, "type": "invalid_request_error", "code": "not_recorded"}}
        with self._lock:
            rows = self._rows[asked]
            row = rows[self._served[asked, tier] % len(rows)]
            self._served[asked, tier] += 1
            self._model_ms += row.answers[tier].latency_ms
        return 200, _completion(row, tier, body["model"])


@contextmanager
def serving(playback: Playback) -> Iterator[str]:
    """Serve *playback* on a free port of 127.0.0.1 and give the base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body leave in two packets; without this each reply waits for the client's delayed ACK.
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, reply = playback.reply(body)
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _completion(row: LoggedRequest, tier: Tier, model: str) -> dict[str, Any]:
    answer = row.answers[tier]
    message: dict[str, Any] = {"role": "assistant", "content": answer.content, "refusal": None}
    if answer.tool_calls:
        message["tool_calls"] = answer.tool_calls
    return {
        "id": f"chatcmpl-{row.id}-{tier}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        },
    }


def _asked(messages: Iterable[Mapping[str, Any]]) -> str:
    """Say what was asked, whatever a client does to null content and argument spacing."""
    return json.dumps(
        [
            [m.get("role"), m.get("content") or "", [c["function"]["name"] for c in m.get("tool_calls") or ()]]
            for m in messages
        ],
    )
