"""What of a router may differ from call to call."""

from collections.abc import Mapping
from typing import Any, get_args

from llm_costopt.presets import ROUTER, Endpoints, by_endpoint, chosen, here, mode_here
from llm_costopt.router.policy import Cascade
from llm_costopt.switch import Mode


def with_preset(options: Mapping[str, Any]) -> dict[str, Any]:
    """Fill *options* up with those of their preset."""
    return chosen(ROUTER, options.get("preset", "balanced"), options)


def spelled_out(endpoints: Endpoints) -> dict[str, dict[str, Any]]:
    """Read what holds by endpoint; all else belongs to what a router has learned or has to spend.

    Raises:
        ValueError: something that cannot differ by endpoint, or is out of its range.
    """
    found = by_endpoint(ROUTER, endpoints, ("cascade", "threshold"))
    for endpoint, options in found.items():
        threshold = options.get("threshold", 0)
        is_share = isinstance(threshold, int | float) and 0 <= threshold <= 1
        if not is_share or options.get("cascade", "never") not in get_args(Cascade):
            raise ValueError(
                f"endpoints={{{endpoint!r}: …}}: threshold is from 0 to 1, cascade one of {', '.join(get_args(Cascade))}"
            )
    return found


def here_of(endpoints: Mapping[str, Mapping[str, Any]], *, mode: Mode, **options: Any) -> dict[str, Any]:
    """Return mode and *options* as they hold for the present call."""
    said = here(endpoints)
    return {"mode": mode_here(mode, endpoints), **{name: said.get(name, value) for name, value in options.items()}}


def told_apart(now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of it an answer depends on, for the key of a cache: as ever where nothing is set."""
    usual = {"mode": "on", "cascade": "medium"}
    return {name: value for name, value in now.items() if value != usual.get(name)}
