"""What a ledger that is locked could not take at once is written when it is free: nobody's call waits for that."""

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable

from llm_costopt.database import BusyError

log = logging.getLogger(__name__)

PATIENCE = 0.1
"""Seconds that a call waits for whoever is writing; one write takes a few hundred microseconds."""
PAUSE = 0.25
"""Seconds between two tries of what is late."""
LAST = 5.0
"""Seconds that the end of the program, or of the ledger, waits for what is late."""
MOST = 10_000
"""Writes that may be late at once."""

Write = Callable[[float], object]
"""Writes something, and raises BusyError if it cannot within so many seconds."""


class Late:
    """Write at once, or in a thread of its own as soon as that is possible."""

    def __init__(self) -> None:
        self._said = False
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._waiting: deque[Write] = deque()
        self._thread: threading.Thread | None = None

    def __call__(self, write: Write) -> None:
        """Do *write*, now or later. Raises BusyError if too much waits already."""
        if self._process != os.getpid():  # a child has none of its parent's threads, and what waits is the parent's
            self._begin()
        if self._thread is None:
            try:
                write(PATIENCE)
            except BusyError:
                if not self._said:
                    log.warning("the ledger is locked; what calls tell is kept until it is free, now and later")
                self._said = True
            else:
                return
        with self._lock:
            if len(self._waiting) >= MOST:
                raise BusyError("the ledger has been locked for too long, a record is lost")
            self._waiting.append(write)
            if self._thread is None:
                thread = threading.Thread(target=self._catch_up, name="llm-costopt-ledger", daemon=True)
                thread.start()  # which fails where the program ends; the next call then tries by itself
                self._thread = thread
                atexit.register(self.settle)

    def settle(self) -> None:
        """Wait for what is late, and give it up if that takes too long."""
        thread = self._thread
        if thread is not None and self._process == os.getpid():
            thread.join(LAST)
            if thread.is_alive():
                log.warning("the ledger is still locked, %d records are lost", len(self._waiting))
                self._waiting.clear()

    def _catch_up(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    atexit.unregister(self.settle)
                    return
                write = self._waiting[0]
            try:
                write(PATIENCE)
            except BusyError:
                time.sleep(PAUSE)
                continue
            except Exception as error:  # noqa: BLE001 - there is no caller left to tell
                log.warning("a record is lost (%s)", type(error).__name__)
            with self._lock:
                if self._waiting:  # unless it was given up meanwhile
                    self._waiting.popleft()
