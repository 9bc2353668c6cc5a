"""One routed call in LangChain's terms: requests to the tiers' runnables, replies back, the decision as a mark."""

import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_costopt._convert import MARK, answer_of_message, messages_of, openai_tools
from langchain_costopt._front import Front, as_chunk, awaited
from langchain_costopt._judge import judge_of
from langchain_costopt._usage import is_batch, is_from_cache, usage
from llm_costopt.flow import adrive, drive
from llm_costopt.monitor.prices import Prices
from llm_costopt.router.cascade import Attempt, Call, Outcome
from llm_costopt.router.costs import Previous, usd_of
from llm_costopt.router.router import Request, Run
from llm_costopt.router.start import Model
from llm_costopt.router.told import facts_of_attempt, facts_of_call, unfit
from llm_costopt.types import Answer, Question, Usage

if TYPE_CHECKING:
    from langchain_costopt.router import RouterChatModel


@dataclass(frozen=True, kw_only=True)
class Route:
    """One request on its way through the tiers."""

    router: "RouterChatModel"
    """Holds the tiers and the rules."""
    messages: list[BaseMessage]
    """The request."""
    tier: Callable[[BaseChatModel], Runnable[Any, Any]]
    """Binds the request's tools or schema to a tier."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the tier's call."""
    tools: Sequence[Any] = ()
    """The tools that the request binds."""
    with_schema: bool = False
    """Whether the answer must have a structure."""
    max_tokens: int = 0
    """How long the answer may be; 0 if nobody said."""
    front: Front | None = None
    """The request's place in the router's cache; None if the router has none."""
    handlers: Sequence[BaseCallbackHandler] | None = None
    """Who is told of calls beside the request, where its own calls are silent; None where they are not."""

    def call(self, _: Any, config: RunnableConfig) -> Any:
        """Look in the cache, then ask tier after tier, blocking, and return the accepted reply."""
        if self.front and (stored := self.front.find()):
            return stored.invoke(self.messages, self._about(config))
        run = self.begin(config)
        with self._carried(run):
            outcome = drive(self._flow(run), lambda call: self._invoke(run, call, config))
        message = _raw(outcome.reply)
        self._finish(run, outcome, _answer(outcome.reply), message, config)
        if self.front and message:
            self.front.store(message)
        return self._marked(run, outcome)

    async def acall(self, _: Any, config: RunnableConfig) -> Any:
        """Look in the cache, then ask tier after tier, awaiting, and return the accepted reply."""
        if self.front and (stored := await self.front.afind()):
            return await stored.ainvoke(self.messages, self._about(config))
        run = self.begin(config)
        with self._carried(run):
            outcome = await adrive(self._flow(run), lambda call: self._ainvoke(run, call, config))
        message = _raw(outcome.reply)
        self._finish(run, outcome, _answer(outcome.reply), message, config)
        if self.front and message:
            await self.front.astore(message)
        return self._marked(run, outcome)

    def stream(self, _: Any, config: RunnableConfig) -> Iterator[AIMessageChunk]:
        """Look in the cache or settle on a tier, then show its chunks."""
        if self.front and (stored := self.front.find()):
            yield from stored.stream(self.messages, self._about(config))
            return
        run = self.begin(config)
        with self._carried(run):
            outcome = drive(self._flow(run), lambda call: self._open(run, call, config))
        shown = _Shown(self, run, outcome)
        with awaited(self.front), self._carried(run), run.watched(outcome, unfit=unfit):
            for chunk in outcome.reply if shown.streamed else [outcome.reply]:
                yield shown.next(chunk)
        self._finish(run, outcome, _answer(shown.whole), shown.whole, config)
        if self.front and shown.whole:
            self.front.store(shown.whole)

    async def astream(self, _: Any, config: RunnableConfig) -> AsyncIterator[AIMessageChunk]:
        """Look in the cache or settle on a tier, then show its chunks."""
        if self.front and (stored := await self.front.afind()):
            async for said in stored.astream(self.messages, self._about(config)):
                yield said
            return
        run = self.begin(config)
        with self._carried(run):
            outcome = await adrive(self._flow(run), lambda call: self._aopen(run, call, config))
        shown = _Shown(self, run, outcome)
        with awaited(self.front), self._carried(run), run.watched(outcome, unfit=unfit):
            async for chunk in outcome.reply if shown.streamed else _aone(outcome.reply):
                yield shown.next(chunk)
        self._finish(run, outcome, _answer(shown.whole), shown.whole, config)
        if self.front and shown.whole:
            await self.front.astore(shown.whole)

    @cached_property
    def question(self) -> Question:
        """The request in the core's terms; one object, by which what was learned of it is found again."""
        return Question(
            messages=messages_of(self.messages),
            with_tools=bool(self.tools),
            with_schema=self.with_schema,
            tools=_argument_schemas(self.tools),
        )

    def begin(self, config: RunnableConfig) -> Run:
        """Hand the request to the core."""
        last, tier = self._last_answer()
        at = last.response_metadata[MARK].get("at") if last else None
        is_loop = last is not None and bool(last.tool_calls) and isinstance(self.messages[-1], ToolMessage)
        request = Request(
            question=self.question,
            profiles=[tier.profile or {} for tier in self.router.tiers],
            max_tokens=self.max_tokens,
            tags=config.get("tags") or (),
            previous=Previous(tier=tier, age=max(0.0, time.time() - at)) if isinstance(at, int | float) else None,
            loop=tier if is_loop else 0,
        )
        core = replace(self.router.core, judge=judge_of(self.router.judge, self._apart(config)))
        return core.begin(request)

    def _last_answer(self) -> tuple[AIMessage | None, int]:
        """Find the newest answer in the conversation, and the tier that gave it; None if no router of ours did."""
        names = {self.router.tier_name(tier): tier for tier in range(len(self.router.tiers))}
        last = next((m for m in reversed(self.messages) if isinstance(m, AIMessage)), None)
        mark = last.response_metadata.get(MARK) if last else None
        if not isinstance(mark, Mapping):  # whoever keeps conversations may make texts of what comes with them
            return None, 0
        # A router that observes goes on with the conversation where it would have been.
        tier = names.get(str(mark.get("would") or mark.get("tier")))
        return (None, 0) if tier is None else (last, tier)

    @contextmanager
    def _carried(self, run: Run) -> Iterator[None]:
        """Let an error carry what was asked until then where the calls themselves are silent: drafts are paid for."""
        try:
            yield
        except Exception as error:
            if self.handlers is not None and run.attempts:
                attempts = [self._attempt(run, attempt, _raw(attempt.reply)) for attempt in run.attempts]
                attempts[-1]["error"] = type(error).__name__
                with suppress(AttributeError):  # a class may allow no more attributes
                    setattr(error, MARK, attempts)
            raise

    def _flow(self, run: Run) -> Generator[Call, Any, Outcome[Any]]:
        return run.flow(read=_answer, unfit=unfit)

    def _finish(
        self, run: Run, outcome: Outcome[Any], answer: Answer, message: AIMessage | None, config: RunnableConfig
    ) -> None:
        """Tell the core what the calls cost, and how to get another tier's answer."""
        for attempt in outcome.attempts:
            said = message if attempt is outcome.attempts[-1] else _raw(attempt.reply)
            used = usage(said) if said is not None else None
            is_hit = said is not None and is_from_cache(said.usage_metadata)  # of a cache below the router
            batch = said is not None and is_batch(said.response_metadata)
            usd = 0.0 if is_hit else self._cost(attempt.call, used, batch=batch)
            run.settle(attempt.call, usd=usd, written=used.output_tokens if used else None)
        run.finish(outcome, answer, lambda tier: _answer(self._beside(tier, config)))

    def _cost(self, call: Call, used: Usage | None, *, batch: bool) -> float | None:
        model = self._model(call)
        if used is None or not (self.router.budgets or self.router.max_cost_per_request):
            return None
        return usd_of(self.router.prices or _list(), model_name(model), used, provider_of(model), batch=batch)

    def _beside(self, tier: int, config: RunnableConfig) -> Any:
        """Ask a tier for comparison only."""
        apart = self._apart(config, llm_costopt_tier=self.router.tier_name(tier))
        return self.tier(self.router.tiers[tier]).invoke(self.messages, apart, **self.options)

    def _apart(self, config: RunnableConfig, **about: Any) -> RunnableConfig:
        """Tell handlers that a call is made beside the request, and hide it from LangGraph's token stream."""
        said = {"llm_costopt_shadow": True, "llm_costopt_baseline": model_name(self.router.strong), **about}
        return RunnableConfig(
            callbacks=config.get("callbacks") if self.handlers is None else list(self.handlers),
            metadata={**config.get("metadata", {}), **said},
            tags=[*config.get("tags", []), "nostream"],
        )

    def _runnable(self, call: Call) -> Runnable[Any, Any]:
        return self.tier(self._model(call))

    def _model(self, call: Call) -> BaseChatModel:
        return self.router.tiers[call.tier]

    def _invoke(self, run: Run, call: Call, config: RunnableConfig) -> Any:
        return self._runnable(call).invoke(self.messages, self._child(run, call, config), **self.options)

    async def _ainvoke(self, run: Run, call: Call, config: RunnableConfig) -> Any:
        return await self._runnable(call).ainvoke(self.messages, self._child(run, call, config), **self.options)

    def _open(self, run: Run, call: Call, config: RunnableConfig) -> Any:
        """Start a stream as far as its first chunk, where most errors show; a draft is fetched whole."""
        if not call.final:
            return self._invoke(run, call, config)
        chunks = self._runnable(call).stream(self.messages, self._child(run, call, config), **self.options)
        return chain([next(chunks)], chunks)

    async def _aopen(self, run: Run, call: Call, config: RunnableConfig) -> Any:
        if not call.final:
            return await self._ainvoke(run, call, config)
        chunks = self._runnable(call).astream(self.messages, self._child(run, call, config), **self.options)
        return _achain(await anext(chunks), chunks)

    def _about(self, config: RunnableConfig) -> RunnableConfig:
        """Tell handlers what a stored answer stands for."""
        said = {**config.get("metadata", {}), "llm_costopt_baseline": model_name(self.router.strong)}
        return RunnableConfig(**{**config, "metadata": said})

    def _child(self, run: Run, call: Call, config: RunnableConfig) -> RunnableConfig:
        """Tell handlers what this call is for, and hide a draft from LangGraph's token stream."""
        facts = facts_of_call(run, call, strong=model_name(self.router.strong))
        # With the id of the call: a parser around the model takes the run's id for its own run.
        about = {f"llm_costopt_{name}": fact for name, fact in facts.items()}
        return RunnableConfig(
            **{
                **config,
                "run_id": uuid.UUID(call.id),
                "metadata": {**config.get("metadata", {}), **about},
                "tags": [*config.get("tags", []), *([] if call.final else ["nostream"])],
            }
        )

    def _marked(self, run: Run, outcome: Outcome[Any]) -> Any:
        reply = outcome.reply
        message = _raw(reply)
        if message is None:
            return reply
        marked = message.model_copy(update={"response_metadata": self.metadata(run, outcome, message)})
        return {**reply, "raw": marked} if isinstance(reply, dict) else marked

    def metadata(self, run: Run, outcome: Outcome[Any], message: AIMessage) -> dict[str, Any]:
        """Add the decision and every attempt to what the tier's *message* says of itself."""
        own = message.response_metadata
        attempts = [
            self._attempt(run, a, message if a is outcome.attempts[-1] else _raw(a.reply)) for a in outcome.attempts
        ]
        return {**own, MARK: {**own.get(MARK, {}), **run.decision(outcome, attempts).to_dict()}}

    def _attempt(self, run: Run, attempt: Attempt[Any], message: AIMessage | None) -> dict[str, Any]:
        model = self._model(attempt.call)
        said = message.response_metadata if message else {}
        return facts_of_attempt(
            run,
            attempt,
            model=Model(name=said.get("model_name") or model_name(model), provider=provider_of(model)),
            strong=model_name(self.router.strong),
            usage=dict(message.usage_metadata) if message and message.usage_metadata else None,
            cache=said.get(MARK, {}).get("cache"),
            batch=is_batch(said),
        )


