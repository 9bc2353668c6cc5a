"""The queue behind the transports: what a request is, and the options that a user has."""

import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

from llm_costopt.account import Price
from llm_costopt.batch.anthropic import AnthropicBatches
from llm_costopt.batch.backend import BatchBackend, Lane
from llm_costopt.batch.callers import Caller, Tell
from llm_costopt.batch.jobs import JobStore
from llm_costopt.batch.lanes import kept_headers
from llm_costopt.batch.openai import OpenAIBatches
from llm_costopt.batch.records import Records
from llm_costopt.batch.runner import OnClose, Plan, Runner
from llm_costopt.batch.runs import watch
from llm_costopt.batch.stored import Answered, Wanted
from llm_costopt.batch.watch import Pace
from llm_costopt.batch.wire import Ask, Reply, http_library
from llm_costopt.endpoints import served
from llm_costopt.types import OnRecord

_STREAMS = (
    "the Batch API cannot stream: call invoke, ainvoke, batch or abatch (or create without stream=True), or give "
    "this request a client without the batch transport"
)

_AZURE = "Azure's Batch API is not supported yet: give Azure a client without the batch transport, which costs the full price"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """What a queue holds, and what its file holds; the monitor wants just this: `Alerts(batches=queue.stats)`."""

    waiting: int
    """Requests of this program that wait for their answer."""
    oldest: float | None
    """Seconds that the oldest unanswered row has waited; None if there is none."""
    oldest_queued: float | None
    """Seconds that the oldest unsent row has waited; None if there is none."""
    next_expiry: float | None
    """Seconds until the first job that is at work expires; None if none is."""
    jobs: Mapping[str, int]
    """Jobs by state: `uploading`, `creating`, `running`, `done`."""
    rows: Mapping[str, int]
    """Rows by outcome; `queued` and `sent` are those without one."""
    cost: Decimal
    """US dollars of the rows that were told of since this queue was made and whose price is known."""
    saved: Decimal
    """US dollars that the same rows would have cost more in real time."""
    unpriced: int
    """Rows whose price is unknown."""
    troubles: Sequence[str]
    """What keeps the programs that share the file, and live, from sending their rows."""
    failures: int
    """How often telling of a row failed."""


