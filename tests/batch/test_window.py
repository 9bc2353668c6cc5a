import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from llm_costopt.batch.window import Ticket, Window

T = TypeVar("T")

SOON = 10.0
"""Seconds after which a test that waits gives up; nothing here takes as long."""

NEVER = 1000.0
"""Seconds that no test lives: a timer set to it does not fire."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Make a clock that only the test moves."""
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Iterator[Callable[..., Window]]:
    """Make windows that only the test's clock moves, and leave no timer behind."""
    made: list[Window] = []

    def make_one(**options: Any) -> Window:
        defaults: dict[str, Any] = {"flush_interval": NEVER, "lease": 10 * NEVER, "clock": clock}
        made.append(Window(**defaults | options))
        return made[-1]

    yield make_one
    for window in made:
        list(map(window.leave, (*window._released, *window._filling)))


def started(tickets: list[Ticket]) -> list[bool]:
    """Say which of *tickets* may run."""
    return [ticket.future.done() and not ticket.future.cancelled() for ticket in tickets]


def in_time(play: Callable[[], T]) -> T:
    """Run *play* in a thread that no hang can keep the tests from leaving behind."""
    result: Future[T] = Future()
    threading.Thread(target=lambda: result.set_result(play()), daemon=True).start()
    return result.result(timeout=SOON)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_batch_size": 0}, "max_batch_size must be at least 1, not 0"),
        ({"max_concurrent": 0}, "max_concurrent must be at least 1, not 0"),
        ({"max_concurrent": float("nan")}, "max_concurrent must be at least 1, not nan"),
        ({"flush_interval": -1}, "flush_interval must be 0 or some seconds, not -1"),
        ({"flush_interval": float("nan")}, "flush_interval must be 0 or some seconds, not nan"),
        ({"flush_interval": "x"}, "flush_interval must be 0 or some seconds, not 'x'"),
        ({"flush_interval": None}, "flush_interval must be 0 or some seconds, not None"),
        ({"max_batch_size": "20"}, "max_batch_size must be at least 1, not '20'"),
        ({"lease": "x"}, "lease must be some seconds, more than the longest call takes, not 'x'"),
        ({"lease": 0}, "lease must be some seconds, more than the longest call takes, not 0"),
        ({"lease": float("inf")}, "lease must be some seconds, more than the longest call takes, not inf"),
    ],
)
def test_a_wrong_argument_is_refused_with_the_way_out(options: dict[str, Any], says: str) -> None:
    """An option out of its range raises when the window is made and names what would be right."""
    with pytest.raises(ValueError, match=f"^{says}$"):
        Window(**options)


def test_a_full_window_starts_at_once(make: Callable[..., Window]) -> None:
    """Callers wait until the window holds as many as it may, and then start without any time passing."""
    window = make(max_batch_size=3)
    early = [window.enter(), window.enter()]
    before = started(early)
    last = window.enter()

    assert before == [False, False]
    assert started([*early, last]) == [True, True, True]


def test_the_oldest_caller_sets_the_deadline(make: Callable[..., Window], clock: Clock) -> None:
    """A window is released one interval after its first caller, and later ones do not put that off."""
    window = make(flush_interval=NEVER)
    tickets = [window.enter()]
    clock.now = 0.9 * NEVER
    tickets.append(window.enter())
    clock.now = 0.99 * NEVER
    waiting = window.stats().waiting
    clock.now = NEVER
    window.stats()

    assert waiting == 2
    assert started(tickets) == [True, True]


def test_the_deadline_needs_nobody_to_come() -> None:
    """A lone caller is released by the window's own timer."""
    window = Window(flush_interval=0.01)

    assert window.enter().future.result(timeout=SOON) is None


def test_an_interval_of_zero_holds_nobody_back(make: Callable[..., Window]) -> None:
    """With `flush_interval=0` only the number of slots counts."""
    window = make(flush_interval=0, max_concurrent=2)

    assert started([window.enter() for _ in range(3)]) == [True, True, False]


