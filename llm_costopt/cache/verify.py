"""Which neighbour may be served, and the evidence for it.

Similarity alone never decides. What a cache knows and a pair of questions does not is what was answered to the
*other* neighbours, and in what words they were asked: `verifier` weighs both.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llm_costopt.cache.agree import names
from llm_costopt.cache.confirm import elsewhere
from llm_costopt.cache.guards import CERTAIN, GUARDS, Candidate, Guard, asks, dates, order, persons, refusal, words
from llm_costopt.cache.reading import places, sketch

Evidence: TypeAlias = NDArray[np.float64]
"""One number for each of `FEATURES`."""

FEATURES = (
    "similarity of the nearest that says the same",
    "lead of the nearest that says something else",
    "gap to it",
    "similarity times support",
    "log odds of the answer, by similarity",
    "log odds of the answer, by shared trigrams",
    "share of the neighbours that say something else",
    "share of the nearest eight that say the same",
    "share of the neighbours that agree on something else",
    "trigrams shared with the candidate",
    "trigrams shared with the closest three that say the same",
    "trigrams that two who say the same have, and no other",
    "trigrams that only others have",
    "words that only those have who say the same",
    "size of the scope",
    "differs in dates",
    "differs in the kind of question",
    "differs in persons",
    "differs in the order of words",
    "differs in words",
    "one",
)

NEIGHBOURS = 16
"""How many of the nearest entries are heard. With eight, 2.5 % fewer of the requests can be served at the same error."""

FLOOR = 0.3
"""Cosine below which nothing is a candidate, whatever the neighbours say."""

WITNESSES = 3
"""Neighbours that say the same, the candidate among them, from which on an answer counts as confirmed."""

_SOFT: tuple[Guard, ...] = (dates, asks, persons, order, words)
"""Guards whose word is evidence here; the others refuse."""

_SHARP = 12.0
"""How fast a neighbour's word loses weight with its distance: at a cosine of 0.1 less it counts a third."""


class Neighbour(NamedTuple):  # sixteen a lookup, each made in a third of the time of a frozen dataclass
    """A stored question near the one that was asked."""

    entry: str
    """The id of its entry."""
    similarity: float
    """Cosine similarity to the question that was asked."""
    text: str
    """The stored question."""
    says: int
    """Entries with the same number have answers that say the same; so have those whose `agree.names` overlap."""
    trigrams: int
    """Those of the stored question's `reading.Sketch`."""
    words: bytes
    """Those of the same."""


def together(neighbours: Sequence[Neighbour]) -> list[Neighbour]:
    """Give those the same number whose answers say the same, be it by way of a third one among *neighbours*."""
    leads: dict[int, int] = {}

    def lead(name: int) -> int:
        while (further := leads.get(name, name)) != name:
            name = further
        return name

    named = {says: names(says) or (0,) for says in dict.fromkeys([near.says for near in neighbours])}
    for first, *others in named.values():
        for name in others:
            leads[lead(name)] = lead(first)
    if not leads and len({its[0] for its in named.values()}) == len(named):
        return list(neighbours)  # most answers have nothing to do with each other
    numbers: dict[int, int] = {}
    group = {says: numbers.setdefault(lead(its[0]), says) for says, its in named.items()}
    return [near if group[near.says] == near.says else near._replace(says=group[near.says]) for near in neighbours]


def candidate(asked: str, neighbours: Sequence[Neighbour]) -> int | None:
    """Find the neighbour to serve: of the answer with most support, the nearest that no guard refuses.

    What other entries confirm is refused only for what is certain. What stands alone has nothing but its words to
    speak for it, so that there every guard is heard; so it is where they confirm something else. None if all are
    refused; *neighbours* come nearest first.
    """
    heard = [near for near in neighbours if near.similarity >= FLOOR]
    support = dict.fromkeys([near.says for near in heard], 0.0)
    for near in heard:
        support[near.says] += math.exp(_SHARP * near.similarity)
    for says in sorted(support, key=support.__getitem__, reverse=True):
        members = [(n, near) for n, near in enumerate(heard) if near.says == says]
        confirmed = len(members) >= WITNESSES and not elsewhere(asked, [(near.text, near.words) for _, near in members])
        guards = CERTAIN if confirmed else GUARDS  # which refuse all that CERTAIN refuse
        for n, near in members:
            if refusal(Candidate(asked=asked, stored=near.text, similarity=near.similarity), guards) is None:
                return n
    return None


def evidence(asked: str, neighbours: Sequence[Neighbour], chosen: int, entries: int) -> Evidence:
    """Describe the *chosen* one of *neighbours*, nearest first, in a scope of so many *entries*."""
    near, text = neighbours[chosen], sketch(asked)
    says = near.says
    same = _Camp([one for one in neighbours if one.says == says], text.trigrams)
    others = _Camp([one for one in neighbours if one.says != says], text.trigrams)
    rival = _rival(neighbours, same, others)
    # What is not among the neighbours counts as something else at a cosine of 0.2.
    against = others.closeness + math.exp(_SHARP * 0.2)
    trigrams, own = max(1, text.trigrams.bit_count()), places(text.words)
    pair = Candidate(asked=asked, stored=near.text, similarity=near.similarity)
    return np.array(
        [
            same.best,
            neighbours[0].similarity - same.best,
            same.best - rival,
            same.best * same.closeness / (same.closeness + against),
            math.log(same.closeness / against),
            math.log(same.likeness / (others.likeness + 1)),
            len(others.members) / NEIGHBOURS,
            [one.says for one in neighbours[:8]].count(says) / 8,
            max(Counter([one.says for one in others.members]).values(), default=0) / NEIGHBOURS,
            _overlap(text.trigrams, near.trigrams),
            sum(sorted(same.overlaps, reverse=True)[:3]) / 3,
            (text.trigrams & same.twice & ~others.trigrams).bit_count() / trigrams,
            (text.trigrams & others.trigrams & ~same.trigrams).bit_count() / trigrams,
            len((own & same.words) - others.words) / max(1, len(own)),
            math.log1p(entries) / 10,
            *[guard(pair) is not None for guard in _SOFT],
            1.0,
        ],
        dtype=np.float64,
    )


def _rival(neighbours: Sequence[Neighbour], same: "_Camp", others: "_Camp") -> float:
    if others.members:
        return others.best
    # Whoever says something else is farther away than all that were heard.
    return min(neighbours[-1].similarity, same.best) if len(neighbours) >= NEIGHBOURS else 0.2


class _Camp:
    """The neighbours that say the same as the candidate, or those that do not, nearest first, summed up."""

    __slots__ = ("best", "closeness", "likeness", "members", "overlaps", "trigrams", "twice", "words")

    def __init__(self, members: Sequence[Neighbour], asked: int) -> None:
        trigrams = twice = 0
        for near in members:
            twice |= trigrams & near.trigrams
            trigrams |= near.trigrams
        self.members = members
        self.best = members[0].similarity if members else 0.0
        self.trigrams, self.twice = trigrams, twice
        self.words = places(b"".join([near.words for near in members]))
        self.overlaps = [_overlap(asked, near.trigrams) for near in members]
        self.closeness = sum([math.exp(_SHARP * near.similarity) for near in members])
        self.likeness = sum([math.exp(6 * overlap) for overlap in self.overlaps])


def _overlap(one: int, other: int) -> float:
    return (one & other).bit_count() / max(1, (one | other).bit_count())
