"""Single flight: of identical requests at once, one goes to the model and the others wait for its answer."""

import asyncio
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

FLIGHTS = 10_000
"""Flights that are kept: who only looks up never lands."""


@dataclass(frozen=True, slots=True)
class _Flight:
    leader: Hashable
    until: float
    landing: "Future[None]" = field(default_factory=Future)


class Flights:
    """Who has gone to the model with which request.

    A leader is a thread or a task. It leads until its answer is stored or refused (`land`), until it is known to have
    failed (`leave`), or for *patience* seconds, whatever comes first.

    Args:
        patience: seconds; with 0 nobody waits.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.waited = 0
        """How many have waited so far."""
        self._lock = threading.Lock()
        self._flights: OrderedDict[str, _Flight] = OrderedDict()
        self._waiting: dict[Hashable, _Flight] = {}
        self._tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    def wait(self, exact: str) -> bool:
        """Wait in this thread for whoever has asked *exact* already and tell so, or lead and return at once.

        In a thread with an event loop nobody waits, since that would stop the one ahead too.
        """
        me = _me()
        if not isinstance(me, threading.Thread) or (ahead := self._join(exact, me)) is None:
            return False
        try:
            wait_for([ahead.landing], ahead.until - time.monotonic())
        finally:
            self._waits_no_longer(me)
        return True

    async def await_(self, exact: str) -> bool:
        """Wait in this task for whoever has asked *exact* already and tell so, or lead and return at once."""
        task = asyncio.current_task()
        if (ahead := self._join(exact, task)) is None:
            self._watch(task)
            return False
        try:
            await asyncio.wait([asyncio.wrap_future(ahead.landing)], timeout=ahead.until - time.monotonic())
        finally:
            self._waits_no_longer(task)
        return True

    def land(self, exact: str) -> None:
        """Let those go on that wait for *exact*: its answer is there, or will not be stored."""
        with self._lock:
            flight = self._flights.pop(exact, None)
        if flight is not None:
            flight.landing.set_result(None)

    def leave(self) -> None:
        """Let those go on that wait for a request of this thread, which has failed."""
        self._leave(_me())

    def _leave(self, leader: Hashable) -> None:
        with self._lock:
            led = [exact for exact, flight in self._flights.items() if flight.leader is leader]
            left = [self._flights.pop(exact) for exact in led]
        for flight in left:
            flight.landing.set_result(None)

    def _watch(self, task: "asyncio.Task[Any] | None") -> None:
        """Let those go on that wait for *task* when it ends: cancelled or failed too, nobody need wait for it any longer."""
        with self._lock:
            if task is None or task in self._tasks:  # once: it may live as long as the program
                return
            self._tasks.add(task)
        task.add_done_callback(self._leave)

    def _waits_no_longer(self, waiter: Hashable) -> None:
        with self._lock:
            self._waiting.pop(waiter, None)

    def _join(self, exact: str, leader: Hashable) -> _Flight | None:
        """Return the flight to wait for, or None if *leader* leads now; nobody waits for himself, nor for who waits for him."""
        now = time.monotonic()
        with self._lock:
            while self._flights and (
                (oldest := next(iter(self._flights.values()))).until <= now or len(self._flights) >= FLIGHTS
            ):
                self._flights.popitem(last=False)
                oldest.landing.set_result(None)
            ahead = self._flights.get(exact)
            if ahead is None and self._patience:
                self._flights[exact] = _Flight(leader, now + self._patience)
            if ahead is None or self._rests_on(ahead, leader):
                return None
            self._waiting[leader] = ahead
            self.waited += 1
            return ahead

    def _rests_on(self, flight: _Flight | None, leader: Hashable) -> bool:
        """Tell whether *flight* cannot land before *leader* goes on: it is his, or waits for one that is."""
        while flight is not None:
            if flight.leader == leader:
                return True
            flight = self._waiting.get(flight.leader)
        return False


def _me() -> Hashable:
    """Return the task that runs here, or the thread if it has no event loop."""
    with suppress(RuntimeError):
        return asyncio.current_task()
    return threading.current_thread()