class _Shown:
    """The chunks of the accepted answer; the last one carries the decision."""

    def __init__(self, route: Route, run: Run, outcome: Outcome[Any]) -> None:
        self._route = route
        self._run = run
        self._outcome = outcome
        self.whole: AIMessageChunk | None = None
        """What was shown so far; complete after the last chunk."""
        self.streamed = outcome.attempts[-1].call.final

    def next(self, message: AIMessage) -> AIMessageChunk:
        """Pass on one chunk."""
        chunk = message if isinstance(message, AIMessageChunk) else as_chunk(message)
        self.whole = _copy(chunk) if self.whole is None else self.whole + chunk
        if chunk.chunk_position != "last":
            return chunk
        mark = self._route.metadata(self._run, self._outcome, self.whole)[MARK]
        return chunk.model_copy(update={"response_metadata": {**chunk.response_metadata, MARK: mark}})


def _copy(chunk: AIMessageChunk) -> AIMessageChunk:
    """Copy *chunk*, which whoever reads the stream may change."""
    said = {"response_metadata": dict(chunk.response_metadata), "additional_kwargs": dict(chunk.additional_kwargs)}
    return chunk.model_copy(update=said)


def model_name(model: BaseChatModel) -> str | None:
    """Name *model* as its provider does."""
    return model._get_ls_params().get("ls_model_name")  # noqa: SLF001 - the host's one place for it


