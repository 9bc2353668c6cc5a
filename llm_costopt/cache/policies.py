"""The policy of a cache, and those of endpoints with settings of their own, which learn together and keep what they learn."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm_costopt.cache.failsafe import failsafe
from llm_costopt.cache.guards import Guard
from llm_costopt.cache.policy import Budget, Compared, Threshold
from llm_costopt.cache.records import Tally
from llm_costopt.cache.settings import Chosen, Settings
from llm_costopt.cache.store import Store
from llm_costopt.endpoints import current_endpoint


class Policies:
    """Make a policy for all calls, and one for each endpoint, from what *store* has kept of what was learned.

    Args:
        chosen: the settings.
        guards: what a plain threshold is guarded by.
        store: where what is learned is kept.
        tally: where it is counted that this cannot be read.
        rng: numbers in [0, 1).
    """

    def __init__(
        self, chosen: Chosen, guards: Sequence[Guard], store: Store, tally: Tally, rng: Callable[[], float]
    ) -> None:
        self._chosen = chosen
        self._guards = guards
        self._store = store
        self._tally = tally
        self._rng = rng
        self._begin()

    def here(self) -> Budget | Threshold:
        """Return the one that chooses for the endpoint which the present call serves."""
        return self._own.get(current_endpoint() or "", self._usual) if self._own else self._usual

    def answered(self, exact: str, says: int, compared: Compared) -> None:
        """Learn from the answer to the request *exact*, of any endpoint; *compared* is told of a would-be hit."""
        self._keep(self._usual.answered(exact, says, compared))

    def judged(self, exact: str, *, right: bool, seen: float = 1.0) -> None:
        """Learn from what the application, or the model, says of a hit."""
        self._keep(self._usual.judged(exact, right=right, seen=seen))

    def _begin(self) -> None:
        self._knows_kept = False
        with failsafe("start", self._tally.count):  # a shared store may be away, or hold what others wrote
            kept = None if self._chosen.usual.threshold is not None else self._store.learned()
            self._knows_kept = True
            self._make(kept and json.loads(kept))
            return
        self._make(None)

    def _make(self, learned: Any) -> None:
        all_calls = self._chosen.usual
        usual = (
            Budget(all_calls.max_error, all_calls.shadow_rate, learned, self._rng)
            if all_calls.threshold is None
            else Threshold(all_calls.threshold, self._guards)
        )
        named = ((endpoint, one) for endpoint, one in self._chosen.all.items() if endpoint is not None)
        self._own = {endpoint: self._beside(usual, one) for endpoint, one in named}
        self._usual = usual

    def _beside(self, usual: Budget | Threshold, one: Settings) -> Budget | Threshold:
        if one.threshold is not None:
            return Threshold(one.threshold, self._guards)
        assert isinstance(usual, Budget)  # noqa: S101 - `Chosen` refuses a max_error beside a threshold
        return usual.beside(one.max_error, one.shadow_rate)

    def _keep(self, state: Mapping[str, Any] | None) -> None:
        if state is None:
            return
        if self._knows_kept:
            self._store.keep_learned(json.dumps(state))
        else:  # the store was away: what it has kept is worth more than what this process learned meanwhile
            self._begin()
