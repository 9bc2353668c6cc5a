"""Why a request hits or misses: the steps of a lookup without their effects, the candidates and the decision."""

from dataclasses import asdict, dataclass
from typing import Any

from llm_costopt.cache.judgement import Judgement
from llm_costopt.cache.key import exact_only
from llm_costopt.cache.lookup import key_for, kind_for, near, vector_of
from llm_costopt.cache.parts import Parts
from llm_costopt.types import Question


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


def explain(parts: Parts, question: Question) -> Explanation:
    """Say what a lookup of *question* would do, and why; nothing is counted, learned or served."""
    key, mode = key_for(parts, question), parts.chosen.now().mode
    kind = kind_for(key)
    if mode == "off":
        return Explanation(text=key.text, kind=kind, decision="a miss: the cache is switched off", judgement=None)
    entry = parts.store.get(key.exact)
    judgement = None
    if entry is not None and (entry.expires_at is None or parts.clock() < entry.expires_at):
        says = "an exact hit: this very request is stored"
    elif reason := exact_only(question, key.text, parts.max_words):
        says = f"a miss: only the very same request may hit ({reason})"
    elif kind == "creative":
        says = "a miss: creative work is not cached"
    elif parts.economy.is_off(key.endpoint):
        says = "a miss: matching by meaning hits too rarely here and is left off for a while"
    elif (vector := vector_of(parts, key.text)) is None:
        says = "a miss: the words have no meaning that could be compared"
    else:
        around = near(parts, key.exact, key.scope, vector)
        judgement = parts.policies.here().judge(key.text, around.neighbours, around.entries)
        says = _decision(judgement)
    if mode == "observe":
        says = f"a miss, since the cache merely observes; else {says}"
    return Explanation(text=key.text, kind=kind, decision=says, judgement=judgement)


def _decision(judgement: Judgement) -> str:
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
