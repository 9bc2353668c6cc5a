"""A tier that has just failed is left alone for a while: its next request would fail, too, and its user wait for it."""

import threading
import time
from collections.abc import Callable

COOL_DOWN = 30.0
"""Seconds that a tier is left alone; the usual window of a rate limit is a minute."""

FAILURES = 3
"""Failures in a row that count as an outage; a rate limit counts at once."""


class CoolDown:
    """Which tiers are left alone for now, by any number of threads.

    Args:
        seconds: for how long; 0: never.
        clock: seconds from any start that never go back.
    """

    def __init__(self, seconds: float = COOL_DOWN, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[int, int] = {}
        self._until: dict[int, float] = {}

    def failed(self, tier: int, *, rate_limited: bool = False) -> None:
        """Note that a call of *tier* failed."""
        with self._lock:
            self._failures[tier] = self._failures.get(tier, 0) + 1
            if rate_limited or self._failures[tier] >= FAILURES:
                self._until[tier] = self._clock() + self._seconds

    def worked(self, tier: int) -> None:
        """Note that a call of *tier* gave an answer."""
        with self._lock:
            self._failures.pop(tier, None)
            self._until.pop(tier, None)

    def cooling(self) -> dict[int, str]:
        """Say which tiers are left alone, and for how long yet."""
        with self._lock:
            now = self._clock()
            return {tier: f"failed, left alone for {end - now:.0f} s" for tier, end in self._until.items() if end > now}
