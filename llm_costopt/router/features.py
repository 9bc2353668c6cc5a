"""Numbers that describe a request and a draft of an answer, for a linear model to learn from.

Words, pairs of words and the first 3 to 5 characters of words are hashed, which needs no vocabulary
and stores no text. What answers have in common across topics is counted beside it.
"""

import math
import re
import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from llm_costopt.router.complexity import Level
from llm_costopt.router.task import Task
from llm_costopt.types import Question

BUCKETS = 1 << 14
"""Of a text. 2^18 were not better than 2^14 on any data set (0.765 against 0.766, 0.778 against 0.778)."""

LONGEST = 400
"""Characters of a text that are read: half of them from its start, half from its end. A decision's time is bounded so."""

TASK, DRAFT, SMALL = 0, BUCKETS, 2 * BUCKETS
"""Where the words of the task, the words of the draft and the small features begin."""

RULES = ("one", "simple", "complex", "tools", "structure", "material", "confidence")

CENTRES = {
    "words": (4.0, 0.8),
    "lines": (1.2, 0.8),
    "short last line": (0.5, 0.5),
    "ends like an end": (0.9, 0.3),
    "distinct words": (0.6, 0.15),
    "hedges": (0.1, 0.2),
    "negation": (0.3, 0.45),
    "says that it concludes": (0.4, 0.5),
    "has code": (0.1, 0.3),
    "words of the task": (3.5, 0.7),
    "numbers": (2.5, 1.8),
    "numbers of the task": (1.5, 1.0),
    "numbers of the task that occur": (0.7, 0.35),
    "numbers from nowhere": (0.9, 0.8),
    "equations": (0.6, 0.7),
    "wrong equations": (0.05, 0.3),
    "last number is a fraction": (0.05, 0.22),
    "last number occurs before": (0.5, 0.5),
    "last number is the task's": (0.3, 0.45),
}
"""Features of a draft, with a usual value and a usual spread, so that one scale fits all."""

NAMES = (*RULES, *CENTRES)
SIZE = SMALL + len(NAMES)
"""The length of the vector, without an embedding."""

FINGERPRINT = zlib.crc32(repr((2, BUCKETS, LONGEST, NAMES, CENTRES)).encode())
"""Weights that were learned for one set of features mean nothing for another. Count the 2 up when a feature changes."""

_SCALE = 0.25
"""Of a draft's features beside its words. 0.1 to 0.5 differ by at most 0.02 APGR on two data sets."""
UNITS = {"one": 1.7, "confidence": 2.0}
"""Values of two features that are learned faster than a weight of a word is."""

_COUNTED = np.arange(SMALL + len(RULES) - 1, SIZE, dtype=np.int32)  # the last of the rules is the confidence
_CENTRE = np.array([0.0, *(centre for centre, _ in CENTRES.values())], dtype=np.float32)
_PER_SPREAD = np.array([UNITS["confidence"], *(_SCALE / s for _, s in CENTRES.values())], dtype=np.float32)

_LEFT, _RIGHT, _FINE, _MASK = np.array([0x9E3779B1, 0x85EBCA6B, 15, BUCKETS - 1], dtype=np.uint32)
"""Odd factors, which mix the two words of a pair in an order; the high bits of a product are the mixed ones."""

_TOKEN = re.compile(r"\w+|[^\w\s]")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_CONCLUDES = re.compile(r"\b(?:answer|result|solution)\**(?: is\b| ?:)|\\boxed")
_CONCLUDING = ("answer", "result", "solution", "\\boxed")
_CONCLUSIONS = frozenset("therefore thus hence overall finally conclusion summary".split())
_HEDGES = frozenset(
    "i might may could possibly perhaps probably likely depends unclear unsure seem seems appear appears assume"
    " assuming approximately about roughly however but unfortunately sorry cannot".split()
)
_NEGATIONS = frozenset("not no never none cannot without nor neither".split())
_DECORATION = re.compile(r"[\\$€£]")
# Possessive and bounded, so that a long row of digits costs no quadratic time.
_EQUATION = re.compile(r"(?<![\d.,])((?:\d[\d,.]*+\s*+[-+*/×÷]\s*+){1,6}\d[\d,.]*+)\s*+=\s*+(-?\d[\d,.]*+)")
_OPERAND = re.compile(r"\d[\d,.]*|[-+*/×÷]")
_ENDS = frozenset('.!?"”)]}`*')


