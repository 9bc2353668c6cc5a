"""Single flight: identical requests at once pay once, and nobody waits for what will not come."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llm_costopt import Answer, Message, Question, SemanticCache
from llm_costopt.cache.records import Hit

GOOD = Answer(text="Like this.")


def ask(text: str) -> Question:
    """Ask *text*."""
    return Question(messages=(Message(role="human", text=text),))


RICE = ask("How do I cook rice?")


@pytest.fixture
def cache() -> Iterator[SemanticCache]:
    """Make a cache whose callers wait much longer than any test takes."""
    made = SemanticCache(single_flight=300)
    yield made
    made.close()


def waiting(cache: SemanticCache, count: int) -> None:
    """Return when so many callers wait."""
    while cache.stats().waited < count:
        threading.Event().wait(0.001)


async def until_waiting(cache: SemanticCache, count: int) -> None:
    """Return when so many tasks wait."""
    await asyncio.to_thread(waiting, cache, count)


class Waiters:
    """Threads that ask the same at once."""

    def __init__(self, cache: SemanticCache, count: int, question: Question = RICE) -> None:
        self._pool = ThreadPoolExecutor(count)
        self.found = [self._pool.submit(cache.find, question) for _ in range(count)]
        waiting(cache, count)

    def results(self) -> list[Hit | None]:
        """Wait for what each found."""
        results = [future.result(timeout=20) for future in self.found]
        self._pool.shutdown()
        return results


def test_threads_that_ask_the_same_get_the_first_ones_answer(cache: SemanticCache) -> None:
    """Of five threads with one request the first goes to the model, the others get its answer as an exact hit."""
    assert cache.find(RICE) is None
    others = Waiters(cache, 4)
    cache.save(RICE, GOOD, "rice")

    assert [hit and (hit.kind, hit.payload) for hit in others.results()] == [("exact", "rice")] * 4
    stats = cache.stats()
    assert (stats.hits_exact, stats.misses, stats.waited) == (4, 1, 4)


def test_an_answer_that_is_not_stored_frees_the_others(cache: SemanticCache) -> None:
    """When the first one's answer was cut off, the others go to the model themselves, at once."""
    assert cache.find(RICE) is None
    others = Waiters(cache, 2)
    cache.save(RICE, Answer(text="Like", finish="length"), "cut")

    assert others.results() == [None, None]


def test_a_failed_thread_frees_the_others(cache: SemanticCache) -> None:
    """A host that says that the call of this thread failed frees those that wait for it, and for nobody else."""
    assert cache.find(RICE) is None
    other = threading.Thread(target=cache.find, args=(ask("Which river is the longest?"),))
    other.start()
    other.join()
    rice, river = Waiters(cache, 1), ThreadPoolExecutor(1).submit(cache.find, ask("Which river is the longest?"))
    waiting(cache, 2)
    cache.leave()

    assert rice.results() == [None]
    assert not river.done()
    cache.save(ask("Which river is the longest?"), GOOD, "river")
    assert river.result(timeout=20) is not None


def test_nobody_waits_longer_than_told() -> None:
    """When the first never comes back, the others go on after the time that was set, and one of them leads."""
    cache = SemanticCache(single_flight=0.2)
    assert cache.find(RICE) is None

    assert Waiters(cache, 2).results() == [None, None]
    cache.close()


def test_it_can_be_turned_off() -> None:
    """With 0 seconds nobody waits."""
    cache = SemanticCache(single_flight=0)
    assert cache.find(RICE) is None
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(cache.find, RICE).result(timeout=20) is None

    assert cache.stats().waited == 0
    cache.close()


async def test_nobody_waits_for_what_is_never_stored() -> None:
    """Of two callers who want a poem the second does not wait for the first one's, which would not be stored."""
    cache, poem = SemanticCache(single_flight=0.2), ask("Write a poem about rice")
    leads = asyncio.Event()

    async def lead() -> None:
        assert await cache.afind(poem) is None
        leads.set()
        await asyncio.Event().wait()

    ahead = asyncio.create_task(lead())
    await leads.wait()

    assert await cache.afind(poem) is None
    assert await asyncio.to_thread(cache.find, poem) is None
    assert cache.stats().waited == 0
    ahead.cancel()
    cache.close()


def test_nobody_waits_for_himself(cache: SemanticCache) -> None:
    """A thread that asks again, as a retry does, is not held up by its own first attempt."""
    assert [cache.find(RICE), cache.find(RICE)] == [None, None]


