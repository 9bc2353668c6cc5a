"""What is looked at rather than told: budgets, and the jobs of batches."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol


class SpendingLimit(Protocol):
    """A budget; `llm_costopt.Budget` is one."""

    @property
    def usd(self) -> Decimal:
        """Return US dollars that may be spent in a period."""
        ...

    @property
    def per(self) -> str:
        """Return the period: `hour`, `day`, `month`."""
        ...

    @property
    def tag(self) -> str | None:
        """Return the tag that it is for; None for all."""
        ...

    @property
    def spent(self) -> Decimal:
        """Return US dollars spent since the period began."""
        ...

    @property
    def elapsed(self) -> float:
        """Return the part of the period that has passed, from 0 to 1."""
        ...


class Batching(Protocol):
    """How the work of batches stands; `BatchQueue.stats()` and `BatchState` are such."""

    @property
    def jobs(self) -> Mapping[str, int]:
        """Return jobs by state: `running`, …."""
        ...

    @property
    def oldest_queued(self) -> float | None:
        """Return seconds that the request waits which waits longest to be sent; None if none waits."""
        ...

    @property
    def next_expiry(self) -> float | None:
        """Return seconds until the first of the running jobs expires; None if none runs."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchState:
    """How the work of other batches stands, in plain values."""

    jobs: Mapping[str, int] = field(default_factory=dict)
    """Jobs by state."""
    oldest_queued: float | None = None
    """Seconds that the request waits which waits longest to be sent."""
    next_expiry: float | None = None
    """Seconds until the first of the running jobs expires."""


Batches = Callable[[], Batching]
"""Tells how the work of batches stands now: `queue.stats` of a `BatchQueue`."""


def check_watched(budgets: Iterable[SpendingLimit], batches: Batches | None) -> None:
    """Raise TypeError for one budget without a list around it, or for *batches* that cannot be called."""
    if not isinstance(budgets, Iterable):
        raise TypeError(f"budgets is a list, such as [Budget(50, spent=ledger.spent)], not {type(budgets).__name__}")
    if not callable(batches) and batches is not None:
        raise TypeError(f"batches is a function, such as queue.stats of a BatchQueue, not {type(batches).__name__}")


def name_of(budget: SpendingLimit) -> str:
    """Name a budget by its tag and its period: `search per day`."""
    return f"{budget.tag or 'all'} per {budget.per}"
