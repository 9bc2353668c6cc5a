"""What the guards and the verifier look at in a question, found in one pass and kept."""

import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache, reduce
from itertools import pairwise
from operator import or_
from typing import NamedTuple
from unicodedata import category
from zlib import crc32

from llm_costopt.cache import vocabulary as v

BITS = 1021
"""Places of a sketch. Of some 35 trigrams of a question about one shares its place with another."""

_RULES = b"\2"
"""What a packed sketch begins with. Count it up with any change of what a text's sketch is: older ones are made anew."""

_WIDTH = -(-BITS // 8)

_WORD = re.compile(r"[^\W_]+")
_FOREIGN_WORD = re.compile(rf"[{v.UNSPACED}]|[^\W_{v.UNSPACED}]+(?:[{v.VOWELS}]+[^\W_{v.UNSPACED}]*)*")
_SHOUTED = re.compile(r"\b[A-Z]{2,}\b")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:\s?%|\s?[ap]\.?m\b)?", re.IGNORECASE)
_BEFORE_NUMBER = re.compile(r"(?:(?<![^\s(])([-−]))?(?:([$¢-¥₠-⃏])\s?)?((?<!\w)\.)?$")
_FRACTION = re.compile(r"[²³¹¼-¾⅐-⅞]")
_LETTER = re.compile(r"(?<![\w'’.])(?:[b-hjlmo-qv-zB-HJ-Z]|(?<=[a-z] )A)(?![\w'’]|\.\w)")
_SIGNS = re.compile(r"[\d#+*=<>@&|\\/_^~.:]")
_IDENTIFIER = re.compile(r"\d[^\W\d]|[^\W\d]\d|[#+*=<>@&|\\/_^~]|\w[.:]\w|\w-\d|\d-\w")
_DEGREES = re.compile(r"°\s?([cf])\b")
_BITS = re.compile(r"(?<![A-Za-z])[KMGT]b(?:ps|its?)?\b")
# Not at the start of the text or of a sentence, and not "I".
_NAME = re.compile(r"(?<=[^.?!:\s]\s)[A-Z][^\W_]+")
_CODE = re.compile(
    r"\w+\(\)|(?<!\w)--?[a-zA-Z][\w-]*|::|->|=>|\[[^\]\s]*\]|\{[^}\s]*\}|\b[a-z]+[A-Z]\w*|\b(?:[A-Z][a-z]+){2,}\b"
)
_CAMEL = re.compile("[a-z][A-Z]")
_ANY = re.compile(r"\w")
_MARKS = re.compile(r"[^\w\s.,?!'\"“”‘’«»()\[\]{}\-–—…:;¿¡]+")
_OPERATORS = frozenset("&*@#%/\\")
_ODD = re.compile(r"[^A-Za-z ?!,]")
"""What a text without figures, signs, code and quotes has none of: there words alone tell the rest."""
_FACE = re.compile(r"(?<!\w)[:;=]['’-]?[()/\\|](?!\w)")


class Reading(NamedTuple):  # which is made in a fifth of the time of a frozen dataclass
    """The parts of one text."""

    words: tuple[str, ...]
    """All words, case folded."""
    content: tuple[str, ...]
    """Those that carry meaning, without their endings."""
    meaning: frozenset[str]
    """The same without order."""
    small: frozenset[str]
    """Words such as `to` and `may`, which tell little by themselves."""
    opposable: frozenset[str]
    """Words that have an opposite."""
    numbers: Mapping[str, int]
    """Numbers and how often each is there, spelled out or not."""
    identifiers: Mapping[str, int]
    """Codes, addresses, file names, versions and names with signs."""
    dates: Mapping[str, int]
    """Months, weekdays, times of day, periods."""
    units: frozenset[str]
    """Units of measure and currencies, by their abbreviation."""
    languages: frozenset[str]
    """Languages of people and of machines."""
    names: frozenset[str]
    """Words with a capital inside a sentence, case folded."""
    code: tuple[str, ...]
    """Calls, options, operators and names in camel case, in order of the alphabet."""
    negations: int
    """How often it says `not` or its like."""
    quotes: tuple[str, ...]
    """What stands in quotation marks."""
    marks: frozenset[str]
    """Pictures, faces and operators: what is neither word nor punctuation."""
    kind: tuple[str, bool, bool]
    """The kind of question, whether it is about the past, and about the future."""
    persons: frozenset[str]
    """Whose matter it is."""
    subjects: tuple[str, ...]
    """Who speaks or is spoken to, in the order of appearance."""


