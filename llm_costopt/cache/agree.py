"""Do two answers say the same? Never asked about questions, only about answers that a model gave."""

import re
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

from llm_costopt.cache import vocabulary as v
from llm_costopt.cache.embed import WordLlamaEmbedder, unit
from llm_costopt.cache.guards import Candidate, negation, opposites
from llm_costopt.cache.reading import read

CLOSE = 0.7
"""Cosine of answers that say the same. Measured on the answers of the demo's log: of 674 pairs of differently worded
answers to one question 50 % agree by the rule below; of 4,120 pairs of answers to different questions 0.3 %, and of
111 to different questions in nearly the same words 1.8 %. A missed agreement costs a hit, a false one an error."""

SHORT = 5
"""Words; shorter answers (labels, names, numbers) must be the same."""

NAMES = 3
"""Groups that an answer may be in at once, so that it joins them where it stands. With two instead of three, 57.3 % of
the requests of a stream hit instead of 59.3 %, and of another 55.3 % instead of 55.7 % (at a `policy.FURTHER` of 0.85)."""

_BITS = 20
"""Of a name. Among the 16 neighbours of a question two answers share one by chance once in some 8,000 questions."""
_NAME = (1 << _BITS) - 1
_SHIFTS = [n * _BITS for n in range(NAMES)]
_PROSE = 1 << (NAMES * _BITS)

_CODE = re.compile(r"```[^`]*```|`[^`]+`")


def agree(one: str, other: str) -> bool:
    """Tell whether two answers say the same, as far as words show it."""
    first, second = _plain(one), _plain(other)
    if first == second:
        return True
    if min(len(first), len(second)) < SHORT:
        return False
    numbers = read(one).numbers.keys(), read(other).numbers.keys()
    if not (numbers[0] <= numbers[1] or numbers[1] <= numbers[0]):
        return False
    pair = Candidate(asked=one, stored=other, similarity=1.0)
    if opposites(pair) or negation(pair) or _CODE.findall(one) != _CODE.findall(other):
        return False
    embedder = WordLlamaEmbedder()
    a, b = unit(embedder.embed(one)), unit(embedder.embed(other))
    return a is not None and b is not None and float(a @ b) >= CLOSE


def number(answer: str) -> int:
    """Return a positive number that answers share if they are the same but for case, spacing and marks.

    It holds a name, and whether the answer is prose. Below 2⁶²; the same in every process. Differently worded
    answers that `agree` have different ones.
    """
    words = _plain(answer)
    digest = blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    name = int.from_bytes(digest, "big") % _NAME + 1  # 0 is no name
    return name if len(words) < SHORT else name | _PROSE


def joined(own: int, agreeing: Iterable[int]) -> int:
    """Return the number of an answer, *own* by itself, that says the same as others of the numbers *agreeing*.

    It has the names of those, the most frequent first, and so joins them: see `names`.
    """
    heard = Counter(name for says in agreeing for name in names(says))
    kept = [name for name, _ in heard.most_common(NAMES)] or names(own)
    return (own & _PROSE) + sum(name << (n * _BITS) for n, name in enumerate(kept))


def names(says: int) -> tuple[int, ...]:
    """List the names in a number; answers that have one in common say the same."""
    first = says & ~_PROSE
    if 0 < first <= _NAME:  # most have one
        return (first,)
    return tuple([name for shift in _SHIFTS if (name := says >> shift & _NAME)])


def known(one: int, other: int) -> bool | None:
    """Tell from two numbers whether the answers say the same; None if `agree` must compare the words of prose."""
    if not set(names(one)).isdisjoint(names(other)):
        return True
    return None if is_prose(one) and is_prose(other) else False


def is_prose(says: int) -> bool:
    """Tell whether an answer of this number could be worded in many ways."""
    return says & _PROSE != 0


# The signs of what is not the same without them: -5 and 5, C++ and C, < and >, 5 % and $5.
_PLAIN = re.compile(rf"[^\W_]+(?:[{v.VOWELS}]+[^\W_]*)*[+#]*|(?<!\w)[-+](?=\d)|[<>=≠≤≥%$€£¥]")


def _plain(text: str) -> list[str]:
    return _PLAIN.findall(text.casefold()) or text.split()