def test_released_callers_start_in_order_as_slots_come_back(make: Callable[..., Window]) -> None:
    """More released callers than slots start one by one, first come first served."""
    window = make(max_batch_size=4, max_concurrent=2)
    tickets = [window.enter() for _ in range(4)]
    at_first = started(tickets)
    window.leave(tickets[1])

    assert at_first == [True, True, False, False]
    assert started(tickets) == [True, True, True, False]


def test_leaving_again_frees_nothing(make: Callable[..., Window]) -> None:
    """A ticket that is returned twice gives back one slot."""
    window = make(max_batch_size=3, max_concurrent=1)
    tickets = [window.enter() for _ in range(3)]
    window.leave(tickets[0])
    window.leave(tickets[0])

    assert started(tickets) == [True, True, False]


def test_a_caller_that_gives_up_makes_room(make: Callable[..., Window], clock: Clock) -> None:
    """Leaving while waiting cancels the future, and the window is counted and timed without that caller."""
    window = make(max_batch_size=3)
    gone = window.enter()
    clock.now = 0.5 * NEVER
    tickets = [window.enter()]
    window.leave(gone)
    tickets.append(window.enter())
    clock.now = 1.2 * NEVER
    window.stats()
    before = started(tickets)
    tickets.append(window.enter())

    assert gone.future.cancelled()
    assert before == [False, False]
    assert started(tickets) == [True, True, True]


def test_a_caller_that_gives_up_after_the_release_takes_no_slot(make: Callable[..., Window]) -> None:
    """Leaving between the release and the start lets the next caller start instead."""
    window = make(max_batch_size=3, max_concurrent=1)
    tickets = [window.enter() for _ in range(3)]
    window.leave(tickets[1])
    window.leave(tickets[0])

    assert started(tickets) == [True, False, True]


def test_a_cancelled_future_takes_no_slot(make: Callable[..., Window]) -> None:
    """Whoever cancels the future itself, as an event loop does, is passed over."""
    window = make(max_batch_size=3, max_concurrent=1)
    tickets = [window.enter() for _ in range(3)]
    tickets[1].future.cancel()
    window.leave(tickets[0])

    assert started(tickets) == [True, False, True]


def test_thousands_of_cancelled_futures_are_passed_over(make: Callable[..., Window]) -> None:
    """One returned slot finds the next caller behind however many have cancelled."""
    window = make(max_batch_size=2002, max_concurrent=1)
    tickets = [window.enter() for _ in range(2002)]
    for ticket in tickets[1:-1]:
        ticket.future.cancel()
    window.leave(tickets[0])

    assert started(tickets[-1:]) == [True]


def test_a_future_that_is_cancelled_while_it_starts_gives_its_slot_on(make: Callable[..., Window]) -> None:
    """A caller may cancel after the window chose it and before it is told; the slot is not lost."""
    window = make(max_batch_size=3, max_concurrent=2)
    tickets = [window.enter() for _ in range(2)]
    tickets[0].future.add_done_callback(lambda _: tickets[1].future.cancel())
    tickets.append(window.enter())

    assert started(tickets) == [True, False, True]


def test_whoever_is_started_may_come_back_at_once(make: Callable[..., Window]) -> None:
    """Futures resolve with the lock free: a callback that uses the window does not hang."""
    window = make(max_batch_size=2, max_concurrent=1)

    def play() -> int:
        first = window.enter()
        first.future.add_done_callback(lambda _: window.leave(first))
        window.enter()
        return window.stats().in_flight

    assert in_time(play) == 1


def test_a_slot_that_nobody_returns_is_taken_back(make: Callable[..., Window], clock: Clock) -> None:
    """After the lease the next caller starts, it is counted, and the late return frees no second slot."""
    window = make(flush_interval=0, max_concurrent=1, lease=5 * NEVER)
    tickets = [window.enter() for _ in range(3)]
    clock.now = 5 * NEVER - 1
    before = window.stats().expired
    clock.now = 5 * NEVER
    expired = window.stats().expired
    window.leave(tickets[0])

    assert (before, expired) == (0, 1)
    assert started(tickets) == [True, True, False]


