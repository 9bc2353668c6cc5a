"""Price what was called, keep it and tell of it, and never let a failure of that reach the call."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

from llm_costopt.account import Price, account
from llm_costopt.errors import place_of
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.prices import Prices
from llm_costopt.monitor.privacy import Redact, hash_of, kept, key_for
from llm_costopt.monitor.summary import Summary
from llm_costopt.types import CallRecord, Message, OnRecord

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
        hash_key: of the hashes by which repeated requests are told; if None, that of `LLM_COSTOPT_HASH_KEY`, else one that is
            drawn once and kept beside the ledger's file.
        keep_text: keep the last turn of the user and the answer of each call that succeeds in the ledger, 4,000 characters
            each, and nowhere else; by default no text is kept.
        redact: takes out of each text what must not be kept; where it fails, nothing is.

    Raises:
        TypeError: what should be called cannot be, or what should be a text is none.
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
        hash_key: str | None = None,
        keep_text: bool = False,
        redact: Redact | None = None,
    ) -> None:
        for name, text in {"baseline": baseline, "hash_key": hash_key}.items():
            if text is not None and not isinstance(text, str):
                raise TypeError(f"{name} is a text, not {type(text).__name__}")
        for name, given in {"prices": prices, "on_record": on_record, "clock": clock, "redact": redact}.items():
            if given is not None and not callable(given):
                raise TypeError(f"{name} is a function or another callable, not {type(given).__name__}")
        self.ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger, clock=clock)
        self.failures = 0
        """What failed so far, and was only counted."""
        self._baseline = baseline
        self._prices = prices or Prices()
        self._on_record = on_record
        self._clock = clock
        self._key = key_for(hash_key, self.ledger.path)
        self.keeps_text = keep_text
        """Whether text is kept."""
        self._redact = redact
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

    def hashed(self, messages: Sequence[Message], *about: Any) -> str | None:
        """Hash a request; None if it cannot be."""
        return self.guarded("hash", hash_of, self._key, messages, *about)

    def keep(self, record: CallRecord, baseline: str | None, texts: tuple[str, str] | None = None) -> None:
        """Price *record* and keep it; *baseline* is the one that the call itself names, if it names one.

        *texts* are what was asked and answered, to be kept if that was asked for.
        """
        priced = self._priced(record, baseline or self._baseline)
        self.guarded("ledger", self.ledger.append_soon, priced)
        if self._on_record is not None:
            self.guarded("on_record", self._on_record, priced)
        if self.keeps_text and texts is not None:
            self.guarded("text", self._keep_text, record, *texts)

    def guarded(self, what: str, act: Callable[..., T], *args: Any) -> T | None:
        """Do *act*; that it fails is logged once, without the message of the error, which may quote a prompt, and counted."""
        try:
            return act(*args)
        except Exception as error:  # noqa: BLE001 - whatever fails here must not fail the user's call
            seen = (what, type(error))
            with self._lock:
                self.failures += 1
                is_new = seen not in self._said
                self._said.add(seen)
            if is_new:
                log.warning(
                    "The cost monitor failed at %r (%s); from here on, this is only counted\n%s",
                    what,
                    type(error).__name__,
                    place_of(error),
                )
            return None

    def _keep_text(self, record: CallRecord, question: str, answer: str) -> None:
        self.ledger.keep_text(record.id, kept(question, self._redact), kept(answer, self._redact), at=record.at)

    def _priced(self, record: CallRecord, baseline: str | None) -> CallRecord:
        facts = {name: getattr(record, name) for name in ("model", "provider", "usage", "cache", "batch")}
        amounts = self.guarded("price", partial(account, self._prices, baseline=baseline, **facts))
        cost, saved = amounts or (Decimal(0) if record.cache else None, None)
        return replace(record, cost=cost, saved=None if record.error else saved)  # no answer, nothing saved
