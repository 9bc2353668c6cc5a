"""Read a request log: JSON lines, each a recorded request or just `{"text": …}`."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from llm_costopt.errors import BadLogError

Tier = Literal["cheap", "strong"]

STAND_IN = "This log records no answer to this request, so this text stands in for one."
STAND_IN_TOKENS = 150
"""Output tokens that a stand-in is priced at, as in the mission's cost example."""
TOKENS_A_WORD = 1.3
"""Of English text, roughly; only used where a log records no token counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One tier's answer to one request."""

    content: str
    """The text; empty for a bare tool call."""
    tool_calls: Sequence[Any] = ()
    """In OpenAI's form."""
    finish_reason: str = "stop"
    """In OpenAI's words."""
    right: bool | None
    """Whether the answer is right; None if the log does not say."""
    prompt_tokens: int
    """Tokens read."""
    completion_tokens: int
    """Tokens written."""
    latency_ms: float
    """How long the model took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """One line of a log."""

    id: str
    """Unique in the log."""
    messages: Sequence[Mapping[str, Any]]
    """The conversation in OpenAI's form."""
    tools: Sequence[Any] = ()
    """In OpenAI's form."""
    schema: Mapping[str, Any] | None = None
    """`name` and `schema` of the structure that is asked for; None if none is."""
    same_as: str | None
    """Requests with the same value may share an answer; None if the log does not say."""
    answers: Mapping[Tier, Recorded]
    """The answer of each tier."""
    has_answers: bool
    """Whether the answers are the log's, not stand-ins."""


def read_log(path: str | os.PathLike[str] | None = None) -> list[LoggedRequest]:
    """Read the log at *path*, or the one that ships with the package.

    Raises BadLogError, which names the line, for anything that is not such a log.
    """
    file = resources.files("llm_costopt.demo") / "requests.jsonl" if path is None else Path(path)
    if isinstance(file, Path) and file.is_dir():
        raise BadLogError(file, None, "this is a folder, name a file of JSON lines")
    try:
        # A byte order mark is what Windows begins such files with; not split at U+2028, which JSON may hold.
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as problem:
        raise BadLogError(file, None, "there is no such file") from problem
    except (OSError, UnicodeDecodeError) as problem:
        raise BadLogError(file, None, f"this file cannot be read as UTF-8 text ({problem})") from problem
    rows = [_row(file, n, line) for n, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise BadLogError(file, None, "there is no request in it")
    return rows


def _row(file: object, number: int, line: str) -> LoggedRequest:
    try:
        row = json.loads(line)
    except ValueError as problem:
        raise BadLogError(file, number, f"this is not JSON ({problem})") from problem
    if not isinstance(row, dict) or not ("text" in row or "messages" in row):
        raise BadLogError(file, number, 'a request is an object with "text" or with "messages"')
    try:
        return _text_row(number, row) if "text" in row else _full_row(number, row)
    except KeyError as missing:
        raise BadLogError(file, number, f"{missing} is missing") from missing
    except (TypeError, ValueError, AttributeError) as problem:
        raise BadLogError(file, number, f"a value has the wrong form ({problem})") from problem


def _text_row(number: int, row: Mapping[str, Any]) -> LoggedRequest:
    if not isinstance(row["text"], str) or not row["text"].strip():
        raise ValueError('"text" is a non-empty string')
    stand_in = Recorded(
        content=STAND_IN,
        right=None,
        prompt_tokens=round(TOKENS_A_WORD * len(row["text"].split())) + 8,
        completion_tokens=STAND_IN_TOKENS,
        latency_ms=0.0,
    )
    return LoggedRequest(
        id=f"line{number}",
        messages=[{"role": "user", "content": row["text"]}],
        same_as=None if row.get("same_as") is None else str(row["same_as"]),
        answers={"cheap": stand_in, "strong": stand_in},
        has_answers=False,
    )


def _full_row(number: int, row: Mapping[str, Any]) -> LoggedRequest:
    messages = row["messages"]
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) and "role" in m for m in messages):
        raise ValueError('"messages" is a non-empty list of objects with a "role"')
    return LoggedRequest(
        id=str(row.get("id", f"line{number}")),
        messages=messages,
        tools=row.get("tools") or (),
        schema=row.get("schema"),
        same_as=row.get("same_as"),
        answers={"cheap": _recorded(row["cheap"]), "strong": _recorded(row["strong"])},
        has_answers=True,
    )


def _recorded(answer: Mapping[str, Any]) -> Recorded:
    return Recorded(
        content=answer.get("content") or "",
        tool_calls=answer.get("tool_calls") or (),
        finish_reason=answer.get("finish_reason", "stop"),
        right=answer.get("right"),
        prompt_tokens=int(answer["prompt_tokens"]),
        completion_tokens=int(answer["completion_tokens"]),
        latency_ms=float(answer.get("latency_ms", 0)),
    )
