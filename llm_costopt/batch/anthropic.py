"""Anthropic's Message Batches: requests go in one body, results come back as lines in any order.

https://platform.claude.com/docs/en/api/creating-message-batches
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import IO, Any

from llm_costopt.batch.backend import NO_SENSE, UNFINISHED, UNREADABLE, Intent, Lane, Outcome, Remote, Result, Row
from llm_costopt.batch.lanes import account
from llm_costopt.batch.wire import Ask, Http, Reply, name_of
from llm_costopt.types import Usage

_PATH = "/v1/messages"

_WHO_PAYS = ("x-api-key", "authorization", "anthropic-beta", "anthropic-version")

_STATUS = {
    "invalid_request": 400,
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP error that each type stands for: https://platform.claude.com/docs/en/api/errors; others are 500."""

_TYPE = {status: kind for kind, status in _STATUS.items()}

_KINDS: Mapping[str, Outcome] = {"expired": "expired", "canceled": "cancelled"}

_SKEW = 180.0
"""Seconds by which a batch may seem older than it is: an answer is waited for one minute, and clocks differ by two."""


class AnthropicBatches:
    """The Message Batches of Anthropic."""

    name = "anthropic"
    max_rows = 100_000
    max_bytes = 230_000_000
    """A tenth less than 256 MB."""
    lasts = 86400.0
    marks = False

    def lane(self, ask: Ask, body: Mapping[str, Any]) -> Lane | None:
        """Say where *ask* belongs; None if it is no request for this provider's batches."""
        if not ask.url.endswith(_PATH):
            return None
        return Lane(
            provider=self.name,
            base_url=ask.url,
            endpoint=_PATH,
            model=str(body.get("model")),
            account=account(ask.headers, _WHO_PAYS),
        )

    def write(self, rows: Iterator[Row], lane: Lane, file: IO[bytes]) -> None:  # noqa: ARG002
        """Write one JSON object that holds all rows."""
        before = b'{"requests": ['
        for row in rows:
            file.write(before + b'{"custom_id": "' + row.id.encode() + b'", "params": ' + row.body + b"}")
            before = b",\n"
        file.write(b"]}")

    def upload(self, http: Http, lane: Lane, job: str, file: IO[bytes]) -> str:  # noqa: ARG002
        """Send nothing ahead."""
        return ""

    def create(self, http: Http, lane: Lane, job: str, uploaded: str, file: IO[bytes]) -> Remote:  # noqa: ARG002
        """Start the batch."""
        return _remote(http.stream(f"{lane.base_url}/batches", file))

    def find(self, http: Http, lane: Lane, intent: Intent) -> Remote | None:
        """Take the first batch of that many rows since then that is not known to be another.

        A batch bears no mark of ours; whether it is ours is seen when its results are read.
        """
        found: list[Mapping[str, Any]] = []
        after = ""
        while True:
            page = http.call("GET", f"{lane.base_url}/batches?limit=100{after}")
            batches = page.get("data") or []
            recent = [b for b in batches if _seconds(b.get("created_at")) >= intent.at - _SKEW]
            found += [b for b in recent if b["id"] not in intent.not_these and _total(b) == intent.rows]
            last = batches[-1] if page.get("has_more") and batches else {}
            before, after = after, f"&after_id={last.get('id')}"
            if not last or len(recent) < len(batches) or after == before:
                break
        return _remote(found[-1]) if found else None

    def look(self, http: Http, lane: Lane, remote: str) -> Remote:
        """Ask how a batch is."""
        return _remote(http.call("GET", f"{lane.base_url}/batches/{remote}"))

    def results(self, http: Http, lane: Lane, remote: Remote) -> Iterator[Result]:
        """Read the results."""
        # Not from `results_url`: the key would go wherever it points.
        for line in http.lines(f"{lane.base_url}/batches/{remote.id}/results"):
            if isinstance(line.get("custom_id"), str) and isinstance(line.get("result"), dict):
                yield self._row(line["custom_id"], line["result"])

    def cancel(self, http: Http, lane: Lane, remote: str) -> None:
        """Ask for the end of a batch; what is done until then is paid and can be read."""
        http.call("POST", f"{lane.base_url}/batches/{remote}/cancel", {})

    def discard(self, http: Http, lane: Lane, uploaded: str) -> None:
        """Delete nothing: nothing was uploaded."""

    def error(self, status: int, message: str) -> Reply:
        """Say *message* as Anthropic says its errors."""
        told = {"type": _TYPE.get(status, "api_error"), "message": message}
        return Reply(status=status, body=json.dumps({"type": "error", "error": told}).encode())

    def usage(self, body: Mapping[str, Any]) -> Usage | None:
        """Read the tokens of a message; its `input_tokens` leave out those that the prompt cache read or wrote."""
        told = body.get("usage")
        if not isinstance(told, Mapping):
            return None
        read, written = told.get("cache_read_input_tokens") or 0, told.get("cache_creation_input_tokens") or 0
        return Usage(
            input_tokens=(told.get("input_tokens") or 0) + read + written,
            output_tokens=told.get("output_tokens") or 0,
            cache_read_tokens=read,
            cache_write_tokens=written,
            cache_write_1h_tokens=(told.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0,
        )

    def _row(self, row: str, result: Mapping[str, Any]) -> Result:
        try:
            return self._result(row, result)
        except UNREADABLE:
            return Result(id=row, reply=self.error(*NO_SENSE), outcome="errored")

    def _result(self, row: str, result: Mapping[str, Any]) -> Result:
        kind = result.get("type")
        if kind == "succeeded" and isinstance(result.get("message"), dict):
            return Result(id=row, reply=Reply(status=200, body=_as_batch(result["message"])), outcome="succeeded")
        if outcome := _KINDS.get(str(kind)):
            return Result(id=row, reply=self.error(*UNFINISHED[outcome]), outcome=outcome)
        told = result.get("error") or {}
        inner = (told.get("error", told) if isinstance(told, Mapping) else told) or {}
        if isinstance(inner, str):
            inner = {"type": "api_error", "message": inner}
        status = _STATUS.get(str(inner.get("type")), 500)
        body = {"type": "error", "error": inner or {"type": "api_error", "message": f"the row is {kind!r}"}}
        return Result(id=row, reply=Reply(status=status, body=json.dumps(body).encode()), outcome="errored")


def _as_batch(message: Mapping[str, Any]) -> bytes:
    told = message.get("usage")
    usage = {**(told if isinstance(told, Mapping) else {}), "service_tier": "batch"}
    return json.dumps({**message, "usage": usage}).encode()


def _remote(batch: Mapping[str, Any]) -> Remote:
    counts = batch.get("request_counts") or {}
    ended = batch.get("processing_status") == "ended"
    return Remote(
        id=name_of(batch),
        status=str(batch.get("processing_status")),
        ended=ended,
        rest="missing",
        files=("results",) if ended else (),
        done=_total(batch) - (counts.get("processing") or 0) if ended else None,
    )


def _total(batch: Mapping[str, Any]) -> int:
    return sum(n for n in (batch.get("request_counts") or {}).values() if isinstance(n, int))


def _seconds(told: object) -> float:
    try:
        return datetime.fromisoformat(str(told)).timestamp()
    except ValueError:
        return 0.0
