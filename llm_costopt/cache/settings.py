"""How far a cache goes, for all calls and for those of one endpoint."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from llm_costopt.cache import ttl as freshness
from llm_costopt.presets import CACHE, Endpoints, by_endpoint, chosen, here
from llm_costopt.switch import Mode, checked, mode

OnScore: TypeAlias = Callable[..., object]
"""`(hit, score, *, about)`: told how good an answer from the cache is, from 0 to 1; must not block for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a cache does with a call."""

    mode: Mode
    """Whether it serves, merely observes, or is not there."""
    max_error: float
    """The share of requests that may be answered wrongly."""
    threshold: float | None
    """Least cosine of a semantic hit instead of that; None: evidence decides."""
    shadow_rate: float
    """Share of the would-be hits that go to the model to be checked."""
    ttl: freshness.TTL
    """How long an answer stays fresh."""


class Chosen:
    """The settings of a cache and of its endpoints.

    Args:
        preset: fills in what is not in *given*.
        endpoints: what holds inside `with endpoint(name):` instead.
        given: the other fields of `Settings`; None where the caller said nothing.
        ttl: how long an answer stays fresh.

    Raises:
        ValueError: something is out of its range, or cannot differ by endpoint.
    """

    def __init__(self, preset: str, endpoints: Endpoints, given: dict[str, Any], ttl: freshness.TTL) -> None:
        checked(given["mode"])  # no preset has one, so that None is no choice
        unused = [name for name in ("max_error", "shadow_rate") if given[name] is not None]
        if given["threshold"] is not None and unused:
            raise ValueError(
                f"threshold is the plain rule, which has no {' and no '.join(unused)}: give one or the other"
            )
        example = {"search": "aggressive"}
        check("endpoints", endpoints, lambda named: isinstance(named, Mapping), "a mapping by endpoint", example)
        self.usual = _checked(Settings(**{"threshold": None, **chosen(CACHE, preset, given)}, ttl=ttl), "")
        spelled = by_endpoint(CACHE, endpoints, ("max_error", "threshold", "shadow_rate", "ttl"))
        self._spelled = {name: {"settings": self._of(name, options)} for name, options in spelled.items()}

    @property
    def all(self) -> dict[str | None, Settings]:
        """Return all settings by endpoint; those of None hold elsewhere."""
        return {None: self.usual, **{name: found["settings"] for name, found in self._spelled.items()}}

    def now(self) -> Settings:
        """Return those of the present call; the kill switch has a word in it."""
        found: Settings = here(self._spelled).get("settings", self.usual)
        careful = mode(found.mode)
        return found if careful == found.mode else replace(found, mode=careful)

    def _of(self, endpoint: str, options: dict[str, Any]) -> Settings:
        if "max_error" in options and "threshold" not in options and self.usual.threshold is not None:
            raise ValueError(
                f"endpoints={{{endpoint!r}: …}}: a cache with threshold= learns nothing, so that no endpoint of it can keep"
                " a max_error: give it a threshold, or the cache a max_error"
            )
        return _checked(replace(self.usual, **options), f"endpoints={{{endpoint!r}: …}}: ")


def _checked(found: Settings, where: str) -> Settings:
    checked(found.mode)
    threshold = found.threshold
    check(f"{where}threshold", threshold, lambda x: x is None or 0 < x <= 1, "a cosine above 0 and up to 1", 0.95)
    check(
        f"{where}max_error",
        found.max_error,
        lambda x: 0 < x < 0.5,
        "a share of the requests above 0 and below 0.5",
        0.01,
    )
    check(
        f"{where}shadow_rate", found.shadow_rate, lambda x: 0 < x <= 1, "a share of the hits above 0 and up to 1", 0.05
    )
    return replace(found, ttl=freshness.checked(found.ttl))


def check(name: str, got: object, holds: Callable[[Any], object], wanted: str, example: object) -> None:
    """Raise ValueError unless *got*, which is given as *name*, is what is *wanted*; what cannot even be compared is not."""
    try:
        fits = bool(holds(got)) and not isinstance(got, bool)
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} is {wanted}, such as {example}; got {got!r}")


def check_parts(*, embedder: object, index: object, guards: object, clock: object, rng: object) -> None:
    """Raise TypeError unless what a cache is made of can do what it will be asked for."""
    if embedder is not None and not (hasattr(embedder, "name") and callable(getattr(embedder, "embed", None))):
        raise TypeError(
            "embedder has a name and a method embed(text), as WordLlamaEmbedder() has; a host's own is taken by "
            f"langchain_costopt.SemanticCache, or wrapped as llamaindex_costopt.TextEmbedder(model); got {embedder!r}"
        )
    if index is not None and not all(callable(getattr(index, method, None)) for method in ("add", "near", "remove")):
        raise TypeError(f"index has methods add, near and remove, as MemoryIndex() has; got {index!r}")
    if not isinstance(guards, Iterable) or not all(map(callable, guards)):
        raise TypeError(f"guards is a list of functions, such as [guards.numbers]; got {guards!r}")
    for name, function in (("clock", clock), ("rng", rng)):
        if not callable(function):
            raise TypeError(f"{name} is a function without arguments that returns a number; got {function!r}")


def check_on_score(on_score: OnScore | None) -> OnScore | None:
    """Return *on_score* if it can be called as the cache calls it: otherwise each score would be a failure that is only counted.

    Raises:
        TypeError: it is called in another way, as `Ledger.score` is.
    """
    if on_score is None:
        return None
    try:
        inspect.signature(on_score).bind("", 1.0, about="cache")
    except TypeError:
        raise TypeError(
            f"on_score is called as on_score(hit, score, about='cache'), as alerts.score and metrics.score are; got {on_score!r}. "
            "A ledger keeps scores of records, and a check of the cache names none: stats().checked and `llm-costopt cache` "
            "sum the checks up, and ledger.score(record_id, score) keeps what a user says of a hit"
        ) from None
    except ValueError:  # what is written in C may not say how it is called
        pass
    return on_score
