"""How far to go, in one word: `preset=` of cache and router, and what may differ by endpoint.

The cache's figures are shares of all requests on half of CLINC150 and half of BANKING77, in the order of the files, answers
as labels and in free text (`benchmarks/cache_quality.py --preset …`). The router's are in `benchmarks/router_presets.py`.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

from llm_costopt.endpoints import current_endpoint
from llm_costopt.switch import Mode, checked, mode

Preset: TypeAlias = Literal["conservative", "balanced", "aggressive"]

Table: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Options by preset."""

Endpoints: TypeAlias = Mapping[str, "str | Mapping[str, Any]"]
"""What holds inside `with endpoint(name):` instead of the rest: a preset, a mode, or options by name."""

CACHE: Table = MappingProxyType(
    {
        "conservative": {"max_error": 0.003, "shadow_rate": 0.1},
        "balanced": {"max_error": 0.01, "shadow_rate": 0.04},
        "aggressive": {"max_error": 0.02, "shadow_rate": 0.04},
    }
)
"""One hit in ten of the conservative one is checked, so that a week of it says how often it is wrong."""

ROUTER: Table = MappingProxyType(
    {
        "conservative": {"cascade": "never", "threshold": 0.7},
        "balanced": {"cascade": "medium", "threshold": 0.7},
        "aggressive": {"cascade": "always", "threshold": 0.5},
    }
)
"""Conservative asks the cheap model for what is simple, and drafts nothing; aggressive lets it draft what is complex too."""


def chosen(table: Table, preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of *preset*; what is *given*, and not None, wins.

    Raises:
        ValueError: there is no such preset.
    """
    return {**_preset(table, preset), **{name: value for name, value in given.items() if value is not None}}


def by_endpoint(table: Table, endpoints: Endpoints, allowed: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Spell out what *endpoints* say, with `mode` and the options that are *allowed* to differ by call.

    Raises:
        ValueError: a word that is no preset and no mode, or an option that holds for all calls alike.
    """
    names = ("preset", "mode", *allowed)
    found = {}
    for endpoint, said in endpoints.items():
        options = dict(said) if isinstance(said, Mapping) else _word(table, endpoint, said)
        if others := [name for name in options if name not in names]:
            raise ValueError(
                f"endpoints={{{endpoint!r}: …}}: {', '.join(others)} cannot differ by endpoint; there are {', '.join(names)}"
            )
        checked(options.get("mode", "on"))
        preset = options.pop("preset", None)
        found[endpoint] = options if preset is None else {**_preset(table, preset), **options}
    return found


def here(endpoints: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return what holds for the endpoint that the present call serves; nothing if there is nothing of its own."""
    name = current_endpoint() if endpoints else None
    return endpoints.get(name, _NOTHING) if name is not None else _NOTHING


def mode_here(own: Mode, endpoints: Mapping[str, Mapping[str, Any]]) -> Mode:
    """Return the mode of the present call: the endpoint's, else *own*, unless the kill switch is more careful."""
    return mode(here(endpoints).get("mode", own))


_NOTHING: Mapping[str, Any] = MappingProxyType({})


def _word(table: Table, endpoint: str, word: str) -> dict[str, Any]:
    if word in tuple(table):
        return {"preset": word}
    if word in get_args(Mode):
        return {"mode": word}
    raise ValueError(
        f"endpoints={{{endpoint!r}: {word!r}}}: say one of {', '.join(table)}, on, observe, off, or options by name"
    )


def _preset(table: Table, preset: str) -> Mapping[str, Any]:
    try:
        return table[preset]
    except (KeyError, TypeError):
        raise ValueError(f"preset is one of {', '.join(table)}, not {preset!r}") from None
