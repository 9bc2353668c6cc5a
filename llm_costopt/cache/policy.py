"""Which of the neighbours is served: by a plain threshold, or by evidence within an error budget."""

import random
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from llm_costopt.cache.agree import is_prose, names
from llm_costopt.cache.budget import ErrorBudget
from llm_costopt.cache.guards import CERTAIN, GUARDS, Candidate, Guard, refusal
from llm_costopt.cache.judgement import Considered, Judgement
from llm_costopt.cache.verifier import Verifier
from llm_costopt.cache.verify import FEATURES, Evidence, Neighbour, candidate, evidence, together
from llm_costopt.recent import Recent

MISSED = 0.5
"""Share of the answers in free text that say the same as another one without being seen to: see `agree.CLOSE`."""

FURTHER = 0.8
"""What each further answer that says the same as that one leaves of this share.

Measured on two streams with answers in free text, of which 50 % agree: of right candidates 62 to 69 % are seen to be
right with three such answers and 85 to 93 % with eight; this makes it 68 % and 90 %. Over five orders, nothing left
off, 55.0 % and 50.0 % of the requests hit at 0.6 % errors; with 0.85 59.5 % and 56.3 % at 0.8 %. The smaller one, since
an error of agreement goes unseen: where 1 % of different answers seem to agree, neither keeps a budget of 1 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A neighbour that is worth considering."""

    neighbour: Neighbour
    """The one to serve."""
    sure: float | None
    """The probability that it serves; None if nobody estimated it."""
    same: tuple[int, ...]
    """Numbers of the answers that say the same as this one, its own among them."""


Compared: TypeAlias = Callable[[bool, float], None]
"""Is told of a would-be hit whether the model said the same, and the share of right ones where this is seen."""


def seen_share(same: Sequence[int], says: int) -> float:
    """Return the share of right candidates that are seen to be right when the answer *says* is held against *same*."""
    prose = is_prose(says) or any(map(is_prose, same))
    return 1 - MISSED * FURTHER ** (len(same) - 1) if prose else 1.0


def score_of(right: bool, seen: float) -> float:
    """Say how good a would-be hit was: 1 where the answers were seen to say the same, else 0, and of prose the chance that they do.

    That chance is taken at even odds: what the verifier believes is what is being checked. So for prose the level is too
    low, and its change is what says something.
    """
    return 1.0 if right else (1 - seen) / (2 - seen)


