"""Why a request hit or missed: the candidates, what speaks for and against each, and the decision."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a lookup of a request would do, and why; it holds questions in clear."""

    text: str
    """The question."""
    kind: str
    """Its kind of content, which decides how long an answer stays fresh."""
    decision: str
    """What happens and the reason, in one sentence."""
    judgement: Judgement | None = None
    """What was made of the candidates; None if none were looked for."""

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.text!r} ({self.kind}): {self.decision}"]
        if self.judgement is not None:
            for n, one in enumerate(self.judgement.considered):
                mark = "→" if n == self.judgement.chosen else " "
                against = f"  against: {', '.join(one.against)}" if one.against else ""
                lines.append(f"  {mark} {one.similarity:.3f}  answer {one.answer}  {one.text!r}{against}")
            lines += [f"    {value:8.3f}  {name}" for name, value in self.judgement.evidence.items()]
        return "\n".join(lines)


def decision(judgement: Judgement) -> str:
    """Say in one sentence what *judgement* comes to."""
    if not judgement.considered:
        return "a miss: nothing is stored in this scope"
    nearest = judgement.considered[0]
    if judgement.chosen is None:
        reasons = ", ".join(nearest.against)
        return f"a miss: the nearest is refused ({reasons})" if reasons else "a miss: nothing stored is near enough"
    chosen = judgement.considered[judgement.chosen]
    measure, value = (
        ("similarity", chosen.similarity)
        if judgement.sure is None
        else ("probability that the answer serves", judgement.sure)
    )
    verdict = "a semantic hit" if judgement.serves else "a miss"
    relation = "reaches" if judgement.serves else "is below"
    return f"{verdict}: the {measure}, {value:.3f}, {relation} the bar of {judgement.bar:.3f}"
