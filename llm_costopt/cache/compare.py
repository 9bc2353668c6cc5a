"""Which stored answers say the same as one in hand, and how good an answer from the cache was."""

from llm_costopt.cache.agree import agree, joined, known, number
from llm_costopt.cache.embed import Vector
from llm_costopt.cache.failsafe import failsafe
from llm_costopt.cache.key import Key
from llm_costopt.cache.lookup import entry_of, near
from llm_costopt.cache.parts import Parts
from llm_costopt.cache.verify import FLOOR, Neighbour


def number_of(parts: Parts, key: Key, vector: Vector | None, answer: str) -> int:
    """Make a number of the words of *answer*, or of what the neighbours have that say the same."""
    own = number(answer)
    learns = parts.chosen.usual.threshold is None or parts.observation.waits(key.exact)
    if vector is None or not learns:
        return own
    with failsafe("comparison", parts.tally.count):  # an answer may be stored though nothing can be searched
        around = near(parts, key.exact, key.scope, vector).neighbours
        return joined(own, [one.says for one in around if one.similarity >= FLOOR and agrees(parts, own, answer, one)])
    return own


def agrees(parts: Parts, own: int, answer: str, one: Neighbour) -> bool:
    """Tell whether *answer*, whose number is *own*, says what the answer of the neighbour *one* says."""
    if (same := known(own, one.says)) is not None:
        return same
    stored = entry_of(parts, one)
    return stored is not None and agree(answer, stored.answer)


def scored(parts: Parts, hit: str, score: float) -> None:
    """Tell whoever wants to know how good the answer named *hit* was; an empty name is one that was not served."""
    if parts.on_score is not None:
        with failsafe("score", parts.tally.count):
            parts.on_score(hit, score, about="cache")
