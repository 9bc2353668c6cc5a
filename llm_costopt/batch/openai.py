"""OpenAI's Batch API: a file of lines is uploaded, a batch made of it, and two files come back.

https://platform.openai.com/docs/api-reference/batch; servers that speak the same protocol serve as well.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO, Any

from llm_costopt.batch.backend import NO_SENSE, UNREADABLE, Failure, Intent, Lane, Outcome, Remote, Result, Row
from llm_costopt.batch.lanes import account
from llm_costopt.batch.wire import Ask, Http, RefusedError, Reply, name_of
from llm_costopt.reported import counted
from llm_costopt.types import Usage

_PATHS = ("/chat/completions", "/responses")

_WHO_PAYS = ("authorization", "api-key", "openai-organization", "openai-project")

_ENDS: Mapping[str, Outcome] = {
    "completed": "missing",
    "failed": "rejected",
    "expired": "expired",
    "cancelled": "cancelled",
}

_ROW_CODES: Mapping[str, tuple[int, Outcome]] = {
    "batch_expired": (504, "expired"),
    "batch_cancelled": (409, "cancelled"),
}
"""A row's error that is no HTTP error: https://platform.openai.com/docs/guides/batch#batch-expiration."""

_TOO_MUCH = frozenset({"token_limit_exceeded", "request_limit_exceeded", "rate_limit_exceeded"})
"""More is queued than the account may have queued at once: https://github.com/openai/openai-python/issues/2084."""

_MARK = "llm_costopt_job"


class OpenAIBatches:
    """The Batch API of OpenAI."""

    name = "openai"
    max_rows = 50_000
    max_bytes = 180_000_000
    """A tenth less than 200 MB."""
    lasts = 86400.0
    marks = True
    window = "24h"
    """The only one that OpenAI takes."""

    def lane(self, ask: Ask, body: Mapping[str, Any]) -> Lane | None:
        """Say where *ask* belongs; None if it is no request for this provider's batches."""
        path = next((path for path in _PATHS if ask.url.endswith(path)), None)
        if path is None:
            return None
        return Lane(
            provider=self.name,
            base_url=ask.url.removesuffix(path),
            endpoint=f"/v1{path}",
            model=str(body.get("model")),
            account=account(ask.headers, _WHO_PAYS),
        )

    def write(self, rows: Iterator[Row], lane: Lane, file: IO[bytes]) -> None:
        """Write one line a row."""
        for row in rows:
            head = {"custom_id": row.id, "method": "POST", "url": lane.endpoint}
            file.write(json.dumps(head)[:-1].encode() + b', "body": ' + row.body + b"}\n")

    def upload(self, http: Http, lane: Lane, job: str, file: IO[bytes]) -> str:
        """Upload the input file."""
        name = f"llm-costopt-{job}.jsonl"
        return name_of(http.upload(f"{lane.base_url}/files", {"purpose": "batch"}, name, file))

    def create(self, http: Http, lane: Lane, job: str, uploaded: str, file: IO[bytes]) -> Remote:  # noqa: ARG002
        """Make a batch of the input file."""
        wanted = {
            "input_file_id": uploaded,
            "endpoint": lane.endpoint,
            "completion_window": self.window,
            "metadata": {_MARK: job},
        }
        return _remote(http.call("POST", f"{lane.base_url}/batches", wanted))

    def find(self, http: Http, lane: Lane, intent: Intent) -> Remote | None:
        """Look for the job's id in the metadata of the latest batches."""
        after = ""
        while True:
            page = http.call("GET", f"{lane.base_url}/batches?limit=100{after}")
            batches = page.get("data") or []
            for batch in batches:
                if (batch.get("metadata") or {}).get(_MARK) == intent.id:
                    return _remote(batch)
            last = batches[-1] if page.get("has_more") and batches else {}
            before, after = after, f"&after={last.get('id')}"
            # Newest first; an hour's difference between two clocks is allowed for. Some servers know no pages.
            if not last or after == before or _seconds(last.get("created_at")) < intent.at - 3600:
                return None

    def look(self, http: Http, lane: Lane, remote: str) -> Remote:
        """Ask how a batch is."""
        return _remote(http.call("GET", f"{lane.base_url}/batches/{remote}"))

    def results(self, http: Http, lane: Lane, remote: Remote) -> Iterator[Result]:
        """Read the output file and the error file."""
        for file in remote.files:
            for line in http.lines(f"{lane.base_url}/files/{file}/content"):
                if isinstance(line.get("custom_id"), str):
                    yield self._row(line)

    def cancel(self, http: Http, lane: Lane, remote: str) -> None:
        """Ask for the end of a batch; what is done until then is paid and can be read."""
        http.call("POST", f"{lane.base_url}/batches/{remote}/cancel")

    def discard(self, http: Http, lane: Lane, uploaded: str) -> None:
        """Delete the input file; it would be deleted by itself some day."""
        with suppress(RefusedError, ConnectionError):
            http.call("DELETE", f"{lane.base_url}/files/{uploaded}")

    def error(self, status: int, message: str) -> Reply:
        """Say *message* as OpenAI says its errors."""
        told = {"message": message, "type": "batch_error", "param": None, "code": None}
        return Reply(status=status, body=json.dumps({"error": told}).encode())

    def usage(self, body: Mapping[str, Any]) -> Usage | None:
        """Read the tokens of a chat completion or a response."""
        told = body.get("usage")
        if not isinstance(told, Mapping):
            return None
        into = told.get("prompt_tokens_details") or told.get("input_tokens_details") or {}
        out = told.get("completion_tokens_details") or told.get("output_tokens_details") or {}
        return counted(
            input_tokens=told.get("prompt_tokens", told.get("input_tokens")),
            output_tokens=told.get("completion_tokens", told.get("output_tokens")),
            cache_read_tokens=into.get("cached_tokens"),
            cache_write_tokens=into.get("cache_write_tokens"),
            reasoning_tokens=out.get("reasoning_tokens"),
            input_audio_tokens=into.get("audio_tokens"),
            output_audio_tokens=out.get("audio_tokens"),
        )

    def _row(self, line: Mapping[str, Any]) -> Result:
        try:
            return self._result(line)
        except UNREADABLE:
            return Result(id=line["custom_id"], reply=self.error(*NO_SENSE), outcome="errored")

    def _result(self, line: Mapping[str, Any]) -> Result:
        response, error = line.get("response"), line.get("error")
        if response and response.get("body") is not None:
            status, body = int(response.get("status_code") or 200), response["body"]
            if status < 400 and isinstance(body, dict) and not ("id" not in body and body.get("error")):
                # What OpenAI bills as a batch it calls "default"; hosts read the price class from here.
                reply = Reply(status=status, body=json.dumps({**body, "service_tier": "batch"}).encode())
                return Result(id=line["custom_id"], reply=reply, outcome="succeeded")
            return Result(id=line["custom_id"], reply=_refused(status, body), outcome="errored")
        said = str(error or "the provider gave neither an answer nor a reason")
        told = error if isinstance(error, Mapping) else {"message": said}
        code = str(told.get("code"))
        usual = 400 if code.startswith(("invalid", "unsupported")) else 500
        status, outcome = _ROW_CODES.get(code, (usual, "errored"))
        body = {"error": {"type": "batch_error", "param": None, "code": None, **told}}
        return Result(id=line["custom_id"], reply=_refused(status, body), outcome=outcome)


