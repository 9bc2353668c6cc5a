"""When to look at a job again."""

from dataclasses import dataclass, field

from llm_costopt.batch.backend import Lane
from llm_costopt.batch.wire import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long to wait for what, in seconds."""

    first: float
    """Between the first two looks at a batch; each wait is half as long again as the one before."""
    most: float
    """Longest time between two looks."""
    lease: float
    """How long a job stays with a program that gives no sign of life."""
    settle: float
    """After which a batch that is not to be found was surely never made, or is gone."""


@dataclass(slots=True, kw_only=True, eq=False)
class Watch:
    """A job that is looked at from time to time."""

    job: str
    """Our name for it."""
    lane: Lane
    """Whose headers to use."""
    due: float
    """When to look again."""
    rows: set[int] = field(default_factory=set)
    """Those that somebody waits for here."""
    cancelling: bool = False
    """Whether it is looked after for the sake of what is paid, even if nobody waits."""
    ended: bool = False
    """Whether all is read, or all was given back."""
    refused: Reply | None = None
    """What the provider said to a look, if it will say it again."""
    too_much: bool = False
    """Whether it was refused since too much was queued."""
    delay: float = 0.0
    misses: int = 0
    """How often the provider did not know it, one look after the other."""
    missing: float = 0.0
    """Since when."""
    lags: int = 0

    def wait(self, now: float, pace: Pace, *, at_least: float = 0.0) -> None:
        """Look again after a while, longer each time."""
        self.delay = min(pace.most, self.delay * 1.5 or pace.first)
        self.due = now + max(self.delay, at_least)
