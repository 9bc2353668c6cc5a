"""The router as a LlamaIndex model: swap it in for the model of `Settings`, an engine or an agent."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, cast

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.llms import LLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from llamaindex_costopt._convert import MARK, identity, message_tool_calls, messages_of, model_of
from llamaindex_costopt._lookup import Lookup
from llamaindex_costopt._route import Route
from llamaindex_costopt._template import asking
from llamaindex_costopt._tier import Ask
from llamaindex_costopt._wrapper import MIRRORED, stays
from llamaindex_costopt.cache import lookup_of
from llm_costopt.cache.semantic import SemanticCache
from llm_costopt.monitor.prices import Prices
from llm_costopt.recent import Recent
from llm_costopt.router.decision import Decision
from llm_costopt.router.options import RouterOptions, begun
from llm_costopt.router.shadow import Judge
from llm_costopt.router.start import Model

_SAME = ("system_prompt", "output_parser", "query_wrapper_prompt")
"""What the host adds to a prompt, or makes of a reply, before a model sees it: it cannot differ between the tiers."""


class RouterLLM(RouterOptions, FunctionCallingLLM):
    """Answer with the cheapest model that can, and escalate a doubtful answer.

    A simple request goes to the first of *tiers*, a complex one to the last; otherwise they are climbed from the first
    on until an answer's confidence reaches *threshold*. If a tier fails, the next one is asked. What was decided, and
    every attempt with its usage, is in `additional_kwargs["llm_costopt"]` of the response; of a stream, once it has ended.

    `RouterLLM(cheap=…, strong=…)` is the short form of `tiers=[…, …]`. With `cache=SemanticCache()` that cache is looked
    up before routing. Its metadata promise only what all tiers can do, and never change.

    With a target, outcomes take the place of the threshold: `target_quality=0.95` keeps 95 % of the strongest tier's quality with
    95 % confidence, and asks the strongest tier as long as too few outcomes prove that. They come from `learned=`, from
    `feedback`, and from `shadow_rate=0.02, judge=…`: for that share of the requests the other tiers are asked as well, after
    the user has the answer, and *judge* compares.

    What each option means stands at the fields of `llm_costopt.router.options.RouterOptions`.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    tiers: list[LLM] = Field(min_length=1, exclude=True)
    """The models, from the cheapest to the strongest."""
    judge: Judge | LLM | None = Field(default=None, exclude=True)
    """Compares: `(question, answer, reference)` → 0 to 1 or None, or a model that is asked which of both is better."""
    cache: SemanticCache | None = Field(default=None, exclude=True)
    """Is looked up before routing; none if not given."""
    _answered: Recent[str, tuple[int, float]] = PrivateAttr(default_factory=Recent)

    def __init__(
        self,
        *,
        tiers: Sequence[LLM] | None = None,
        cheap: LLM | None = None,
        strong: LLM | None = None,
        **options: Any,
    ) -> None:
        """Take *tiers*, or *cheap* and *strong*; *options* are the other fields."""
        fields = begun(tiers, cheap, strong, options)
        models = fields["tiers"]
        mirrored = _mirrored(models) if all(isinstance(m, LLM) for m in models) else {}
        super().__init__(**mirrored | fields)
        for name in options.keys() & set(MIRRORED):
            setattr(self, name, options[name])
        self._begin([model_of(tier) for tier in self.tiers], self.prices or Prices())

    __getstate__ = stays

    def __setattr__(self, name: str, value: Any) -> None:
        # A rate limiter stays with the model whose rate it limits.
        if name in MIRRORED and name != "rate_limiter":
            for tier in self.tiers:
                setattr(tier, name, value)
        super().__setattr__(name, value)

    @classmethod
    def class_name(cls) -> str:
        """Name the router as the host's models are."""
        return "llm_costopt_router"

    @property
    def metadata(self) -> LLMMetadata:
        """Promise only what all tiers can do, whichever answers: how the host packs chunks depends on it."""
        known = [tier.metadata for tier in self.tiers]
        return LLMMetadata(
            context_window=min(m.context_window for m in known),
            num_output=min((m.num_output for m in known if m.num_output > 0), default=-1),
            is_chat_model=all(m.is_chat_model for m in known),
            is_function_calling_model=all(m.is_function_calling_model for m in known),
            model_name=f"router[{'|'.join(m.model_name for m in known)}]",
            system_role=known[-1].system_role,
        )

    @property
    def answered(self) -> Recent[str, tuple[int, float]]:
        """The tier and the time of the last answers, by their digests."""
        return self._answered

    @property
    def cheap(self) -> LLM:
        """The first tier."""
        return self.tiers[0]

    @property
    def strong(self) -> LLM:
        """The last tier."""
        return self.tiers[-1]

    def explain(self, messages: Sequence[ChatMessage], **options: Any) -> Decision:
        """Say what would be decided about a request, and why, without asking any model; *options* are those of `chat`."""
        return self._route(messages, options).begin().decision()

    def decision(self, response: ChatResponse | CompletionResponse) -> Decision:
        """Read back what was decided about the request that *response* answers.

        Raises:
            ValueError: no router gave this response.
        """
        return Decision.from_dict(response.additional_kwargs.get(MARK, {}))

    @property
    def costopt_model(self) -> Model:
        """Name all tiers; the provider is that of whichever answers."""
        return Model(name=self.metadata.model_name, provider=None)

    @property
    def costopt_baseline(self) -> str | None:
        """Name the strongest model: an answer is held against its price."""
        return model_of(self.strong).name

    def costopt_identity(self) -> Any:
        """Say all that an answer depends on, for the key of a cache."""
        return {
            "tiers": [identity(tier) for tier in self.tiers],
            **self._depends_on(),
        }

    # ---- The endpoints ----

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Route, call and return the accepted response."""
        route = self._route(messages, kwargs)
        lookup = self._lookup(route)
        return cast("ChatResponse", lookup.answer(route.call) if lookup else route.call())

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Route, call and return the accepted response."""
        route = self._route(messages, kwargs)
        lookup = self._lookup(route)
        return cast("ChatResponse", await (lookup.aanswer(route.acall) if lookup else route.acall()))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        """Stream the accepted response; a draft that may be rejected is never shown."""
        route = self._route(messages, kwargs)
        return self._streamed(route)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        """Stream the accepted response; a draft that may be rejected is never shown."""
        return await self._astreamed(self._route(messages, kwargs))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Route, call and return the accepted response."""
        route = self._completion(prompt, formatted, kwargs)
        lookup = self._lookup(route)
        return cast("CompletionResponse", lookup.answer(route.call) if lookup else route.call())

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Route, call and return the accepted response."""
        route = self._completion(prompt, formatted, kwargs)
        lookup = self._lookup(route)
        return cast("CompletionResponse", await (lookup.aanswer(route.acall) if lookup else route.acall()))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Stream the accepted response; a draft that may be rejected is never shown."""
        return self._streamed(self._completion(prompt, formatted, kwargs))

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Stream the accepted response; a draft that may be rejected is never shown."""
        return await self._astreamed(self._completion(prompt, formatted, kwargs))

    def _streamed(self, route: Route) -> Iterator[Any]:
        lookup = self._lookup(route)
        return lookup.stream(route.stream) if lookup else route.stream()

    async def _astreamed(self, route: Route) -> AsyncIterator[Any]:
        lookup = self._lookup(route)
        return await (lookup.astream(route.astream) if lookup else route.astream())

    def _route(self, messages: Sequence[ChatMessage], options: Mapping[str, Any]) -> Route:
        return Route(router=self, ask=Ask(messages=list(messages), options=options))

    def _completion(self, prompt: str, formatted: bool, options: Mapping[str, Any]) -> Route:
        return Route(router=self, ask=Ask(prompt=prompt, options={**options, "formatted": formatted}))

    def _lookup(self, route: Route) -> Lookup | None:
        if self.cache is None:
            return None
        said = route.question.messages if route.ask.prompt is not None else messages_of(route.ask.messages)
        return lookup_of(self, self.cache, said, route.ask.options)

    # ---- Templates: the question stands apart from its context. ----

    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Fill in *prompt*, route and return the text."""
        with asking(self, prompt, prompt_args):
            return super().predict(prompt, **prompt_args)

    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Fill in *prompt*, route and return the text."""
        with asking(self, prompt, prompt_args):
            return await super().apredict(prompt, **prompt_args)

    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> Any:
        """Fill in *prompt*, route and return the pieces of the text."""
        with asking(self, prompt, prompt_args):
            return super().stream(prompt, **prompt_args)

    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> Any:
        """Fill in *prompt*, route and return the pieces of the text."""
        with asking(self, prompt, prompt_args):
            return await super().astream(prompt, **prompt_args)

    # ---- Structures: each tier asks for them in its own way; what does not parse is escalated. ----

    def structured_predict(self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **prompt_args: Any) -> Any:
        """Route a request for an *output_cls*."""
        messages = prompt.format_messages(llm=self, **prompt_args)
        return _object(output_cls, self.chat(messages, output_cls=output_cls, **llm_kwargs or {}))

    async def astructured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **prompt_args: Any
    ) -> Any:
        """Route a request for an *output_cls*."""
        messages = prompt.format_messages(llm=self, **prompt_args)
        return _object(output_cls, await self.achat(messages, output_cls=output_cls, **llm_kwargs or {}))

    def stream_structured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **prompt_args: Any
    ) -> Any:
        """Route a request for an *output_cls*, and show it as it grows."""
        messages = prompt.format_messages(llm=self, **prompt_args)
        chunks = self.stream_chat(messages, output_cls=output_cls, **llm_kwargs or {})
        return (_object(output_cls, chunk) for chunk in chunks)

    async def astream_structured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **prompt_args: Any
    ) -> Any:
        """Route a request for an *output_cls*, and show it as it grows."""
        messages = prompt.format_messages(llm=self, **prompt_args)
        chunks = await self.astream_chat(messages, output_cls=output_cls, **llm_kwargs or {})
        return (_object(output_cls, chunk) async for chunk in chunks)

    # ---- Tools: kept as they are, so that each tier prepares them itself. ----

    def _prepare_chat_with_tools(  # noqa: PLR0917 - the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,  # by name: the host looks for it in this signature
        **kwargs: Any,
    ) -> dict[str, Any]:
        new = ChatMessage(role="user", content=user_msg) if isinstance(user_msg, str) else user_msg
        asked = {"verbose": verbose, "allow_parallel_tool_calls": allow_parallel_tool_calls}
        asked["tool_required"] = tool_required
        messages = [*(chat_history or []), *([new] if new else [])]
        return {"messages": messages, **({"tools": list(tools), **asked} if tools else {}), **kwargs}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Read the tool calls of *response* as the tier that gave it does; of an answer from store, as anybody can."""
        names = {self.tier_name(n): tier for n, tier in enumerate(self.tiers)}
        tier: Any = names.get((response.additional_kwargs.get(MARK) or {}).get("tier", ""))
        if tier is not None:
            found = tier.get_tool_calls_from_response(response, error_on_no_tool_call=error_on_no_tool_call, **kwargs)
            return cast("list[ToolSelection]", found)
        calls = [call for call in message_tool_calls(response.message) if call]
        if error_on_no_tool_call and not calls:
            raise ValueError("Expected at least one tool call, but got 0 tool calls.")
        return [ToolSelection(tool_id=c.id or "", tool_name=c.name, tool_kwargs=dict(c.args)) for c in calls]


def _mirrored(tiers: Sequence[LLM]) -> dict[str, Any]:
    """Read what the host looks up on a model off the strongest tier.

    Raises:
        ValueError: the tiers differ in what the host adds before it calls them.
    """
    for name in _SAME:
        if any(getattr(tier, name) != getattr(tiers[-1], name) for tier in tiers):
            raise ValueError(
                f"the tiers have different values of {name}, which the host applies before it routes: give all the same"
            )
    return {name: getattr(tiers[-1], name) for name in MIRRORED if name != "rate_limiter"} if tiers else {}


def _object(output_cls: Any, response: ChatResponse) -> Any:
    """Take the object out of a routed response; one from store is read anew."""
    if isinstance(response.raw, BaseModel):
        return response.raw
    return output_cls.model_validate_json(response.message.content or "")
