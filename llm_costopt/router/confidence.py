"""How good an answer looks: keep it or escalate.

Checks that cannot be wrong come first, and each decides alone. The text signals of the document come
last; on answers whose correctness is known, hedging words are no better than a coin (AUC 0.48-0.53).
"""

import ast
import json
import logging
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from llm_costopt.faults import fault
from llm_costopt.router.task import task_of
from llm_costopt.types import Answer, Question, ToolCall

log = logging.getLogger(__name__)

Confidence: TypeAlias = Callable[[Question, Answer], tuple[float, str]]
"""Says how sure an answer is to be good, from 0 to 1, and why."""

UNREMARKABLE = 0.9
"""The score of an answer that nothing speaks against."""

# Possessive, and no backtick in the line that opens a block: a long line without an end costs no quadratic time.
_FENCE = re.compile(r"```[ \t]*+(\w++)?+[^\n`]*+\n(.*?)```", re.DOTALL)
_NOT_A_MODULE = re.compile(r"^\s*(?:>>>|[!%]\w)", re.MULTILINE)
"""Doctests and notebook commands, which Python's parser does not know."""
_HEDGE = re.compile(
    r"\b(?:i(?:['’]m| am) not (?:entirely |quite |completely |really )?(?:sure|certain)|i(?:['’]m| am) (?:unsure|uncertain)"
    r"|i (?:do not|don['’]t) (?:really )?know|i (?:think|believe|guess)\b|it(?:['’]s| is) (?:hard|difficult) to say|not entirely clear"
    r"|might be|may be|could be|possibly|perhaps|probably|as far as i know|if i remember|i cannot be certain|it depends)\b",
)
"""Like the others, it reads lower-case text: to ignore the case takes three times as long."""
_HEDGING = (
    *(
        " sure",
        " unsure",
        " certain",
        " uncertain",
        "t know",
        "t really know",
        "i know",
        "i think",
        "i believe",
        "i guess",
    ),
    *(" to say", "entirely clear", "might be", "may be", "could be", "possibly", "perhaps", "probably"),
    *("if i remember", "it depends"),
)
"""One of these is in whatever the pattern finds."""
_WANTS_MORE = re.compile(r"\b(?:explain|describe|why|how|steps?|list|compare|write|summari[sz]e|outline|difference)\b")
_WANTS_JSON = re.compile(r"\b(?:as|in|valid|return|output|only) json\b|\bjson (?:only|object|array|format)\b")


def confidence(question: Question, answer: Answer) -> tuple[float, str]:
    """Score *answer* from 0 to 1, and say what decided."""
    if flaw := next(_flaws(question, answer), None):
        return 0.0, flaw
    if answer.tool_calls:
        return UNREMARKABLE, "valid tool call"
    task = task_of(question.messages)
    score, reasons = UNREMARKABLE, []
    if hedges := _hedges(answer.text.lower()):
        score -= min(0.25 * hedges, 0.6)
        reasons.append("hedging")
    if len(answer.text.split(maxsplit=7)) < 8 and _WANTS_MORE.search(task.text.lower()) and task.words > 5:
        score -= 0.3
        reasons.append("too short for the question")
    return round(max(score, 0.0), 2), ", ".join(reasons) or "nothing speaks against it"


def _hedges(lower: str) -> int:
    # Looking for a word alone takes half of the time of the pattern, and many answers have none of them.
    return len(_HEDGE.findall(lower)) if any(word in lower for word in _HEDGING) else 0


def sure_of(rule: Confidence, question: Question, answer: Answer) -> tuple[float, str]:
    """Ask *rule*; if it raises or gives no score, as a rule that the user wrote may, the answer is not trusted."""
    try:
        sure, why = rule(question, answer)
        is_score = 0 <= sure <= 1
    except Exception as problem:  # noqa: BLE001 - whatever the user's code raises or returns
        log.warning("the confidence rule failed (%s), the answer is not trusted", type(problem).__name__)
        return 0.0, "the rule failed"
    if not is_score:
        log.warning("the confidence rule gave %r, not a score from 0 to 1: the answer is not trusted", sure)
        return 0.0, "the rule failed"
    return float(sure), str(why)


def _flaws(question: Question, answer: Answer) -> Iterator[str]:
    """Find what is surely wrong, the cheapest check first."""
    if problem := fault(answer):
        yield problem
    for call in answer.tool_calls:
        if not (question.with_tools or question.with_schema):
            yield "a tool call, but there is no tool"
        elif question.tools and call.name not in question.tools:
            yield f"unknown tool {call.name!r}"
        elif problem := _bad_arguments(call, question.tools.get(call.name)):
            yield problem
    for language, code in _FENCE.findall(answer.text) if "```" in answer.text else ():
        if not _parses(language.lower(), code):
            yield f"{language} that does not parse"
    if _WANTS_JSON.search(task_of(question.messages).text.lower()) and not answer.tool_calls:
        blocks = _FENCE.findall(answer.text) or [("json", answer.text)]
        # A block in another language is what was asked for: a program that returns JSON.
        if all(language.lower() in {"", "json"} for language, _ in blocks) and not _parses("json", blocks[0][1]):
            yield "not JSON"


def _bad_arguments(call: ToolCall, schema: Any) -> str | None:
    import jsonschema
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    if not schema:
        return None
    try:
        jsonschema.validate(dict(call.args), schema, registry=Registry())  # an empty registry fetches nothing
    except (jsonschema.ValidationError, RecursionError):
        return f"bad arguments for {call.name!r}"
    except (jsonschema.SchemaError, Unresolvable):  # a schema that is wrong itself proves nothing about the answer
        return None
    return None


def _parses(language: str, code: str) -> bool:
    """Tell whether code is well-formed, where that is cheap to know: Python and JSON."""
    try:
        if language in {"python", "py", "python3"} and not _NOT_A_MODULE.search(code):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an odd escape in an answer is not our user's warning
                ast.parse(textwrap.dedent(code))  # code inside a list is indented with it
        elif language == "json":
            json.loads(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
