"""Serve what has just expired while one request fetches it anew (stale-while-revalidate)."""

import threading
from collections import OrderedDict

LEASE = 30.0
"""Seconds that one request has for the refresh before another one tries."""

REMEMBERED = 1024
"""How many refreshes may be under way."""


class Refreshes:
    """Which expired entries are being fetched anew, and by which request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: OrderedDict[str, float] = OrderedDict()
        self._by: OrderedDict[str, str] = OrderedDict()

    def claim(self, entry: str, exact: str, now: float) -> bool:
        """Let the request *exact* refresh *entry*; False if another one is at it, so that *entry* may be served."""
        with self._lock:
            if now < self._until.get(entry, now):
                return False
            self._until[entry], self._by[exact] = now + LEASE, entry
            for claims in (self._until, self._by):
                if len(claims) > REMEMBERED:
                    claims.popitem(last=False)
            return True

    def done(self, exact: str) -> str | None:
        """Return the entry that the request *exact* has fetched anew, if it was to and no other one was faster."""
        with self._lock:
            entry = self._by.pop(exact, None)
            return None if entry is None or self._until.pop(entry, None) is None else entry
