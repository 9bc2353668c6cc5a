"""What a policy makes of the candidates of a request: what speaks for and against each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """A stored question near the one that was asked."""

    entry: str
    """The id of its entry."""
    text: str
    """The stored question."""
    similarity: float
    """Cosine of the two questions."""
    answer: int
    """Which answer it has: candidates with the same number have answers that say the same, numbered from 1."""
    against: tuple[str, ...]
    """The guards that speak against it. Some are final; what other entries confirm may be served against the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a policy makes of the candidates."""

    considered: Sequence[Considered]
    """The candidates, nearest first."""
    chosen: int | None
    """Which of them might be served; None if none may."""
    sure: float | None
    """The probability that its answer serves; None if nobody estimated it."""
    bar: float
    """What `sure` must reach, or the similarity if there is no `sure`."""
    evidence: Mapping[str, float]
    """What the probability was made from, by name."""

    @property
    def serves(self) -> bool:
        """Tell whether the chosen candidate is served."""
        if self.chosen is None:
            return False
        return (self.considered[self.chosen].similarity if self.sure is None else self.sure) >= self.bar
