"""Which words of a request are the question, and what must match exactly.

Everything but the question goes into an exact hash, the scope: model and parameters, system prompt,
earlier turns, tools, schema, namespace, tenant, epoch. Similarity is only ever computed inside one scope.
"""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from llm_costopt.cache.followup import is_follow_up
from llm_costopt.types import Message, Question

_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode
"""Writes JSON, which keeps the borders between parts."""

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
    endpoint: int
    """What requests of one place in the application share: model, system prompt, tenant, first turn or later one."""


def key_of(question: Question, *, namespace: str = "", tenant: str = "", epoch: str = "") -> Key:
    """Split *question* into what must match exactly and what may match by meaning."""
    *earlier, last = question.messages
    text = unicodedata.normalize("NFC", last.text).strip()
    around = (namespace, tenant, epoch, question.model, question.with_tools, question.with_schema)
    system = tuple([m.text for m in earlier if m.role == "system"])
    if len(system) == len(earlier) and all(map(_is_plain, question.messages)):
        scope = _known_scope(around, system, last.role)
    else:
        scope = _scope(around, [*earlier, _without_text(last)])
    return Key(
        exact=_digest(scope + text),  # the scope's length is always the same: no other pair gives this line
        scope=scope,
        text=text,
        endpoint=hash((namespace, tenant, question.model, system, len(system) < len(earlier))),
    )


def _scope(around: tuple[str | bool, ...], messages: Sequence[Message]) -> str:
    return _digest(_json([around, _canonical(messages)]))


@lru_cache(maxsize=64)  # an application has few system prompts, and each stands before many questions
def _known_scope(around: tuple[str | bool, ...], system: tuple[str, ...], role: str) -> str:
    return _scope(around, [*[Message(role="system", text=text) for text in system], Message(role=role, text="")])


def _is_plain(m: Message) -> bool:
    """Tell whether there is nothing but text: what may hold numbers is no key of a memory, for which 1 and True are the same."""
    return (m.parts, m.name, m.tool_calls, m.tool_call_id, m.status) == ((), None, (), None, None)


def exact_only(question: Question, text: str, max_words: int) -> str | None:
    """Say why *question*, whose last words are *text*, may not be matched by meaning; None if it may."""
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
        # With the turns that it points at, a follow-up is safe: they are in the scope.
        "follow-up": all(m.role == "system" for m in messages[:-1]) and is_follow_up(text),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _canonical(messages: Sequence[Message]) -> list[Any]:
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
    # LangChain's own functions for images and files mint ids that begin with `lc_`.
    if "id" in kept and (kept.get("type") in _MINTED or str(kept["id"]).startswith("lc_")):
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


def _digest(line: str) -> str:
    """Hash a line; a lone surrogate is hashed, not refused."""
    return hashlib.sha256(line.encode("utf-8", "surrogatepass")).hexdigest()
