"""How hard a request is, by rules that cost nothing: the first tier to ask."""

import logging
import re
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

from llm_costopt.router.task import LONG, task_of
from llm_costopt.types import Question

log = logging.getLogger(__name__)

Level = Literal["simple", "medium", "complex"]

_LEVELS: dict[str, Level] = {level: level for level in get_args(Level)}

Complexity: TypeAlias = Callable[[Question], tuple[Level, str]]
"""Says how hard a request is, and why."""

SHORT = 25
"""Words; a longer task is not simple, whatever its first words are."""

_COMPLEX = re.compile(
    r"\b(?:analy[sz]e|analysis of|compare|trade-?offs?|pros and cons|step[- ]by[- ]step|prove|derive"
    r"|design (?:a|an|the)|architect(?:ure)?|refactor|debug|optimi[sz]e|implement|algorithm|time complexity|root cause"
    r"|strateg(?:y|ies)|evaluate|critique|comprehensive|in[- ]depth|essay|business plan|roadmap|migrat(?:e|ion)"
    r"|explain why|reason(?:ing)? through|think through|multi-?step|race condition|deadlock|concurren(?:t|cy)|thread-?safe"
    r"|write (?:a|an|the)(?= (?:\w+ )?(?:program|class|parser|scheduler|simulation|report|proposal|test suite)\b))\b",
)
"""What it finds is kept as the reason: no word of the user's own may be in it."""
_SIMPLE = re.compile(
    r"^\W*(?:hi|hello|hey|thanks?|thank you|good (?:morning|afternoon|evening)|bye|ok(?:ay)?|yes|no|great|cool)\b"
    r"|^\W*(?:what(?:['’]s| is| are| was| were)|who(?:['’]s)?|when|where|which|define|spell)\b"
    r"|^\W*(?:please )?(?:translate|classify|categori[sz]e|label|extract|list|name|capitali[sz]e|count)\b"
    r"|\b(?:positive or negative|true or false|yes or no|spam or not|sentiment)\b"
    r"|^\W*(?:do|does|is|are|can|could|will) (?:you|i|we|the|your|my|there|it|this)\b"
    r"|^\W*how (?:many|much|old|long|far|tall|do i|can i|do you)\b",
)

_BEFORE = re.compile(r"^\W+")


def complexity(question: Question) -> tuple[Level, str]:
    """Call a request simple, medium or complex, and say which rule did.

    A request for tools or for a structure is never simple: medium is where the answer is checked.
    """
    task = task_of(question.messages)
    text = task.text.lower()  # to ignore the case instead takes three times as long
    if task.words > LONG:
        return "complex", f"more than {LONG} words"
    if found := _COMPLEX.search(text):
        return "complex", f"“{found[0]}”"
    if question.with_schema or question.with_tools:
        return "medium", "structured output" if question.with_schema else "tools"
    if task.words <= SHORT and (found := _SIMPLE.search(text)):
        return "simple", f"“{_BEFORE.sub('', found[0])}”"
    return "medium", "no rule applies"


def level_of(rule: Complexity, question: Question) -> tuple[Level, str]:
    """Ask *rule*; a rule that the user wrote never breaks the call, whatever it raises or returns."""
    try:
        level, why = rule(question)
        return _LEVELS[level], str(why)
    except Exception as problem:  # noqa: BLE001 - whatever the user's code raises or returns
        log.warning("the complexity rule failed (%s), the request counts as medium", type(problem).__name__)
        return "medium", "the rule failed"
