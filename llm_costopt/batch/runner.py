"""Who waits for which row, and what is due when; one thread that lives while somebody waits."""

import logging
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llm_costopt.batch.backend import BatchBackend, Lane
from llm_costopt.batch.callers import Caller
from llm_costopt.batch.jobs import JobStore
from llm_costopt.batch.lines import Line
from llm_costopt.batch.records import Records
from llm_costopt.batch.runs import ending, failed, is_interrupted, run_of, wait_for
from llm_costopt.batch.stored import Answered, Place
from llm_costopt.batch.watch import Pace, Watch
from llm_costopt.batch.window import call_in_forked_child
from llm_costopt.batch.wire import Reply, http_library
from llm_costopt.batch.work import Worker
from llm_costopt.database import UnusableFileError

log = logging.getLogger(__name__)

OnClose = Literal["detach", "wait", "cancel"]
"""Leave jobs at the provider and come back for them later; wait for them; ask for their end."""

_BREATH = 0.05
"""Seconds between two rounds, so that requests that come one by one are taken in by the dozen."""

_TROUBLE = 5.0
"""Seconds until the next round after one that failed, for instance on a full disk."""

_GLANCE = 1.0
"""Seconds until it is seen that the user interrupted the program."""

_TIDY = 86400.0
"""Seconds after which what nobody can ask for any more is deleted again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a queue was told, apart from whom to tell."""

    gather: float
    max_wait: float
    pace: Pace
    retries: int
    resume: float
    named: bool
    on_close: OnClose


