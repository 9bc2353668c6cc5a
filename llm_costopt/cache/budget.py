"""The bar above which a candidate is served, so that errors stay within a budget."""

import threading
from collections import deque

import numpy as np


class ErrorBudget:
    """Serve while the expected share of requests that are answered wrongly stays within *max_error*.

    The bar is where the doubts of all that would be served, over the recent requests, add up to the budget.
    """

    RECENT = 2000
    """Requests that the bar is set by: enough for 1 % to be a number."""
    EVERY = 25
    """Requests after which the bar is set again."""

    def __init__(self, max_error: float) -> None:
        self._max_error = max_error
        self._recent: deque[float] = deque(maxlen=self.RECENT)
        self.bar = 1 - max_error
        """What a candidate's probability must reach."""
        self._seen = 0
        self._lock = threading.Lock()

    def admits(self, sure: float) -> bool:
        """Decide about one request whose candidate is *sure* to serve; 0 if it has none."""
        with self._lock:
            self._recent.append(sure)
            self._seen += 1
            if self._seen % self.EVERY == 0:
                self.bar = self._new_bar()
            return sure > 0 and sure >= self.bar

    def _new_bar(self) -> float:
        best_first = np.sort(np.array(self._recent))[::-1]
        expected = np.cumsum(1 - best_first) / len(best_first)
        served = int(np.searchsorted(expected, self._max_error))
        # More likely wrong than right is never served, however little there is to serve.
        return max(0.5, float(best_first[served - 1])) if served else 1.0