class Sketch(NamedTuple):
    """Which parts one text has, as places, so that what two texts share is counted in one step."""

    trigrams: int
    """Runs of three characters, one bit for each."""
    words: bytes
    """Words that carry meaning, two bytes for each, none twice; see `places`."""


@lru_cache(maxsize=4096)  # some 3 kB each
def read(text: str) -> Reading:
    """Take *text* apart."""
    folded, words, plain, bare, content, signs = _split(text)
    there = frozenset(words) if signs else _NOTHING
    odd = _ODD.search(text) is not None
    kind = _kind(plain, bare, signs)
    return Reading(
        words=words,
        content=content,
        meaning=frozenset(content),
        small=there & v.SMALL if signs & _IS_SMALL else _NOTHING,
        opposable=there & v.OPPOSABLE if signs & _IS_OPPOSABLE else _NOTHING,
        numbers=_numbers(text, words) if odd or signs & _IS_NUMBER else _NONE,
        identifiers=_identifiers(text) if odd or signs & _IS_LETTER or " A" in text else _NONE,
        dates=_dates(words) if signs & _IS_DATE else _NONE,
        units=_units(text, folded, words, there) if odd or signs & _IS_UNIT else _NOTHING,
        languages=there & v.LANGUAGES if signs & _IS_LANGUAGE else _NOTHING,
        names=_names(text),
        code=tuple(sorted(_CODE.findall(text))) if odd or _CAMEL.search(text) else (),
        negations=_negations(text, folded, signs),
        quotes=_quotes(text) if odd else (),
        marks=_marks(text) if odd else _NOTHING,
        kind=kind,
        persons=_persons(there, kind[0]) if signs & _IS_PERSON else _NOTHING,
        subjects=_subjects(bare, kind[0]) if signs & _IS_SUBJECT else (),
    )


@lru_cache(maxsize=4096)  # some 500 bytes each
def sketch(text: str) -> Sketch:
    """Sketch *text*, in half of the time that reading it takes: most neighbours are only compared."""
    parts = _split(text)
    return Sketch(
        trigrams=_trigrams(parts.words),
        words=b"".join(dict.fromkeys(map(_place_of_word, parts.content))),
    )


def pack(sketch: Sketch) -> bytes:
    """Write *sketch* in some 140 bytes, to be kept beside the text."""
    return _RULES + sketch.trigrams.to_bytes(_WIDTH, "little") + sketch.words


def unpack(packed: bytes) -> Sketch | None:
    """Read what `pack` wrote, in a thirtieth of the time that sketching takes; None if it was by other rules."""
    if not packed.startswith(_RULES):
        return None
    return Sketch(int.from_bytes(packed[1 : _WIDTH + 1], "little"), packed[_WIDTH + 1 :])


def places(words: bytes) -> frozenset[int]:
    """List the places of the words of any number of sketches, put together."""
    return frozenset(memoryview(words).cast("H"))


def following(words: Sequence[str], word: str) -> frozenset[str]:
    """List, without their endings, the first words that carry meaning after each *word* in a text's *words*."""
    starts = [n for n, one in enumerate(words, 1) if one == word]
    return frozenset([next((s for one in words[n:] if (s := _word(one).stem)), "") for n in starts]) - {""}


class _Parts(NamedTuple):
    folded: str
    words: tuple[str, ...]
    plain: str
    """Folded, without what is only polite."""
    bare: tuple[str, ...]
    """The words of that."""
    content: tuple[str, ...]
    signs: int
    """What its words are signs of, together."""


class _Word(NamedTuple):
    stem: str
    """Itself without its ending; empty if it carries no meaning."""
    signs: int
    """Those of `_SIGNS_OF` that it is among, one bit for each: one look at a word instead of one in every list."""


(
    _IS_NUMBER, _IS_LETTER, _IS_DATE, _IS_UNIT, _IS_LANGUAGE, _IS_NEGATION, _IS_OPPOSABLE, _IS_PERSON, _IS_SUBJECT,
    _IS_POLITE, _IS_PAST, _IS_FUTURE, _IS_SMALL,
) = (1 << n for n in range(13))  # fmt: skip