def test_a_lease_runs_out_with_nobody_around() -> None:
    """Somebody who waits for a leaked slot is started by the window's own timer."""
    window = Window(flush_interval=0, max_concurrent=1, lease=0.01)
    window.enter()

    assert window.enter().future.result(timeout=SOON) is None


def test_closing_releases_everybody_within_the_limit(make: Callable[..., Window]) -> None:
    """`close` ends the window, not the limit, and later callers wait for a slot only."""
    window = make(max_concurrent=2)
    tickets = [window.enter() for _ in range(3)]
    window.close()
    at_close = started(tickets)
    window.close()
    tickets.append(window.enter())
    for ticket in tickets[:3]:
        window.leave(ticket)

    assert at_close == [True, True, False]
    assert started(tickets) == [True, True, True, True]
    assert window.stats().batches == 1


def test_no_thread_is_left_behind() -> None:
    """When nobody waits any more the window has no timer, with its callers still running."""
    before = set(threading.enumerate())
    window = Window(flush_interval=NEVER)
    window.enter()
    timers = set(threading.enumerate()) - before
    window.close()
    for timer in timers:
        timer.join(timeout=SOON)

    assert [timer.name for timer in timers] == ["llm-costopt-window"]
    assert not any(timer.is_alive() for timer in timers)


def test_a_timer_that_was_replaced_does_no_harm(make: Callable[..., Window]) -> None:
    """A timer that fires just when another took its place releases nobody and leaves the other in charge."""
    window = make(flush_interval=NEVER)
    ticket = window.enter()
    timer = window._timer
    window._on_timer(NEVER - 1)

    assert started([ticket]) == [False]
    assert window._timer is timer


