"""A tier that has just failed is left alone for a while: its next request would fail, too, and its user wait for it."""

import threading
import time
from collections.abc import Callable
from typing import Literal, TypeAlias

Strain: TypeAlias = Literal["rate limit", "outage"]

COOL_DOWN = 30.0
"""Seconds that a tier is left alone; the usual window of a rate limit is a minute."""

FAILURES = 3
"""Failures in a row that count as an outage; a rate limit counts at once."""

_RATE_LIMITS = frozenset({"RateLimitError", "ResourceExhausted", "TooManyRequests", "ThrottlingException"})
"""Classes of errors that say to come back later."""

_BAD_REQUESTS = frozenset({
    "BadRequestError", "ContextOverflowError", "InvalidArgument", "UnprocessableEntityError", "ValidationException",
    "TypeError", "NotImplementedError",
})  # fmt: skip
"""Classes of errors that say that the request is at fault, such as an option that there is none of, and nothing of those of others."""

_BAD = frozenset({400, 413, 422})
"""Statuses of HTTP that say so: too long, filtered, an option that the model does not take."""


def strain_of(error: BaseException) -> Strain | None:
    """Say what *error* tells of the tier that failed with it; None if the request is at fault, however well the tier is."""
    names, status = {c.__name__ for c in type(error).__mro__}, _status(error)
    if names & _RATE_LIMITS or status == 429:
        return "rate limit"
    return None if names & _BAD_REQUESTS or status in _BAD else "outage"


def _status(error: BaseException | None) -> int | None:
    """Find the status of HTTP where the SDKs keep it, in *error* or in what it was made of."""
    while error is not None:
        response = getattr(error, "response", None)
        match response:
            case {"ResponseMetadata": {"HTTPStatusCode": int(status)}}:  # botocore's
                return status
        for said, name in ((error, "status_code"), (error, "code"), (response, "status_code")):
            if isinstance(told := getattr(said, name, None), int):
                return told
        error = error.__cause__
    return None


class CoolDown:
    """Which tiers are left alone for now, by any number of threads.

    Args:
        seconds: for how long; 0: never.
        clock: seconds from any start that never go back.
    """

    def __init__(self, seconds: float = COOL_DOWN, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[int, int] = {}
        self._until: dict[int, float] = {}

    def failed(self, tier: int, *, rate_limited: bool = False) -> None:
        """Note that a call of *tier* failed."""
        with self._lock:
            self._failures[tier] = self._failures.get(tier, 0) + 1
            if rate_limited or self._failures[tier] >= FAILURES:
                self._until[tier] = self._clock() + self._seconds

    def worked(self, tier: int) -> None:
        """Note that a call of *tier* gave an answer."""
        with self._lock:
            self._failures.pop(tier, None)
            self._until.pop(tier, None)

    def cooling(self) -> dict[int, str]:
        """Say which tiers are left alone, and for how long yet."""
        with self._lock:
            now = self._clock()
            return {tier: f"failed, left alone for {end - now:.0f} s" for tier, end in self._until.items() if end > now}
