"""Does it speak for an answer that several stored questions have it? Not where they agree on something else than is asked."""

from collections.abc import Sequence
from functools import cache

from llm_costopt.cache import vocabulary as v
from llm_costopt.cache.guards import Candidate, order, particles, subjects
from llm_costopt.cache.reading import places, read, sketch


def elsewhere(asked: str, members: Sequence[tuple[str, bytes]]) -> bool:
    """Tell whether what *members*, questions (with the words of their sketch) whose answers say the same, confirm is something else than *asked*.

    It is if *asked* has another word in place of one that all of them have: where some say `rent a boat` and others
    `rent a car`, that the answer is the same says that it serves for a van too. It is if *asked* is one of them without
    what all of them say: `open an account`, `open a joint account`. It is if *asked* has a word more and they have all but
    the same: `bake a vegan cake`, `bake a cake`, `steps to bake a cake`. It is if one of them asks another thing in the same
    words, or the same but for an addition.
    """
    words, theirs = places(sketch(asked).words), [places(stored) for _, stored in members]
    shared = frozenset.intersection(*theirs)
    own = words.difference(*theirs)
    if not shared <= words and (own or any(words <= its <= words | shared for its in theirs)):
        return True
    if not own <= _framing():
        more = any(its <= words and _adds(asked, text) for its, (text, _) in zip(theirs, members, strict=True))
        return more or all(its <= shared | _framing() for its in theirs)
    return any(its == words and _turned(asked, text) for its, (text, _) in zip(theirs, members, strict=True))


def _turned(asked: str, stored: str) -> bool:
    """Tell whether two questions of the same words ask another thing: by a small word, by who is who, or by an exchange."""
    pair = Candidate(asked=asked, stored=stored, similarity=1.0)
    if particles(pair) or subjects(pair):
        return True
    here, there = read(asked), read(stored)
    if sorted(here.content) != sorted(there.content):
        return True
    if order(pair) is None or sorted(here.words) != sorted(there.words):
        return False
    apart = [n for n, (one, other) in enumerate(zip(here.words, there.words, strict=True)) if one != other]
    # `password reset` may stand for `reset password`, `who paid me` not for `who me paid`.
    return apart[-1] - apart[0] > 1 or not v.WH.isdisjoint(here.words[: apart[0]][-1:])


def _adds(asked: str, stored: str) -> bool:
    """Tell whether *asked* is *stored* with something put in at one place."""
    longer, shorter = ([w.rstrip("?!.,") for w in text.casefold().split()] for text in (asked, stored))
    start = next((n for n, (one, other) in enumerate(zip(longer, shorter, strict=False)) if one != other), len(shorter))
    return longer[len(longer) - len(shorter) + start :] == shorter[start:]


@cache
def _framing() -> frozenset[int]:
    return places(sketch(" ".join(v.FRAMING)).words)