class BatchQueue:
    """Collect requests, send them through the provider's Batch API at half the price, and keep everything in a file.

    A program that is killed and started again with the same requests picks its rows up and pays once. The file holds
    prompts until they are answered, and answers; it is made for its owner's eyes only. Keys are never written.

    Equal requests of one process each get a row of their own; processes that share a file share rows that are under
    way. What a process was given is not given out again once the interpreter ended without an unhandled exception; or
    else it is, to a process that begins later and asks the same within *resume* seconds. With *job*, it is given out
    whenever the same is asked under that name by another queue.

    What cannot be sent, such as while a provider is not to be reached, is tried again until its *deadline*, for ever if it has
    none; the log, `stats().troubles` and `llm-costopt batch list` say why.

    Args:
        path: the file; None keeps everything in memory, where nothing survives.
        job: a name for the work, such as `nightly-2026-11-24`.
        deadline: seconds after which a request that is not back is asked in real time, at full price. The provider is asked
            for the end of a job that nobody waits for any more.
        on_close: `detach` leaves jobs at the provider, `wait` waits for them, `cancel` asks for their end unless another
            program waits for them.
        on_record: is told of each row when it is answered: `ledger.append`, for instance. Give it or the host's
            callback handler, not both: each would count the same money.
        prices: `(model, usage, *, provider=None, batch=False)` → US dollars or None, as `Prices()` does.
        retries: how often a row that failed for a passing reason (429, 5xx, expired) is sent again.
        gather: seconds without a new request after which a batch is sent.
        max_wait: seconds after which it is sent however many still come.
        poll: seconds between the first two looks at a batch, and the most between two.
        resume: seconds for which what was given to a process that came to no good end is given out again.
        lease: seconds after which another program takes over the jobs of one that gives no sign of life.
        settle: seconds after which a batch that was perhaps made, and is not to be found, is made again; and after which one
            that was made, and that the provider does not know, is lost.
        client: an `httpx.Client` or `httpx2.Client` for the calls to the Batch API; one of its own if None.
        clock: tells the time in seconds since the epoch.

    Raises:
        ValueError: the file cannot be opened or is no job store, or an option is out of its range.
        TypeError: *on_record* or *prices* is no function.
        MissingExtraError: no HTTP library is installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        job: str | None = None,
        deadline: float | None = None,
        on_close: OnClose = "detach",
        on_record: OnRecord | None = None,
        prices: Price | None = None,
        retries: int = 1,
        gather: float = 2.0,
        max_wait: float = 60.0,
        poll: tuple[float, float] = (5.0, 300.0),
        resume: float = 43200.0,
        lease: float = 120.0,
        settle: float = 60.0,
        client: Any = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        _check_numbers(
            deadline=0 if deadline is None else deadline,
            gather=gather,
            max_wait=max_wait,
            resume=resume,
            settle=settle,
            retries=retries,
        )
        _check_others(on_close=on_close, poll=poll, job=job, max_wait=max_wait, lease=lease)
        _check_functions(on_record=on_record, prices=prices)
        if client is None:
            http_library()  # here, since two threads that import it at once have seen half of it
        self._job = job
        self._deadline = deadline
        self._clock = clock
        self._store = JobStore(path)
        self._store.tidy(clock())
        self._records = Records(on_record, prices, clock)
        self._backends: dict[str, BatchBackend] = {b.name: b for b in (OpenAIBatches(), AnthropicBatches())}
        plan = Plan(
            gather=gather,
            max_wait=max_wait,
            pace=Pace(first=poll[0], most=poll[1], lease=lease, settle=settle),
            retries=retries,
            resume=float("inf") if job else resume,
            named=job is not None,
            on_close=on_close,
        )
        self._runner = Runner(
            store=self._store,
            backends=self._backends,
            plan=plan,
            records=self._records,
            client=client,
            path=None if path is None else Path(path).absolute(),
            clock=clock,
        )
        watch(self)
        weakref.finalize(self, self._runner.close, finished=True, wait=False).atexit = False

    def enter(self, ask: Ask, tell: Tell) -> Caller | Reply | None:
        """Take in a request; returns who is told, a refusal, or None if it is nothing for a batch."""
        body = _object(ask.body)
        if body is None:
            return None
        found = self._place(ask, body)
        if found is None:
            return None
        lane, backend = found
        if body.pop("stream", False):
            return backend.error(400, _STREAMS)
        if "/openai/deployments/" in ask.url:
            return backend.error(400, _AZURE)
        text = json.dumps(body, separators=(",", ":")).encode()
        wanted = Wanted(key=self._key(lane, body), lane=lane, body=text, **_whole(served({})))
        caller = Caller(wanted, None if self._deadline is None else self._clock() + self._deadline, tell)
        self._runner.enter(caller, kept_headers(ask.headers))
        return caller

    def took(self, answered: Answered) -> None:
        """Note that whoever asked has the reply."""
        if answered.row >= 0:
            self._runner.took(answered.row)

    def missed(self, caller: Caller) -> None:
        """Note that whoever asked went away, with or without a reply on its way."""
        self._runner.missed(caller)

    def stats(self) -> QueueStats:
        """Report what the queue and its file hold."""
        jobs, now = self._store.jobs(), self._clock()
        states = [job.state for job in jobs]
        ends = [job.at + self._backends[job.lane.provider].lasts for job in jobs if job.state == "running"]
        oldest, queued = self._store.oldest(), self._store.oldest("queued")
        return QueueStats(
            waiting=self._runner.waiting(),
            oldest=None if oldest is None else now - oldest,
            oldest_queued=None if queued is None else now - queued,
            next_expiry=min(ends) - now if ends else None,
            jobs={state: states.count(state) for state in sorted(set(states))},
            rows=self._store.outcomes(),
            cost=self._records.cost,
            saved=self._records.saved,
            unpriced=self._records.unpriced,
            troubles=self._store.troubles(now),
            failures=self._records.failures,
        )

    def close(self, *, finished: bool = True) -> None:
        """Stop as *on_close* says; those who still wait get an HTTP 503.

        Args:
            finished: whether all went well. If not, what was given is given out again, to this process as well.
        """
        self._runner.close(finished=finished)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(finished=kind is None)

    def _place(self, ask: Ask, body: Mapping[str, Any]) -> tuple[Lane, BatchBackend] | None:
        for backend in self._backends.values():
            if lane := backend.lane(ask, body):
                return lane, backend
        return None

    def _key(self, lane: Lane, body: Mapping[str, Any]) -> bytes:
        asked = [self._job or "", lane.base_url, lane.endpoint, body]
        return blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=16).digest()


def _whole(serves: Mapping[str, str | None]) -> dict[str, str | None]:
    """Replace what UTF-8 cannot hold, such as half an emoji: the file would not take it."""
    return {name: text and text.encode(errors="replace").decode() for name, text in serves.items()}


# What is wrong is said at once: found in the queue's thread, it would leave callers waiting for ever.


def _check_others(*, on_close: Any, poll: Any, job: Any, max_wait: float, lease: Any) -> None:
    if on_close not in {"detach", "wait", "cancel"}:
        raise ValueError(f"on_close must be 'detach', 'wait' or 'cancel', not {on_close!r}")
    if not (isinstance(poll, Sequence) and len(poll) == 2 and all(map(_is_number, poll)) and 0 < poll[0] <= poll[1]):
        raise ValueError(f"poll must be some seconds and the most seconds between two looks, not {poll!r}")
    if job is not None and not (isinstance(job, str) and job):
        raise ValueError(f"job must be a name, such as 'nightly-2026-11-24', not {job!r}")
    if max_wait > threading.TIMEOUT_MAX:
        raise ValueError(f"max_wait must be some seconds, not {max_wait!r}")
    if not (_is_number(lease) and lease > 0):
        raise ValueError(f"lease must be some seconds, not {lease!r}")


def _check_numbers(**numbers: Any) -> None:
    for name, number in numbers.items():
        if not (_is_number(number) and number >= 0):
            raise ValueError(f"{name} must be 0 or more, not {number!r}")


def _check_functions(**functions: Any) -> None:
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be a function, such as `ledger.append` or `Prices()`, not {function!r}")


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
