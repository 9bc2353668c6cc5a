"""Alerts as JSON to a URL, from a thread of their own."""

import json
import math
import os
import queue
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from llm_costopt.monitor.alerts import Alert
from llm_costopt.monitor.guarded import Guard

_MOST_WAITING = 100


class Webhook:
    """POST alerts to *url* as JSON: the fields of `Alert`, of which `text` is what chat services show.

    It never waits for the other side. An alert that could not be delivered after all retries, or that found a hundred
    waiting, is counted in `failures`. The URL is never logged: it may hold a secret.

    Args:
        url: `https://…` or `http://…`.
        headers: sent along, for a login.
        timeout: seconds to wait for an answer.
        retries: seconds to wait before each further try.

    Raises:
        ValueError: *url* is none of the two.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        retries: Sequence[float] = (1.0, 5.0, 30.0),
    ) -> None:
        if not _is_usable(url):
            raise ValueError("a webhook is an http:// or https:// URL, without blanks and in ASCII")
        self._url, self._headers, self._timeout, self._retries = url, dict(headers or {}), timeout, tuple(retries)
        self._guard = Guard("A webhook")
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._pid = 0
        self._waiting: queue.Queue[Alert] = queue.Queue(_MOST_WAITING)

    @property
    def failures(self) -> int:
        """Count alerts that were not delivered."""
        return self._guard.failures

    def __call__(self, alert: Alert) -> None:
        """Send *alert* soon."""
        with self._guard():
            self._start()
            self._waiting.put_nowait(alert)

    def close(self) -> None:
        """Try what waits once more, without waiting between tries, and return when it is done."""
        self._closed.set()
        if self._pid == os.getpid():
            self._waiting.join()

    def _start(self) -> None:
        """Have a thread that sends; a forked child needs one of its own, and what waits is its parent's."""
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self._waiting = queue.Queue(_MOST_WAITING)
            threading.Thread(target=self._send_all, name="llm-costopt-webhook", daemon=True).start()

    def _send_all(self) -> None:
        waiting = self._waiting
        while True:
            alert = waiting.get()
            with self._guard():
                self._send(_body(alert))
            waiting.task_done()

    def _send(self, body: bytes) -> None:
        for pause in (*self._retries, None):
            try:
                self._post(body)
            except (OSError, HTTPException):  # a refusal, a broken line, an error status; a reply that is not HTTP
                if pause is None:
                    raise
                self._closed.wait(pause)
            else:
                return

    def _post(self, body: bytes) -> None:
        headers = {"Content-Type": "application/json", **self._headers}
        request = urllib.request.Request(self._url, data=body, headers=headers)  # noqa: S310 - http or https
        with urllib.request.build_opener(_Stay).open(request, timeout=self._timeout):
            return


class _Stay(urllib.request.HTTPRedirectHandler):
    """Take a redirect for the error status that it then is.

    urllib would follow with a GET that has no body, which delivers nothing, and send a login to whoever is named.
    """

    def redirect_request(self, *_: Any) -> None:
        """Go nowhere."""


def _body(alert: Alert) -> bytes:
    # JSON has no infinity, which is when the next job expires if none runs.
    said = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(alert).items()}
    return json.dumps(said).encode()


def _is_usable(url: str) -> bool:
    """Tell whether urllib can ask *url*; what it says of one that it cannot ask quotes it."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.port != 0
            and url.isascii()
            and url.isprintable()
            and " " not in url
        )
    except (AttributeError, ValueError):  # no text; no such port, a bracket too many
        return False
