"""A circuit breaker: what keeps failing is left alone for a while, so that nobody waits for it."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from llm_costopt.errors import CostOptError

log = logging.getLogger(__name__)

T = TypeVar("T")

FAILURES = 5
"""Failures in a row that open a breaker: one slow reply is no outage, and each costs a caller the time limit."""

COOL_DOWN = 1.0
"""Seconds that an open breaker waits before each trial: one caller pays a time limit for it, all regain what works."""


class CircuitOpenError(CostOptError):
    """What was asked for keeps failing, and was not or will not be tried for a while; the log has said so once."""


class Breaker:
    """Let calls through until *failures* of them failed in a row, then one trial each *cool_down* seconds.

    The first one that succeeds closes it again. Opening and closing are logged, once each.

    Args:
        what: what is called, for the log, such as `"reading from Redis"`.
        failures: in a row, that open it.
        cool_down: seconds.
        clock: seconds from any start that never go back.
    """

    def __init__(
        self,
        what: str,
        *,
        failures: int = FAILURES,
        cool_down: float = COOL_DOWN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._limit = failures
        self._cool_down = cool_down
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._retry_at = 0.0

    def run(self, function: Callable[..., T], *given: Any) -> T:
        """Call *function* and note how it ends, as `watch` does, without the cost of a generator."""
        self._enter()
        try:
            found = function(*given)
        except Exception as problem:
            self._failed(problem)
            raise
        self._succeeded()
        return found

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Run the block and note how it ends.

        Raises:
            CircuitOpenError: the breaker is open, so that the block did not run; or it is open now, by this failure.
        """
        self._enter()
        try:
            yield
        except Exception as problem:
            self._failed(problem)
            raise
        self._succeeded()

    def _enter(self) -> None:
        with self._lock:
            if self._failures < self._limit:
                return
            now = self._clock()
            if now < self._retry_at:
                raise CircuitOpenError(f"{self._what} failed, and is not tried for now")
            # This caller makes the trial. Should it never come back, there is another one as late as after a failure.
            self._retry_at = now + self._cool_down

    def _failed(self, problem: Exception) -> None:
        with self._lock:
            self._failures += 1
            self._retry_at = self._clock() + self._cool_down
            opened, is_open = self._failures == self._limit, self._failures >= self._limit
        if opened:
            # The type alone: a message may quote what was asked.
            log.warning(
                "%s failed %d times in a row (%s): it is left off and tried once every %g s",
                self._what, self._limit, type(problem).__name__, self._cool_down,
            )  # fmt: skip
        if is_open:
            raise CircuitOpenError(f"{self._what} fails") from problem

    def _succeeded(self) -> None:
        with self._lock:
            closed, self._failures = self._failures >= self._limit, 0
        if closed:
            log.warning("%s works again", self._what)
