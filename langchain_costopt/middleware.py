"""The router as middleware of an agent: `create_agent(model, middleware=[RouterMiddleware(cheap)])`."""

from collections.abc import Awaitable, Callable
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel

from langchain_costopt.router import RouterChatModel
from llm_costopt.recent import Recent

_WEIGHED = frozenset({"target_quality", "max_strong_share", "max_cost_per_request"})
"""Options that weigh the prices of the tiers."""


class RouterMiddleware(AgentMiddleware[Any, Any]):
    """Route each model call of an agent over *cheaper* models and the agent's own, which is the strongest tier.

    Args:
        cheaper: one or more models, from the cheapest on.
        options: those of `RouterChatModel`, such as `learned=`, `threshold=`, `cache=`.

    Raises:
        ValueError: no cheaper model, something that is no chat model, or an option that a router refuses.
    """

    def __init__(self, *cheaper: BaseChatModel, **options: Any) -> None:
        super().__init__()
        if not cheaper:
            raise ValueError(
                "name one model at least that is cheaper than the agent's own, as in RouterMiddleware(mini)"
            )
        # What is wrong is told here, not at the agent's first call. The last tier stands in for the agent's own model, whose
        # price is not known yet.
        RouterChatModel(
            tiers=[*cheaper, cheaper[-1]], **{name: given for name, given in options.items() if name not in _WEIGHED}
        )
        self._cheaper = cheaper
        self._options = options
        self._routers: Recent[int, RouterChatModel] = Recent(64)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Let the router make the call."""
        return handler(request.override(model=self.router(request.model)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Let the router make the call."""
        return await handler(request.override(model=self.router(request.model)))

    def router(self, model: BaseChatModel) -> RouterChatModel:
        """Return the router whose strongest tier is *model*; the same one each time, so that it can learn."""
        known = self._routers.get(id(model))
        if known is None or known.strong is not model:
            known = RouterChatModel(tiers=[*self._cheaper, model], **self._options)
            self._routers.put(id(model), known)
        return known
