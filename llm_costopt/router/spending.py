"""Limits that shift a router's balance smoothly before they bind: a budget for a time, an allowance for each request.

Both answer with thrift, from 0 (nothing is to be saved) to 1 (the cheapest tier has to do).
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Literal, TypeAlias, get_args

from llm_costopt.errors import BudgetExceededError

Per: TypeAlias = Literal["hour", "day", "month"]

Spent: TypeAlias = Callable[[float, str | None], Decimal]
"""`(since, tag)` → US dollars that were spent since then, by calls with that tag if one is given; a ledger's `spent` is one."""

AHEAD = 0.1
"""Part of a budget by which spending may be ahead of the clock before anything changes: requests do not come evenly."""
STEEP = 0.2
"""Part of a budget in which thrift then rises to 1."""
RESERVE = 0.02
"""Part of a budget that only the cheapest tier may use."""
PATIENCE = 5.0
"""Seconds for which what a ledger said is believed; what this process spends meanwhile is added."""
SAVED_UP = 5.0
"""Strong calls whose price an allowance holds before it is free with them, and twice as many are the most it saves up."""


class Budget:
    """How much may be spent in an hour, a day or a month (UTC), in all or by calls with a tag.

    A router that is given it sends more requests to cheaper tiers when spending is ahead of the clock, and raises
    `BudgetExceededError` instead of starting a request that might exceed it. Share one object among routers that share the budget.
    A call that is cancelled, or whose stream breaks off or is closed, counts as what it was expected to cost: nobody tells what it did.

    Args:
        usd: US dollars.
        per: the time that they are for.
        tag: only calls with this tag count and are held back; None for all.
        spent: `ledger.spent`, so that calls of other processes, and those before a restart, count as well.
        clock: tells the time in seconds since the epoch.

    Raises:
        TypeError: *tag* is no text, or *spent* no function.
        ValueError: *usd* is no amount above 0, or *per* is another word.
    """

    def __init__(
        self,
        usd: Decimal | float | str,
        *,
        per: Per = "day",
        tag: str | None = None,
        spent: Spent | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            self.usd = Decimal(str(usd))
        except InvalidOperation:
            self.usd = Decimal(0)
        if not (self.usd.is_finite() and self.usd > 0):
            raise ValueError(f"a budget is an amount above 0, not {usd!r}")
        if per not in get_args(Per):
            raise ValueError(f"a budget is for an hour, a day or a month, not {per!r}")
        if not isinstance(tag, str | None):
            raise TypeError(f"a budget is for one tag or for all, not for tag={tag!r}")
        if spent is not None and not callable(spent):
            raise TypeError(f"a budget is told by a function such as `ledger.spent`, not by spent={spent!r}")
        self.per, self.tag = per, tag
        self._told, self._clock = spent, clock
        self._lock = threading.Lock()
        self._began = -1.0
        self._own = Decimal(0)
        self._ledger = Decimal(0)
        self._asked_at = float("-inf")
        self._since_asked = Decimal(0)

    @property
    def spent(self) -> Decimal:
        """Return the US dollars that were spent or are reserved for calls on their way, since the hour, day or month began."""
        self._look()
        with self._lock:
            return max(self._own, self._ledger + self._since_asked)

    @property
    def elapsed(self) -> float:
        """Return the part of the hour, day or month that has passed, from 0 to 1."""
        begin, end = _span(self.per, now := self._clock())
        return (now - begin) / (end - begin)

    def thrift(self) -> float:
        """Say how much is to be saved, from 0 to 1."""
        used = float(self.spent / self.usd)
        if used >= 1 - RESERVE:
            return 1.0
        return min(1.0, max(0.0, (used - self.elapsed - AHEAD) / STEEP))

    def reserve(self, usd: float) -> None:
        """Count *usd* before it is spent.

        Raises:
            BudgetExceededError: the budget does not hold it; nothing is counted then.
        """
        self._look()
        amount = Decimal(str(usd))
        with self._lock:
            spent = max(self._own, self._ledger + self._since_asked)
            if spent + amount <= self.usd:
                self._own += amount
                self._since_asked += amount
                return
        anew = datetime.fromtimestamp(_span(self.per, self._clock())[1], UTC)
        of = f" for {self.tag!r}" if self.tag else ""
        raise BudgetExceededError(
            f"the budget of ${self.usd} per {self.per}{of} does not hold this request: ${spent:.4f} are spent, and it begins"
            f" anew at {anew:%Y-%m-%d %H:%M} UTC"
        )

    def charge(self, usd: float) -> None:
        """Correct what was reserved, to what is spent."""
        self._look()
        with self._lock:
            self._own += Decimal(str(usd))
            self._since_asked += Decimal(str(usd))

    def _look(self) -> None:
        """Begin anew with a new hour, day or month, and ask the ledger now and then."""
        now = self._clock()
        begin, _ = _span(self.per, now)
        with self._lock:
            if begin != self._began:
                self._began, self._own, self._ledger, self._since_asked = begin, Decimal(0), Decimal(0), Decimal(0)
                self._asked_at = float("-inf")
            # A clock that was set back must not keep the ledger unasked until it has caught up.
            due = self._told is not None and not 0 <= now - self._asked_at < PATIENCE
            if due:
                self._asked_at = now
        if due and self._told is not None:
            try:
                told = Decimal(str(self._told(begin, self.tag)))  # the user's own function may well give a float
            except Exception:  # noqa: BLE001 - what it counts itself still holds
                return
            if told.is_finite():
                with self._lock:
                    self._ledger, self._since_asked = told, Decimal(0)


class Allowance:
    """What each request adds to an account that strong calls are paid from: a limit on the mean over requests.

    Args:
        rate: what a request adds; for a share of strong calls that share, for a mean cost that cost.
        strong: what a strong call takes: 1, or its usual cost.
    """

    def __init__(self, rate: float, *, strong: float) -> None:
        self._rate, self._strong = rate, strong
        self._lock = threading.Lock()
        self._balance = strong

    def thrift(self) -> float:
        """Say how much is to be saved: 0 with `SAVED_UP` strong calls in hand, 1 with less than one."""
        with self._lock:
            calls = self._balance / self._strong
        return 1.0 if calls < 1 else min(1.0, max(0.0, 1 - calls / SAVED_UP))

    def request(self) -> None:
        """Add what a request adds."""
        with self._lock:
            self._balance = min(self._balance + self._rate, 2 * SAVED_UP * self._strong)

    def charge(self, amount: float) -> None:
        """Take what a call costs, or correct what was taken for it."""
        with self._lock:
            self._balance -= amount

    reserve = charge
    """An allowance shifts the balance only; it stops no request."""


def _span(per: Per, now: float) -> tuple[float, float]:
    """Return when the hour, day or month of *now* began and when it ends, in seconds since the epoch."""
    day = datetime.fromtimestamp(now, UTC).replace(minute=0, second=0, microsecond=0)
    if per == "hour":
        return day.timestamp(), day.timestamp() + 3600
    day = day.replace(hour=0)
    if per == "day":
        return day.timestamp(), day.timestamp() + 86400
    first = day.replace(day=1)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return first.timestamp(), following.timestamp()