_NUMBER_SIGNS = v.NUMBER_WORDS.keys() | v.ROMANS

_SIGNS_OF: Mapping[int, Collection[str]] = {
    _IS_NUMBER: _NUMBER_SIGNS,
    _IS_LETTER: v.LETTERS,
    _IS_DATE: v.DATE_SIGNS,
    _IS_UNIT: v.UNITS.keys() | v.AFTER_NUMBERS.keys() | v.BITS,
    _IS_LANGUAGE: v.LANGUAGES,
    _IS_NEGATION: v.NEGATION_SIGNS,
    _IS_OPPOSABLE: v.OPPOSABLE,
    _IS_PERSON: v.PERSONS,
    _IS_SUBJECT: v.SUBJECTS,
    _IS_POLITE: v.POLITE_SIGNS,
    _IS_PAST: v.PAST,
    _IS_FUTURE: v.FUTURE_SIGNS,
    _IS_SMALL: v.SMALL,
}


@lru_cache(maxsize=16384)
def _word(word: str) -> _Word:
    signs = sum(sign for sign, words in _SIGNS_OF.items() if word in words)
    return _Word(stem="" if word in v.EMPTY else _stem(word), signs=signs)


@lru_cache(maxsize=64)  # what is asked is both read and sketched
def _split(text: str) -> _Parts:
    plain = folded = text.casefold()
    bare = words = _words(folded)
    known = [_word(word) for word in words]
    signs = reduce(or_, [word.signs for word in known], 0)
    if signs & _IS_POLITE:
        plain = v.POLITE.sub(" ", text).casefold()
        bare = _words(plain)
        known = [_word(word) for word in bare]
    content = (*[word.stem for word in known if word.stem], *_shouted(text))
    return _Parts(folded, words, plain, bare, content, signs)


def _words(folded: str) -> tuple[str, ...]:
    return tuple((_WORD if folded.isascii() else _FOREIGN_WORD).findall(folded))


def _bits(parts: Iterable[str]) -> int:
    return reduce(or_, map(_bit, parts), 0)


@lru_cache(maxsize=32768)
def _bit(part: str) -> int:
    return 1 << _place(part)


@lru_cache(maxsize=16384)
def _place_of_word(word: str) -> bytes:
    return _place(word).to_bytes(2, sys.byteorder)


def _place(part: str) -> int:
    return crc32(part.encode("utf-8", "surrogatepass")) % BITS


def _trigrams(words: tuple[str, ...]) -> int:
    # Word by word, since most words have been met before; then the trigrams across the spaces.
    across = [f"{one[-1]} {other[0]}" for one, other in pairwise(words)]
    return reduce(or_, map(_spelling, words), _bits(across))


@lru_cache(maxsize=16384)
def _spelling(word: str) -> int:
    return _bits([f" {word} "[n : n + 3] for n in range(len(word))])


def _counted(parts: Iterable[str]) -> Mapping[str, int]:
    return dict(Counter(parts))  # two plain dictionaries are compared in a hundredth of the time of two counters


_NONE: Mapping[str, int] = {}
_NOTHING: frozenset[str] = frozenset()


def _shouted(text: str) -> tuple[str, ...]:
    """Find capitals that make another word of an empty one: IT, US, WHO (unless all is in capitals)."""
    if text.islower() or text.isupper():
        return ()
    return tuple(w for w in _SHOUTED.findall(text) if w.casefold() in v.EMPTY)


def _stem(word: str) -> str:
    if (whole := word.removesuffix("s")) in v.WHOLE:
        return f"{whole}."
    for suffix, instead in (("ies", "y"), ("ing", ""), ("es", ""), ("ed", ""), ("e", ""), ("s", "")):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word.removesuffix(suffix) + instead
    return word


def _numbers(text: str, words: tuple[str, ...]) -> Mapping[str, int]:
    found = [_number(text, number) for number in _NUMBER.finditer(text)] + _FRACTION.findall(text)
    # In words only from two up: "one" is as often a pronoun.
    found += [v.NUMBER_WORDS.get(w, w) for w in words if w in _NUMBER_SIGNS and w != "one"]
    return _counted(found)


