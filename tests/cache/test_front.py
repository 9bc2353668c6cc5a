"""The entries at hand in front of a store that is far away."""

import threading
from functools import partial

import pytest

from llm_costopt.cache.front import FRESH, REMEMBERED, Front
from llm_costopt.cache.store import Entry


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Make a clock that stands still."""
    return Clock()


@pytest.fixture
def front(clock: Clock) -> Front:
    """Make one with nothing in it."""
    return Front(clock)


def entry(exact: str, expires_at: float | None = None) -> Entry:
    """Make an entry of which only some fields matter."""
    return Entry(
        id=exact, exact=exact, scope="", text="", payload="", answer="", says=1,
        stored_at=0.0, expires_at=expires_at, used_at=0.0,
    )  # fmt: skip


def test_it_is_fetched_again_after_a_minute(front: Front, clock: Clock) -> None:
    """An entry is at hand until `FRESH` seconds after it was kept, however often it is used, and not before that."""
    front.keep(entry("a"), front.changes)
    for _ in range(2):
        clock.now += FRESH / 2 - 1
        assert front.get("a")
    clock.now += 2
    assert front.get("a") is None
    front.keep(entry("a"), front.changes)
    clock.now -= 3600  # the clock was set
    assert front.get("a") is None


def test_nothing_is_kept_beyond_its_own_time(front: Front, clock: Clock) -> None:
    """An entry is at hand until it expires, and no longer."""
    front.keep(entry("a", expires_at=1010.0), front.changes)
    clock.now = 1009.9
    assert front.get("a")
    clock.now = 1010.0
    assert front.get("a") is None


def test_what_was_not_used_longest_goes(front: Front) -> None:
    """There is room for `REMEMBERED` entries; of more, those go that were neither kept nor used lately."""
    for n in range(REMEMBERED):
        front.keep(entry(f"{n}"), front.changes)
    front.get("0")
    front.keep(entry("new"), front.changes)

    assert [bool(front.get(name)) for name in ("0", "1", "2", "new")] == [True, False, True, True]


def test_what_is_forgotten_on_its_way_is_not_kept(front: Front) -> None:
    """An entry that was being fetched while anything was forgotten is not kept: it may be the one."""
    for forget in (partial(front.forget, "a"), front.clear):
        before = front.changes
        forget()
        front.keep(entry("a"), before)
        assert front.get("a") is None
        front.keep(entry("a"), front.changes)
        assert front.get("a")
        forget()
        assert front.get("a") is None


def test_threads_may_share_it(front: Front) -> None:
    """Threads that keep, use and forget at once do not stumble over one another."""
    problems = []

    def work(own: int) -> None:
        try:
            for n in range(2000):
                front.keep(entry(f"{n + own}"), front.changes)
                front.get(f"{n}")
                front.forget(f"{n - own}")
        except Exception as problem:  # noqa: BLE001
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
