"""One routed call in LangChain's terms: requests to the tiers' runnables, replies back, the decision as a mark."""

import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_costopt._convert import MARK, answer_of_message, messages_of, openai_tools
from langchain_costopt._front import Front, as_chunk
from llm_costopt.flow import adrive, drive
from llm_costopt.router.capability import lacks, needs_of
from llm_costopt.router.cascade import Attempt, Call, Outcome, cascade
from llm_costopt.types import Answer, Question

if TYPE_CHECKING:
    from langchain_costopt.router import RouterChatModel

_UNFIT = {
    "LengthFinishReasonError": "truncated",
    "ContentFilterFinishReasonError": "filtered",
    "OpenAIRefusalError": "refused",
    "OutputParserException": "unparsable",
    "ValidationError": "unparsable",  # pydantic's: the SDK of OpenAI parses what has a schema inside its call
}
"""Errors that say the answer is bad, not that the call failed."""


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

    def call(self, _: Any, config: RunnableConfig) -> Any:
        """Look in the cache, then ask tier after tier, blocking, and return the accepted reply."""
        if self.front and (stored := self.front.find()):
            return stored.invoke(self.messages, self._about(config))
        outcome = self._noted(drive(self._flow(), lambda call: self._invoke(call, config)))
        if self.front and (message := _raw(outcome.reply)):
            self.front.store(message)
        return self._marked(outcome)

    async def acall(self, _: Any, config: RunnableConfig) -> Any:
        """Look in the cache, then ask tier after tier, awaiting, and return the accepted reply."""
        if self.front and (stored := await self.front.afind()):
            return await stored.ainvoke(self.messages, self._about(config))
        outcome = self._noted(await adrive(self._flow(), lambda call: self._ainvoke(call, config)))
        if self.front and (message := _raw(outcome.reply)):
            await self.front.astore(message)
        return self._marked(outcome)

    def stream(self, _: Any, config: RunnableConfig) -> Iterator[AIMessageChunk]:
        """Look in the cache or settle on a tier, then show its chunks."""
        if self.front and (stored := self.front.find()):
            yield from stored.stream(self.messages, self._about(config))
            return
        outcome = self._noted(drive(self._flow(), lambda call: self._open(call, config)))
        shown = _Shown(self, outcome)
        for chunk in outcome.reply if shown.streamed else [outcome.reply]:
            yield shown.next(chunk)
        if self.front and shown.whole:
            self.front.store(shown.whole)

    async def astream(self, _: Any, config: RunnableConfig) -> AsyncIterator[AIMessageChunk]:
        """Look in the cache or settle on a tier, then show its chunks."""
        if self.front and (stored := await self.front.afind()):
            async for said in stored.astream(self.messages, self._about(config)):
                yield said
            return
        outcome = self._noted(await adrive(self._flow(), lambda call: self._aopen(call, config)))
        shown = _Shown(self, outcome)
        async for chunk in outcome.reply if shown.streamed else _aone(outcome.reply):
            yield shown.next(chunk)
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

    def _flow(self) -> Generator[Call, Any, Outcome[Any]]:
        router, question = self.router, self.question
        return cascade(
            question,
            tiers=len(router.tiers),
            complexity=router.complexity,
            judge=lambda reply: router.confidence(question, _answer(reply)),
            threshold=router.threshold,
            unfit=lambda error: _UNFIT.get(type(error).__name__),
            skip=self._unusable(question),
        )

    def _unusable(self, question: Question) -> dict[int, str]:
        """Find the tiers that lack what the request needs, or have just failed; the last one has none to stand in."""
        tiers = self.router.tiers
        stays = dict.fromkeys(range(self._begun()), "a tool loop stays on its tier")
        cooling = {tier: why for tier, why in self.router.cooling().items() if tier < len(tiers) - 1}
        if len(tiers) == 1:
            return {}
        needs = needs_of(question, max_tokens=self.max_tokens)
        missing = {n: why for n, tier in enumerate(tiers) if (why := lacks(tier.profile or {}, needs))}
        return {**stays, **cooling, **missing}

    def _begun(self) -> int:
        """Find the tier that made the tool calls which this request answers: 0 if there are none.

        An agent that flipped in the middle of its loop would lose the provider's prompt cache, and the thread.
        """
        names = {self.router.tier_name(tier): tier for tier in range(len(self.router.tiers))}
        for message in reversed(self.messages):
            if isinstance(message, AIMessage) and message.tool_calls:
                return names.get(message.response_metadata.get(MARK, {}).get("tier"), 0)
            if not isinstance(message, ToolMessage):
                return 0
        return 0

    def _noted(self, outcome: Outcome[Any]) -> Outcome[Any]:
        """Let tiers that failed cool down, and remember what feedback may be about."""
        first = outcome.attempts[0]
        draft = _answer(first.reply) if first.call.tier == 0 and _raw(first.reply) else None
        for attempt in outcome.attempts:
            self.router.noted(attempt.call.tier, attempt.why if attempt.result == "failed" else None)
            self.router.remember(attempt.call.id, self.question, attempt.call.tier, draft)
        return outcome

    def _runnable(self, call: Call) -> Runnable[Any, Any]:
        return self.tier(self._model(call))

    def _model(self, call: Call) -> BaseChatModel:
        return self.router.tiers[call.tier]

    def _invoke(self, call: Call, config: RunnableConfig) -> Any:
        return self._runnable(call).invoke(self.messages, self._child(call, config), **self.options)

    async def _ainvoke(self, call: Call, config: RunnableConfig) -> Any:
        return await self._runnable(call).ainvoke(self.messages, self._child(call, config), **self.options)

    def _open(self, call: Call, config: RunnableConfig) -> Any:
        """Start a stream as far as its first chunk, where most errors show; a draft is fetched whole."""
        if not call.final:
            return self._invoke(call, config)
        chunks = self._runnable(call).stream(self.messages, self._child(call, config), **self.options)
        return chain([next(chunks)], chunks)

    async def _aopen(self, call: Call, config: RunnableConfig) -> Any:
        if not call.final:
            return await self._ainvoke(call, config)
        chunks = self._runnable(call).astream(self.messages, self._child(call, config), **self.options)
        return _achain(await anext(chunks), chunks)

    def _about(self, config: RunnableConfig) -> RunnableConfig:
        """Tell handlers what a stored answer stands for."""
        said = {**config.get("metadata", {}), "llm_costopt_baseline": model_name(self.router.strong)}
        return RunnableConfig(**{**config, "metadata": said})

    def _child(self, call: Call, config: RunnableConfig) -> RunnableConfig:
        """Tell handlers what this call is for, and hide a draft from LangGraph's token stream."""
        about = {
            "llm_costopt_call": call.id,  # a parser around the model takes the run's id for its own run
            "llm_costopt_baseline": model_name(self.router.strong),
            "llm_costopt_complexity": call.level,
        }
        if call.replaces:
            about["llm_costopt_replaces"] = call.replaces
        return RunnableConfig(
            **{
                **config,
                "run_id": uuid.UUID(call.id),
                "metadata": {**config.get("metadata", {}), **about},
                "tags": [*config.get("tags", []), *([] if call.final else ["nostream"])],
            }
        )

    def _marked(self, outcome: Outcome[Any]) -> Any:
        reply = outcome.reply
        message = _raw(reply)
        if message is None:
            return reply
        marked = message.model_copy(update={"response_metadata": self.metadata(outcome, message)})
        return {**reply, "raw": marked} if isinstance(reply, dict) else marked

    def metadata(self, outcome: Outcome[Any], message: AIMessage) -> dict[str, Any]:
        """Add the decision and every attempt to what the tier's *message* says of itself."""
        own = message.response_metadata
        decision = {
            **own.get(MARK, {}),
            "complexity": outcome.level,
            "why": outcome.why,
            "tier": self.router.tier_name(outcome.attempts[-1].call.tier),
            "escalated": outcome.escalated,
            "fell_back": outcome.fell_back,
            **(
                {"skipped": {self.router.tier_name(t): why for t, why in outcome.skipped.items()}}
                if outcome.skipped
                else {}
            ),
            "attempts": [
                self._attempt(a, message if a is outcome.attempts[-1] else _raw(a.reply)) for a in outcome.attempts
            ],
        }
        return {**own, MARK: decision}

    def _attempt(self, attempt: Attempt[Any], message: AIMessage | None) -> dict[str, Any]:
        model = self._model(attempt.call)
        said = message.response_metadata if message else {}
        return {
            "id": attempt.call.id,
            "tier": self.router.tier_name(attempt.call.tier),
            "model": said.get("model_name") or model_name(model),
            "provider": model._get_ls_params().get("ls_provider"),  # noqa: SLF001 - the host's one place for it
            "result": attempt.result,
            "confidence": attempt.confidence,
            "why": attempt.why,
            "latency": round(attempt.seconds, 4),
            "usage": dict(message.usage_metadata) if message and message.usage_metadata else None,
            "cache": said.get(MARK, {}).get("cache"),
            "replaces": attempt.call.replaces,
            "baseline": model_name(self.router.strong),
            "complexity": attempt.call.level,
            "error": attempt.why if attempt.result == "failed" else None,
        }


class _Shown:
    """The chunks of the accepted answer; the last one carries the decision."""

    def __init__(self, route: Route, outcome: Outcome[Any]) -> None:
        self._route = route
        self._outcome = outcome
        self.whole: AIMessageChunk | None = None
        """What was shown so far; complete after the last chunk."""
        self.streamed = outcome.attempts[-1].call.final

    def next(self, message: AIMessage) -> AIMessageChunk:
        """Pass on one chunk."""
        chunk = message if isinstance(message, AIMessageChunk) else as_chunk(message)
        self.whole = chunk if self.whole is None else self.whole + chunk
        if chunk.chunk_position != "last":
            return chunk
        mark = self._route.metadata(self._outcome, self.whole)[MARK]
        return chunk.model_copy(update={"response_metadata": {**chunk.response_metadata, MARK: mark}})


def model_name(model: BaseChatModel) -> str | None:
    """Name *model* as its provider does."""
    return model._get_ls_params().get("ls_model_name")  # noqa: SLF001 - the host's one place for it


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
