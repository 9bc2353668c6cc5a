"""The kill switch: `LLM_COSTOPT=off` in the environment, looked at again with each request."""

import logging
import os
from typing import Literal, TypeAlias, get_args

log = logging.getLogger(__name__)

Mode: TypeAlias = Literal["on", "observe", "off"]
"""`on`: decide and act; `observe`: decide and note it, change nothing; `off`: do not even decide."""

VARIABLE = "LLM_COSTOPT"
"""The environment variable; a running program may set it in `os.environ`."""

_CARE: dict[Mode, int] = {"on": 0, "observe": 1, "off": 2}

_WORDS: dict[str, Mode] = {
    "": "on",
    **dict.fromkeys(("on", "1", "true", "yes"), "on"),
    "observe": "observe",
    **dict.fromkeys(("off", "0", "false", "no"), "off"),
}

_warned: set[str] = set()


def mode(own: Mode = "on") -> Mode:
    """Return the more careful of *own* and what the environment says at this moment.

    An unknown word counts as `off`, with one warning: whoever reaches for the switch wants the plain calls back, and
    those are never wrong, merely dear.
    """
    said = os.environ.get(VARIABLE)
    if said is None:
        return own
    known = _WORDS.get(said) or _spelled(said)
    return known if _CARE[known] > _CARE[own] else own


def checked(own: Mode) -> Mode:
    """Return *own*; ValueError if it is no mode."""
    if own not in get_args(Mode):
        raise ValueError(f"mode is 'on', 'observe' or 'off', not {own!r}")
    return own


def _spelled(said: str) -> Mode:
    known = _WORDS.get(said.strip().lower())
    if known is None and said not in _warned:
        _warned.add(said)
        log.warning("%s is 'on', 'observe' or 'off'; %r is taken for 'off'", VARIABLE, said)
    return known or "off"
