"""Send, find, watch and collect batches: all that talks to a provider, one job at a time."""

import io
import json
import logging
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from llm_costopt.batch.backend import UNFINISHED, BatchBackend, Failure, Intent, Lane, Remote, Result, Row
from llm_costopt.batch.jobs import JobStore
from llm_costopt.batch.stored import Answered, Job, row_number
from llm_costopt.batch.watch import Pace, Watch
from llm_costopt.batch.wire import Http, RefusedError, Reply

log = logging.getLogger(__name__)

_CHUNK = 500
"""Rows that are stored at once: what a crash in the middle may have to read again."""

_MISSES = 3
"""How often a provider must not know a batch before it counts as lost: one that was just made may not be seen yet."""

_LAGS = 5
"""How often results that were announced are waited for: files have been seen to come after `completed`."""

_TOO_LARGE = 413
"""The HTTP error for a body that is larger than the provider, or a gateway on the way, takes."""

_PASSING = frozenset({408, 409, 425, 429})
"""HTTP errors below 500 that may pass by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """Rows were given back, to be sent again."""

    wait: float = 0.0
    """Seconds before that."""
    room: int | None = None
    """Most bytes to send at once from now on; None for as many as before."""
    trouble: str | None = None
    """What the provider, or the way to it, has to say against it."""


class Worker:
    """Do the work on jobs, in one thread.

    Args:
        store: where rows and jobs are kept.
        backends: by name.
        owner: whoever works, as a lease names it.
        pace: how long to wait.
        retries: how often a row that failed for a passing reason is sent again.
        client: makes the blocking HTTP client.
        headers: tells the headers of a lane's account.
        deliver: is given rows as soon as they are stored.
        clock: tells the time in seconds since the epoch.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        backends: Mapping[str, BatchBackend],
        owner: str,
        pace: Pace,
        retries: int,
        client: Callable[[], Any],
        headers: Callable[[Lane], Mapping[str, str]],
        deliver: Callable[[list[Answered]], None],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._backends = backends
        self._owner = owner
        self._pace = pace
        self._retries = retries
        self._client = client
        self._headers = headers
        self._deliver = deliver
        self._clock = clock
        self._renewed = 0.0

    def send(self, lane: Lane, rows: Sequence[int]) -> Back | None:
        """Send *rows* as one job, and store how it went; says so if they are to be sent again."""
        job = uuid.uuid4().hex
        now = self._clock()
        if not self._store.open_job(job, lane, rows, owner=self._owner, now=now, until=now + self._pace.lease):
            return None
        backend, http = self._backends[lane.provider], self._http(lane)
        with tempfile.TemporaryFile() as file:
            backend.write((Row(id=name, body=body) for _, name, body in self._store.bodies(job)), lane, file)
            file.seek(0)
            try:
                uploaded = backend.upload(http, lane, job, file)
            except ConnectionError as problem:
                return self._later(job, self._pace.most, problem)
            except RefusedError as problem:
                return self._refused(job, backend, problem, file)
            return self._create(job, lane, uploaded, file)

    def _create(self, job: str, lane: Lane, uploaded: str, file: IO[bytes]) -> Back | None:
        backend = self._backends[lane.provider]
        # From here on it may exist and cost money. If another program has taken the job over, it is that one's.
        if not self._advance(job, state="creating", uploaded=uploaded, at=self._clock()):
            self._discard(lane, uploaded)
            return None
        self._store.sync()
        try:
            remote = backend.create(self._http(lane), lane, job, uploaded, file)
        except ConnectionError as problem:
            self._unsure(job, problem)
            return None
        except RefusedError as problem:
            if problem.reply.status >= 500:
                self._unsure(job, problem)
                return None
            back = self._refused(job, backend, problem, file)
            self._discard(lane, uploaded)
            return back
        self._advance(job, state="running", remote=remote.id, status=remote.status)
        return None

    def _unsure(self, job: str, problem: Exception) -> None:
        log.warning("Nobody knows whether batch %s was made; it is looked for: %s", job, problem)
        # It has the time to settle from now on: the call itself may have taken as long.
        self._advance(job, at=self._clock())

    def _refused(self, job: str, backend: BatchBackend, problem: RefusedError, file: IO[bytes]) -> Back | None:
        """Store that nothing was made of *job*; says so if that may change."""
        reply = problem.reply
        if reply.status == _TOO_LARGE and len(self._open(job)) > 1:
            # By bytes, not by rows: one huge row must not make small jobs of all the others.
            log.warning("A batch was too large, it is halved: %s", problem)
            self._store.reopen(job)
            return Back(room=file.seek(0, io.SEEK_END) // 2)
        if reply.status >= 500 or reply.status in _PASSING:
            return self._later(job, problem.retry_after or self._pace.most, problem)
        rest = (Result(id=name, reply=_as_error(backend, reply), outcome="rejected") for name in self._open(job))
        self._answer(job, rest)
        self._advance(job, state="done", status="refused", note=str(problem))
        return None

    def _later(self, job: str, wait: float, problem: Exception) -> Back:
        log.warning("A batch could not be sent, it is tried again in %.0f s: %s", wait, problem)
        self._store.reopen(job)
        return Back(wait=wait, trouble=str(problem))

    def look(self, watch: Watch) -> None:
        """Do what is due on a job, and note in *watch* how it is and when to come back."""
        now = self._clock()
        job = self._store.lease(watch.job, owner=self._owner, now=now, until=now + self._pace.lease)
        if job is None:
            # Another program has it, or has finished it: its rows are in the store as they come.
            watch.ended = self._is_done(watch.job)
            watch.wait(now, self._pace)
            return
        try:
            self._look(job, watch)
        except ConnectionError as problem:
            log.warning("Asking for batch %s failed, it is tried again: %s", job.id, problem)
            watch.wait(self._clock(), self._pace)
        except RefusedError as problem:
            self._look_refused(job, watch, problem)

    def cancel(self, job: str, lane: Lane) -> bool:
        """Ask the provider for the end of a job; says whether there is one to end."""
        now = self._clock()
        held = self._store.lease(job, owner=self._owner, now=now, until=now + self._pace.lease)
        if held is None or held.remote is None:
            return False
        try:
            self._backends[lane.provider].cancel(self._http(lane), lane, held.remote)
        except (ConnectionError, RefusedError) as problem:
            log.warning("Batch %s was not cancelled: %s", job, problem)
            return False
        return True

    def _look(self, job: Job, watch: Watch) -> None:
        backend, http, now = self._backends[job.lane.provider], self._http(watch.lane), self._clock()
        if job.state == "uploading":  # whoever sent it died before anything could exist
            self._store.reopen(job.id)
            watch.ended = True
            return
        if job.remote is None:
            self._find(job, watch)
            return
        remote = backend.look(http, job.lane, job.remote)
        self._advance(job.id, status=remote.status, through=remote.done)
        if remote.ended:
            self._collect(job, remote, watch)
        else:
            watch.misses = 0
        if not watch.ended:
            watch.wait(now, self._pace)

    def _find(self, job: Job, watch: Watch) -> None:
        now = self._clock()
        intent = Intent(id=job.id, rows=job.rows, at=job.at, not_these=self._store.taken() | job.not_these)
        backend = self._backends[job.lane.provider]
        remote = backend.find(self._http(watch.lane), job.lane, intent)
        if remote is not None:
            guessed = int(not backend.marks)
            self._advance(job.id, state="running", remote=remote.id, status=remote.status, guessed=guessed)
            watch.due = now
        elif now > job.at + self._pace.settle:
            self._store.reopen(job.id)
            self._discard(watch.lane, job.uploaded)
            watch.ended = True
        else:
            watch.wait(now, self._pace)

    def _look_refused(self, job: Job, watch: Watch, problem: RefusedError) -> None:
        status = problem.reply.status
        gone = status in {404, 410} and job.remote is not None
        if gone:
            watch.missing = watch.missing if watch.misses else self._clock()
            watch.misses += 1
        # A gateway that is being set up anew says the same for some seconds, and what is lost was paid.
        if watch.misses >= _MISSES and self._clock() > watch.missing + self._pace.settle:
            self._finish(job, "lost", [], str(problem), watch)
        elif status >= 500 or status in _PASSING or gone:
            log.warning("Asking for batch %s failed, it is tried again: %s", job.id, problem)
            watch.wait(self._clock(), self._pace, at_least=problem.retry_after or 0.0)
        else:  # such as a key that is no longer valid: the job stays as it is for whoever has a better one
            watch.refused = _as_error(self._backends[job.lane.provider], problem.reply)
            watch.wait(self._clock(), self._pace)

    def _collect(self, job: Job, remote: Remote, watch: Watch) -> None:
        backend = self._backends[job.lane.provider]
        ours = foreign = 0
        results = backend.results(self._http(watch.lane), job.lane, remote)
        for some in _chunks(results):
            known = [r for r in some if row_number(job.id, r.id) is not None]
            ours, foreign = ours + len(known), foreign + len(some) - len(known)
            self._answer(job.id, known)
            self._renew()
        if job.guessed and foreign and not ours:
            others = job.not_these | {remote.id}
            self._advance(job.id, state="creating", remote=None, guessed=0, not_these=json.dumps(sorted(others)))
            return
        left = self._open(job.id)
        seen = job.rows - len(left)
        announced = remote.rest == "missing" or (remote.done or 0) > seen
        if left and announced and not remote.failure and watch.lags < _LAGS:
            watch.lags += 1
            return
        self._end(job, remote, left, watch)

    def _end(self, job: Job, remote: Remote, left: list[str], watch: Watch) -> None:
        failure = remote.failure
        if failure and failure.too_much:
            log.warning("The provider takes no more for now, batch %s goes later: %s", job.id, failure.message)
            watch.ended = watch.too_much = True
            self._store.reopen(job.id)
            self._discard(watch.lane, job.uploaded)
        elif failure:
            self._answer(job.id, self._rejected(job, failure, left))
            self._finish(job, remote.status, [], failure.message, watch)
        else:
            error = self._backends[job.lane.provider].error(*UNFINISHED[remote.rest])
            rest = [Result(id=name, reply=error, outcome=remote.rest) for name in left]
            self._finish(job, remote.status, rest, None, watch)

    def _rejected(self, job: Job, failure: Failure, left: list[str]) -> Iterator[Result]:
        """Say of each row whether it was the one that spoilt the batch; the others are worth another try."""
        backend = self._backends[job.lane.provider]
        for n, name in enumerate(left, 1):
            if not failure.lines or n in failure.lines:
                reply = backend.error(400, failure.lines.get(n, failure.message))
                yield Result(id=name, reply=reply, outcome="rejected")
            else:
                reply = backend.error(503, f"another request spoilt the batch: {failure.message}")
                yield Result(id=name, reply=reply, outcome="errored")

    def _finish(self, job: Job, status: str, rest: list[Result], note: str | None, watch: Watch) -> None:
        if status == "lost":
            error = self._backends[job.lane.provider].error(*UNFINISHED["lost"])
            rest = [Result(id=name, reply=error, outcome="lost") for name in self._open(job.id)]
        self._answer(job.id, rest)
        self._advance(job.id, state="done", status=status, note=note)
        self._discard(watch.lane, job.uploaded)
        watch.ended = True

    def _discard(self, lane: Lane, uploaded: str) -> None:
        if uploaded:  # with Anthropic, nothing is
            self._backends[lane.provider].discard(self._http(lane), lane, uploaded)

    def _answer(self, job: str, results: Iterable[Result]) -> None:
        for some in _chunks(results):
            self._deliver(self._store.answer(job, some, retries=self._retries))

    def _open(self, job: str) -> list[str]:
        return self._store.open_rows(job)

    def _is_done(self, job: str) -> bool:
        return self._store.is_done(job)

    def _advance(self, job: str, **columns: Any) -> bool:
        return self._store.advance(job, owner=self._owner, **columns)

    def _http(self, lane: Lane) -> Http:
        return Http(client=self._client(), headers=self._headers(lane), alive=self._renew)

    def _renew(self) -> None:
        now = self._clock()
        if now > self._renewed + self._pace.lease / 4:
            self._renewed = now
            self._store.renew(self._owner, now + self._pace.lease)


def _chunks(results: Iterable[Result]) -> Iterator[list[Result]]:
    some: list[Result] = []
    try:
        for result in results:
            some.append(result)
            if len(some) == _CHUNK:
                yield some
                some = []
    except (ConnectionError, RefusedError):
        yield some  # what came before was paid, and the rest may never come
        raise
    yield some


def _as_error(backend: BatchBackend, reply: Reply) -> Reply:
    """Give the provider's own words, if they are some that an SDK can read."""
    return reply if reply.body.startswith(b"{") else backend.error(reply.status, reply.body.decode(errors="replace"))
