"""The router as a LangChain chat model: swap it in for the model of any chain or agent.

It runs as a chain whose children are the tiers. A chat model that simply called chat models would
report every token twice, stream every token twice, and deadlock behind a concurrency limit of one.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, BaseRunManager, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config, merge_configs
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, field_validator

from langchain_costopt._convert import MARK, ROUTER
from langchain_costopt._front import front
from langchain_costopt._route import Route, model_name, provider_of
from llm_costopt.monitor.prices import Prices
from llm_costopt.router.capability import limit_of
from llm_costopt.router.decision import Decision
from llm_costopt.router.options import RouterOptions, begun
from llm_costopt.router.shadow import Judge
from llm_costopt.router.start import Model

log = logging.getLogger(__name__)

_OF_TIERS = frozenset({"temperature", "max_tokens", "timeout", "stop", "max_retries", "api_key", "streaming"})
"""What LangChain asks every chat model to be made with; a router has nothing to do with it."""


class RouterChatModel(RouterOptions, BaseChatModel):
    """Answer with the cheapest model that can, and escalate a doubtful answer.

    A simple request goes to the first of *tiers*, a complex one to the last; otherwise they are climbed from the first
    on until an answer's confidence reaches *threshold*. If a tier fails, the next one is asked.
    What was decided, and every attempt with its usage, is in `response_metadata["llm_costopt"]`.

    `RouterChatModel(cheap=…, strong=…)` is the short form of `tiers=[…, …]`. With `cache=SemanticCache()` that cache is
    looked up before routing, for streams too, which LangChain's own look-up leaves out; with one tier this is a cached
    model. A structured answer is not looked up there.

    With a target, outcomes take the place of the threshold: `target_quality=0.95` keeps 95 % of the strongest tier's quality with
    95 % confidence, and asks the strongest tier as long as too few outcomes prove that. They come from `learned=`, from
    `feedback`, and from `shadow_rate=0.02, judge=…`: for that share of the requests the other tiers are asked as well, after
    the user has the answer, and *judge* compares.

    What each option means stands at the fields of `llm_costopt.router.options.RouterOptions`.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    tiers: list[BaseChatModel] = Field(min_length=1)
    """The models, from the cheapest to the strongest."""
    judge: Judge | BaseChatModel | None = Field(default=None, exclude=True)
    """Compares: `(question, answer, reference)` → 0 to 1 or None, or a chat model that is asked which of both is better."""

    def __init__(
        self,
        *,
        tiers: Sequence[BaseChatModel] | None = None,
        cheap: BaseChatModel | None = None,
        strong: BaseChatModel | None = None,
        **options: Any,
    ) -> None:
        """Take *tiers*, or *cheap* and *strong*; *options* are the other fields."""
        for name in sorted(options.keys() & _OF_TIERS):
            log.warning("%s= does nothing on a router: give it to the tiers, or with a call", name)
            del options[name]
        super().__init__(**begun(tiers, cheap, strong, options))
        models = [Model(name=model_name(tier), provider=provider_of(tier)) for tier in self.tiers]
        self._begin(models, self.prices or Prices())

    def explain(self, input: LanguageModelInput, **options: Any) -> Decision:  # noqa: A002 - the host's name
        """Say what would be decided about a request, and why, without asking any model; *options* are those of `invoke`."""
        return self._route(input, None, options).begin(RunnableConfig()).decision()

    def decision(self, answer: BaseMessage) -> Decision:
        """Read back what was decided about the request that *answer* answers.

        Raises:
            ValueError: no router gave this answer.
        """
        return Decision.from_dict(answer.response_metadata.get(MARK, {}))

    @field_validator("tiers", mode="before")
    @classmethod
    def _are_unbound(cls, models: Any) -> Any:
        for n, model in enumerate(models if isinstance(models, list | tuple) else (), 1):
            if not isinstance(model, BaseChatModel):
                hint = ": bind tools and schemas to the router instead" if isinstance(model, Runnable) else ""
                hint = f": make one with init_chat_model({model!r})" if isinstance(model, str) else hint
                raise ValueError(f"tier {n} is no chat model but {type(model).__name__}{hint}")  # noqa: TRY004 - pydantic's
        return models

    @property
    def cheap(self) -> BaseChatModel:
        """The first tier."""
        return self.tiers[0]

    @property
    def strong(self) -> BaseChatModel:
        """The last tier."""
        return self.tiers[-1]

    @property
    def _llm_type(self) -> str:
        return "llm_costopt-router"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """Say all that an answer depends on: this is the cache key of `generate`."""
        return {
            # What the host itself keys a cache by.
            "tiers": [tier._get_llm_string() for tier in self.tiers],  # noqa: SLF001
            **self._depends_on(),
        }

    def invoke(
        self,
        input: LanguageModelInput,  # noqa: A002 - the host's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Route, call and return the accepted message."""
        route = self._route(input, stop, kwargs)
        return self._call_with_config(_plain(route.call), input, self._config(config))

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Route, call and return the accepted message."""
        route = self._route(input, stop, kwargs)
        return await self._acall_with_config(_plain(route.acall), input, self._config(config))

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Stream the accepted answer; a draft that may be rejected is never shown."""
        route = self._route(input, stop, kwargs)
        yield from cast(
            "Iterator[AIMessageChunk]",
            self._transform_stream_with_config(iter([input]), _plain(route.stream), self._config(config)),
        )

    def astream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Stream the accepted answer; a draft that may be rejected is never shown."""
        route = self._route(input, stop, kwargs)
        return cast(
            "AsyncIterator[AIMessageChunk]",
            self._atransform_stream_with_config(_one(input), _plain(route.astream), self._config(config)),
        )

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind *tools*; each tier converts them to its own provider's form when it is called."""
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return self.bind(tools=list(tools), **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Return what *schema* describes; an answer that does not parse is escalated."""
        return StructuredRouter(self, schema, include_raw=include_raw, **kwargs)

    def _route(self, input: LanguageModelInput, stop: list[str] | None, kwargs: Mapping[str, Any]) -> Route:  # noqa: A002
        def call(tier: BaseChatModel) -> Runnable[Any, Any]:
            options = {k: v for k, v in kwargs.items() if k not in {"tools", "tool_choice"}}
            if "tools" in kwargs:
                chosen = {} if kwargs.get("tool_choice") is None else {"tool_choice": kwargs["tool_choice"]}
                return tier.bind_tools(kwargs["tools"], **chosen, **options)
            return tier.bind(**options) if options else tier

        messages, tools = self._convert_input(input).to_messages(), kwargs.get("tools") or ()
        return Route(
            router=self,
            messages=messages,
            tier=call,
            options={} if stop is None else {"stop": stop},
            tools=tools,
            with_schema=bool(kwargs.get("response_format")),
            max_tokens=limit_of(kwargs),
            front=front(self, messages, {**kwargs, "stop": stop}, tools),
        )

    def _config(self, config: RunnableConfig | None) -> RunnableConfig:
        """Add what was set on the instance, which a base chat model would add to its own run."""
        # Nothing here may be None: the host would fill it in from the surrounding run, which *config* may overrule.
        own = RunnableConfig(tags=self.tags or [], metadata=self.metadata or {}, callbacks=self.callbacks or [])
        return merge_configs(own, ensure_config(config))

    # The host calls these for `generate` and for event streams of version 3, where the router is itself the
    # model that runs: its tiers are then silent, and its own message carries what they used. It has looked in the
    # router's cache by then.

    def _uncached(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: Mapping[str, Any],
        run_manager: BaseRunManager | None,
    ) -> tuple[Route, RunnableConfig]:
        handlers = () if run_manager is None else run_manager.handlers
        return replace(self._route(messages, stop, kwargs), front=None, handlers=handlers), _silent(run_manager)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        route, silent = self._uncached(messages, stop, kwargs, run_manager)
        return _result(route.call(None, silent))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        route, silent = self._uncached(messages, stop, kwargs, run_manager)
        return _result(await route.acall(None, silent))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        route, silent = self._uncached(messages, stop, kwargs, run_manager)
        for chunk in route.stream(None, silent):
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        route, silent = self._uncached(messages, stop, kwargs, run_manager)
        async for chunk in route.astream(None, silent):
            yield ChatGenerationChunk(message=chunk)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        name = kwargs.get("model") or "|".join(str(model_name(tier)) for tier in self.tiers)
        return LangSmithParams(**{**params, "ls_provider": ROUTER, "ls_model_name": name})

    def _resolve_model_profile(self) -> ModelProfile:
        """Promise only what all tiers can do: the smallest limit, and no structured output of one provider's kind.

        Never None: the host sets what it is given when anything is set, and to set it is to set something.
        """
        profiles: list[dict[str, Any]] = [{**(tier.profile or {})} for tier in self.tiers]
        shared = {
            k: min(p[k] for p in profiles) for k in profiles[0] if all(isinstance(p.get(k), int) for p in profiles)
        }
        shared.pop("structured_output", None)
        return cast("ModelProfile", shared)

    def get_token_ids(self, text: str) -> list[int]:
        """Tokenize as the strong model does."""
        return self.strong.get_token_ids(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Count as the strong model does."""
        return self.strong.get_num_tokens_from_messages(messages, tools)


def _silent(run_manager: BaseRunManager | None) -> RunnableConfig:
    """Give the request's tags and metadata to tiers whose run is reported by the router itself."""
    if run_manager is None:
        return RunnableConfig(callbacks=[])
    about = {name: value for name, value in run_manager.metadata.items() if not name.startswith("ls_")}
    return RunnableConfig(callbacks=[], tags=run_manager.tags, metadata=about)


def _plain(method: Any) -> Any:
    """Hide the type of a function of input and config: the host calls it, its annotations only know a third form."""
    return method


def _result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


async def _one(item: LanguageModelInput) -> AsyncIterator[LanguageModelInput]:
    yield item


class StructuredRouter(Runnable[LanguageModelInput, Any]):
    """Route a request whose answer has a schema: each tier parses in its own way, and a parse failure escalates."""

    def __init__(self, router: RouterChatModel, schema: Any, *, include_raw: bool, **kwargs: Any) -> None:
        self._router = router
        self._schema = schema
        self._include_raw = include_raw
        self._kwargs = kwargs

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """Route, call, parse and return the accepted object."""
        route = self._route(input, kwargs)
        return self._unwrap(self._call_with_config(_plain(route.call), input, self._router._config(config)))  # noqa: SLF001

    async def ainvoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """Route, call, parse and return the accepted object."""
        route = self._route(input, kwargs)
        return self._unwrap(await self._acall_with_config(_plain(route.acall), input, self._router._config(config)))  # noqa: SLF001

    def _route(self, input: LanguageModelInput, options: Mapping[str, Any]) -> Route:  # noqa: A002
        return Route(
            router=self._router,
            messages=self._router._convert_input(input).to_messages(),  # noqa: SLF001
            tier=lambda tier: tier.with_structured_output(self._schema, include_raw=True, **self._kwargs),
            options=options,
            with_schema=True,
        )

    def _unwrap(self, reply: dict[str, Any]) -> Any:
        if self._include_raw:
            return reply
        if reply["parsing_error"] is not None:
            raise reply["parsing_error"]
        return reply["parsed"]
