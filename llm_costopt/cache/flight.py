"""Single flight: of identical requests at once, one goes to the model and the others wait for its answer."""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

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

    def wait(self, exact: str) -> bool:
        """Wait in this thread for whoever has asked *exact* already and tell so, or lead and return at once.

        In a thread with an event loop nobody waits, since that would stop the one ahead too.
        """
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            return False
        if (ahead := self._join(exact, threading.current_thread())) is None:
            return False
        wait_for([ahead.landing], ahead.until - time.monotonic())
        return True

    async def await_(self, exact: str) -> bool:
        """Wait in this task for whoever has asked *exact* already and tell so, or lead and return at once."""
        task = asyncio.current_task()
        if (ahead := self._join(exact, task)) is None:
            if task is not None:
                # However it ends, cancelled or failed too, nobody need wait for it any longer.
                task.add_done_callback(partial(self._land, exact))
            return False
        await asyncio.wait([asyncio.wrap_future(ahead.landing)], timeout=ahead.until - time.monotonic())
        return True

    def land(self, exact: str) -> None:
        """Let those go on that wait for *exact*: its answer is there, or will not be stored."""
        self._land(exact, None)

    def leave(self) -> None:
        """Let those go on that wait for a request of this thread, which has failed."""
        thread = threading.current_thread()
        with self._lock:
            led = [exact for exact, flight in self._flights.items() if flight.leader is thread]
        for exact in led:
            self._land(exact, thread)

    def _land(self, exact: str, leader: Hashable) -> None:
        with self._lock:
            flight = self._flights.get(exact)
            if flight is None or leader not in {None, flight.leader}:
                return
            del self._flights[exact]
        flight.landing.set_result(None)

    def _join(self, exact: str, leader: Hashable) -> _Flight | None:
        """Return the flight to wait for, or None if *leader* leads now; nobody waits for himself."""
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
            if ahead is None or ahead.leader == leader:
                return None
            self.waited += 1
            return ahead