class Threshold:
    """Serve the nearest neighbour above a *threshold* that no guard refuses."""

    def __init__(self, threshold: float, guards: Sequence[Guard]) -> None:
        self._threshold = threshold
        self._guards = tuple(guards)

    def choose(
        self,
        exact: str,
        asked: str,
        near: Sequence[Neighbour],
        entries: int,
        refused: Callable[[str], None],
        *,
        observed: bool = False,
    ) -> Choice | None:
        """Choose among *near*, the nearest first; *refused* is told each guard's reason."""
        del exact, entries, observed  # what the other policy needs
        for neighbour in near:
            if neighbour.similarity < self._threshold:
                return None
            pair = Candidate(asked=asked, stored=neighbour.text, similarity=neighbour.similarity)
            if (reason := refusal(pair, self._guards)) is None:
                return Choice(neighbour=neighbour, sure=None, same=(neighbour.says,))
            refused(reason)
        return None

    def judge(self, asked: str, near: Sequence[Neighbour], entries: int) -> Judgement:
        """Say what `choose` would make of *near*."""
        del entries
        considered = _considered(asked, near, self._guards)
        fit = (n for n, one in enumerate(considered) if not one.against and one.similarity >= self._threshold)
        return Judgement(considered=considered, chosen=next(fit, None), sure=None, bar=self._threshold, evidence={})

    def answered(self, exact: str, says: int, compared: Compared | None = None) -> dict[str, Any] | None:
        """Learn nothing."""
        del exact, says, compared
        return None

    def judged(self, exact: str, *, right: bool, seen: float = 1.0) -> dict[str, Any] | None:
        """Learn nothing."""
        del exact, right, seen
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
        self._waiting: Recent[str, _Waiting] = Recent()
        self._served: Recent[str, Evidence] = Recent()

    def beside(self, max_error: float, shadow_rate: float) -> Self:
        """Return one with a budget of its own that learns together with this one."""
        other = copy(self)
        vars(other).update(_budget=ErrorBudget(max_error), _shadow_rate=shadow_rate)
        return other

    def choose(
        self,
        exact: str,
        asked: str,
        near: Sequence[Neighbour],
        entries: int,
        refused: Callable[[str], None],
        *,
        observed: bool = False,
    ) -> Choice | None:
        """Choose among *near*, the nearest first, or wait for the answer to learn from it.

        Of what is merely *observed* nothing is left to chance: the caller compares all of it.
        """
        heard = together(near)
        chosen = candidate(asked, heard)
        if chosen is None:
            self._budget.admits(0.0)
            return None
        found = evidence(asked, heard, chosen, entries)
        sure = self._verifier.sure(found)
        serve = self._budget.admits(sure)
        same = tuple(one.says for one, group in zip(near, heard, strict=True) if group.says == heard[chosen].says)
        if serve and (observed or self._rng() >= self._shadow_rate):
            self._served.put(exact, found)
            return Choice(neighbour=near[chosen], sure=sure, same=same)
        if serve:
            refused("shadow")
        weight = 1 / self._shadow_rate if serve else 1.0
        self._waiting.put(exact, _Waiting(found=found, same=same, weight=weight, checked=serve))
        return None

    def judge(self, asked: str, near: Sequence[Neighbour], entries: int) -> Judgement:
        """Say what `choose` would make of *near*; chance, by which some hits are checked, is left out."""
        near = together(near)
        chosen = candidate(asked, near)
        found = None if chosen is None else evidence(asked, near, chosen, entries)
        return Judgement(
            considered=_considered(asked, near, (*CERTAIN, *GUARDS)),
            chosen=chosen,
            sure=None if found is None else self._verifier.sure(found),
            bar=self._budget.bar,
            evidence={} if found is None else dict(zip(FEATURES, map(float, found), strict=True)),
        )

    def answered(self, exact: str, says: int, compared: Compared | None = None) -> dict[str, Any] | None:
        """Learn from the answer to a request that was not served; return the state if it has moved."""
        waiting = self._waiting.pop(exact)
        if waiting is None:
            return None
        right = not waiting.names.isdisjoint(names(says))
        seen = seen_share(waiting.same, says)
        if waiting.checked and compared:
            compared(right, seen)
        moved = self._verifier.learn(waiting.found, right=right, weight=waiting.weight, seen=seen)
        return self._verifier.to_dict() if moved else None

    def judged(self, exact: str, *, right: bool, seen: float = 1.0) -> dict[str, Any] | None:
        """Learn from what the application, or the model, says of a hit; return the state if it has moved."""
        found = self._served.pop(exact)
        if found is None:
            return None
        return self._verifier.to_dict() if self._verifier.learn(found, right=right, seen=seen) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """A candidate about which the model's answer will tell."""

    found: Evidence
    same: tuple[int, ...]
    """Numbers of the neighbours that say the same as the candidate, and its own."""
    weight: float
    checked: bool
    """Whether it would have been served."""

    @property
    def names(self) -> frozenset[int]:
        return frozenset(name for says in self.same for name in names(says))


def _considered(asked: str, near: Sequence[Neighbour], guards: Sequence[Guard]) -> tuple[Considered, ...]:
    answers = {says: n for n, says in enumerate(dict.fromkeys(one.says for one in near), 1)}
    considered = []
    for one in near:
        pair = Candidate(asked=asked, stored=one.text, similarity=one.similarity)
        reasons = dict.fromkeys(reason for guard in guards if (reason := guard(pair)))
        considered.append(
            Considered(
                entry=one.entry,
                text=one.text,
                similarity=one.similarity,
                answer=answers[one.says],
                against=tuple(reasons),
            )
        )
    return tuple(considered)