class Runner:
    """Bring callers and rows together, step by step, in a thread of its own that ends when nobody waits."""

    def __init__(
        self,
        *,
        store: JobStore,
        backends: Mapping[str, BatchBackend],
        plan: Plan,
        records: Records,
        client: Any,
        path: Path | None,
        clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._store = store
        self._backends = backends
        self._plan = plan
        self._records = records
        self._given_client = client
        self._clock = clock
        self._start_over()
        call_in_forked_child(self._start_over)

    def _start_over(self) -> None:
        # Reentrant: the garbage collector may let go of the queue, which closes us, in the middle of our own work.
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing: OnClose | None = None
        self._wind_up_with: bool | None = None
        self._client: Any = None
        self._tidied = self._clock()
        self._alive_until = 0.0
        self._trouble = ""
        self._run = run_of(self._path, self._clock)
        self._owner = uuid.uuid4().hex
        self._came: deque[Caller] = deque()
        self._gone: deque[Caller] = deque()
        self._taken: deque[int] = deque()
        self._missed: deque[int] = deque()
        self._given: set[int] = set()
        self._waiting: dict[int, Caller] = {}
        self._dues: deque[tuple[float, int]] = deque()
        self._lines: dict[Lane, Line] = {}
        self._watches: dict[str, Watch] = {}
        self._headers: dict[Lane, Mapping[str, str]] = {}
        self._lanes: dict[Lane, Lane] = {}
        self._worker = Worker(
            store=self._store,
            backends=self._backends,
            owner=self._owner,
            pace=self._plan.pace,
            retries=self._plan.retries,
            client=self._get_client,
            headers=self._headers.__getitem__,
            deliver=self._deliver,
            clock=self._clock,
        )

    # Called from any thread

    def enter(self, caller: Caller, headers: Mapping[str, str]) -> None:
        """Take in *caller*."""
        with self._lock:
            if self._closing:
                raise ValueError("the batch queue is closed: make another one for the same path")
            self._headers.setdefault(caller.lane, headers)
            caller.lane = self._lanes.setdefault(caller.lane, caller.lane)  # one for all, not one for each
            if self._thread is None:
                thread = threading.Thread(target=self._live, name="llm-costopt-batch", daemon=True)
                thread.start()  # it may fail, and the next caller tries again
                self._thread = thread
            self._came.append(caller)
        self._wake.set()

    def took(self, row: int) -> None:
        """Note that the caller has the reply."""
        self._taken.append(row)
        self._given.discard(row)

    def missed(self, caller: Caller) -> None:
        """Note that whoever asked went away before it had the reply."""
        with self._lock:
            told, caller.over = caller.over, True
        if not told:
            self._gone.append(caller)
            self._wake.set()
        elif caller.row is not None:
            self._missed.append(caller.row)
            self._given.discard(caller.row)

    def waiting(self) -> int:
        """Count the callers that wait."""
        return len(self._came) + len(self._waiting)

    def close(self, *, finished: bool, wait: bool = True) -> None:
        """End the thread in the way that was planned; again does nothing.

        Without *wait*, the thread does what is left to do, as it does if it is the one that calls: who closes us may be the
        garbage collector, in the middle of anything, with a lock that the thread needs for its end.
        """
        with self._lock:
            if self._closing:
                return
            self._closing = self._plan.on_close
            thread = self._thread
            if thread is not None and (thread is threading.current_thread() or not wait):
                self._wind_up_with = finished
                ending.add(thread)
                self._wake.set()
                return
        self._wake.set()
        if thread is not None:
            wait_for(thread)
        self._wind_up(finished=finished)

    def _wind_up(self, *, finished: bool) -> None:
        # Whoever was told has its reply, even if it did not come to say so before we were closed.
        self._taken.extend(self._given.copy())
        self._take_acks()
        try:
            self._take_out()
            self._store.release(self._owner)
            if not finished and self._path:
                self._tell_the_way_back(self._path)
        except (sqlite3.Error, ValueError):  # such as a full disk; the answers were given all the same
            log.exception("The batch queue cannot note in its file that it was closed")
        self._store.close()
        if not finished or self._plan.named:
            failed(self._path)
        if self._client is not None and self._client is not self._given_client:
            self._client.close()

    def _tell_the_way_back(self, path: Path) -> None:
        rows = self._store.outcomes()
        if left := rows.get("sent", 0) + rows.get("queued", 0):
            log.warning(
                "%s requests have no answer yet: start the program again, and it goes on with them where they are; "
                "`llm-costopt batch list %s` shows how far they are",
                left,
                path,
            )

    def _tell(self, caller: Caller, answered: Answered | None) -> None:
        with self._lock:
            over, caller.over = caller.over, True
        if over:
            return
        row = -1 if answered is None else answered.row
        if row >= 0:
            self._given.add(row)
        try:
            caller.tell(answered)
        except RuntimeError:  # its event loop was closed over it: whoever asks again gets the row
            self._given.discard(row)
            self._missed.append(row)

    # The thread

    def _live(self) -> None:
        while self._more():
            try:
                pause = self._step()
            except Exception as problem:
                # Whatever it is, those who wait must not be left alone, and the next round may go better.
                log.exception("The batch queue failed; it goes on in %s s", _TROUBLE)
                pause = _TROUBLE
                if _is_damage(problem):
                    self._send_all_away(f"the file of the batch queue is damaged: {problem}")
            self._rest(pause)
            self._wake.clear()
            if not self._closing:
                time.sleep(_BREATH)
        if self._closing:
            self._let_go()
        if self._wind_up_with is not None:
            self._wind_up(finished=self._wind_up_with)

    def _rest(self, pause: float) -> None:
        """Wait until somebody wakes us or *pause* is over, and let nobody wait on once the program was interrupted.

        Ctrl-C reaches the main thread alone. Callers in a pool of threads would wait on, and the pool for them.
        """
        end = time.monotonic() + pause
        while not self._wake.wait(max(0.0, min(_GLANCE, end - time.monotonic()))):
            if is_interrupted():
                self._send_all_away("the program was interrupted; ask again and the row is picked up where it is")
            if time.monotonic() >= end:
                return

    def _more(self) -> bool:
        """Say whether there is anything to do; if not, the thread is over."""
        with self._lock:
            waits = bool(self._came or self._waiting or self._watches)
            more = waits and self._closing in {None, "wait"}
            if not more:
                self._thread = None
            return more

    def _step(self) -> float:
        """Do all that is due; returns seconds until more is."""
        self._live_on()
        # Who left comes before who came: it may be the same caller, that asks again.
        self._take_acks()
        self._take_out()
        self._take_in()
        self._give_up()
        self._send()
        self._note_trouble()
        self._look()
        now = self._clock()
        if now > self._tidied + _TIDY:  # a program that never ends opens its file only once
            self._tidied = now
            self._store.tidy(now)
        dues = [self._line_due(lane, line) for lane, line in self._lines.items() if line.rows]
        dues += [watch.due for watch in self._watches.values()]
        if self._dues:
            dues.append(self._dues[0][0])
        return max(0.0, min(dues, default=now) - now)

    def _live_on(self) -> None:
        """Give the other programs a sign of life, that holds until the next look at a job and for a while longer."""
        most, lease = self._plan.pace.most, self._plan.pace.lease
        until = self._clock() + most + lease
        if until - lease / 2 > self._alive_until:
            with suppress(sqlite3.Error, ValueError):  # such as a full disk, of which those who come now are told
                self._store.live(self._run.id, until=until)
                self._alive_until = until

    def _take_in(self) -> None:
        came = [caller for caller in (self._came.popleft() for _ in range(len(self._came))) if not caller.over]
        if not came:
            return
        try:
            places = self._store.claim(
                [caller.wanted for caller in came if caller.wanted],
                run=self._run.id,
                began=self._run.began,
                resume=self._plan.resume,
                now=self._clock(),
            )
        except Exception as problem:  # such as a full disk; they are ours to tell, whatever it is
            log.exception("The batch queue cannot write its file")
            self._turn_away(came, f"the batch queue cannot write its file: {problem}")
            return
        for caller, place in zip(came, places, strict=True):
            caller.row, caller.wanted = place.row, None  # its body is on disk
            self._waiting[place.row] = caller
            if caller.due is not None:
                self._dues.append((caller.due, place.row))
        self._put(places)

    def _put(self, places: Iterable[Place]) -> None:
        """Bring rows to where they are waited for: in a line, in a job, or nowhere if they are answered."""
        now = self._clock()
        answered = []
        for place in places:
            caller = self._waiting.get(place.row)
            if caller is None:
                continue
            if place.state == "queued":
                self._lines.setdefault(caller.lane, Line()).add(place.row, place.size, now)
            elif place.state == "sent" and place.job:
                watch = self._watches.get(place.job) or Watch(job=place.job, lane=caller.lane, due=now)
                watch.rows.add(place.row)
                self._watches[place.job] = watch
            else:
                answered.append(place.row)
        self._deliver(self._store.replies(answered))

    def _deliver(self, answered: Iterable[Answered]) -> None:
        for row in answered:
            caller = self._waiting.pop(row.row, None)
            if caller is not None:
                self._tell(caller, None if self._is_given_up(row) else row)

    def _is_given_up(self, row: Answered) -> bool:
        """Say whether *row* has no answer since its batch was cancelled for a deadline of ours, before its caller came."""
        return row.outcome == "cancelled" and any(w.cancelling and row.row in w.rows for w in self._watches.values())

    def _take_acks(self) -> None:
        taken = [self._taken.popleft() for _ in range(len(self._taken))]
        missed = [self._missed.popleft() for _ in range(len(self._missed))]
        try:
            if taken:
                self._store.deliver(taken, now=self._clock())
            if missed:
                self._store.unclaim(missed, run=self._run.id)
        except (sqlite3.Error, ValueError):  # such as a full disk, of which whoever comes now is told
            log.exception("The batch queue cannot note in its file what was given out")
            self._taken.extend(taken)
            self._missed.extend(missed)

    def _take_out(self) -> None:
        """Forget callers that no longer wait: unsent rows go, sent ones stay for whoever asks again."""
        left: list[int] = []
        unsent: list[int] = []
        while self._gone:
            caller = self._gone.popleft()
            if caller.row is None:
                continue
            left.append(caller.row)
            # It may have been answered in between.
            if self._waiting.pop(caller.row, None) and self._leave(caller.row, caller.lane):
                unsent.append(caller.row)
        if left:
            self._store.drop(unsent, run=self._run.id)
            self._store.unclaim(left, run=self._run.id)

    def _leave(self, row: int, lane: Lane) -> bool:
        """Take *row* out of its line or its watch; says whether it was in a line."""
        line = self._lines.get(lane)
        if line and line.remove(row):
            return True
        for watch in list(self._watches.values()):
            watch.rows.discard(row)
            if not watch.rows and not watch.cancelling:
                del self._watches[watch.job]
        return False

    def _give_up(self) -> None:
        """Send those to the real-time API whose deadline has passed, and stop paying for them here where possible."""
        now = self._clock()
        if not self._dues or self._dues[0][0] > now:
            return
        late, unsent, left = [], [], set()
        while self._dues and self._dues[0][0] <= now:
            _, row = self._dues.popleft()
            caller = self._waiting.get(row)
            # The number of a row that was never sent is used again, by a caller with a deadline of its own.
            if caller is None or caller.due is None or caller.due > now:
                continue
            del self._waiting[row]
            late.append(row)
            job = next((w for w in self._watches.values() if row in w.rows), None)
            if job is not None:
                job.cancelling = True
                left.add(job.job)
            if self._leave(row, caller.lane):
                unsent.append(row)
            self._tell(caller, None)
        self._store.drop(unsent, run=self._run.id)
        self._store.unclaim(late, run=self._run.id)
        for watch in [self._watches[job] for job in left if not self._watches[job].rows]:
            if not self._cancel(watch):
                del self._watches[watch.job]

    def _cancel(self, watch: Watch) -> bool:
        """Have a job cancelled, or leave it to another program that waits for it; says whether its end is to be seen to."""
        if self._store.is_wanted(watch.job, self._clock()):
            self._store.advance(watch.job, owner=self._owner, leased=0)
            return False
        return self._worker.cancel(watch.job, watch.lane)

    def _send(self) -> None:
        for lane, line in list(self._lines.items()):
            while line.rows and self._line_due(lane, line) <= self._clock():
                backend = self._backends[lane.provider]
                rows = line.take(backend.max_rows, backend.max_bytes)
                back = None
                try:
                    back = self._worker.send(lane, rows)
                finally:
                    self._put(self._store.where(rows))
                line.trouble = back.trouble if back else None
                if back is not None:
                    line.held = self._clock() + back.wait
                    line.room = back.room or line.room

    def _note_trouble(self) -> None:
        trouble = "; ".join(sorted({line.trouble for line in self._lines.values() if line.rows and line.trouble}))
        if trouble != self._trouble:
            with suppress(sqlite3.Error, ValueError):  # likewise
                self._store.tell_trouble(self._run.id, trouble or None)
                self._trouble = trouble

    def _line_due(self, lane: Lane, line: Line) -> float:
        backend = self._backends[lane.provider]
        gather = 0.0 if self._closing else self._plan.gather
        return line.due(backend.max_rows, backend.max_bytes, gather=gather, max_wait=self._plan.max_wait)

    def _look(self) -> None:
        for watch in list(self._watches.values()):
            if watch.due > self._clock():
                continue
            try:
                self._worker.look(watch)
            except Exception as problem:
                if _is_damage(problem):
                    raise
                # A provider's answer that nobody foresaw must not keep the other jobs waiting.
                log.exception("Looking after batch %s failed; it is tried again", watch.job)
                watch.wait(self._clock(), self._plan.pace)
            if watch.refused is not None:
                self._refuse(watch, watch.refused)
            elif watch.ended:
                self._finish(watch)
            else:  # rows that another program stored
                self._deliver(self._store.replies(watch.rows & self._waiting.keys()))
        self._records.tell(self._store, self._backends)

    def _finish(self, watch: Watch) -> None:
        del self._watches[watch.job]
        line = self._lines.setdefault(watch.lane, Line())
        others = any(other.lane == watch.lane for other in self._watches.values())
        line.held = 0.0  # what was held back may go now
        if watch.too_much:
            line.held = self._clock() + self._plan.pace.most
            if not others:
                line.most = max(1, len(watch.rows) // 2)
        self._put(self._store.where(watch.rows & self._waiting.keys()))

    def _refuse(self, watch: Watch, reply: Reply) -> None:
        del self._watches[watch.job]
        for row in watch.rows:
            caller = self._waiting.pop(row, None)
            if caller is not None:
                self._tell(caller, Answered(row=-1, reply=reply, outcome="errored"))
        self._store.unclaim(watch.rows, run=self._run.id)

    def _let_go(self) -> None:
        """Send everybody away, and have jobs cancelled if that is the plan."""
        watches = list(self._watches.values())
        self._send_all_away("the batch queue was closed; ask again and the row is picked up where it is")
        if self._closing == "cancel":
            self._take_acks()  # what was ours is nobody's now
            for watch in watches:
                self._cancel(watch)

    def _send_all_away(self, message: str) -> None:
        came = [self._came.popleft() for _ in range(len(self._came))]  # others may be coming just now
        self._turn_away([*came, *self._waiting.values()], message)
        self._missed.extend(self._waiting)
        for places in (self._waiting, self._lines, self._watches):
            places.clear()

    def _turn_away(self, callers: Iterable[Caller], message: str) -> None:
        for caller in callers:
            reply = self._backends[caller.lane.provider].error(503, message)
            self._tell(caller, Answered(row=-1, reply=reply, outcome="cancelled"))

    def _get_client(self) -> Any:
        if self._client is None:
            self._client = self._given_client or http_library().Client()
        return self._client


def _is_damage(problem: Exception) -> bool:
    """Tell a file that cannot be read any more from one that is locked, or on a full disk."""
    return isinstance(problem, UnusableFileError) or type(problem) is sqlite3.DatabaseError
