"""Whoever waits for an answer."""

from collections.abc import Callable

from llm_costopt.batch.stored import Answered, Wanted

Tell = Callable[[Answered | None], object]
"""Is called once, in another thread; with None if the request is to be asked in real time. RuntimeError: nobody is there."""


class Caller:
    """A request that somebody waits for; small, since there may be a hundred thousand."""

    __slots__ = ("due", "lane", "over", "row", "tell", "wanted")

    def __init__(self, wanted: Wanted, due: float | None, tell: Tell) -> None:
        self.wanted: Wanted | None = wanted
        self.lane = wanted.lane
        self.due = due
        self.tell = tell
        self.row: int | None = None
        self.over = False
        """Whether it was told, or went away."""
