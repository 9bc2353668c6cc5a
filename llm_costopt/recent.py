"""A bounded memory: what was put in last is kept, for any number of threads."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

REMEMBERED = 1024
"""How many are kept: more than any application has requests on their way."""


class Recent(Generic[K, V]):
    """Keep the *most* last values by key; the oldest goes first."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return the value of *key*, if it is still there."""
        return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep *value* as the latest."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self._most:
                self._values.popitem(last=False)

    def pop(self, key: K) -> V | None:
        """Take the value of *key* out, if it is still there."""
        with self._lock:
            return self._values.pop(key, None)
