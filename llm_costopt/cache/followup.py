"""Does a question need the turns before it? Sent without them, it may be matched to the letter only."""

import re

from llm_costopt.cache.reading import read

_WHOLE = re.compile(
    r"^\W*(?:(?:and|but|so|ok|okay|yes|no|please)\W+)?(?:why|why not|how|how so|how come|what|who|when|where|which(?: ones?)?|really|more|"
    r"again|another(?: one)?|and|yes|yeah|yep|sure|no|nope|ok|okay|thanks|thank you|go on|go ahead|continue|keep going|"
    r"elaborate|expand|next|same|tell me more|say more|explain(?: more| further| again)?|more (?:details?|examples?)|"
    r"(?:an?|any|some|one)?(?:other |more )?examples?)(?:\W+please)?\W*$",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"^\W*(?:and|but|also|or|then|what about|how about|what if|same for|tell me more about)\b", re.IGNORECASE
)
_ORDINAL = re.compile(
    r"\b(?:the|this|that|which) (?:(?:first|second|third|fourth|fifth|last|next|previous|other|same|former|latter)"
    r"(?: one| ones| option| part| point)?|one|ones)\W*$|\bthe (?:former|latter)\b",
    re.IGNORECASE,
)
_PRONOUN = re.compile(
    r"\b(?:it|its|them|their|he|she|him|his|her|they)\b|\b(?:this|that|these|those)\b(?=\W*$|\W+(?:is|was|are|were|"
    r"mean|means|again|too|work|works|one|ones|so|do|does|in|to|for|happen|happens)\b)",
    re.IGNORECASE,
)


def is_follow_up(text: str) -> bool:
    """Tell whether *text* points at something that was said before: "and the second one?", "why?", "how old is he?".

    Measured on requests that all stand alone: 1.9 % of `stream_clinc` (n = 11,850) and 0.3 % of `stream_banking`
    (n = 6,347) are taken for follow-ups.
    """
    found = read(text)
    words = len(found.words)
    if words <= 6 and (_WHOLE.search(text) or _OPENING.search(text) or _ORDINAL.search(text)):
        return True
    return words <= 10 and len(found.content) <= 2 and bool(_PRONOUN.search(text))
