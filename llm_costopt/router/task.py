"""What a request asks for, apart from the material that it brings along.

Retrieved context, few-shot examples and history say nothing about difficulty: rules that count
their words call every request with 5 examples complex.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llm_costopt.types import Message

# A block holds no other of its name, and nothing is scanned twice: many unclosed tags must not cost quadratic time.
_TAGGED = re.compile(
    r"<(context|documents?|docs?|sources?|passages?|examples?|article|text|data|history|transcript)\b[^<>]*>"
    r"[^<]*+(?:<(?!/?\1\b)[^<]*+)*+</\1>",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"^[ \t#*]*(?:user )?(?:question|query|q|task|instruction|request)[ \t*]*:[ \t*]*", re.IGNORECASE | re.MULTILINE
)
_NEXT_LABEL = re.compile(
    r"^[ \t#*]*(?:(?:helpful )?(?:answer|a|response|output)|context|input|documents?|sources?|passages?)[ \t*]*:",
    re.IGNORECASE | re.MULTILINE,
)
"""What follows the task in a template: in that of LangChain's RAG tutorial the context does."""
_PARAGRAPH = re.compile(r"\n\s*\n")

LONG = 200
"""Words; the document's limit between an ordinary and a complex request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The part of a request that says what to do."""

    text: str
    """The instruction or the question itself."""
    words: int
    """Words of the text."""
    material: int
    """Words of everything else: context, examples, pasted text, earlier turns, system prompt."""


_latest: tuple[Sequence[Message] | None, Task] = (None, Task(text="", words=0, material=0))
"""What was read last: each rule asks for it anew, and it takes 30 µs. One assignment, so that threads need no lock."""


def task_of(messages: Sequence[Message]) -> Task:
    """Find the task in the last human turn."""
    global _latest  # noqa: PLW0603 - see there
    known, task = _latest
    if known is not messages or not isinstance(messages, tuple):
        task = _read(messages)
        _latest = (messages, task)
    return task


def _read(messages: Sequence[Message]) -> Task:
    said = (
        [m.text for m in messages if m.role == "human"] or [m.text for m in messages] or [""]
    )  # nothing: the provider's to refuse
    asked = said[-1]
    text = _instruction(asked).strip() or asked.strip()
    words = len(text.split())
    return Task(text=text, words=words, material=max(0, sum(len(m.text.split()) for m in messages) - words))


def _instruction(asked: str) -> str:
    text = _TAGGED.sub(" ", asked).strip()
    if labels := list(_LABEL.finditer(text)):
        # The last of several labelled questions: those before it are examples.
        text = text[labels[-1].end() :]
        end = _NEXT_LABEL.search(text)
        return text[: end.start()] if end else text
    first, *rest = _PARAGRAPH.split(text)
    first_line, _, below = first.partition("\n")
    if first_line.rstrip().endswith(":") and (below or rest):
        return first_line  # "Summarise this:", and then what to summarise
    if rest and len(text.split()) > LONG and (last := _question(rest[-1])):
        return last  # a long text, and then a question about it
    return text


def _question(paragraph: str) -> str | None:
    return paragraph if paragraph.rstrip().endswith("?") and len(paragraph.split()) <= 40 else None
