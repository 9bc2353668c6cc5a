"""Run one decision flow from blocking or from async code.

A flow is a generator: it yields what it wants done, is sent the result (or has the failure
thrown in) and returns its outcome, as in `httpx.Auth.auth_flow`. The decision stands once;
these two drivers are the only sync/async pair.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

Step = TypeVar("Step")
Reply = TypeVar("Reply")
Outcome = TypeVar("Outcome")


def drive(flow: Generator[Step, Reply, Outcome], ask: Callable[[Step], Reply]) -> Outcome:
    """Run *flow* to its outcome, doing each step with *ask*."""
    resume: Callable[[Any], Step] = flow.send
    value: Any = None
    while True:
        try:
            step = resume(value)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        try:
            resume, value = flow.send, ask(step)
        except Exception as error:  # noqa: BLE001 - the flow decides what a failed step means
            resume, value = flow.throw, error


async def adrive(flow: Generator[Step, Reply, Outcome], ask: Callable[[Step], Awaitable[Reply]]) -> Outcome:
    """Run *flow* to its outcome, awaiting each step with *ask*."""
    resume: Callable[[Any], Step] = flow.send
    value: Any = None
    while True:
        try:
            step = resume(value)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        try:
            resume, value = flow.send, await ask(step)
        except Exception as error:  # noqa: BLE001 - the flow decides what a failed step means
            resume, value = flow.throw, error