async def test_tasks_that_ask_the_same_get_the_first_ones_answer(cache: SemanticCache) -> None:
    """Of many tasks one goes to the model; the event loop is not held up, whatever the number that waits."""
    asked = 0

    async def call() -> str:
        nonlocal asked
        if hit := await cache.afind(RICE):
            return hit.payload
        asked += 1
        await until_waiting(cache, 49)
        await asyncio.to_thread(cache.save, RICE, GOOD, "rice")
        return "rice"

    assert await asyncio.gather(*(call() for _ in range(50))) == ["rice"] * 50
    assert asked == 1


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_a_task_that_ends_without_an_answer_frees_the_others(cache: SemanticCache, how: str) -> None:
    """A leader that was cancelled or raised lets the others go on."""
    leads, stop = asyncio.Event(), asyncio.Event()

    async def leader() -> None:
        assert await cache.afind(RICE) is None
        leads.set()
        await stop.wait()
        raise RuntimeError

    first = asyncio.create_task(leader())
    await leads.wait()
    other = asyncio.create_task(cache.afind(RICE))
    await until_waiting(cache, 1)
    if how == "cancelled":
        first.cancel()
    else:
        stop.set()

    assert await asyncio.wait_for(other, 20) is None
    with pytest.raises((RuntimeError, asyncio.CancelledError)):
        await first


async def test_a_cancelled_waiter_harms_nobody(cache: SemanticCache) -> None:
    """One that gives up waiting leaves the others and the leader as they were."""
    leads = asyncio.Event()

    async def lead() -> None:
        assert await cache.afind(RICE) is None
        leads.set()
        await until_waiting(cache, 2)
        one.cancel()
        await asyncio.to_thread(cache.save, RICE, GOOD, "rice")

    first = asyncio.create_task(lead())
    await leads.wait()
    one, other = (asyncio.create_task(cache.afind(RICE)) for _ in range(2))
    await first

    hit = await asyncio.wait_for(other, 20)
    assert hit is not None
    assert one.cancelled()


def test_event_loops_wait_for_each_other(cache: SemanticCache) -> None:
    """A task of one loop gets what a task of another loop in another thread asked for."""
    assert cache.find(RICE) is None
    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(lambda: asyncio.run(cache.afind(RICE))) for _ in range(2)]
        waiting(cache, 2)
        cache.save(RICE, GOOD, "rice")
        assert [hit and hit.payload for hit in (r.result(timeout=20) for r in results)] == ["rice", "rice"]


async def test_a_blocking_lookup_in_a_coroutine_does_not_wait(cache: SemanticCache) -> None:
    """It would hold up the very loop that the one ahead needs."""
    leads = asyncio.Event()

    async def lead() -> None:
        await cache.afind(RICE)
        leads.set()
        await asyncio.Event().wait()

    ahead = asyncio.create_task(lead())
    await leads.wait()

    assert cache.find(RICE) is None
    assert cache.stats().waited == 0
    ahead.cancel()


def test_two_who_would_wait_for_each_other_do_not() -> None:
    """A thread asks for what another one leads, which waits for it in turn, as two batches in another order do: it goes on."""
    cache, river = SemanticCache(single_flight=300), ask("Which river is the longest?")
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        assert one.submit(cache.find, RICE).result(timeout=20) is None
        assert other.submit(cache.find, river).result(timeout=20) is None
        waits = other.submit(cache.find, RICE)
        waiting(cache, 1)

        goes_on = one.submit(cache.find, river)
        try:
            assert goes_on.result(timeout=20) is None
        finally:
            for question in (RICE, river):
                cache.save(question, GOOD, "stored")
        assert waits.result(timeout=20) is not None
    cache.close()


async def test_a_task_that_goes_on_may_say_that_it_failed(cache: SemanticCache) -> None:
    """One that lives as long as the program lets the others go on when it says so, and in one word for all of its requests."""
    assert await cache.afind(RICE) is None
    other = asyncio.create_task(cache.afind(RICE))
    await until_waiting(cache, 1)
    cache.leave()

    assert await asyncio.wait_for(other, 20) is None


def test_whoever_knows_the_request_may_say_that_it_failed(cache: SemanticCache) -> None:
    """Where a stream is read to its end in another thread, that one can say what failed."""
    assert cache.find(RICE) is None
    others = Waiters(cache, 2)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(cache.leave, RICE).result(timeout=20)

    assert others.results() == [None, None]


async def test_a_task_that_asks_again_and_again_gathers_nothing(cache: SemanticCache) -> None:
    """A task that lives as long as the program is watched once, not once for each of its requests."""
    watched = 0

    class Watched(asyncio.Task[int]):
        def add_done_callback(self, *args: Any, **options: Any) -> None:
            nonlocal watched
            watched += 1
            super().add_done_callback(*args, **options)

    async def work() -> int:
        before = watched  # whoever awaits it
        for n in range(5):
            question = ask(f"Which river is number {n}?")
            await cache.afind(question)
            await asyncio.to_thread(cache.save, question, GOOD, "river")
        return watched - before

    assert await Watched(work(), loop=asyncio.get_running_loop()) == 1
