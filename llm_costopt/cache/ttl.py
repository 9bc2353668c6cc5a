"""How long an answer stays fresh, by kind of content."""

import random
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from llm_costopt.cache.reading import read
from llm_costopt.types import Answer, Question

MINUTE, HOUR = 60.0, 3600.0

KINDS: Mapping[str, float] = {
    "static": 48 * HOUR,
    "summary": 9 * HOUR,
    "label": 18 * HOUR,
    "live": 10 * MINUTE,
    "creative": 0.0,
    "general": 24 * HOUR,
}
"""Seconds by kind: knowledge that stands, summaries, classification, what changes by the minute, what should be new each
time (never stored), and everything else. The middle of the ranges that are usual for each (24–72 h, 6–12 h, 12–24 h, 5–15 min)."""

JITTER = 0.1
"""The part of its time that an answer loses at random, so that what was stored together does not expire together."""

FreshFor: TypeAlias = Callable[[Question, Answer], float | None]
"""Decides for how many seconds an answer stays fresh: None for ever, 0 not to store it."""

TTL: TypeAlias = float | Mapping[str, float | None] | FreshFor | None
"""One number of seconds, or None for ever, for all kinds but those of `BRIEF`, which last no longer than in `KINDS`;
or by kind, the others as in `KINDS`; or a function."""

BRIEF = frozenset({"live", "creative"})
"""Kinds that only their own name in a mapping can make last longer."""

_WORKS = "poem poetry haiku limerick sonnet rhyme story stories tale joke song lyrics rap slogan tagline screenplay riddle pun toast fairytale novel catchphrase essay ode parody monologue".split()  # fmt: skip
_LOTS = (
    "random dice coin password passwords uuid shuffle entertain funny gedicht witz poème blague poema chiste".split()
)
_SIGNS = frozenset([*_WORKS, *[f"{work}s" for work in _WORKS], *_LOTS, "brainstorm", "come", "surprise"])
"""Words without one of which nothing creative is asked for: most questions need no pattern."""

_MAKE = r"(?:write|compose|create|make up|make|draft|invent|give|tell|sing|generate|need|want|produce)"
_WORK = rf"(?:{'|'.join(_WORKS)})s?"
_CREATIVE = re.compile(
    rf"\b{_MAKE}\b(?:\W+\w+){{0,6}}?\W+{_WORK}\b|\b(?:brainstorm|come up with|surprise me)\b|^{_WORK}\b|"
    # What is drawn by lot must not be the same for everybody; how to draw it in a program may be.
    r"^\W*(?:(?:please|can you|could you|now)\W+)*(?:(?:pick|choose|generate|give|make|recommend|suggest|tell|create|draw)\b(?:\W+\w+){0,4}?"
    r"\W+random\b|(?:roll|throw)\b.{0,12}\bdice\b|(?:flip|toss) a coin\b|(?:generate|give|create|make)\b(?:\W+\w+){0,3}?\W+(?:passwords?|uuid)\b|"
    r"shuffle\b|entertain me\b|say something funny\b)|"
    r"\b(?:schreib|erz[aä]hl|[eé]cris|raconte|escribe|cuenta|scrivi)\w*\b.{0,20}\b(?:gedicht|witz|po[eè]me|blague|poema|chiste)\b",
    re.IGNORECASE,
)
_RULES: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "live",
        re.compile(
            r"\b(?:today|tonight|tomorrow|yesterday|now|nowadays|current(?:ly)?|latest|newest|recent(?:ly)?|this (?:morning|"
            r"afternoon|evening|week|weekend|month|year|quarter)|(?:last|past) (?:night|hour|day|week|month|few \w+|\d+ \w+)|"
            r"at the moment|at present|so far|as of|these days|upcoming|live scores?|"
            r"breaking|up[- ]to[- ]date|weather|raining|snowing|forecast|temperature outside|traffic|news|headlines?|trending|"
            r"in stock|trading at|exchange rates?|(?:interest|mortgage|inflation|unemployment) rates?|"
            r"prices?|how much (?:is|are|does|do)|sold out|what(?:'s|’s|s| is) new|new in|"
            r"(?:usd|eur|gbp|dollars?|euros?|pounds?|yen)\b.*\brate|winning|the scores?|did \w+(?: \w+){0,3} win|"
            r"next (?:train|bus|flight|tram|ferry|game|match|race|election|full moon)|how (?:long|many \w+) (?:until|till|left)|"
            r"what(?:'s|’s|s| is) the (?:time|date|day)|what time is it|what day is it|"
            # The same in German, French, Spanish, Italian, Portuguese and Dutch.
            r"heute|jetzt|gestern|aktuelle?[rsn]?|neuesten?|wetter|wie sp[aä]t|preise?|aujourd['’]hui|maintenant|actuel(?:le)?(?:ment)?|demain|"
            r"m[eé]t[eé]o|quelle heure|quel temps|prix|hoy|ahora|actual(?:es|mente)?|ayer|qu[eé] hora|precios?|oggi|adesso|domani|ieri|"
            r"che ore|prezz[oi]|hoje|agora|amanh[aã]|ontem|vandaag|gisteren)\b|"
            r"^(?:is|are)\b.*\b(?:down|up|open|closed|delayed|available|on time|cancell?ed)\W*$",
            re.IGNORECASE,
        ),
    ),
    ("summary", re.compile(r"\b(?:summari[sz]e|summary|tl;?dr|sum up|key points|recap)\b", re.IGNORECASE)),
    (
        "label",
        re.compile(r"\b(?:classify|categori[sz]e|label|sentiment|is this (?:spam|positive|negative))\b", re.IGNORECASE),
    ),
)


