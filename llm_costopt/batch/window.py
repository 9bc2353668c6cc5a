"""Collect callers by size and age and start them in windows, never too many at once.

A window hands out `concurrent.futures.Future`, which threads wait for and event loops wrap; it
waits for nothing itself.
"""

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from llm_costopt import switch


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStats:
    """What a window did since it was made, and what it holds now."""

    requests: int
    """All callers that came."""
    batches: int
    """Windows that were released."""
    average_batch_size: float | None
    """Callers per released window; None before the first."""
    in_flight: int
    """Slots that are taken now."""
    waiting: int
    """Callers that have not started yet."""
    oldest_waiting: float | None
    """Seconds that the longest-waiting caller has waited; None if nobody waits."""
    expired: int
    """Leases that were never returned and were taken back."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ticket:
    """One caller's place."""

    future: Future[None] = field(default_factory=Future)
    """Resolves when the caller may start; cancelled if the ticket is given back before."""
    entered: float
    """When the caller came, by the window's clock."""
    group: str = ""
    """What its request shares with others: those of one window start next to each other."""


@dataclass(slots=True, eq=False)
class _Slot:
    """The right to have one call in flight, with those who share it: each is part of the one before."""

    expires: float
    tickets: list[Ticket]


class Window:
    """Hold callers back until their window is full or old enough, then start them in order.

    Every caller must `leave` when it is done. It is safe to use from any thread and any event loop;
    a forked child starts with an empty window. Where `LLM_COSTOPT` is not `on`, nobody is held back.

    Args:
        max_batch_size: this many callers make a full window.
        flush_interval: seconds after which a window is released however few it holds, counted from its oldest caller.
        max_concurrent: released callers that may be in flight at once; the others start as slots come back.
        lease: seconds after which a slot that nobody returned is taken back.
        clock: tells the time in seconds.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        max_batch_size: int = 20,
        flush_interval: float = 0.5,
        max_concurrent: int = 10,
        lease: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, number in (("max_batch_size", max_batch_size), ("max_concurrent", max_concurrent)):
            if not _is_within(number, 1):
                raise ValueError(f"{name} must be at least 1, not {number!r}")
        if not _is_within(flush_interval, 0, threading.TIMEOUT_MAX):
            raise ValueError(f"flush_interval must be 0 or some seconds, not {flush_interval!r}")
        if lease == 0 or not _is_within(lease, 0, threading.TIMEOUT_MAX):
            raise ValueError(f"lease must be some seconds, more than the longest call takes, not {lease!r}")
        self._max_batch_size = max_batch_size
        self._flush_interval = flush_interval
        self._max_concurrent = max_concurrent
        self._lease = lease
        self._clock = clock
        self._closed = False
        self._start_over()
        call_in_forked_child(self._start_over)

    def _start_over(self) -> None:
        # Reentrant, because the garbage collector may close a forgotten stream in the middle of a section of the same
        # thread. Its call then leaves by way of `_returned`, which is looked through at the end and after it.
        self._lock = threading.RLock()
        self._in_section = False
        self._returned: deque[Ticket] = deque()
        # Who fills a window stands in order of arrival, who is released by window and group; the value is the running call that the caller is part of.
        self._filling: dict[Ticket, Ticket | None] = {}
        self._released: dict[Ticket, Ticket | None] = {}
        self._slots: list[_Slot] = []
        self._slot_of: dict[Ticket, _Slot] = {}
        self._timer: threading.Timer | None = None
        self._new_timer: threading.Timer | None = None
        self._timer_due: float | None = None
        self._requests = self._batches = self._batched = self._expired = 0

    def enter(self, *, under: Ticket | None = None, wait: bool = True, group: str = "") -> Ticket:
        """Queue a caller and return its ticket.

        Args:
            under: the running call that this one is part of. It lends its slot, to one caller at a time: if it did
                not, a call that waits for its own inner calls could hold the slot that they need, for ever.
            wait: if False, the caller is only counted: it may start at once and holds no slot.
            group: callers of one group start next to each other when their window is released; such as the beginning of
                a prompt, which a provider keeps in its cache for a few minutes.
        """
        with self._section() as starting:
            self._requests += 1
            ticket = Ticket(entered=self._clock(), group=group)
            if not wait or self._lend(under, ticket):
                starting.append(ticket)
            else:
                (self._released if self._closed else self._filling)[ticket] = under
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give *ticket* back, whether its caller is done or no longer wants to start; again does nothing."""
        ticket.future.cancel()
        self._returned.append(ticket)
        with self._lock:
            reentered = self._in_section
        if not reentered:
            self._settle()

    def close(self) -> None:
        """Release everybody who waits; from now on callers wait for a slot only."""
        with self._section():
            self._closed = True

    def stats(self) -> BatchStats:
        """Report what the window did and what it holds."""
        self._settle()
        with self._section():
            oldest = next(chain(self._released, self._filling), None)
            return BatchStats(
                requests=self._requests,
                batches=self._batches,
                average_batch_size=self._batched / self._batches if self._batches else None,
                in_flight=len(self._slots),
                waiting=len(self._released) + len(self._filling),
                oldest_waiting=self._clock() - oldest.entered if oldest else None,
                expired=self._expired,
            )

    def _settle(self) -> None:
        with self._section():
            pass  # its end does all that is due

    @contextmanager
    def _section(self) -> Iterator[list[Ticket]]:
        """Hold the lock, do at the end all that is due, then start who got a slot: those in the list and more."""
        with self._lock:
            self._in_section = True
            starting: list[Ticket] = []
            try:
                yield starting
                starting += self._advance()
            finally:
                self._in_section = False
            timer, self._new_timer = self._new_timer, None
        # Never with the lock held: whoever waits for a future may come straight back to the window, and a thread
        # that starts may collect garbage, which may come back as well.
        for ticket in starting:
            if ticket.future.set_running_or_notify_cancel():
                ticket.future.set_result(None)
            else:
                self.leave(ticket)
        if timer:
            self._start_timer(timer)
        if self._returned:
            self._settle()

    def _start_timer(self, timer: threading.Timer) -> None:
        try:
            timer.start()
        except RuntimeError:
            # No thread can start, as at the end of the process: nobody else would wake the callers.
            with self._section():
                self._closed = True

    # All that follows runs inside a section. A method that returns tickets has given them slots.

    def _advance(self) -> list[Ticket]:
        """Do all that is due by now, and set the timer for what is not."""
        now = self._clock()
        starting = []
        while self._returned:
            starting += self._remove(self._returned.popleft())
        self._take_back(now)
        self._release(now)
        starting += self._seat(now)
        self._set_timer(now)
        return starting

    def _take_back(self, now: float) -> None:
        for slot in [slot for slot in self._slots if slot.expires <= now]:
            self._expired += 1
            self._slots.remove(slot)
            for ticket in slot.tickets:
                del self._slot_of[ticket]

    def _release(self, now: float) -> None:
        if self._filling and (self._closed or switch.mode() != "on" or self._full() or self._filling_due() <= now):
            self._batches += 1
            self._batched += len(self._filling)
            first = {t.group: n for n, t in reversed(list(enumerate(self._filling)))}
            self._released.update(sorted(self._filling.items(), key=lambda caller: first[caller[0].group]))
            self._filling.clear()

    def _seat(self, now: float) -> list[Ticket]:
        seated = []
        while self._released and (len(self._slots) < self._max_concurrent or switch.mode() != "on"):
            ticket = next(iter(self._released))
            del self._released[ticket]
            if not ticket.future.cancelled():
                slot = _Slot(expires=now + self._lease, tickets=[ticket])
                self._slots.append(slot)
                self._slot_of[ticket] = slot
                seated.append(ticket)
        return seated

    def _full(self) -> bool:
        return len(self._filling) >= self._max_batch_size

    def _filling_due(self) -> float:
        # The oldest caller's deadline stands, however many come after it: a deadline that each
        # arrival moved would keep a steady trickle waiting for ever.
        return next(iter(self._filling)).entered + self._flush_interval

    def _lend(self, under: Ticket | None, ticket: Ticket) -> bool:
        slot = self._slot_of.get(under) if under else None
        if slot is None or slot.tickets[-1] is not under:
            return False
        slot.tickets.append(ticket)
        slot.expires = self._clock() + self._lease
        self._slot_of[ticket] = slot
        return True

    def _remove(self, ticket: Ticket) -> list[Ticket]:
        """Forget *ticket*; its share of a slot goes to the next caller that is part of the same call."""
        self._filling.pop(ticket, None)
        self._released.pop(ticket, None)
        slot = self._slot_of.pop(ticket, None)
        if slot is None:
            return []
        slot.tickets.remove(ticket)
        if not slot.tickets:
            self._slots.remove(slot)
            return []
        lender = slot.tickets[-1]
        waiting = chain(self._released.items(), self._filling.items())
        heir = next((t for t, under in waiting if under is lender), None)
        if heir is None:
            return []
        self._released.pop(heir, None)
        self._filling.pop(heir, None)
        self._lend(lender, heir)
        return [heir]

    def _set_timer(self, now: float) -> None:
        dues = [self._filling_due()] if self._filling else []
        if self._released:
            dues.append(min(slot.expires for slot in self._slots))
        due = min(dues, default=None)
        # A timer that is early does no harm and sets the next one, which is cheaper than a new thread for each caller.
        if due is not None and self._timer_due is not None and due >= self._timer_due:
            return
        if self._timer:
            self._timer.cancel()
        self._timer, self._timer_due = None, due
        if due is not None:
            self._timer = self._new_timer = threading.Timer(due - now, self._on_timer, [due])
            self._timer.name = "llm-costopt-window"
            self._timer.daemon = True

    def _on_timer(self, due: float) -> None:
        with self._section():
            if due == self._timer_due:
                self._timer = self._timer_due = None


def call_in_forked_child(method: Callable[[], None]) -> None:
    """Call a bound *method* in every child that is forked while its object lives.

    There its locks may be held by threads that do not exist, and its callers are the parent's.
    """
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if alive := reference():
            alive()

    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        os.register_at_fork(after_in_child=call)


def _is_within(number: Any, least: float, most: float = float("inf")) -> bool:
    return isinstance(number, int | float) and least <= number <= most  # NaN is neither more nor less