def provider_of(model: BaseChatModel) -> str | None:
    """Name the provider of *model* as the host does."""
    return model._get_ls_params().get("ls_provider")  # noqa: SLF001 - the host's one place for it


@lru_cache(maxsize=1)
def _list() -> Prices:
    return Prices()


def _raw(reply: Any) -> AIMessage | None:
    message = reply.get("raw") if isinstance(reply, dict) else reply
    return message if isinstance(message, AIMessage) else None


def _answer(reply: Any) -> Answer:
    message = _raw(reply)
    answer = answer_of_message(message) if message else Answer(text="")
    if isinstance(reply, dict) and (reply.get("parsing_error") or reply.get("parsed") is None):
        return replace(answer, invalid="structured output")
    return answer


def _argument_schemas(tools: Sequence[Any]) -> dict[str, Any]:
    """Give each tool's argument schema; nothing if one of them is in a provider's own form."""
    functions = [tool["function"] for tool in openai_tools(tools) or ()]
    return {f["name"]: f.get("parameters") for f in functions}


async def _aone(message: AIMessage) -> AsyncIterator[AIMessage]:
    yield message


async def _achain(first: AIMessageChunk, rest: AsyncIterator[AIMessageChunk]) -> AsyncIterator[AIMessageChunk]:
    yield first
    async for chunk in rest:
        yield chunk