def test_without_threads_nobody_is_held_back(make: Callable[..., Window], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no timer can start, as at the end of a process, callers go through: nobody could wake them."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Timer, "start", refuse)
    window = make(max_concurrent=1)
    tickets = [window.enter(), window.enter()]
    window.leave(tickets[0])

    assert started(tickets) == [True, True]


def test_the_figures_say_what_happened(make: Callable[..., Window], clock: Clock) -> None:
    """Every field of the statistics counts what its name says."""
    window = make(max_batch_size=3, max_concurrent=2, flush_interval=NEVER)
    fresh = window.stats()
    for _ in range(3):
        window.enter()
    clock.now = 1.0
    window.enter()
    clock.now = NEVER + 1
    busy = window.stats()

    assert (fresh.requests, fresh.batches, fresh.average_batch_size, fresh.oldest_waiting) == (0, 0, None, None)
    assert (busy.requests, busy.batches, busy.average_batch_size) == (4, 2, 2.0)
    assert (busy.in_flight, busy.waiting, busy.oldest_waiting, busy.expired) == (2, 2, NEVER + 1, 0)


def test_a_caller_that_does_not_wait_is_only_counted(make: Callable[..., Window]) -> None:
    """`wait=False` starts at once, beyond the limit, and takes no slot from others."""
    window = make(max_batch_size=1, max_concurrent=1)
    tickets = [window.enter(wait=False), window.enter(wait=False), window.enter()]
    window.leave(tickets[0])

    assert started(tickets) == [True, True, True]
    assert (window.stats().requests, window.stats().in_flight, window.stats().batches) == (3, 1, 1)


def test_an_inner_call_goes_through_on_the_slot_of_the_outer(make: Callable[..., Window]) -> None:
    """With one slot, a call inside a call inside a call starts at once, and nobody else does."""
    window = make(max_batch_size=1, max_concurrent=1)
    outer = window.enter()
    inner = window.enter(under=outer)
    innermost = window.enter(under=inner)
    stranger = window.enter()
    for ticket in (innermost, inner):
        window.leave(ticket)

    assert started([outer, inner, innermost]) == [True, True, True]
    assert started([stranger]) == [False]


def test_a_slot_is_lent_to_one_inner_call_at_a_time(make: Callable[..., Window]) -> None:
    """Many inner calls do not break the limit: the next starts when the one before is back, ahead of strangers."""
    window = make(max_batch_size=1, max_concurrent=1)
    outer = window.enter()
    stranger = window.enter()
    inner = [window.enter(under=outer) for _ in range(3)]
    at_first = started(inner)
    inner[1].future.cancel()
    window.leave(inner[0])

    assert at_first == [True, False, False]
    assert started([*inner, stranger]) == [True, False, True, False]


def test_an_inner_call_may_leave_the_window_for_the_outer_slot(make: Callable[..., Window]) -> None:
    """An inner call whose window is not full yet starts when the outer slot is free for it."""
    window = make(max_batch_size=2)
    outer, other = window.enter(), window.enter()
    inner = [window.enter(under=outer), window.enter(under=outer)]
    before = started(inner)
    window.leave(inner[0])
    after = started(inner)
    for ticket in (inner[1], outer, other):
        window.leave(ticket)

    assert before == [True, False]
    assert after == [True, True]
    assert window.stats().in_flight == 0


def test_an_inner_call_keeps_the_slot_when_the_outer_leaves(make: Callable[..., Window]) -> None:
    """A slot comes back when the last of those who share it is done."""
    window = make(max_batch_size=1, max_concurrent=1)
    outer = window.enter()
    inner, stranger = window.enter(under=outer), window.enter()
    window.leave(outer)
    with_inner = started([stranger])
    window.leave(inner)

    assert with_inner == [False]
    assert started([stranger]) == [True]


def test_an_inner_call_of_one_that_has_left_waits_like_any(make: Callable[..., Window]) -> None:
    """Only a running call lends a slot."""
    window = make(max_batch_size=2)
    outer = window.enter(wait=False)
    window.leave(outer)

    assert started([window.enter(under=outer)]) == [False]


def test_an_inner_call_renews_the_lease(make: Callable[..., Window], clock: Clock) -> None:
    """A long call that keeps calling is alive: its slot is taken back one lease after its last inner call began."""
    window = make(max_batch_size=1, max_concurrent=1, lease=10 * NEVER)
    outer = window.enter()
    clock.now = 9 * NEVER
    window.leave(window.enter(under=outer))
    clock.now = 18 * NEVER
    alive = window.stats().in_flight
    clock.now = 19 * NEVER

    assert alive == 1
    assert (window.stats().in_flight, window.stats().expired) == (0, 1)


FORK = """
import os, signal, threading
from llm_costopt.batch.window import Window

Window()  # gone before the fork, in which it has no part
window = Window(max_batch_size=2, max_concurrent=1, flush_interval=1000)
for _ in range(3):
    window.enter()
held, done = threading.Event(), threading.Event()

def hold():
    with window._lock:
        held.set()
        done.wait(10)

threading.Thread(target=hold).start()
held.wait(10)
child = os.fork()
if child == 0:
    signal.alarm(10)
    fresh = window.stats()
    assert (fresh.requests, fresh.waiting, fresh.in_flight) == (0, 0, 0), fresh
    assert [t.future.done() for t in (window.enter(), window.enter())] == [True, False]
    os._exit(0)
done.set()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert window.stats().requests == 3
"""


def test_a_forked_child_starts_with_an_empty_window() -> None:
    """In a child neither the parent's callers nor a lock that another thread held at the fork are in the way."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK], timeout=3 * SOON, capture_output=True, text=True, check=False
    )

    assert (run.returncode, run.stderr) == (0, "")


def test_the_hook_for_forks_keeps_no_window_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook starts a window over that lives and does nothing for one that is gone."""
    hooks: list[Callable[[], None]] = []
    monkeypatch.setattr(os, "register_at_fork", lambda *, after_in_child: hooks.append(after_in_child))
    gone, window = weakref.ref(Window()), Window()
    window.enter(wait=False)
    for hook in hooks:
        hook()

    assert len(hooks) == 2
    assert gone() is None
    assert window.stats().requests == 0


def test_a_window_works_where_there_is_no_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system that cannot fork a window is made all the same."""
    monkeypatch.delattr(os, "register_at_fork")

    assert Window(flush_interval=0).enter().future.done()


@pytest.mark.parametrize("place", ["clock", "timer"])
def test_the_garbage_collector_may_return_a_ticket_at_any_time(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ticket that comes back in the middle of the window's own work, in its own thread, is neither lost nor a hang."""
    returned: list[Ticket] = []

    def collect_at(where: str, go_on: Callable[..., T]) -> Callable[..., T]:
        def collect(*args: Any) -> T:
            while returned and where == place:
                window.leave(returned.pop())
            return go_on(*args)

        return collect

    window = Window(max_batch_size=1, max_concurrent=1, clock=collect_at("clock", float))
    monkeypatch.setattr(threading, "Timer", collect_at("timer", threading.Timer))

    def play() -> list[bool]:
        first = window.enter()
        returned.append(first)
        second = window.enter()  # reads the clock early and makes a timer late
        return started([first, second])

    assert in_time(play) == [True, True]


def test_a_ticket_that_comes_back_in_the_middle_does_not_break_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the window gives out a slot, it does not give out the same slot to somebody else."""
    window = Window(max_batch_size=3, max_concurrent=1)
    returned = [window.enter(wait=False)]
    is_cancelled = Future.cancelled

    def collect(future: Future[Any]) -> bool:  # the window asks this when it is about to give a slot
        while returned:
            window.leave(returned.pop())
        return is_cancelled(future)

    monkeypatch.setattr(Future, "cancelled", collect)

    def play() -> int:
        tickets = [window.enter() for _ in range(3)]
        return sum(ticket.future.done() for ticket in tickets)

    assert in_time(play) == 1


class Forgotten:
    """A running call that only the garbage collector ends, as it ends an abandoned stream."""

    def __init__(self, window: Window, ticket: Ticket) -> None:
        self.window, self.ticket, self.myself = window, ticket, self

    def __del__(self) -> None:
        self.window.leave(self.ticket)


def test_forgotten_calls_are_ended_by_the_garbage_collector() -> None:
    """Wherever in the window's work the collector runs, all callers start and no more than the limit together."""

    def play() -> list[int]:
        windows = []
        for threshold in range(1, 60):  # how often it runs decides where
            window = Window(max_batch_size=3, flush_interval=NEVER, max_concurrent=2)
            windows.append(window)
            gc.set_threshold(threshold)
            for _ in range(30):
                Forgotten(window, window.enter())
            gc.set_threshold(*usual)
            gc.collect()
        return [window.stats().in_flight + window.stats().waiting for window in windows]

    usual = gc.get_threshold()
    gc.freeze()  # what the other tests left is not collected thousands of times
    try:
        left = in_time(play)
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()

    assert left == [0] * 59


def test_threads_never_exceed_the_limit() -> None:
    """Many threads at once are started exactly once each and never more than the limit run together."""
    window = Window(max_batch_size=4, flush_interval=0.001, max_concurrent=3)
    lock, running, peak = threading.Lock(), 0, 0

    def call(_: int) -> None:
        nonlocal running, peak
        ticket = window.enter()
        ticket.future.result(timeout=SOON)
        with lock:
            running += 1
            peak = max(peak, running)
        with lock:
            running -= 1
        window.leave(ticket)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(call, range(400)))

    assert peak <= 3
    assert (window.stats().requests, window.stats().in_flight, window.stats().waiting) == (400, 0, 0)