@dataclass(frozen=True, slots=True)
class Features:
    """A sparse vector."""

    indices: NDArray[np.int32]
    """Positions, each at most once."""
    values: NDArray[np.float32]
    """What stands there."""

    def __add__(self, other: "Features") -> "Features":
        """Join with the features of another part."""
        return Features(np.concatenate((self.indices, other.indices)), np.concatenate((self.values, other.values)))


NOTHING = Features(np.empty(0, np.int32), np.empty(0, np.float32))


def of_request(task: Task, question: Question, level: Level) -> Features:
    """Describe a request: what *task* says, and what the rules make of it."""
    rules = {
        "one": UNITS["one"],
        "simple": float(level == "simple"),
        "complex": float(level == "complex"),
        "tools": float(question.with_tools),
        "structure": float(question.with_schema),
        "material": _SCALE * math.log1p(task.material) / 3,
    }
    return _words(_tokens(_ends(task.text)), TASK) + _small(rules)


def of_draft(task: Task, text: str, confidence: float) -> Features:
    """Describe a draft with the words *text*; *confidence* is what the rules give it."""
    read = _ends(text)
    tokens = _tokens(read)
    lines = sum(not line.isspace() for line in text.split("\n") if line)
    length = (math.log1p(text.count(" ") + lines), math.log1p(max(lines - 1, 0)))
    counts = np.array((confidence, *length, *_counts(_ends(task.text), read, tokens)), dtype=np.float32)
    return _words(tokens, DRAFT) + Features(_COUNTED, (counts - _CENTRE) * _PER_SPREAD)


def of_embedding(vector: NDArray[np.float32], start: int) -> Features:
    """Append an embedding from position *start* on, scaled to length 1."""
    x = np.asarray(vector, dtype=np.float32).ravel()
    return Features(np.arange(start, start + len(x), dtype=np.int32), x / max(float(np.linalg.norm(x)), 1e-9))


def _small(found: dict[str, float]) -> Features:
    indices = np.array([_PLACE[name] for name in found], dtype=np.int32)
    return Features(indices, np.array(list(found.values()), dtype=np.float32))


_PLACE = {name: SMALL + n for n, name in enumerate(NAMES)}


def place(name: str) -> int:
    """Say where a small feature stands."""
    return _PLACE[name]


