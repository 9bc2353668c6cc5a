"""Which words of a request are the question, and what must match exactly.

Everything but the question goes into an exact hash, the scope: model and parameters, system prompt,
earlier turns, tools, schema, namespace. Similarity is only ever computed inside one scope.
"""

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from typing import Any

from llm_costopt.types import Message, Question

_MINTED = frozenset({"text", "thinking", "reasoning", "tool_use", "tool_call", "invalid_tool_call", "function_call"})
"""Content blocks whose `id` is minted per message; in others (files, images) an `id` can name the content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Where a request lives in the cache."""

    exact: str
    """Hex digest of the whole request."""
    scope: str
    """Hex digest of everything but the question."""
    text: str
    """The question."""
    exact_only: str | None
    """Why the question may not be matched by meaning, or None if it may."""


def key_of(question: Question, *, namespace: str = "", max_words: int = 50) -> Key:
    """Split *question* into what must match exactly and what may match by meaning."""
    *earlier, last = question.messages
    text = unicodedata.normalize("NFC", last.text).strip()
    scope = _digest(
        namespace,
        question.model,
        [question.with_tools, question.with_schema],
        _canonical([*earlier, _without_text(last)]),
    )
    return Key(
        exact=_digest(scope, text),
        scope=scope,
        text=text,
        exact_only=_exact_only(question, text, max_words),
    )


def _exact_only(question: Question, text: str, max_words: int) -> str | None:
    messages = question.messages
    reasons = {
        "tools": question.with_tools or any(m.tool_calls or m.role == "tool" for m in messages),
        "schema": question.with_schema,
        "role": messages[-1].role != "human",
        "attachment": any(m.parts for m in messages),
        # A line break is the mark of a template or of pasted material: two such texts are alike
        # because of the frame that they share, not because of what is asked.
        "lines": "\n" in text,
        # Eight characters a word also bounds the languages that write no spaces.
        "length": not text or len(text.split()) > max_words or len(text) > 8 * max_words,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _canonical(messages: list[Message]) -> list[Any]:
    """Say what *messages* mean: ids that are minted per call become the order of their appearance."""
    order: dict[str | None, int] = {}
    return [
        [
            m.role,
            m.name,
            m.text,
            [_stable(p, order) for p in m.parts],
            [[order.setdefault(c.id, len(order)), c.name, c.args] for c in m.tool_calls],
            None if m.tool_call_id is None else order.setdefault(m.tool_call_id, len(order)),
            m.status,
        ]
        for m in messages
    ]


def _stable(part: Any, order: dict[str | None, int]) -> Any:
    if not isinstance(part, dict):
        return part
    kept = {k: v for k, v in part.items() if k not in {"index", "cache_control"}}
    if kept.get("type") in _MINTED and "id" in kept:
        kept["id"] = order.setdefault(kept["id"], len(order))
    return kept


def _without_text(last: Message) -> Message:
    return Message(
        role=last.role,
        text="",
        parts=last.parts,
        name=last.name,
        tool_calls=last.tool_calls,
        tool_call_id=last.tool_call_id,
        status=last.status,
    )


def _digest(*parts: Any) -> str:
    """Hash JSON, which keeps the borders between parts; a lone surrogate is hashed, not refused."""
    line = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(line.encode("utf-8", "surrogatepass")).hexdigest()
