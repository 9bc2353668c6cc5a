"""Where the host gives the question apart from its context: `predict(template, query_str=…, context_str=…)`.

A whole RAG prompt has no meaning that could be compared: with one context, another question scores 0.982 (measured).
So the question alone is compared, and the template that is left without it, context and all, must be the same.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from llama_index.core.llms import LLM
from llama_index.core.prompts import BasePromptTemplate

from llamaindex_costopt._convert import messages_of
from llm_costopt.types import Message

HOLE = "\ue000question\ue000"
"""Stands where the question was; from Unicode's private use area, so no text holds it."""


@dataclass(frozen=True, kw_only=True)
class _Template:
    query: str
    around: tuple[Message, ...]


_template: ContextVar[_Template | None] = ContextVar("llm_costopt_template", default=None)


@contextmanager
def asking(model: LLM, prompt: BasePromptTemplate, args: Mapping[str, Any]) -> Iterator[None]:
    """Remember for the calls inside the block which words of *prompt* are the question."""
    token = _template.set(_read(model, prompt, args))
    try:
        yield
    finally:
        _template.reset(token)


def with_question(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Put the question last and alone, if *messages* are those of a template whose question is known."""
    known = _template.get()
    if known is None:
        return messages
    filled = tuple(replace(m, text=m.text.replace(HOLE, known.query)) for m in known.around)
    holed = any(HOLE in m.text for m in known.around)
    if (
        not holed or filled != messages
    ):  # another call, or a template that does more with the question than to put it in
        return messages
    return (*(replace(m, role="system") if HOLE in m.text else m for m in known.around), _human(known.query))


def _read(model: LLM, prompt: BasePromptTemplate, args: Mapping[str, Any]) -> _Template | None:
    query = args.get("query_str") or _partial(prompt, model).get("query_str")
    if not isinstance(query, str) or not query.strip():
        return None
    try:
        holed = {**args, "query_str": HOLE}
        if model.metadata.is_chat_model:
            around = messages_of(model._get_messages(prompt, **holed))  # noqa: SLF001 - the host's one place for it
        else:
            around = (_human(model._get_prompt(prompt, **holed)),)  # noqa: SLF001
    except Exception:  # noqa: BLE001 - a template may call functions of the user's, which may want a real question
        return None
    return _Template(query=query, around=around)


def _partial(prompt: BasePromptTemplate, model: LLM) -> Mapping[str, Any]:
    """Read what a prompt was filled with beforehand, as response synthesizers do."""
    select = getattr(prompt, "select", None)
    return (select(llm=model) if select else prompt).kwargs


def _human(text: str) -> Message:
    return Message(role="human", text=text)
