"""The policy of a cache, and those of endpoints with settings of their own, which learn together with it."""

from collections.abc import Callable, Sequence
from typing import Any

from llm_costopt.cache.guards import Guard
from llm_costopt.cache.policy import Budget, Threshold
from llm_costopt.cache.settings import Chosen, Settings
from llm_costopt.endpoints import current_endpoint


class Policies:
    """Make a policy for all calls, and one for each endpoint.

    Args:
        chosen: the settings.
        guards: what a plain threshold is guarded by.
        learned: what was learned so far, as `Budget.answered` gave it; None if nothing.
        rng: numbers in [0, 1).
    """

    def __init__(self, chosen: Chosen, guards: Sequence[Guard], learned: Any, rng: Callable[[], float]) -> None:
        usual = chosen.usual
        self._guards = guards
        self.usual = (
            Budget(usual.max_error, usual.shadow_rate, learned, rng)
            if usual.threshold is None
            else Threshold(usual.threshold, guards)
        )
        """Learns from the answers to all calls."""
        self._own = {endpoint: self._beside(one) for endpoint, one in chosen.all.items() if endpoint is not None}

    def here(self) -> Budget | Threshold:
        """Return the one that chooses for the endpoint which the present call serves."""
        return self._own.get(current_endpoint() or "", self.usual) if self._own else self.usual

    def _beside(self, one: Settings) -> Budget | Threshold:
        if one.threshold is not None:
            return Threshold(one.threshold, self._guards)
        assert isinstance(self.usual, Budget)  # noqa: S101 - `Chosen` refuses a max_error beside a threshold
        return self.usual.beside(one.max_error, one.shadow_rate)
