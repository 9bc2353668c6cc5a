"""When matching by meaning does not pay, leave it off for a while: what is never repeated costs an embedding each time."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

TRIAL = 500
"""Lookups by meaning that an endpoint is judged by."""

FIRST_PAUSE = 500
"""Lookups for which it is left off the first time: an empty cache hits rarely at first, whatever it will do later.
Requests of a stream with answers in free text, of which 55 % hit in the end, hit with 11 to 19 % among the first 600."""

PAUSE = 4500
"""Lookups for which it is left off at most, each time twice as many, so that in the end one in ten is a trial."""

ENDPOINTS = 10_000
"""Endpoints that are remembered; a forgotten one begins anew."""


@dataclass(slots=True)
class _Account:
    asked: int = 0
    hit: int = 0
    pause: int = 0
    next_pause: int = FIRST_PAUSE
    spent: float = 0.0
    answered: int = 0
    waited: float = 0.0

    def breaks_even(self) -> bool:
        """Tell whether the hits saved more time than the lookups took; as long as no answer came, nobody knows."""
        return not self.answered or self.hit * self.waited / self.answered >= self.spent


class Economy:
    """Leave an endpoint off for some lookups when fewer than *min_hit_rate* of `TRIAL` lookups hit, then try again.

    Args:
        min_hit_rate: a share of the lookups by meaning, 0 to leave nothing off; None for break-even, where the hits
            of a trial save less time of the model than its lookups take, a remote embedding included.
    """

    def __init__(self, min_hit_rate: float | None) -> None:
        self._min_hit_rate = min_hit_rate
        self._accounts: OrderedDict[Hashable, _Account] = OrderedDict()
        self._lock = threading.Lock()

    def pays(self, endpoint: Hashable) -> bool:
        """Tell whether *endpoint* is worth a lookup by meaning, and count down its pause."""
        with self._lock:
            account = self._accounts.get(endpoint)
            if account is None or not account.pause:
                return True
            account.pause -= 1
            return False

    def is_off(self, endpoint: Hashable) -> bool:
        """Tell whether *endpoint* is left off."""
        with self._lock:
            account = self._accounts.get(endpoint)
            return account is not None and account.pause > 0

    def note(self, endpoint: Hashable, *, hit: bool, seconds: float = 0.0) -> None:
        """Count one lookup by meaning that took so many *seconds*."""
        with self._lock:
            account = self._accounts.setdefault(endpoint, _Account())
            self._accounts.move_to_end(endpoint)
            account.asked += 1
            account.hit += hit
            account.spent += seconds
            if account.asked >= TRIAL:
                rate = self._min_hit_rate
                pays = account.breaks_even() if rate is None else account.hit >= rate * account.asked
                account.pause = 0 if pays else account.next_pause
                account.next_pause = FIRST_PAUSE if pays else min(2 * account.next_pause, PAUSE)
                account.asked, account.hit, account.spent = 0, 0, 0.0
            if len(self._accounts) > ENDPOINTS:
                self._accounts.popitem(last=False)

    def answered(self, endpoint: Hashable, seconds: float) -> None:
        """Count one answer of the model that took so many *seconds*."""
        with self._lock:
            if account := self._accounts.get(endpoint):
                account.answered += 1
                account.waited += seconds

    def off(self) -> int:
        """Count the endpoints that are left off."""
        with self._lock:
            return sum(account.pause > 0 for account in self._accounts.values())