def _number(text: str, found: re.Match[str]) -> str:
    """Write a number in one way, with what stands before and after it."""
    digits = found.group().replace(",", "").replace(" ", "").casefold().replace(".m", "m")
    before = _BEFORE_NUMBER.search(text[max(0, found.start() - 4) : found.start()])
    minus, currency, point = before.groups("") if before else ("", "", "")
    return f"{'-' if minus else ''}{currency}{point}{digits}"


def _identifiers(text: str) -> Mapping[str, int]:
    letters = [letter.casefold() for letter in _LETTER.findall(text)]
    if not _SIGNS.search(text.rstrip("?!. ")):
        return _counted(letters)
    tokens = (t.strip(".,;:!?\"'()[]{}“”‘’«»").rstrip("/") for t in text.split())
    # A token of signs alone, as in "this & that", names nothing.
    return _counted([*letters, *[t for t in tokens if _ANY.search(t) and _IDENTIFIER.search(t)]])


def _dates(words: tuple[str, ...]) -> Mapping[str, int]:
    return _counted(s for w in words if (s := w if w in v.DATES else w.removesuffix("s")) in v.DATES)


def _units(text: str, folded: str, words: tuple[str, ...], there: frozenset[str]) -> frozenset[str]:
    found = [v.UNITS[w] for w in there & v.UNITS.keys()]
    if "°" in folded:
        found += [f"°{sign}" for sign in _DEGREES.findall(folded)]
    if not there.isdisjoint(v.AFTER_NUMBERS):
        found += [v.AFTER_NUMBERS[w] for n, w in pairwise(words) if w in v.AFTER_NUMBERS and _is_number(n)]
    if not there.isdisjoint(v.BITS):
        found += _BITS.findall(text)  # a megabit is no megabyte
    return frozenset(found)


def _is_number(word: str) -> bool:
    return word.isdecimal() or word in v.NUMBER_WORDS


def _marks(text: str) -> frozenset[str]:
    faces = _FACE.findall(text) if ":" in text or ";" in text or "=" in text else []
    runs = [run.rstrip("\ufe0f") for run in _MARKS.findall(text)]
    # Not by what is no letter alone: so are the vowels of many scripts.
    return frozenset(faces + [run for run in runs if any(c in _OPERATORS or category(c)[0] == "S" for c in run)])


def _names(text: str) -> frozenset[str]:
    if text.islower() or text.isupper():
        return frozenset()
    return frozenset([w.casefold() for w in _NAME.findall(text)])


def _negations(text: str, folded: str, signs: int) -> int:
    if not signs & _IS_NEGATION and "kein" not in folded and text.isascii():
        return 0
    return len(v.NEGATION.findall(text))


def _quotes(text: str) -> tuple[str, ...]:
    return tuple("".join(groups) for groups in v.QUOTED.findall(text)) if v.QUOTE_SIGNS.search(text) else ()


def _kind(plain: str, words: tuple[str, ...], signs: int) -> tuple[str, bool, bool]:
    # What is only polite is neither past nor future.
    past = bool(signs & _IS_PAST) and not v.PAST.isdisjoint(words)
    future = bool(signs & _IS_FUTURE) and ("going to" in plain or not v.FUTURE.isdisjoint(words))
    for n, word in enumerate(words):
        if word in v.WH:
            measure = words[n + 1 : n + 2]
            much = word == "how" and measure and measure[0] in v.MEASURES
            return f"how {measure[0]}" if much else v.SAME_WH.get(word, word), past, future
    if words and words[0] in v.AUXILIARY:
        first = plain.split(maxsplit=1)[0].lstrip("\"'“‘(")  # "can't" is not "can"
        return f"yes or no: {v.MODALS.get(first, '')}", past, future
    return "statement", past, future


def _persons(there: frozenset[str], kind: str) -> frozenset[str]:
    found = frozenset([v.PERSONS[w] for w in there & v.PERSONS.keys()])
    # "How do I reset my password?", "how do you reset your password?" and "how to reset a password?" ask the same.
    return found - {"my", "your"} if kind == "how" else found


def _subjects(bare: tuple[str, ...], kind: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys([v.SUBJECTS[w] for w in bare if w in v.SUBJECTS]))
    # In "how do you reset a password?" you is anyone.
    return ("my",) if kind == "how" and len(found) == 1 else found
