import asyncio
from collections.abc import Callable, Generator
from typing import TypeAlias

import pytest

from llm_costopt.flow import adrive, drive

Flow: TypeAlias = Generator[str, int, list[object]]
Run: TypeAlias = Callable[[Flow, Callable[[str], int]], list[object]]


def run_async(flow: Flow, ask: Callable[[str], int]) -> list[object]:
    """Run *flow* on an event loop, giving way to others in each step."""

    async def aask(step: str) -> int:
        await asyncio.sleep(0)
        return ask(step)

    return asyncio.run(adrive(flow, aask))


both = pytest.mark.parametrize("run", [drive, run_async], ids=["drive", "adrive"])


@both
def test_the_flow_is_sent_what_its_steps_gave(run: Run) -> None:
    """Each step is asked for in order, its result is what the yield returns, and the outcome comes back."""

    def flow() -> Flow:
        first = yield "one"
        second = yield "three"
        return [first, second]

    assert run(flow(), len) == [3, 5]


@both
def test_a_flow_without_a_step_asks_for_nothing(run: Run) -> None:
    """A flow may have its outcome at once."""

    def flow() -> Flow:
        return ["done"]
        yield "never"

    def ask(step: str) -> int:
        raise AssertionError(step)

    assert run(flow(), ask) == ["done"]


@both
def test_a_failed_step_is_thrown_into_the_flow(run: Run) -> None:
    """The flow catches the very error that its step raised, may try again, and is sent values after it."""
    problem = OSError("no network")

    def flow() -> Flow:
        try:
            yield "broken"
        except OSError as error:
            return [error, (yield "again")]
        raise AssertionError("nothing was thrown")

    def ask(step: str) -> int:
        if step == "broken":
            raise problem
        return len(step)

    assert run(flow(), ask) == [problem, 5]


@both
def test_an_error_in_a_row_with_another_one(run: Run) -> None:
    """A step that fails while the flow handles a failure is thrown in like any other."""

    def flow() -> Flow:
        seen: list[object] = []
        for step in ("a", "b"):
            try:
                yield step
            except ValueError as error:
                seen.append(str(error))
        return seen

    def ask(step: str) -> int:
        raise ValueError(step)

    assert run(flow(), ask) == ["a", "b"]


@both
def test_an_error_that_the_flow_does_not_handle_reaches_the_caller(run: Run) -> None:
    """What the flow lets through is raised as it is, once the flow has cleaned up after itself."""
    cleaned: list[str] = []

    def flow() -> Flow:
        try:
            yield "broken"
        finally:
            cleaned.append("yes")
        return []

    def ask(step: str) -> int:
        raise KeyError(step)

    with pytest.raises(KeyError, match="broken"):
        run(flow(), ask)

    assert cleaned == ["yes"]


@both
def test_an_error_of_the_flow_itself_reaches_the_caller(run: Run) -> None:
    """What a flow raises of its own is not asked about again."""

    def flow() -> Flow:
        yield "one"
        raise RuntimeError("a rule is broken")

    with pytest.raises(RuntimeError, match="a rule is broken"):
        run(flow(), len)


@both
def test_an_interrupt_does_not_go_through_the_flow(run: Run) -> None:
    """A flow that catches whatever is thrown into it still cannot hold up Ctrl-C."""
    caught: list[type[BaseException]] = []

    def flow() -> Flow:
        try:
            yield "slow"
        except BaseException as error:  # noqa: BLE001 - this is the flow that goes too far
            caught.append(type(error))
        return []

    def ask(step: str) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(flow(), ask)

    assert KeyboardInterrupt not in caught


async def test_cancelling_leaves_the_flow() -> None:
    """A cancelled step ends the run: no other step follows."""
    asked: list[str] = []
    never = asyncio.Event()

    def flow() -> Generator[str, None, None]:
        try:
            yield "slow"
        except asyncio.CancelledError:
            yield "fallback"

    async def ask(step: str) -> None:
        asked.append(step)
        await never.wait()

    task = asyncio.create_task(adrive(flow(), ask))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert asked == ["slow"]