def _ends(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} {text[-LONGEST // 2 :]}"


def _tokens(text: str) -> list[str]:
    """Split into words and marks, in lower case."""
    return _TOKEN.findall(text.lower())


def _words(tokens: list[str], start: int) -> Features:
    """Hash the words: 1 + ln of how often each occurs, scaled to length 1."""
    if not tokens:
        return NOTHING
    whole, everything = zip(*map(_hashes, tokens), strict=True)
    single = np.frombuffer(b"".join(whole), dtype=np.uint32)
    pairs = (single[:-1] * _LEFT ^ single[1:] * _RIGHT) >> _FINE
    found = np.concatenate((np.frombuffer(b"".join(everything), dtype=np.uint32), pairs)) & _MASK
    found.sort()
    # Where each number stands for the last time; all of this takes a fifth of the time of np.unique.
    is_last = np.ones(len(found), bool)
    np.not_equal(found[1:], found[:-1], out=is_last[:-1])
    last = is_last.nonzero()[0]
    counts = last.copy()
    counts[0] += 1
    counts[1:] -= last[:-1]
    values = 1 + np.log(counts)
    return Features((found[last] + start).astype(np.int32), (values / np.sqrt(values @ values)).astype(np.float32))


@lru_cache(maxsize=1 << 14)
def _hashes(token: str) -> tuple[bytes, bytes]:
    """Hash a word, and it with its beginnings, as numpy's bytes; the same in every process, which `hash` is not."""
    grams = (f"{k}{token[:k]}" for k in (3, 4, 5) if len(token) >= k)
    found = np.array([zlib.crc32(x.encode("utf-8", "surrogatepass")) for x in (token, *grams)], dtype=np.uint32)
    return found[:1].tobytes(), found.tobytes()


def _counts(task: str, text: str, tokens: list[str]) -> tuple[float, ...]:
    """Count what `CENTRES` names after the first two, in its order."""
    lower = text.lower()
    words = [t for t in tokens if len(t) > 1 or t.isalnum()]
    distinct = set(words)
    lines = [line for line in text.split("\n") if line.strip()]
    end = text.rstrip()[-1:]
    return (
        float(len(lines) > 1 and len(lines[-1].split()) <= 4),
        float(end in _ENDS or end.isdigit()),
        len(distinct) / max(1, len(words)),
        sum(map(_HEDGES.__contains__, words)) / math.sqrt(len(words) + 1),
        float(not _NEGATIONS.isdisjoint(distinct) or "n't" in lower or "n’t" in lower),
        float(not _CONCLUSIONS.isdisjoint(distinct) or _concludes(lower)),
        float("```" in text),
        math.log1p(_asked(task)[0]),
        *_counts_of_numbers(task, text),
    )


def _concludes(lower: str) -> bool:
    # Looking for words alone takes a tenth of the pattern's time, and most texts have none of these.
    return any(word in lower for word in _CONCLUDING) and bool(_CONCLUDES.search(lower))


@lru_cache(maxsize=64)
def _asked(task: str) -> tuple[int, tuple[float, ...]]:
    """Count the words and marks of a task and read its numbers, once for all of its drafts."""
    return len(_TOKEN.findall(task)), tuple([float(x.replace(",", "")) for x in _NUMBER.findall(task)])


def _counts_of_numbers(task: str, text: str) -> tuple[float, ...]:
    numbers = [float(x.replace(",", "")) for x in _NUMBER.findall(text)]
    asked = _asked(task)[1]
    given, used = set(asked), set(numbers)
    found = _EQUATION.findall(_DECORATION.sub("", text)) if "=" in text else ()
    equations = [(_value(left), _number(right)) for left, right in found]
    wrong = sum(abs(left - right) > max(0.011 * abs(right), 0.051) for left, right in equations)
    last = numbers[-1] if numbers else None
    return (
        math.sqrt(len(numbers)),
        math.sqrt(len(asked)),
        len(given & used) / len(given) if given else CENTRES["numbers of the task that occur"][0],
        math.log1p(len(used - given - {right for _, right in equations})),
        math.sqrt(len(equations)),
        float(min(wrong, 3)),
        float(last is not None and not last.is_integer()),
        float(last in numbers[:-1]),
        float(last in given),
    )


def _value(sums: str) -> float:
    """Work out a row of operations, multiplication before addition; NaN if it has no value."""
    parts = _OPERAND.findall(sums)
    total, term, sign = 0.0, _number(parts[0]), 1.0
    for operator, operand in zip(parts[1::2], map(_number, parts[2::2]), strict=False):
        if operator in "*×":
            term *= operand
        elif operator in "/÷":
            term = term / operand if operand else math.nan
        else:
            total, term, sign = total + sign * term, operand, 1.0 if operator == "+" else -1.0
    return total + sign * term


def _number(text: str) -> float:
    try:
        return float(text.replace(",", "").rstrip("."))
    except ValueError:  # "1.2.3"
        return math.nan
