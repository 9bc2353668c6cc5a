"""Which of the neighbours is served: by a plain threshold, or by evidence within an error budget."""

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from llm_costopt.cache.guards import Candidate, Guard, refusal
from llm_costopt.cache.verify import ErrorBudget, Evidence, Neighbour, Verifier, candidate, evidence

REMEMBERED = 1024
"""How many requests that missed are remembered until their answers arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A neighbour that is worth considering."""

    neighbour: Neighbour
    """The one to serve."""
    sure: float | None
    """The probability that it serves; None if nobody estimated it."""


class Threshold:
    """Serve the nearest neighbour above a *threshold* that no guard refuses."""

    def __init__(self, threshold: float, guards: Sequence[Guard]) -> None:
        self._threshold = threshold
        self._guards = tuple(guards)

    def choose(
        self, exact: str, asked: str, near: Sequence[Neighbour], entries: int, refused: Callable[[str], None]
    ) -> Choice | None:
        """Choose among *near*, the nearest first; *refused* is told each guard's reason."""
        del exact, entries  # what the other policy needs
        for neighbour in near:
            if neighbour.similarity < self._threshold:
                return None
            pair = Candidate(asked=asked, stored=neighbour.text, similarity=neighbour.similarity)
            if (reason := refusal(pair, self._guards)) is None:
                return Choice(neighbour=neighbour, sure=None)
            refused(reason)
        return None

    def answered(self, exact: str, says: int) -> dict[str, Any] | None:
        """Learn nothing."""
        del exact, says
        return None


class Budget:
    """Serve by evidence, so that at most *max_error* of the requests are answered wrongly, and learn from answers.

    Every request that is not served tells for free whether its candidate would have been right, when the model's
    answer arrives. A share *shadow_rate* of those that would be served goes to the model all the same: otherwise the
    errors of what is served would never be seen. Such a label counts for all that were not checked.
    """

    def __init__(
        self, max_error: float, shadow_rate: float, state: Any, rng: Callable[[], float] = random.random
    ) -> None:
        self._verifier = Verifier(state)
        self._budget = ErrorBudget(max_error)
        self._shadow_rate = shadow_rate
        self._rng = rng
        self._waiting: OrderedDict[str, tuple[Evidence, int, float]] = OrderedDict()
        self._lock = Lock()

    def choose(
        self, exact: str, asked: str, near: Sequence[Neighbour], entries: int, refused: Callable[[str], None]
    ) -> Choice | None:
        """Choose among *near*, the nearest first, or wait for the answer to learn from it."""
        chosen = candidate(asked, near)
        if chosen is None:
            self._budget.admits(0.0)
            return None
        found = evidence(asked, near, chosen, entries)
        sure = self._verifier.sure(found)
        serve = self._budget.admits(sure)
        if serve and self._rng() >= self._shadow_rate:
            return Choice(neighbour=near[chosen], sure=sure)
        if serve:
            refused("shadow")
        with self._lock:
            self._waiting[exact] = (found, near[chosen].says, 1 / self._shadow_rate if serve else 1.0)
            if len(self._waiting) > REMEMBERED:
                self._waiting.popitem(last=False)
        return None

    def answered(self, exact: str, says: int) -> dict[str, Any] | None:
        """Learn from the answer to a request that was not served; return the state if it has moved."""
        with self._lock:
            waiting = self._waiting.pop(exact, None)
        if waiting is None:
            return None
        found, said, weight = waiting
        return self._verifier.to_dict() if self._verifier.learn(found, right=said == says, weight=weight) else None
