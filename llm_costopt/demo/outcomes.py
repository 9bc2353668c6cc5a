"""A request log whose answers are marked right or wrong → what a router can learn from."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm_costopt.demo.log import LoggedRequest, Tier
from llm_costopt.router.value import Example
from llm_costopt.types import Answer, Message, Question

_TIERS: tuple[Tier, ...] = ("cheap", "strong")

_ROLES = {"user": "human", "assistant": "ai", "developer": "system"}


def examples_of(rows: Sequence[LoggedRequest]) -> list[Example]:
    """Read the outcomes of both tiers from *rows*; a row without any is left out."""
    examples = []
    for row in rows:
        known = {n: row.answers[tier].right for n, tier in enumerate(_TIERS) if tier in row.answers}
        scores = {n: float(right) for n, right in known.items() if right is not None}
        if scores and row.has_answers:
            draft = row.answers["cheap"]
            examples.append(
                Example(
                    question=question_of(row),
                    scores=scores,
                    answer=Answer(text=draft.content, finish=draft.finish_reason) if not draft.tool_calls else None,
                    group=row.same_as or row.id,
                )
            )
    return examples


def question_of(row: LoggedRequest) -> Question:
    """Read the request of *row*."""
    return Question(
        messages=tuple(_message(m) for m in row.messages),
        with_tools=bool(row.tools),
        with_schema=row.schema is not None,
    )


def _message(message: Mapping[str, Any]) -> Message:
    content = message.get("content") or ""
    text = content if isinstance(content, str) else "".join(b.get("text", "") for b in content if isinstance(b, dict))
    role = str(message.get("role"))
    return Message(role=_ROLES.get(role, role), text=text)