class Callers(RuleBasedStateMachine):
    """Callers that come, go, give up and call each other in any order, at any time."""

    callers = Bundle("callers")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.window = Window(
            max_batch_size=3, flush_interval=NEVER, max_concurrent=2, lease=10**6 * NEVER, clock=self.clock
        )
        self.came: list[Ticket] = []
        self.started: list[Ticket] = []
        self.gone: set[Ticket] = set()
        self.outer: dict[Ticket, Ticket | None] = {}

    def _came(self, ticket: Ticket, outer: Ticket | None) -> Ticket:
        self.came.append(ticket)
        self.outer[ticket] = outer

        def on_start(future: Future[None]) -> None:
            if not future.cancelled():
                self.started.append(ticket)

        ticket.future.add_done_callback(on_start)
        return ticket

    def _running(self) -> list[Ticket]:
        return [ticket for ticket in self.started if ticket not in self.gone]

    def _holds(self, ticket: Ticket | None) -> set[Ticket]:
        """Give the calls that *ticket* is part of."""
        outer = self.outer[ticket] if ticket else None
        return {outer, *self._holds(outer)} if outer else set()

    @rule(target=callers)
    def enter(self) -> Ticket:
        return self._came(self.window.enter(), None)

    @rule(target=callers, outer=callers)
    def enter_under(self, outer: Ticket) -> Ticket:
        return self._came(self.window.enter(under=outer), outer)

    @rule(ticket=consumes(callers))
    def leave(self, ticket: Ticket) -> None:
        self.gone.add(ticket)
        self.window.leave(ticket)

    @rule(ticket=callers)
    def cancel(self, ticket: Ticket) -> None:
        ticket.future.cancel()

    @rule(part=st.floats(0, 1))
    def tick(self, part: float) -> None:
        self.clock.now += part * NEVER
        self.window.stats()

    @rule()
    def stats(self) -> None:
        stats = self.window.stats()
        waiting = [t for t in self.came if not t.future.done()]
        assert stats.requests == len(self.came)
        assert stats.waiting >= len(waiting)

    @rule()
    def close(self) -> None:
        self.window.close()

    @invariant()
    def never_too_many(self) -> None:
        """Of the calls that wait for no inner call, never more than the limit run."""
        running = self._running()
        waiting_for_inner = {outer for ticket in running for outer in self._holds(ticket)}

        assert len([ticket for ticket in running if ticket not in waiting_for_inner]) <= 2

    @invariant()
    def started_once_and_in_order(self) -> None:
        """Nobody starts twice, and callers that are part of no other call start in the order they came."""
        alone = [ticket for ticket in self.started if self.outer[ticket] is None]

        assert len(set(self.started)) == len(self.started)
        assert alone == sorted(alone, key=self.came.index)

    def teardown(self) -> None:
        """Nobody is forgotten: once the window is closed, whoever did not give up starts."""
        self.window.close()
        while running := self._running():
            for ticket in running:
                self.gone.add(ticket)
                self.window.leave(ticket)

        assert all(ticket.future.done() for ticket in self.came)
        assert self.window.stats().in_flight == 0


