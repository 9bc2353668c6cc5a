"""One routed call in LlamaIndex's terms: requests to the tiers' models, replies back, the decision as a mark."""

import hashlib
import json
import time
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms import LLM

from llamaindex_costopt._convert import MARK, Reading, message_tool_calls, messages_of, model_of, question_of, whole
from llamaindex_costopt._events import telling
from llamaindex_costopt._tags import tags_of
from llamaindex_costopt._tier import Ask, Reply
from llm_costopt.flow import adrive, drive
from llm_costopt.monitor.prices import Prices
from llm_costopt.router.capability import limit_of
from llm_costopt.router.cascade import Attempt, Call, Outcome
from llm_costopt.router.costs import Previous, usd_of
from llm_costopt.router.judging import judge_by
from llm_costopt.router.router import Request, Run
from llm_costopt.router.shadow import Judge
from llm_costopt.router.start import Model
from llm_costopt.router.told import facts_of_attempt, facts_of_call, unfit
from llm_costopt.types import Answer, Message, Question, Usage

if TYPE_CHECKING:
    from llamaindex_costopt.router import RouterLLM


@dataclass(frozen=True, kw_only=True)
class Route:
    """One request on its way through the tiers."""

    router: "RouterLLM"
    """Holds the tiers and the rules."""
    ask: Ask
    """The request."""

    def call(self) -> Any:
        """Ask tier after tier, blocking, and return the accepted response."""
        run = self.begin()
        outcome = drive(self._flow(run), lambda call: self._asked(run, call))
        return self._finished(run, outcome)

    async def acall(self) -> Any:
        """Ask tier after tier, awaiting, and return the accepted response."""
        run = self.begin()
        outcome = await adrive(self._flow(run), lambda call: self._aasked(run, call))
        return self._finished(run, outcome)

    def stream(self) -> Iterator[Any]:
        """Settle on a tier, then show its chunks."""
        run = self.begin()
        outcome = drive(self._flow(run), lambda call: self._opened(run, call))
        return self._shown(run, outcome)

    async def astream(self) -> AsyncIterator[Any]:
        """Settle on a tier, then show its chunks."""
        run = self.begin()
        outcome = await adrive(self._flow(run), lambda call: self._aopened(run, call))
        return self._ashown(run, outcome)

    @cached_property
    def question(self) -> Question:
        """The request in the core's terms; one object, by which what was learned of it is found again."""
        prompt = self.ask.prompt
        said = messages_of(self.ask.messages) if prompt is None else (Message(role="human", text=prompt),)
        return question_of(said, model="", name=None, options=self.ask.options)

    def begin(self) -> Run:
        """Hand the request to the core."""
        tier, at = self._last_answer()
        is_loop = bool(self.ask.messages) and self.ask.messages[-1].role in {MessageRole.TOOL, MessageRole.FUNCTION}
        request = Request(
            question=self.question,
            profiles=[profile_of(model) for model in self.router.tiers],
            max_tokens=limit_of(self.ask.options),
            tags=tags_of(),
            previous=None if tier is None else Previous(tier=tier, age=max(0.0, time.time() - at)),
            loop=(tier or 0) if is_loop else 0,
        )
        return replace(self.router.core, judge=self._judge()).begin(request)

    def _last_answer(self) -> tuple[int | None, float]:
        """Find which tier gave the newest answer in the conversation, and when; None if no router of ours did."""
        last = next((m for m in reversed(self.ask.messages) if m.role == MessageRole.ASSISTANT), None)
        known = self.router.answered.get(digest_of(last)) if last else None
        return known or (None, 0.0)

    def _flow(self, run: Run) -> Generator[Call, Reply, Outcome[Reply]]:
        return run.flow(read=lambda reply: self._read(reply.reading), unfit=unfit)

    def _asked(self, run: Run, call: Call) -> Reply:
        with telling(self._facts(run, call)):
            return self.ask.call(self._model(call))

    async def _aasked(self, run: Run, call: Call) -> Reply:
        with telling(self._facts(run, call)):
            return await self.ask.acall(self._model(call))

    def _opened(self, run: Run, call: Call) -> Reply:
        """Start a stream; a draft is fetched whole, since what may be rejected is never shown."""
        if not call.final:
            return self._asked(run, call)
        with telling(self._facts(run, call)):
            return self.ask.stream(self._model(call))

    async def _aopened(self, run: Run, call: Call) -> Reply:
        if not call.final:
            return await self._aasked(run, call)
        with telling(self._facts(run, call)):
            return await self.ask.astream(self._model(call))

    def _shown(self, run: Run, outcome: Outcome[Reply]) -> Iterator[Any]:
        reply, mark = outcome.reply, self._mark(run, outcome)
        with run.watched(outcome, unfit=unfit):
            for chunk in [whole(reply.response)] if reply.chunks is None else reply.chunks:
                yield _marked(self._noted(reply, chunk), mark)
        # All chunks share the mark, so that whoever holds the last one finds the tokens there: nobody says which is the last.
        mark.update(self._settled(run, outcome))

    async def _ashown(self, run: Run, outcome: Outcome[Reply]) -> AsyncIterator[Any]:
        reply, mark = outcome.reply, self._mark(run, outcome)
        if reply.chunks is None:
            yield _marked(whole(reply.response), mark)
        else:
            with run.watched(outcome, unfit=unfit):
                async for chunk in reply.chunks:
                    yield _marked(self._noted(reply, chunk), mark)
        mark.update(self._settled(run, outcome))

    def _noted(self, reply: Reply, chunk: Any) -> Any:
        if reply.chunks is not None:
            reply.reading.add(chunk.model_copy(update={"raw": None}) if "output_cls" in self.ask.options else chunk)
        return chunk

    def _finished(self, run: Run, outcome: Outcome[Reply]) -> Any:
        return _marked(outcome.reply.response, self._settled(run, outcome))

    def _settled(self, run: Run, outcome: Outcome[Reply]) -> dict[str, Any]:
        """Tell the core what the calls cost, and how to get another tier's answer; return the mark."""
        for attempt in outcome.attempts:
            reading = attempt.reply.reading if attempt.reply else Reading()
            used = reading.usage
            usd = 0.0 if _kind_of(attempt.reply) else self._cost(attempt.call, used, batch=reading.batch)
            run.settle(attempt.call, usd=usd, written=used.output_tokens if used else None)
        last, mark = outcome.reply.reading.last, self._mark(run, outcome)
        if isinstance(last, ChatResponse):
            # A router that observes goes on with the conversation where it would have been.
            tier = outcome.attempts[-1].call.tier if run.would is None else run.router.names.index(run.would)
            self.router.answered.put(digest_of(last.message), (tier, run.at))
        context = copy_context()  # with the tags of the request
        run.finish(outcome, self._read(outcome.reply.reading), lambda tier: context.copy().run(self._beside, tier))
        return mark

    def _read(self, reading: Reading) -> Answer:
        answer = reading.answer()
        schema = self.ask.options.get("response_format")
        wants_json = isinstance(schema, Mapping) and schema.get("type") in {"json_schema", "json_object"}
        return replace(answer, invalid="structured output") if wants_json and not _is_json(answer.text) else answer

    def _cost(self, call: Call, used: Usage | None, *, batch: bool) -> float | None:
        if used is None or not (self.router.budgets or self.router.max_cost_per_request):
            return None
        asked = model_of(self._model(call))
        return usd_of(self.router.prices or _list(), asked.name, used, asked.provider, batch=batch)

    def _beside(self, tier: int) -> Answer:
        """Ask a tier for comparison only."""
        with telling({"shadow": True, "baseline": self._strong, "tier": self.router.tier_name(tier)}):
            return self._read(self.ask.call(self.router.tiers[tier]).reading)

    def _judge(self) -> Judge | None:
        judge = self.router.judge
        if not isinstance(judge, LLM):
            return judge
        context = copy_context()

        def ask(text: str) -> str:
            with telling({"shadow": True, "baseline": self._strong}):
                return judge.complete(text).text

        return judge_by(lambda text: context.copy().run(ask, text))

    @property
    def _strong(self) -> str | None:
        return model_of(self.router.strong).name

    def _model(self, call: Call) -> LLM:
        return self.router.tiers[call.tier]

    def _facts(self, run: Run, call: Call) -> dict[str, Any]:
        return facts_of_call(run, call, strong=self._strong)

    def _mark(self, run: Run, outcome: Outcome[Reply]) -> dict[str, Any]:
        return run.decision(outcome, [self._attempt(run, attempt) for attempt in outcome.attempts]).to_dict()

    def _attempt(self, run: Run, attempt: Attempt[Reply]) -> dict[str, Any]:
        asked = model_of(self._model(attempt.call))
        reading = attempt.reply.reading if attempt.reply else None
        return facts_of_attempt(
            run,
            attempt,
            model=Model(name=(reading and reading.model) or asked.name, provider=asked.provider),
            strong=self._strong,
            usage=asdict(reading.usage) if reading and reading.usage else None,
            cache=_kind_of(attempt.reply),
            batch=bool(reading and reading.batch),
        )


