"""Price what was called, keep it and tell of it, and never let a failure of that reach the call."""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

from llm_costopt.monitor.account import account
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.prices import Price, Prices
from llm_costopt.monitor.summary import Summary
from llm_costopt.types import CallRecord, OnRecord

log = logging.getLogger(__name__)

T = TypeVar("T")


class Keeper:
    """Keep what every call cost and saved: what the handlers of both hosts do with what they have read.

    Args:
        baseline: the model that would have been asked without us; a router says so itself.
        ledger: where the calls are kept: a `Ledger`, or the path of one; in memory if None.
        prices: `(model, usage, *, provider=None, batch=False)` → US dollars or None; `Prices()` if not given.
        on_record: is told of each call, after the ledger.
        clock: tells the time in seconds since the epoch.

    Raises:
        ValueError: the ledger cannot be opened.
    """

    def __init__(
        self,
        *,
        baseline: str | None = None,
        ledger: Ledger | str | os.PathLike[str] | None = None,
        prices: Price | None = None,
        on_record: OnRecord | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger, clock=clock)
        self.failures = 0
        """What failed so far, and was only counted."""
        self._baseline = baseline
        self._prices = prices or Prices()
        self._on_record = on_record
        self._clock = clock
        self._lock = threading.Lock()
        self._said: set[tuple[str, type[Exception]]] = set()

    def summary(self, hours: float | None = 24) -> Summary:
        """Sum up the last *hours*; all there is if None."""
        return self.ledger.summary(hours)

    def records(self, since: float | None = None) -> list[CallRecord]:
        """List the calls that ended at *since* (seconds since the epoch) or later, the oldest first."""
        return self.ledger.records(since)

    def now(self) -> float:
        """Tell the time in seconds since the epoch."""
        return self._clock()

    def keep(self, record: CallRecord, baseline: str | None) -> None:
        """Price *record* and keep it; *baseline* is the one that the call itself names, if it names one."""
        priced = self._priced(record, baseline or self._baseline)
        self.guarded("ledger", self.ledger.append, priced)
        if self._on_record is not None:
            self.guarded("on_record", self._on_record, priced)

    def guarded(self, what: str, act: Callable[..., T], *args: Any) -> T | None:
        """Do *act*; what it raises is logged once and counted."""
        try:
            return act(*args)
        except Exception as error:  # whatever fails here must not fail the user's call
            kind = (what, type(error))
            with self._lock:
                self.failures += 1
                is_new = kind not in self._said
                self._said.add(kind)
            if is_new:
                log.warning("The cost monitor failed at %r; from here on, this is only counted", what, exc_info=True)
            return None

    def _priced(self, record: CallRecord, baseline: str | None) -> CallRecord:
        facts = {name: getattr(record, name) for name in ("model", "provider", "usage", "cache", "batch")}
        amounts = self.guarded("price", partial(account, self._prices, baseline=baseline, **facts))
        cost, saved = amounts or (Decimal(0) if record.cache else None, None)
        return replace(record, cost=cost, saved=None if record.error else saved)  # no answer, nothing saved
