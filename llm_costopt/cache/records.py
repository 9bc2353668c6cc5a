"""What the cache reports: a hit, and what it did so far."""

import math
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from llm_costopt.types import CacheKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A stored answer that serves the question."""

    id: str
    """Names this hit for `feedback`."""
    payload: str
    """What was stored, as the host package wrote it."""
    kind: CacheKind
    """How it was found."""
    similarity: float
    """Cosine of the two questions; 1.0 for an exact hit."""
    sure: float | None
    """The estimated probability that the answer serves; None for an exact hit and without `max_error`."""
    age: float
    """Seconds since it was stored."""
    stale: bool = False
    """Whether it has expired, and is served while another request fetches it anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What the cache did since it was made, in this process."""

    hits_exact: int
    """Lookups that found the same request."""
    hits_semantic: int
    """Lookups that found the same question in other words."""
    misses: int
    """Lookups that found nothing to serve, those that failed among them."""
    stored: int
    """Answers stored."""
    not_stored: Mapping[str, int]
    """Answers not stored, by reason (`truncated`, `refused`, …)."""
    refused: Mapping[str, int]
    """Similar entries that a guard refused, by guard."""
    waited: int
    """Lookups that waited for the same request of another caller; their hits are counted as exact."""
    stale: int
    """Hits that had expired, served while another request fetched the answer anew."""
    off: int
    """Endpoints where matching by meaning is left off now, since it hit too rarely."""
    errors: int
    """Failures inside the cache, each of which became a miss or an answer not stored."""
    would_exact: int
    """Lookups that would have found the same request, had the cache not merely observed; they are misses."""
    would_semantic: int
    """Lookups that would have found the same question in other words."""
    checked: "Checked"
    """How often what would have been served said what the model then said: all would-be hits by meaning while the
    cache observes, a share of them otherwise."""
    entries: int | None
    """Entries in the store now, expired ones not yet swept included; None if the store cannot be read."""

    @property
    def hits(self) -> int:
        """Count hits of both kinds."""
        return self.hits_exact + self.hits_semantic

    @property
    def hit_rate(self) -> float | None:
        """Divide hits by lookups; None before the first lookup."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else None

    @property
    def would_hit_rate(self) -> float | None:
        """Divide hits, would-be ones too, by lookups; None before the first lookup."""
        lookups = self.hits + self.misses
        return (self.hits + self.would_exact + self.would_semantic) / lookups if lookups else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Would-be hits by meaning that were held against the model's answer."""

    compared: int
    """How many."""
    agreed: int
    """Those whose answer was seen to say the same."""
    visible: float
    """How many would have been, had all said the same: of answers in free text about half is seen."""

    @property
    def wrong(self) -> tuple[float, float, float] | None:
        """Estimate the share of wrong ones with its 95 % interval, as (share, low, high); None if none was compared.

        It is Wilson's interval of what agreed, put in proportion to what is visible.
        """
        if not self.compared:
            return None
        n, seen = self.compared, self.visible / self.compared
        share = self.agreed / n
        centre, half = share + _Z2 / (2 * n), math.sqrt(_Z2 * (share * (1 - share) / n + _Z2 / (4 * n * n)))
        low, high = ((centre - half) / (1 + _Z2 / n), (centre + half) / (1 + _Z2 / n))
        wrong, least, most = (min(1.0, max(0.0, 1 - part / seen)) for part in (share, high, low))
        return wrong, min(least, wrong), max(most, wrong)  # rounding may put an end beyond a share of none


_Z2 = 1.96**2


def checked_of(counts: Mapping[str, int]) -> Checked:
    """Read them off what a tally has counted."""
    visible = counts.get("visible_thousandths", 0) / 1000
    return Checked(compared=counts.get("compared", 0), agreed=counts.get("agreed", 0), visible=visible)


class Tally:
    """Counts of what happens, by any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._not_stored: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._noted: Counter[str] = Counter()
        self.noted_at = float("-inf")
        """When `unnoted` was asked last."""

    def count(self, what: str) -> None:
        """Count one of the fields of `CacheStats`."""
        with self._lock:
            self._counts[what] += 1

    def not_stored(self, reason: str) -> None:
        """Count an answer that was not stored."""
        with self._lock:
            self._not_stored[reason] += 1

    def refused(self, reason: str) -> None:
        """Count a candidate that was not served."""
        with self._lock:
            self._refused[reason] += 1

    def compared(self, right: bool, seen: float) -> None:
        """Count a would-be hit that was held against the model's answer."""
        with self._lock:
            self._counts["compared"] += 1
            self._counts["agreed"] += right
            self._counts["visible_thousandths"] += round(1000 * seen)

    def unnoted(self, now: float) -> dict[str, int]:
        """Return what was counted until *now* since this was asked last."""
        with self._lock:
            self.noted_at = now
            new = self._counts - self._noted
            self._noted = self._counts.copy()
            return dict(new)

    def not_noted(self, counts: Mapping[str, int]) -> None:
        """Take back what `unnoted` gave, which could not be noted."""
        with self._lock:
            self._noted.subtract(counts)

    def stats(self, *, entries: int | None, off: int, waited: int) -> CacheStats:
        """Give the counts so far."""
        with self._lock:
            return CacheStats(
                **{
                    name: self._counts[name]
                    for name in (
                        "hits_exact",
                        "hits_semantic",
                        "misses",
                        "stored",
                        "stale",
                        "errors",
                        "would_exact",
                        "would_semantic",
                    )
                },
                checked=checked_of(self._counts),
                not_stored=dict(self._not_stored),
                refused=dict(self._refused),
                entries=entries,
                off=off,
                waited=waited,
            )