def _refused(status: int, body: Any) -> Reply:
    return Reply(status=status if status >= 400 else 502, body=json.dumps(body).encode())


def _remote(batch: Mapping[str, Any]) -> Remote:
    status = str(batch.get("status"))
    # Some servers say "" where there is no file.
    files = tuple(f for f in (batch.get("output_file_id"), batch.get("error_file_id")) if f)
    counts = _mapping(batch.get("request_counts"))
    done = (counts.get("completed") or 0) + (counts.get("failed") or 0) if counts else None
    return Remote(
        id=name_of(batch),
        status=status,
        ended=status in _ENDS,
        rest=_ENDS.get(status, "missing"),
        files=files,
        done=done,
        failure=_failure(batch) if status == "failed" else None,
    )


def _failure(batch: Mapping[str, Any]) -> Failure:
    said = _mapping(batch.get("errors")).get("data")
    errors = [e for e in said if isinstance(e, Mapping)] if isinstance(said, list) else []
    told = "; ".join(f"{e.get('code')}: {e.get('message')}" for e in errors[:5]) or "the provider refused the batch"
    return Failure(
        message=told,
        too_much=any(e.get("code") in _TOO_MUCH for e in errors),
        lines={e["line"]: str(e.get("message")) for e in errors if isinstance(e.get("line"), int)},
    )


def _seconds(told: Any) -> float:
    return told if isinstance(told, int | float) else 0.0


def _mapping(told: Any) -> Mapping[str, Any]:
    return told if isinstance(told, Mapping) else {}
