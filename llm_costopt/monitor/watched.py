"""What is looked at rather than told: budgets, and the jobs of batches."""

from collections.abc import Callable, Mapping
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchState:
    """How the work of batches stands now."""

    jobs: Mapping[str, int] = field(default_factory=dict)
    """Jobs by state: `running`, …"""
    oldest_queued: float | None = None
    """Seconds that the request waits which waits longest to be sent; None if none waits."""
    next_expiry: float | None = None
    """Seconds until the first of the running jobs expires; None if none runs."""


Batches = Callable[[], BatchState]
"""Tells how the work of batches stands now."""


def name_of(budget: SpendingLimit) -> str:
    """Name a budget by its tag and its period: `search per day`."""
    return f"{budget.tag or 'all'} per {budget.per}"
