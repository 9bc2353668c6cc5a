"""What an exporter does must not fail the call that it tells of."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from llm_costopt.errors import place_of
from llm_costopt.types import CallRecord, OnRecord

log = logging.getLogger(__name__)

T = TypeVar("T")


class Guard:
    """Swallow what fails inside *what*: it is counted in `failures`, and logged the first time.

    The log tells the kind and the place of the error, not its message, which may quote a login or a URL.
    """

    def __init__(self, what: str) -> None:
        self.failures = 0
        self._what = what
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Run what stands under `with` to its end or its first error."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever fails here must not fail the user's call
            with self._lock:
                self.failures += 1
                first = self.failures == 1
            if first:
                kind, place = type(error).__name__, place_of(error)
                log.warning("%s failed (%s); from here on, this is only counted\n%s", self._what, kind, place)


def callables(given: Iterable[T]) -> tuple[T, ...]:
    """Collect what is *given*. Raises TypeError if any of it cannot be called, which would only be counted later."""
    collected = tuple(given)
    for one in collected:
        if not callable(one):
            raise TypeError(f"each of those to be told is a function or another callable, not {type(one).__name__}")
    return collected


def each(*told: OnRecord) -> OnRecord:
    """Make one `on_record` of several: all are told, even if one of them fails.

    The first error is raised once all were told. Raises TypeError at once if one of them cannot be called.
    """
    listeners = callables(told)

    def tell(record: CallRecord) -> None:
        errors = [error for one in listeners if (error := _error(one, record))]
        if errors:
            raise errors[0]

    return tell


def _error(told: Callable[[CallRecord], None], record: CallRecord) -> Exception | None:
    try:
        told(record)
    except Exception as error:  # noqa: BLE001 - it is raised when the others were told
        return error
    return None
