"""Would-be hits: what a cache that merely observes would have served, held against what the model then says."""

from collections.abc import Callable, Sequence

from llm_costopt.cache.agree import names
from llm_costopt.cache.policy import Choice, seen_share
from llm_costopt.cache.records import Tally
from llm_costopt.recent import Recent
from llm_costopt.types import CacheKind


class Observation:
    """The would-be hits whose answers have not come yet.

    Args:
        tally: where they are counted.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._chosen: Recent[str, Sequence[int]] = Recent()
        self._waiting: Recent[str, Sequence[int]] = Recent()

    def chose(self, exact: str, choice: Choice) -> None:
        """Note which answer the request *exact* would be given."""
        self._chosen.put(exact, choice.same)

    def would(self, exact: str, kind: CacheKind) -> None:
        """Count a would-be hit; only one by meaning is compared, the very same request would be given its own answer."""
        self._tally.count(f"would_{kind}")
        self._waiting.put(exact, self._chosen.pop(exact) or ())

    def waits(self, exact: str) -> bool:
        """Tell whether the answer to *exact* is to be compared, or not to be stored."""
        return self._waiting.get(exact) is not None

    def answered(self, exact: str, says: int, learn: Callable[[bool, float], None]) -> bool:
        """Compare the answer to *exact*, whose number is *says*; tell whether a hit would have come instead of it."""
        same = self._waiting.pop(exact)
        if same:
            right = not {name for one in same for name in names(one)}.isdisjoint(names(says))
            seen = seen_share(same, says)
            self._tally.compared(right, seen)
            learn(right, seen)
        return same is not None
