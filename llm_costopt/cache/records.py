"""What the cache reports: a hit, and what it did so far."""

from collections.abc import Mapping
from dataclasses import dataclass

from llm_costopt.types import CacheKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A stored answer that serves the question."""

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
    entry: int
    """The id of the entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What the cache did since it was made, in this process."""

    hits_exact: int
    """Lookups that found the same request."""
    hits_semantic: int
    """Lookups that found the same question in other words."""
    misses: int
    """Lookups that found nothing to serve."""
    stored: int
    """Answers stored."""
    not_stored: Mapping[str, int]
    """Answers not stored, by reason (`truncated`, `refused`, …)."""
    refused: Mapping[str, int]
    """Similar entries that a guard refused, by guard."""
    errors: int
    """Failures inside the cache, each of which became a miss or an answer not stored."""
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
