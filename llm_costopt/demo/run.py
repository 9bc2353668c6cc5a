"""One pass over a log, whichever host makes the calls: who is asked what, which answer was served, and whether it is right."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llm_costopt.demo.log import LoggedRequest, Tier
from llm_costopt.demo.playback import Playback, serving
from llm_costopt.demo.result import Result, Served
from llm_costopt.errors import CostOptError
from llm_costopt.types import CallRecord

PATIENCE = 3
"""Failures at the start after which a run ends: a wrong key or address fails every time."""

Tick = Callable[[], object]
"""Is called after each request of each run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """Which models play the two tiers."""

    cheap: str = "gpt-4o-mini"
    """The model that is asked first."""
    strong: str = "gpt-4o"
    """The model of the first run, and of what is escalated in the second."""


class Run:
    """One pass over the log.

    Args:
        rows: the requests, in order.
        send: makes one request, and gives the provider's id of the completion that answered it, or an empty text.
        playback: the recorded answers; None if real models are asked.
        tick: is called after each request.
    """

    def __init__(
        self, rows: Sequence[LoggedRequest], send: Callable[[LoggedRequest], str], playback: Playback | None, tick: Tick
    ) -> None:
        self._rows = rows
        self._send = send
        self._playback = playback
        self._tick = tick
        self._row = rows[0]
        self._origin: dict[str, LoggedRequest] = {}
        self.records: list[CallRecord] = []
        """What the host's monitor told of the request that is under way."""

    def serve(self) -> list[Served]:
        """Send the requests in order, one at a time: which answers are stored when decides what hits."""
        served = []
        for row in self._rows:
            served.append(self._serve(row))
            self._tick()
            if len(served) == PATIENCE and all(s.error for s in served):
                raise CostOptError(
                    f"none of the first {PATIENCE} requests was answered; the last error: {served[-1].error}"
                )
        return served

    def completed(self, completion: str) -> None:
        """Note that a model was really asked, and gave *completion*."""
        self._origin.setdefault(completion, self._row)

    def _serve(self, row: LoggedRequest) -> Served:
        self._row, error, completion = row, None, ""
        self.records.clear()
        began = time.perf_counter()
        try:
            completion = self._send(row)
        except Exception as problem:  # noqa: BLE001 - whatever a provider or its client raises fails this request, not the run
            error = f"{type(problem).__name__}: {problem}"
        elapsed = 1000 * (time.perf_counter() - began)
        source = self._origin.get(completion)
        return Served(
            request=row,
            records=tuple(self.records),
            source=source,
            right=_right(row, source, completion) if self._playback else None,
            latency_ms=elapsed + (self._playback.model_ms() if self._playback else 0.0),
            error=error,
        )


@contextmanager
def played(
    rows: Sequence[LoggedRequest], models: Models, *, live: bool
) -> Iterator[tuple[Playback | None, str | None]]:
    """Serve the recorded answers of *rows* and give them with the server's URL; nothing of both if *live*."""
    if live:
        yield None, None
        return
    tiers: dict[str, Tier] = {models.cheap: "cheap", models.strong: "strong"}
    playback = Playback(rows, tiers)
    with serving(playback) as url, _past_proxies():
        yield playback, url


@contextmanager
def _past_proxies() -> Iterator[None]:
    """Let clients that are made inside reach this machine where the environment names a proxy."""
    before = {name: os.environ.get(name) for name in ("no_proxy", "NO_PROXY")}
    os.environ.update(dict.fromkeys(before, "127.0.0.1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def twice(playback: Playback | None, before: Callable[[], list[Served]], after: Callable[[], list[Served]]) -> Result:
    """Make both passes over the same answers."""
    first = before()
    if playback:
        playback.rewind()
    return Result(before=first, after=after())


def _right(row: LoggedRequest, source: LoggedRequest | None, completion: str) -> bool | None:
    """Look up whether the answer is right: another request's answer is right if both ask the same."""
    if not completion:
        return False
    if source is None:
        return None
    tier: Tier = "cheap" if completion.endswith("-cheap") else "strong"
    recorded = source.answers[tier].right
    return recorded if source.same_as == row.same_as else (None if recorded is None else False)
