"""A cache never breaks a call: what fails inside it is logged and counted."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llm_costopt.cache.breaker import CircuitOpenError
from llm_costopt.errors import place_of

log = logging.getLogger("llm_costopt.cache.semantic")  # the class that people know, wherever inside it something fails


@contextmanager
def failsafe(doing: str, count: Callable[[str], None]) -> Iterator[None]:
    """Turn any failure inside the block into a logged one, and *count* it as one of the `errors`."""
    try:
        yield
    except CircuitOpenError:
        count("errors")
        log.debug("cache %s left off", doing)  # the breaker has warned, once for all of them
    except Exception as problem:  # noqa: BLE001 - whatever fails here must not fail the call
        count("errors")
        # The type alone: a message may quote what was asked.
        log.warning("cache %s failed (%s), the call goes on without it", doing, type(problem).__name__)
        log.debug("the failure came from\n%s", place_of(problem))
