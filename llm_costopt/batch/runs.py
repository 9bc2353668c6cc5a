"""Which program is asking: one name for a process and a file, and what is known of how it ends.

What a program was given may be given out again only if it came to no good end. A closed queue is no end yet: the
program may still fail on what it was given. It is over when the interpreter ends.
"""

import atexit
import logging
import os
import sqlite3
import sys
import threading
import uuid
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_costopt.batch.jobs import JobStore

log = logging.getLogger(__name__)

_lock = threading.Lock()
_runs: "dict[Path, Run]" = {}
_open: "weakref.WeakSet[Any]" = weakref.WeakSet()

ending: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()
"""Threads of queues that were let go, which still note what was given."""


_SILENCE = 2.0
"""Seconds for which the end of a queue is waited for without a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A program's name in one file."""

    began: float
    """When it first opened the file, in seconds since the epoch."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Unique."""


def run_of(path: Path | None, clock: Callable[[], float]) -> Run:
    """Give the name of this process in the file *path*; in memory, everybody has one of their own."""
    if path is None:
        return Run(began=clock())
    with _lock:
        if path not in _runs:
            _runs[path] = Run(began=clock())
        return _runs[path]


def failed(path: Path | None) -> None:
    """Note that what this process was given is to be given out again, to itself as well."""
    with _lock:
        if path is not None:
            _runs.pop(path, None)


def is_interrupted() -> bool:
    """Say whether the main thread is just handling a KeyboardInterrupt, such as by waiting for a pool of threads.

    Naughty, but better than a handler of signals of our own.
    """
    handled: Any = getattr(sys, "_current_exceptions", dict)()  # not every Python has it
    found = handled.get(threading.main_thread().ident)
    problem = found[1] if isinstance(found, tuple) else found  # until Python 3.11 it is a tuple
    return isinstance(problem, KeyboardInterrupt)


def wait_for(thread: threading.Thread) -> None:
    """Wait for the end of a queue's thread, and say so if that takes long."""
    thread.join(_SILENCE)
    if thread.is_alive():
        log.warning(
            "Waiting for a batch queue to end: with on_close='wait', that is when all its jobs are done, in up to a day. Ctrl-C "
            "is safe: started again, the program goes on with them where they are"
        )
        thread.join()


def watch(queue: Any) -> None:
    """Close *queue* when the interpreter ends."""
    _open.add(queue)


def _at_exit() -> None:
    # The interpreter notes an exception that nobody handled before it ends.
    crashed = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    for queue in list(_open):
        queue.close(finished=crashed is None)
    for thread in list(ending):
        wait_for(thread)
    if crashed is not None:
        return
    for path, run in _runs.items():
        if not path.exists():  # what was deleted in the meantime is not made anew
            continue
        try:
            store = JobStore(path)
            store.spend(run.id)
            store.close()
        except (sqlite3.Error, ValueError):  # such as a full disk; the program did come to its end
            log.exception("The batch queue cannot note in its file that the program came to its end")


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
    os.register_at_fork(after_in_child=_runs.clear)