def kind_of(text: str) -> str:
    """Say what kind of content the question *text* asks for, by its words; `general` if they do not tell."""
    if is_creative(text):
        return "creative"
    return next((kind for kind, words in _RULES if words.search(text)), "general")


def is_creative(text: str) -> bool:
    """Tell whether *text* asks for something that should be new each time."""
    return not _SIGNS.isdisjoint(read(text).words) and bool(_CREATIVE.search(text))


def fresh_for(
    ttl: TTL, question: Question, answer: Answer, kind: str, rng: Callable[[], float] = random.random
) -> float | None:
    """Decide for how many seconds *answer* stays fresh: None for ever, 0 or less not to store it.

    What a function decides is taken as it is; all else is shortened by up to `JITTER`.
    """
    if callable(ttl):
        return ttl(question, answer)
    seconds = seconds_of(ttl, kind)
    return None if seconds is None else seconds * (1 - JITTER * rng())


def seconds_of(ttl: float | Mapping[str, float | None] | None, kind: str) -> float | None:
    """Look up for how many seconds answers of *kind* stay fresh: None for ever, 0 if they are not stored."""
    if isinstance(ttl, Mapping):
        return {**KINDS, **ttl}[kind]
    if kind in BRIEF:
        return KINDS[kind] if ttl is None else min(ttl, KINDS[kind])
    return ttl


def checked(ttl: TTL) -> TTL:
    """Return *ttl* if it can be used.

    Raises:
        ValueError: a number that is not above 0, an unknown kind, a negative number for a kind.
    """
    if isinstance(ttl, Mapping):
        if unknown := set(ttl) - set(KINDS):
            raise ValueError(f"ttl knows the kinds {', '.join(KINDS)}; got {', '.join(sorted(map(repr, unknown)))}")
        if bad := {
            kind: seconds for kind, seconds in ttl.items() if not (seconds is None or _is_number(seconds, or_zero=True))
        }:
            raise ValueError(f"ttl is a number of seconds by kind, 0 not to store, None for ever; got {bad!r}")
    elif not (ttl is None or callable(ttl) or _is_number(ttl)):
        raise ValueError(f"ttl is a number of seconds above 0, or None for ever; got {ttl!r}")
    return ttl


def _is_number(seconds: object, *, or_zero: bool = False) -> bool:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return False
    return seconds >= 0 if or_zero else seconds > 0