TestCallers = Callers.TestCase
TestCallers.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def test_one_group_starts_together() -> None:
    """Of a window that is released through one slot, callers of one group come one after the other, the group that came first first."""
    window = Window(max_batch_size=6, flush_interval=1000, max_concurrent=1)
    groups = ["a", "b", "", "a", "b", "a"]
    tickets = [window.enter(group=group) for group in groups]
    order = []
    while waiting := [t for t in tickets if t.future.done() and t not in order]:
        order += waiting
        window.leave(waiting[0])

    assert [t.group for t in order] == ["a", "a", "a", "b", "b", ""]


@pytest.mark.parametrize("said", ["off", "observe"])
def test_the_kill_switch_holds_nobody_back(
    make: Callable[..., Window], monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """With `LLM_COSTOPT=off` whoever comes starts at once, beyond any limit, and so do those who wait; then all is as before."""
    window = make(max_concurrent=1)
    waiting = [window.enter() for _ in range(2)]
    assert started(waiting) == [False, False]

    monkeypatch.setenv("LLM_COSTOPT", said)
    later = window.enter()
    assert started([*waiting, later]) == [True, True, True]

    monkeypatch.delenv("LLM_COSTOPT")
    last = window.enter()
    assert started([last]) == [False]
    for ticket in (*waiting, later, last):
        window.leave(ticket)
    assert window.stats().in_flight == 0
