"""Reasons to refuse a candidate hit, however similar: plain functions, each naming what differs.

Static embeddings do not see word order, and no embedding sees a digit or a "not" as what it is.
Measured on 9,999 labelled question pairs (`pairs_qqp`) with the bundled embedder at a cosine of 0.95:
see CHANGELOG.md for the figures of the guards below.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from llm_costopt.cache import vocabulary as v


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A stored question that is near the one that was asked."""

    asked: str
    """The question of this request."""
    stored: str
    """The question whose answer is in the store."""
    similarity: float
    """Their cosine similarity."""


Guard: TypeAlias = Callable[[Candidate], str | None]
"""Returns why the candidate must not be served, or None."""


def numbers(candidate: Candidate) -> str | None:
    """Refuse other numbers: 3 is not 5, `three` is 3, `1,000` is 1000, `$5` is not `5 %`."""
    return _differ(candidate, _numbers, "numbers")


def identifiers(candidate: Candidate) -> str | None:
    """Refuse other codes, addresses, file names, versions and names with signs: `AB-12`, `a@b.c`, `C++`."""
    return _differ(candidate, _identifiers, "identifiers")


def dates(candidate: Candidate) -> str | None:
    """Refuse other months, weekdays, times of day, periods and words such as `today`."""
    return _differ(candidate, _dates, "dates")


def negation(candidate: Candidate) -> str | None:
    """Refuse when one side says `not` (or its like) more often than the other."""
    return _differ(candidate, _negations, "negation")


def opposites(candidate: Candidate) -> str | None:
    """Refuse when one side says `enable` and the other `disable`."""
    asked, stored = set(_words(candidate.asked)), set(_words(candidate.stored))
    for one, other in v.OPPOSITES:
        only = (one in asked, other in asked, one in stored, other in stored)
        if only in {(True, False, False, True), (False, True, True, False)}:
            return "opposites"
    return None


def quotes(candidate: Candidate) -> str | None:
    """Refuse when what stands in quotation marks differs in any character."""
    return _differ(candidate, _quotes, "quotes")


def asks(candidate: Candidate) -> str | None:
    """Refuse another kind of question: `when` is not `where`, `is it` is not `why is it`, `did` is not `does`."""
    return _differ(candidate, _kind, "question")


def persons(candidate: Candidate) -> str | None:
    """Refuse another person: `your name` is not `my name`; in `how do you`, `you` is anyone."""
    return _differ(candidate, _persons, "persons")


def words(candidate: Candidate) -> str | None:
    """Refuse when a word that carries meaning stands on one side only.

    With the bundled embedder at 0.95 this gives up a third of the right hits of question pairs and takes the
    precision from 0.87 to 0.92; leave it out of `guards=` for an embedder that is worth more trust.
    """
    return _differ(candidate, lambda text: frozenset(content_words(text)), "words")


def order(candidate: Candidate) -> str | None:
    """Refuse when the words that both sides share come in another order: `from A to B`, `from B to A`.

    Of word-order pairs that mean different things (`pairs_paws`), 94 % pass a cosine of 0.95 and 2 % pass this.
    """
    asked, stored = content_words(candidate.asked), content_words(candidate.stored)
    shared = set(asked) & set(stored)
    return "order" if [w for w in asked if w in shared] != [w for w in stored if w in shared] else None


def swapped(candidate: Candidate) -> str | None:
    """Refuse when both sides have the same words but for one, in another order: `from A to B`, `from B to A`."""
    asked, stored = Counter(content_words(candidate.asked)), Counter(content_words(candidate.stored))
    others = (asked - stored).total() + (stored - asked).total()
    return order(candidate) and "swapped" if others <= 1 else None


GUARDS: tuple[Guard, ...] = (numbers, identifiers, dates, negation, opposites, quotes, asks, persons, words, order)
"""All of the above; the default where similarity alone decides."""

CERTAIN: tuple[Guard, ...] = (numbers, identifiers, negation, opposites, quotes, swapped)
"""Those whose word is final even where other evidence is weighed."""


def refusal(candidate: Candidate, guards: Sequence[Guard]) -> str | None:
    """Return the first reason that any of *guards* has against *candidate*."""
    for guard in guards:
        if reason := guard(candidate):
            return reason
    return None


def _differ(candidate: Candidate, part: Callable[[str], object], reason: str) -> str | None:
    return reason if part(candidate.asked) != part(candidate.stored) else None


@lru_cache(maxsize=4096)
def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+", text.casefold()))


@lru_cache(maxsize=4096)
def content_words(text: str) -> tuple[str, ...]:
    """List the words of *text* that carry meaning, in order, without their endings."""
    plain = v.POLITE.sub(" ", text)
    return tuple(_stem(w) for w in _words(plain) if w not in v.EMPTY) + _shouted(text)


def _shouted(text: str) -> tuple[str, ...]:
    """Find capitals that make another word of an empty one: IT, US, WHO (unless all is in capitals)."""
    if text.isupper():
        return ()
    return tuple(w for w in re.findall(r"\b[A-Z]{2,}\b", text) if w.casefold() in v.EMPTY)


def _stem(word: str) -> str:
    for suffix, instead in (("ies", "y"), ("ing", ""), ("es", ""), ("ed", ""), ("e", ""), ("s", "")):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word.removesuffix(suffix) + instead
    return word


def number_words(text: str) -> frozenset[str]:
    """List the numbers of *text*, written as `numbers` compares them."""
    return frozenset(_numbers(text))


def _numbers(text: str) -> Counter[str]:
    found = re.findall(r"[$€£¥]?\s?\d[\d,]*(?:\.\d+)?\s?%?", text)
    # In words only from two up: "one" is as often a pronoun.
    spelled = (v.NUMBER_WORDS[w] for w in _words(text) if w in v.NUMBER_WORDS and w != "one")
    return Counter(n.replace(",", "").replace(" ", "") for n in (*found, *spelled))


def _identifiers(text: str) -> Counter[str]:
    tokens = (t.strip(".,;:!?\"'()[]{}“”‘’«»").rstrip("/") for t in text.split())
    # A token of signs alone, as in "this & that", names nothing.
    return Counter(
        t
        for t in tokens
        if re.search(r"\w", t) and re.search(r"\d[^\W\d]|[^\W\d]\d|[#+*=<>@&|\\/_^~]|\w[.:]\w|\w-\d|\d-\w", t)
    )


def _dates(text: str) -> Counter[str]:
    return Counter(s for w in _words(text) if (s := w if w in v.DATES else w.removesuffix("s")) in v.DATES)


def _negations(text: str) -> int:
    return len(v.NEGATION.findall(text))


def _quotes(text: str) -> tuple[str, ...]:
    return tuple("".join(groups) for groups in v.QUOTED.findall(text))


def _kind(text: str) -> tuple[str, bool, bool]:
    plain = " ".join(v.POLITE.sub(" ", text).casefold().split())
    past, future = bool(v.PAST.search(plain)), bool(v.FUTURE.search(plain))
    if found := v.WH.search(plain):
        return v.SAME_WH.get(found[1], found[1]), past, future
    if v.AUXILIARY.match(plain):
        return f"yes or no: {v.MODALS.get(plain.split()[0], '')}", past, future
    return "statement", past, future


def _persons(text: str) -> frozenset[str]:
    found = frozenset(v.PERSONS[w] for w in _words(text) if w in v.PERSONS)
    # "How do I reset my password?", "how do you reset your password?" and "how to reset a password?" ask the same.
    return found - {"my", "your"} if _kind(text)[0] == "how" else found
