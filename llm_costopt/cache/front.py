"""A few entries at hand in front of a store that is far away, so that an exact repeat costs no round trip."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from llm_costopt.cache.store import Entry

REMEMBERED = 1024
"""How many entries are kept at hand: those that were last served or stored."""

FRESH = 60.0
"""Seconds after which an entry is fetched again: for so long another process's deletion may go unseen."""


class Front:
    """The entries that were last fetched or stored, each for at most `FRESH` seconds and never beyond its own time.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[Entry, float]] = OrderedDict()
        self._changes = 0

    @property
    def changes(self) -> int:
        """Count what was forgotten so far; see `keep`."""
        return self._changes

    def get(self, exact: str) -> Entry | None:
        """Look up an entry by the digest of its whole request."""
        now = self._clock()
        with self._lock:
            entry, since = self._entries.get(exact, (None, 0.0))
            if entry is None:
                return None
            if not 0 <= now - since < FRESH or (entry.expires_at is not None and entry.expires_at <= now):
                del self._entries[exact]
                return None
            self._entries.move_to_end(exact)
            return entry

    def keep(self, entry: Entry, changes: int) -> None:
        """Keep *entry*, unless something was forgotten since there were so many *changes*: that may have been it."""
        with self._lock:
            if changes != self._changes:
                return
            self._entries[entry.exact] = (entry, self._clock())
            self._entries.move_to_end(entry.exact)
            if len(self._entries) > REMEMBERED:
                self._entries.popitem(last=False)

    def forget(self, exact: str) -> None:
        """Forget an entry, and one that is on its way."""
        with self._lock:
            self._changes += 1
            self._entries.pop(exact, None)

    def clear(self) -> None:
        """Forget all entries, and those that are on their way."""
        with self._lock:
            self._changes += 1
            self._entries.clear()
