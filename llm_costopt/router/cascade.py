"""The flow of one request: yields the tier to call, is sent the reply, returns an `Outcome`.

A policy says where it starts and what becomes of a draft. An error falls back to the next usable tier, and is told
apart from an escalation.
"""

import logging
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from llm_costopt.router.complexity import Level
from llm_costopt.router.cooldown import Strain, strain_of
from llm_costopt.router.policy import Policy, Situation, Step, Verdict, above
from llm_costopt.types import Answer

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
    why: str
    """What decided that this tier is asked."""
    spare: bool
    """Whether another tier is asked if this call fails."""
    replaces: str | None
    """The id of the call whose draft was rejected last; None if there is none."""


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
    strain: Strain | None = None
    """What a failure tells of the tier; None if the request was at fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[Reply]):
    """What the router did with one request."""

    first: Step
    """Where the request was sent first, and why."""
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
    situation: Situation,
    policy: Policy,
    *,
    read: Callable[[Reply], Answer],
    unfit: Callable[[Exception], str | None] = lambda _: None,
    begun: Callable[[Call], None] = lambda _: None,
    made: Callable[[Attempt[Any]], None] = lambda _: None,
    skipped: Mapping[int, str] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Generator[Call, Reply, Outcome[Reply]]:
    """Ask tier after tier, as *policy* says, until an answer is accepted.

    *read* gives a reply in the core's terms. *unfit* names the errors that mean a bad answer, not a failed call, and so an
    escalation. *begun* is told of each call, *made* of each attempt, that of the last tier's failure too. *skipped* says why tiers are not usable.
    The error of the last usable tier is raised to the caller.
    """
    step: Step = policy.start(situation)
    first = step
    attempts: list[Attempt[Reply]] = []
    replaces = None
    while True:
        call = Call(
            id=str(uuid.uuid4()),
            tier=step.tier,
            final=step.final,
            level=first.level,
            why=step.why,
            spare=above(situation, step) is not None,
            replaces=replaces,
        )
        begun(call)
        began = clock()
        try:
            reply = yield call
        except Exception as error:
            attempt, then = _failed(call, error, unfit(error), clock() - began), above(situation, step)
            made(attempt)
            if then is None:
                raise
        else:
            seconds = clock() - began
            verdict = None if call.final else policy.judge(situation, step, read(reply))
            attempt, then = _judged(call, reply, seconds, verdict), verdict.then if verdict else None
            made(attempt)
        attempts.append(attempt)
        if then is None:
            return Outcome(first=first, attempts=tuple(attempts), skipped=dict(skipped or {}))
        if attempt.result == "rejected":  # whoever stands in for a tier that failed replaces the same draft
            replaces = call.id
        step = then


def _failed(call: Call, error: Exception, flaw: str | None, seconds: float) -> Attempt[Any]:
    if flaw is None:
        log.warning("tier %d failed (%s)", call.tier, type(error).__name__)
    why = flaw or type(error).__name__
    result: Literal["rejected", "failed"] = "rejected" if flaw else "failed"
    return Attempt(call=call, result=result, reply=None, seconds=seconds, why=why, strain=strain_of(error))


def _judged(call: Call, reply: Reply, seconds: float, verdict: Verdict | None) -> Attempt[Reply]:
    return Attempt(
        call=call,
        result="rejected" if verdict and verdict.then else "accepted",
        reply=reply,
        seconds=seconds,
        confidence=verdict.sure if verdict else None,
        why=verdict.why if verdict else None,
    )
