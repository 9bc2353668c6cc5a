"""The flow of one request: yields the tier to call, is sent the reply, returns an `Outcome`.

This is the whole rule: simple goes to the first usable tier, complex to the last, medium climbs until an
answer is good enough. An error falls back to the next tier, and is told apart from an escalation.
"""

import logging
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from llm_costopt.router.complexity import Complexity, Level
from llm_costopt.types import Question

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request to call one tier."""

    id: str
    """A fresh UUID for the call."""
    tier: int
    """Which tier, counted from the cheapest."""
    final: bool
    """Whether the reply goes to the user unseen, so that it may be streamed."""
    level: Level
    """How hard the request was found to be."""
    replaces: str | None
    """The id of the call whose draft was rejected just before; None if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Generic[Reply]):
    """One call that was made."""

    call: Call
    """What was asked for."""
    result: Literal["accepted", "rejected", "failed"]
    """What came of it."""
    reply: Reply | None
    """The reply; None if the call failed."""
    seconds: float
    """How long it took; for a stream, until its first chunk."""
    confidence: float | None = None
    """The score of the reply; None if it was not judged."""
    why: str | None = None
    """What decided: a reason of the confidence rule, or the class of the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[Reply]):
    """What the router did with one request."""

    level: Level
    """How hard the request was found to be."""
    why: str
    """Which rule said so."""
    attempts: tuple[Attempt[Reply], ...]
    """The calls in order; the last is the accepted one."""
    skipped: Mapping[int, str]
    """Tiers that were not to be asked, and why."""

    @property
    def reply(self) -> Reply:
        """Return the accepted reply."""
        return self.attempts[-1].reply  # type: ignore[return-value]  # the last attempt is accepted, so it has one

    @property
    def escalated(self) -> bool:
        """Tell whether a draft was rejected."""
        return any(a.result == "rejected" for a in self.attempts)

    @property
    def fell_back(self) -> bool:
        """Tell whether a tier failed."""
        return any(a.result == "failed" for a in self.attempts)


def cascade(
    question: Question,
    *,
    tiers: int,
    complexity: Complexity,
    judge: Callable[[Reply], tuple[float, str]],
    threshold: float,
    unfit: Callable[[Exception], str | None] = lambda _: None,
    skip: Mapping[int, str] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Generator[Call, Reply, Outcome[Reply]]:
    """Route *question* over *tiers* models, cheapest first.

    *judge* scores a reply; below *threshold* it is rejected. *unfit* names the errors that mean a bad answer,
    not a failed call, and so an escalation. Tiers in *skip* are not asked, for the reason that stands there, as long as
    any other is left. The error of the last tier is raised to the caller.
    """
    level, why = _level(question, complexity)
    usable = [tier for tier in range(tiers) if tier not in (skip or {})] or [tiers - 1]
    last = usable[-1]
    attempts: list[Attempt[Reply]] = []
    replaces = None
    for tier in [last] if level == "complex" else usable:  # pragma: no branch - the last one ends it
        final = level != "medium" or tier == last
        call = Call(id=str(uuid.uuid4()), tier=tier, final=final, level=level, replaces=replaces)
        began = clock()
        try:
            reply = yield call
        except Exception as error:
            if tier == last:
                raise
            reason = unfit(error)
            if reason is None:
                log.warning("tier %d failed (%s), the next one is asked", tier, type(error).__name__)
            attempt: Attempt[Reply] = Attempt(
                call=call,
                result="rejected" if reason else "failed",
                reply=None,
                seconds=clock() - began,
                why=reason or type(error).__name__,
            )
        else:
            attempt = _judged(call, reply, clock() - began, judge, threshold)
        attempts.append(attempt)
        if attempt.result == "accepted":
            break
        replaces = call.id if attempt.result == "rejected" else None
    return Outcome(level=level, why=why, attempts=tuple(attempts), skipped=dict(skip or {}))


def _level(question: Question, complexity: Complexity) -> tuple[Level, str]:
    try:
        return complexity(question)
    except Exception as problem:  # noqa: BLE001 - a rule that the user wrote never breaks the call
        log.warning("the complexity rule failed (%s), the request counts as medium", type(problem).__name__)
        return "medium", "the rule failed"


def _judged(
    call: Call, reply: Reply, seconds: float, judge: Callable[[Reply], tuple[float, str]], threshold: float
) -> Attempt[Reply]:
    if call.final:
        return Attempt(call=call, result="accepted", reply=reply, seconds=seconds)
    try:
        score, why = judge(reply)
    except Exception as problem:  # noqa: BLE001 - a rule that the user wrote never breaks the call
        log.warning("the confidence rule failed (%s), the answer is not trusted", type(problem).__name__)
        score, why = 0.0, "the rule failed"
    result: Literal["accepted", "rejected"] = "accepted" if score >= threshold else "rejected"
    return Attempt(call=call, result=result, reply=reply, seconds=seconds, confidence=score, why=why)
