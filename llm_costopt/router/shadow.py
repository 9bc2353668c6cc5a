"""A share of the requests is answered by the other tiers as well, beside the user's call, and compared: unbiased labels."""

import logging
import os
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TypeAlias

from llm_costopt.faults import fault
from llm_costopt.types import Answer, Question

log = logging.getLogger(__name__)

Judge: TypeAlias = Callable[[Question, Answer, Answer], float | None]
"""`(question, answer, reference)` → how good *answer* is, from 0 to 1, where *reference* is the strongest tier's; None if it
cannot be told."""

THREADS = 2
"""At once; there is no hurry."""
WAITING = 100
"""Comparisons that may wait for a thread; one more is left out and counted."""


class Shadow:
    """Run comparisons in the background.

    Args:
        rate: share of the requests, from 0 to 1.
        random: gives numbers from 0 to 1.
    """

    def __init__(self, rate: float, *, random: Callable[[], float] = random.random) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"a share is from 0 to 1, not {rate!r}")
        self.rate = rate
        self.dropped = 0
        """Comparisons that were left out, for too many waited, or that failed."""
        self._random = random
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()
        self._running: set[Future[None]] = set()

    def chosen(self) -> bool:
        """Draw whether a request is compared."""
        return self.rate > 0 and self._random() < self.rate

    def start(self, compare: Callable[[], None]) -> None:
        """Run *compare* in the background, in the caller's context; what it raises is logged and counted."""
        with self._lock:
            if self._process != os.getpid():  # a forked child has none of the parent's threads
                self._process, self._pool = os.getpid(), None
                self._running.clear()
            if len(self._running) >= WAITING:
                self.dropped += 1
                return
            self._pool = self._pool or ThreadPoolExecutor(THREADS, thread_name_prefix="llm-costopt-shadow")
            future = self._pool.submit(copy_context().run, self._guarded, compare)
            self._running.add(future)
        future.add_done_callback(self._done)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all comparisons that were started are done, or *timeout* seconds; tell whether they are."""
        with self._lock:
            running = set(self._running)
        return not wait(running, timeout).not_done

    def _done(self, future: Future[None]) -> None:
        with self._lock:
            self._running.discard(future)

    def _guarded(self, compare: Callable[[], None]) -> None:
        try:
            compare()
        except Exception as problem:  # noqa: BLE001 - a model or a judge that fails costs a label, nothing else
            with self._lock:
                self.dropped += 1
            log.warning("a comparison of tiers failed (%s)", type(problem).__name__)


def scores_of(
    question: Question, answers: Mapping[int, Answer], *, judge: Judge, strongest: int
) -> dict[int, float] | None:
    """Score the answers of all tiers against the strongest one's; None if one cannot be told.

    What is plainly wrong with an answer decides before the judge is asked.
    """
    reference = answers[strongest]
    if fault(reference):  # it is no reference
        return None
    scores = {strongest: 1.0}
    for tier, answer in answers.items():
        if tier == strongest:
            continue
        score = 0.0 if fault(answer) else judge(question, answer, reference)
        if score is None:
            return None
        if not 0 <= score <= 1:
            raise ValueError(f"a judge's score is from 0 to 1, not {score!r}")
        scores[tier] = score
    return scores
