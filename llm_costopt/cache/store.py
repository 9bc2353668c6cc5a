"""What a store is: entries found by the digest of a request, by nearness inside one scope, and by what they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from llm_costopt.cache.embed import Vector
from llm_costopt.cache.verify import Neighbour


class Entry(NamedTuple):  # one or two a lookup, each made in a sixth of the time of a frozen dataclass
    """One stored answer."""

    exact: str
    """Digest of the whole request."""
    scope: str
    """Digest of all that must match exactly."""
    text: str
    """The question that was answered."""
    payload: str
    """The answer, as the host package wrote it."""
    answer: str
    """The words of the answer."""
    says: int
    """Entries with the same number have answers that say the same."""
    stored_at: float
    """Seconds since the epoch."""
    expires_at: float | None
    """Seconds since the epoch; None: never."""
    used_at: float
    """Seconds since the epoch, of the last use that was noted."""
    model: str | None = None
    """The model that was asked, by its name."""
    tags: tuple[str, ...] = ()
    """What `invalidate` may find it by."""
    id: str = ""
    """The store's own name for it, never used for another question; empty until it is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearby:
    """What lies around a question."""

    neighbours: Sequence[Neighbour]
    """The nearest entries of the scope, nearest first."""
    entries: int
    """How many entries the scope has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which entries of the namespace are meant: those that meet all that is given."""

    tags: frozenset[str] = frozenset()
    """Entries with any of these; all if empty."""
    model: str | None = None
    """Entries whose model has this name; all if None."""
    stored_before: float | None = None
    """Entries stored before this time, in seconds since the epoch; all if None."""


class Store(Protocol):
    """Where the entries of one namespace live. Whatever fails is raised: the cache turns it into a miss."""

    def get(self, exact: str) -> Entry | None:
        """Look up an entry by the digest of its whole request."""
        ...

    def by_id(self, entry: str) -> Entry | None:
        """Look up an entry by its id."""
        ...

    def near(self, exact: str, scope: str, vector: Vector, count: int, since: float) -> Nearby:
        """Find up to *count* entries of *scope* next to unit *vector* that had not expired at *since*.

        Those that `part` has parted from the request *exact* are left out.
        """
        ...

    def put(self, entry: Entry, vector: Vector | None) -> Entry:
        """Store *entry*, in place of the one with the same digest if there is one, and return it with its id."""
        ...

    def touch(self, entry: Entry, now: float) -> None:
        """Note that *entry* was used."""
        ...

    def part(self, exact: str, entry: str) -> None:
        """Remember that the entry with this id does not answer the request *exact*."""
        ...

    def delete(self, entry: str) -> None:
        """Delete the entry with this id, if there is one."""
        ...

    def select(self, which: Selection) -> list[str]:
        """List the ids of the entries of this namespace that *which* means."""
        ...

    def clear(self) -> None:
        """Delete all entries of this namespace, and what was parted; what was learned stays."""
        ...

    def count(self) -> int:
        """Count the entries of this namespace."""
        ...

    def learned(self) -> str | None:
        """Return what `keep_learned` kept in this namespace."""
        ...

    def keep_learned(self, state: str) -> None:
        """Keep what was learned beside the entries."""
        ...

    def add_counts(self, counts: Mapping[str, int], now: float) -> None:
        """Add *counts* to those that are kept beside the entries, by any number of processes; *now* is kept the first time."""
        ...

    def counts(self) -> dict[str, int]:
        """Return what `add_counts` has added up in this namespace, and `since`, in seconds since the epoch."""
        ...

    def close(self) -> None:
        """Let go of files and connections; what was stored stays."""
        ...