def profile_of(model: LLM) -> dict[str, Any]:
    """Say what *model* can do, by the keys of LangChain's model profiles; the host's default window says nothing."""
    metadata = model.metadata
    window = metadata.context_window
    return {
        "tool_calling": metadata.is_function_calling_model,
        "structured_output": True,  # the host asks any model for a structure, by a tool or in words
        **({} if window == DEFAULT_CONTEXT_WINDOW else {"max_input_tokens": window}),
    }


def digest_of(message: ChatMessage) -> str:
    """Tell an answer from others when it comes back in a conversation, where it cannot carry a mark: providers refuse that."""
    calls = [call and call.id for call in message_tool_calls(message)]
    said = f"{calls}{message.content}"
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _kind_of(reply: Reply | None) -> str | None:
    """Say how a cache below the router found *reply*; None if it is of a model."""
    last = reply.reading.last if reply else None
    return (last.additional_kwargs.get(MARK) or {}).get("cache") if last else None


def _marked(response: Any, mark: dict[str, Any]) -> Any:
    inner = response.additional_kwargs.get(MARK) or {}
    for name, value in inner.items():
        mark.setdefault(name, value)
    return response.model_copy(update={"additional_kwargs": {**response.additional_kwargs, MARK: mark}})


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1)
def _list() -> Prices:
    return Prices()
