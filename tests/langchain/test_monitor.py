"""The cost monitor beside LangChain's models: what it keeps of each kind of call, and that it never breaks one."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.caches import RETURN_VAL_TYPE, InMemoryCache
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.language_models import FakeListChatModel, FakeListLLM, GenericFakeChatModel, LangSmithParams
from langchain_core.language_models.fake_chat_models import FakeListChatModelError
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, LLMResult
from langchain_core.runnables import RunnableBranch, RunnableConfig, RunnableLambda, RunnableParallel
from langchain_openai import ChatOpenAI
from openai import LengthFinishReasonError
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion

from langchain_costopt import RouterChatModel, cache_scope, endpoint
from langchain_costopt._usage import usage, usage_of_result
from langchain_costopt.monitor import CostCallbackHandler
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.types import CallRecord, Saved, Usage

DOLLARS = {"cheap": Decimal(1), "strong": Decimal(10)}

USED = {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4}


class Clock:
    """Stands still until it is told to move."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def price(model: str, usage: Usage, *, provider: str | None = None, batch: bool = False) -> Decimal | None:
    """Charge by the input token: cheap 1, strong 10, half in batches."""
    dollars = DOLLARS.get(model)
    return None if dollars is None else dollars * usage.input_tokens / (2 if batch else 1)


def answer(text: str = "yes", *, model: str = "cheap", **said: Any) -> AIMessage:
    """Make a reply as a provider would, *said* being more of its response metadata."""
    return AIMessage(text, usage_metadata=USED, response_metadata={"model_name": model} | said)


def chat(*replies: AIMessage, **fields: Any) -> GenericFakeChatModel:
    """Make a model that gives *replies* in turn."""
    return GenericFakeChatModel(messages=iter(replies), **fields)


def watched(handler: CostCallbackHandler, **fields: Any) -> Any:
    """Attach *handler* to a call."""
    return {"callbacks": [handler]} | fields


@pytest.fixture
def handler() -> CostCallbackHandler:
    """Make a monitor with the prices above and the strong model as the baseline."""
    return CostCallbackHandler(baseline="strong", prices=price)


class MeaningCache(InMemoryCache):
    """Finds every answer, and marks it as ours does."""

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        return [ChatGeneration(message=answer(llm_costopt={"cache": "semantic"}))]


class SilentRouter(GenericFakeChatModel):
    """Says what a router says whose tiers no handler could see."""

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider="llm_costopt", ls_model_name="cheap|strong", ls_model_type="chat")


class Completions(FakeListLLM):
    """A completion model that reports the tokens of all prompts together, as OpenAI's does."""

    def _generate(self, prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
        result = super()._generate(prompts, *args, **kwargs)
        used = {"prompt_tokens": 3 * len(prompts), "completion_tokens": len(prompts)}
        return LLMResult(generations=result.generations, llm_output={"token_usage": used, "model_name": "cheap"})


def test_a_call_is_kept_with_what_it_cost_and_saved(handler: CostCallbackHandler) -> None:
    """Model, tokens, cost, saving, latency and tags come together from the start and the end of the call."""
    clock = handler._clock = Clock()

    def replies() -> Iterator[AIMessage]:
        clock.now += 2
        yield answer()

    GenericFakeChatModel(messages=replies()).invoke("Is it?", watched(handler, tags=["shop"]))
    (record,) = handler.records()

    assert record == CallRecord(
        id=record.id,
        at=1002.0,
        model="cheap",
        provider="genericfakechatmodel",
        usage=Usage(input_tokens=3, output_tokens=1),
        cost=Decimal(3),
        saved=Saved(router=Decimal(27)),
        latency=2.0,
        tags=("shop",),
        request=record.request,
    )


async def test_async_calls_are_kept_each_once(handler: CostCallbackHandler) -> None:
    """Eight calls at once are eight records of eight runs."""
    model = chat(*[answer() for _ in range(8)])
    await asyncio.gather(*[model.ainvoke(str(n), watched(handler)) for n in range(8)])
    summary = handler.summary()

    assert (summary.requests, summary.cost_usd, handler.failures) == (8, Decimal(24), 0)


def test_batch_keeps_each_call(handler: CostCallbackHandler) -> None:
    """The threads of `batch` do not get into each other's way."""
    chat(*[answer() for _ in range(8)]).batch([str(n) for n in range(8)], watched(handler))

    assert handler.summary().requests == 8


def test_generate_with_several_prompts_keeps_each(handler: CostCallbackHandler) -> None:
    """Each prompt of one `generate` is a call of its own."""
    chat(answer(), answer(model="strong")).generate([[HumanMessage("a")], [HumanMessage("b")]], callbacks=[handler])

    assert handler.summary().cost_by_model == {"strong": 30, "cheap": 3}


def test_several_choices_are_one_call(handler: CostCallbackHandler) -> None:
    """A response of two generations, each of which carries the tokens of both, is paid once."""
    handler.on_llm_end(LLMResult(generations=[[ChatGeneration(message=answer()) for _ in range(2)]]), run_id=uuid4())

    assert handler.summary().cost_usd == 3


@pytest.mark.usefixtures("llmock")
def test_openai_is_kept_as_it_answers() -> None:
    """Against a real client and a real socket, provider, model and tokens are right, and price and saving known."""
    handler = CostCallbackHandler(baseline="gpt-4o")
    ChatOpenAI(model="gpt-4o-mini", max_retries=0).invoke("What is the capital of France?", watched(handler))
    (record,) = handler.records()

    assert (record.model, record.provider) == ("gpt-4o-mini", "openai")
    assert record.usage is not None
    assert record.cost == (15 * record.usage.input_tokens + 60 * record.usage.output_tokens) / Decimal(10**8)
    assert handler.summary().saved.router > 0


@pytest.mark.usefixtures("llmock")
async def test_a_stream_is_kept_once_and_whole() -> None:
    """Streams, blocking and async, are one call each, with the tokens that the last chunk brings."""
    handler = CostCallbackHandler()
    model = ChatOpenAI(model="gpt-4o-mini", max_retries=0, stream_usage=True)
    text = "".join(str(chunk.content) for chunk in model.stream("Tell me a long story.", watched(handler)))
    async for _ in model.astream("Tell me a long story.", watched(handler)):
        pass
    records = handler.records()

    assert text
    assert [r.model for r in records] == ["gpt-4o-mini"] * 2
    assert all(r.cost for r in records)


@pytest.mark.usefixtures("llmock")
def test_a_stream_of_two_choices_has_one_model() -> None:
    """LangChain joins the model's name once per choice of a stream; the record has it once."""
    handler = CostCallbackHandler()
    for _ in ChatOpenAI(model="gpt-4o-mini", max_retries=0, n=2).stream("Why?", watched(handler)):
        pass

    assert handler.records()[0].model == "gpt-4o-mini"


@pytest.mark.usefixtures("llmock")
def test_a_stream_without_usage_is_unpriced_and_not_free() -> None:
    """With a server of one's own, LangChain asks for no usage in streams, and the cost is unknown."""
    handler = CostCallbackHandler()
    for _ in ChatOpenAI(model="gpt-4o-mini", max_retries=0).stream("Why?", watched(handler)):
        pass
    summary = handler.summary()

    assert (summary.unpriced, summary.unpriced_models, summary.cost_per_request) == (1, ("gpt-4o-mini",), None)


def test_an_unknown_price_is_counted_and_not_zero(handler: CostCallbackHandler) -> None:
    """A model that the price list does not know is named in the summary."""
    chat(answer(model="new")).invoke("Why?", watched(handler))
    summary = handler.summary()

    assert (summary.unpriced, summary.unpriced_models, summary.cost_per_request) == (1, ("new",), None)


def test_a_model_that_reports_nothing_is_unpriced(handler: CostCallbackHandler) -> None:
    """Without tokens and without a name, the call is counted all the same."""
    FakeListChatModel(responses=["yes"]).invoke("Why?", watched(handler))
    summary = handler.summary()

    assert (summary.calls, summary.unpriced, summary.unpriced_models) == (1, 1, ("unknown",))


def test_the_model_that_was_asked_counts_if_the_reply_names_none(handler: CostCallbackHandler) -> None:
    """The start of the call knows which model was asked."""

    class Named(GenericFakeChatModel):
        model_name: str = "cheap"

    Named(messages=iter([AIMessage("yes", usage_metadata=USED)])).invoke("Why?", watched(handler))

    assert handler.records()[0].model == "cheap"


def test_a_hit_of_langchains_cache_is_no_call(handler: CostCallbackHandler) -> None:
    """The second of two equal calls is a hit that saved a call of the baseline, and its tokens are not paid again."""
    model = chat(answer(), cache=InMemoryCache())
    for _ in range(2):
        model.invoke("Why?", watched(handler))
    summary = handler.summary()

    assert (summary.requests, summary.calls, summary.cost_usd) == (2, 1, Decimal(3))
    assert (summary.hits, summary.hit_rate) == ({"exact": 1, "semantic": 0}, 0.5)
    assert summary.saved == Saved(cache=Decimal(30), router=Decimal(27))


def test_a_hit_of_our_cache_says_how_it_was_found(handler: CostCallbackHandler) -> None:
    """The mark that our cache leaves counts as a semantic hit."""
    chat(cache=MeaningCache()).invoke("Why?", watched(handler))

    assert handler.summary().hits == {"exact": 0, "semantic": 1}


def test_a_hit_without_tokens_is_still_a_hit(handler: CostCallbackHandler) -> None:
    """A stored answer that reports no tokens costs nothing and saved nobody knows what."""
    model = FakeListChatModel(responses=["yes"], cache=InMemoryCache())
    for _ in range(2):
        model.invoke("Why?", watched(handler))
    hit = handler.records()[1]

    assert (hit.cache, hit.cost, hit.saved) == ("exact", Decimal(0), None)


def test_langchains_own_usage_handler_can_run_beside_it(handler: CostCallbackHandler) -> None:
    """Neither handler disturbs the other: LangChain's goes on counting the hit's tokens, ours does not."""
    theirs = UsageMetadataCallbackHandler()
    model = chat(answer(), cache=InMemoryCache())
    for _ in range(2):
        model.invoke("Why?", RunnableConfig(callbacks=[theirs, handler]))

    assert theirs.usage_metadata["cheap"]["total_tokens"] == 8
    assert handler.summary().cost_usd == 3


@pytest.mark.parametrize(
    "said",
    [{"llm_costopt": {"batch": True}}, {"service_tier": "batch"}, {"usage": {"service_tier": "batch"}}],
)
def test_a_batch_answer_costs_half(said: dict[str, Any]) -> None:
    """What the transport, OpenAI or Anthropic says of a batch makes the record one of a batch."""
    handler = CostCallbackHandler(prices=price)
    chat(answer(**said)).invoke("Why?", watched(handler))
    (record,) = handler.records()

    assert (record.batch, record.cost, record.saved) == (True, Decimal("1.5"), Saved(batch=Decimal("1.5")))


def test_a_hit_is_not_a_batch_call(handler: CostCallbackHandler) -> None:
    """The stored answer of a batch call was not sent to the Batch API again."""
    model = chat(answer(service_tier="batch"), cache=InMemoryCache())
    for _ in range(2):
        model.invoke("Why?", watched(handler))

    assert [record.batch for record in handler.records()] == [True, False]


def test_a_failure_is_kept_and_reaches_the_caller(handler: CostCallbackHandler, llmock: Any) -> None:
    """A call that fails is an error of its model, not an unpriced call, and raises as before."""
    llmock.fail(500)
    with pytest.raises(Exception, match="500"):
        ChatOpenAI(model="gpt-4o-mini", max_retries=0).invoke("Why?", watched(handler))
    (record,) = handler.records()

    assert (record.model, record.provider, record.error) == ("gpt-4o-mini", "openai", "OpenAIAPIError")
    assert (handler.summary().errors, handler.summary().unpriced) == (1, 0)


def test_completions_name_their_tokens_elsewhere(handler: CostCallbackHandler) -> None:
    """A completion model's tokens come with the result, and its model too."""
    Completions(responses=["yes"]).invoke("Why?", watched(handler))
    (record,) = handler.records()

    assert (record.model, record.usage) == ("cheap", Usage(input_tokens=3, output_tokens=1))


def test_completions_of_several_prompts_are_paid_once(handler: CostCallbackHandler) -> None:
    """LangChain leaves the tokens of all prompts with the first; the others are requests that cost no more."""
    Completions(responses=["yes"]).batch(["a", "b"], watched(handler))
    summary = handler.summary()

    assert (summary.requests, summary.cost_usd, summary.unpriced) == (2, Decimal(6), 0)


def test_completions_without_tokens_are_unpriced(handler: CostCallbackHandler) -> None:
    """A completion model that reports nothing is not taken for free."""
    FakeListLLM(responses=["yes"]).invoke("Why?", watched(handler))

    assert handler.summary().unpriced == 1


def test_an_answer_that_was_cut_off_is_an_error_that_is_paid(handler: CostCallbackHandler) -> None:
    """OpenAI's client raises instead of returning a truncated structured answer; its tokens cost, and save nothing."""
    tokens = CompletionUsage(prompt_tokens=3, completion_tokens=1, total_tokens=4)
    cut_off = ChatCompletion(id="c", choices=[], created=0, model="cheap", object="chat.completion", usage=tokens)
    run = uuid4()
    handler.on_chat_model_start({}, [], run_id=run, metadata={"ls_model_name": "cheap"} | routed("simple"))
    handler.on_llm_error(LengthFinishReasonError(completion=cut_off), run_id=run)
    summary = handler.summary()

    assert (summary.errors, summary.cost_usd, summary.saved_usd) == (1, Decimal(3), Decimal(0))


def test_a_stream_that_breaks_is_paid_as_far_as_it_told(handler: CostCallbackHandler) -> None:
    """Anthropic tells the tokens that it read with the first chunk: they cost, even if nobody reads the rest."""

    class Telling(GenericFakeChatModel):
        def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
            yield ChatGenerationChunk(message=AIMessageChunk(content="One", usage_metadata=USED))
            yield ChatGenerationChunk(message=AIMessageChunk(content=" two"))

    model = Telling(messages=iter(()), metadata={"ls_model_name": "cheap"})
    stream = model.stream("Count.", watched(handler))
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # LangChain names the type too widely
    (record,) = handler.records()

    assert (record.error, record.cost, record.saved) == ("GeneratorExit", Decimal(3), None)


@pytest.mark.parametrize("used", ["10", 10, UUID(int=0)])
def test_an_odd_note_of_usage_loses_no_call(used: Any, handler: CostCallbackHandler) -> None:
    """Only Anthropic's mapping is read for the tier; whatever else stands there, the call is kept."""
    chat(answer(usage=used)).invoke("Why?", watched(handler))

    assert handler.summary().cost_usd == 3


@pytest.mark.parametrize("key", ["model", "model_name"])
def test_a_failed_completion_names_its_model(handler: CostCallbackHandler, key: str) -> None:
    """Where LangChain gives no metadata, the parameters of the request say which model was asked."""
    run = uuid4()
    handler.on_llm_start({}, ["Why?"], run_id=run, metadata=None, invocation_params={key: "cheap"})
    handler.on_llm_error(TimeoutError(), run_id=run)

    assert handler.records()[0].model == "cheap"


def routed(level: str, **more: str) -> dict[str, str]:
    """Say what the router says of a child run."""
    return {"llm_costopt_baseline": "strong", "llm_costopt_complexity": level} | more


def test_a_router_tells_through_metadata() -> None:
    """A routed call is compared with the router's strong model, whatever the handler's own baseline is."""
    handler = CostCallbackHandler(baseline="cheap", prices=price)
    chat(answer()).invoke("Why?", watched(handler, metadata=routed("simple")))
    (record,) = handler.records()

    assert (record.complexity, record.saved) == ("simple", Saved(router=Decimal(27)))


def test_an_escalation_is_one_request(handler: CostCallbackHandler) -> None:
    """Draft and escalation, as two child runs, cost both, and the request saved less than nothing."""
    draft = UUID(int=1)
    chat(answer()).invoke("Why?", watched(handler, run_id=draft, metadata=routed("medium")))
    escalated = routed("medium", llm_costopt_replaces=str(draft))
    chat(answer(model="strong")).invoke("Why?", watched(handler, metadata=escalated))
    summary = handler.summary()

    assert (summary.requests, summary.calls, summary.escalation_rate) == (1, 2, 1.0)
    assert (summary.cost_usd, summary.saved) == (Decimal(33), Saved(router=Decimal(-3)))


def test_a_call_has_the_id_that_its_router_gives_it(handler: CostCallbackHandler) -> None:
    """Where the run's id is that of a parser around the model, the router's own id still joins draft and escalation."""
    chat(answer()).invoke("Why?", watched(handler, metadata=routed("medium", llm_costopt_call="draft")))

    assert handler.records()[0].id == "draft"


def test_a_failed_tier_keeps_its_place_in_the_route(handler: CostCallbackHandler) -> None:
    """A tier that fails is known as part of a routed request."""
    with pytest.raises(StopIteration):
        chat().invoke("Why?", watched(handler, metadata=routed("medium", llm_costopt_replaces="draft")))
    (record,) = handler.records()

    assert (record.complexity, record.replaces, record.error) == ("medium", "draft", "StopIteration")


def attempt(name: str, model: str, **fields: Any) -> dict[str, Any]:
    """Say what a silent router says of one call."""
    return {"id": name, "model": model, "provider": "acme", "usage": USED, "latency": 0.5, "cache": None} | {
        "replaces": None,
        "baseline": "strong",
        "complexity": "medium",
        "error": None,
        **fields,
    }


ATTEMPTS = [attempt("draft", "cheap"), attempt("final", "strong", replaces="draft")]


DECISION = {"tier": "fast", "why": "short question", "arm": "routed", "shadow": True}


@pytest.mark.parametrize("fails", [False, True])
def test_a_routers_decision_comes_through_metadata(handler: CostCallbackHandler, *, fails: bool) -> None:
    """Tier, reason, arm and whether the call is a shadow are kept, whether it answers or fails."""
    model = FakeListChatModel(responses=["yes"], error_on_chunk_number=0 if fails else None)
    said = {f"llm_costopt_{name}": value for name, value in DECISION.items()}
    with suppress(FakeListChatModelError):
        list(model.stream("Is it?", watched(handler, metadata=said)))
    (record,) = handler.records()

    assert {name: getattr(record, name) for name in DECISION} == DECISION
    assert (record.error is not None) == fails


def test_a_silent_routers_decision_comes_with_its_attempts(handler: CostCallbackHandler) -> None:
    """What an attempt says of tier, reason, arm and shadow is kept."""
    attempts = [{"id": "a", **DECISION}, {"id": "b"}]
    SilentRouter(messages=iter([answer(llm_costopt={"attempts": attempts})])).invoke("Is it?", watched(handler))
    first, second = handler.records()

    assert {name: getattr(first, name) for name in DECISION} == DECISION
    assert (second.tier, second.why, second.arm, second.shadow) == (None, None, None, False)


def test_a_silent_router_is_known_by_its_attempts(handler: CostCallbackHandler) -> None:
    """Each attempt becomes a record, and the router's own message none."""
    SilentRouter(messages=iter([answer(llm_costopt={"attempts": ATTEMPTS})])).invoke("Why?", watched(handler))
    draft, final = handler.records()
    summary = handler.summary()

    assert (draft.id, draft.provider, draft.latency, final.replaces) == ("draft", "acme", 0.5, "draft")
    assert (summary.requests, summary.calls, summary.cost_usd) == (1, 2, Decimal(33))
    assert summary.saved == Saved(router=Decimal(-3))


def test_a_failed_attempt_is_an_error(handler: CostCallbackHandler) -> None:
    """A tier that failed silently is an error and not unpriced, and the answer of the other is kept."""
    attempts = [attempt("a", "cheap", error="TimeoutError", usage=None), attempt("b", "strong", replaces="a")]
    SilentRouter(messages=iter([answer(llm_costopt={"attempts": attempts})])).invoke("Why?", watched(handler))
    summary = handler.summary()

    assert (summary.requests, summary.errors, summary.unpriced, summary.cost_usd) == (1, 1, 0, Decimal(30))


def test_attempts_in_the_message_of_a_tier_are_not_counted(handler: CostCallbackHandler) -> None:
    """Only a run of the router itself may speak for its attempts; anybody else's message is one call."""
    chat(answer(llm_costopt={"attempts": ATTEMPTS})).invoke("Why?", watched(handler))

    assert handler.summary().calls == 1


def test_a_hit_below_a_silent_router_is_the_attempts(handler: CostCallbackHandler) -> None:
    """Where the accepted tier answered from a cache, the draft before it is still charged."""
    stored = USED | {"total_cost": 0}
    attempts = [attempt("a", "cheap"), attempt("b", "strong", replaces="a", usage=stored)]
    message = answer(llm_costopt={"attempts": attempts})
    message.usage_metadata = stored  # type: ignore[assignment]
    SilentRouter(messages=iter([message])).invoke("Why?", watched(handler))
    summary = handler.summary()

    assert (summary.calls, summary.hits["exact"], summary.cost_usd) == (1, 1, Decimal(3))


def test_a_hit_above_a_silent_router_is_one_hit(handler: CostCallbackHandler) -> None:
    """An answer of the router's own cache repeats the attempts of old, which are not made again."""
    message = answer(llm_costopt={"attempts": ATTEMPTS}, model_provider="acme")
    router = SilentRouter(messages=iter([message]), cache=InMemoryCache())
    for _ in range(2):
        router.invoke("Why?", watched(handler))
    summary = handler.summary()

    assert (summary.requests, summary.calls, summary.hits["exact"]) == (2, 2, 1)
    assert handler.records()[-1].provider == "acme"


def failing_price(*args: object, **kwargs: object) -> Decimal:
    """Fail as a price list with a bug would."""
    raise ZeroDivisionError


def test_a_price_that_raises_never_reaches_the_call(caplog: pytest.LogCaptureFixture) -> None:
    """Even with raise_error set, the answer comes back, the call is unpriced, and the failure is counted."""
    handler = CostCallbackHandler(prices=failing_price)
    handler.raise_error = True
    with caplog.at_level(logging.WARNING):
        texts = [chat(answer()).invoke("Why?", watched(handler)).content for _ in range(2)]

    assert texts == ["yes", "yes"]
    assert (handler.summary().unpriced, handler.failures) == (2, 2)
    (warning,) = [r.getMessage() for r in caplog.records]
    assert warning.startswith(
        "The cost monitor failed at 'price' (ZeroDivisionError); from here on, this is only counted"
    )
    assert "in failing_price" in warning


def test_a_hit_is_free_even_if_the_price_raises() -> None:
    """What a hit costs does not depend on the price list."""
    handler = CostCallbackHandler(prices=failing_price)
    chat(cache=MeaningCache()).invoke("Why?", watched(handler))

    assert handler.records()[0].cost == 0


async def test_a_full_disk_never_reaches_the_call(tmp_path: Path) -> None:
    """The answer comes back, the failure is counted, and whoever listens is still told."""
    told: list[CallRecord] = []
    ledger = Ledger(tmp_path / "ledger.db")
    with ledger._db.transaction() as db:
        db.execute("PRAGMA max_page_count = 1")
    handler = CostCallbackHandler(ledger=ledger, prices=price, on_record=told.append)
    handler.raise_error = True
    reply = await chat(answer()).ainvoke("Why?", watched(handler, tags=["t" * 100_000]))
    ledger.close()

    assert (reply.content, handler.failures, [r.cost for r in told]) == ("yes", 1, [Decimal(3)])


def test_a_listener_that_raises_never_reaches_the_call() -> None:
    """The call and all of its records survive a listener with a bug."""
    handler = CostCallbackHandler(prices=price, on_record=failing_price)  # type: ignore[arg-type]
    handler.raise_error = True
    SilentRouter(messages=iter([answer(llm_costopt={"attempts": ATTEMPTS})])).invoke("Why?", watched(handler))

    assert (handler.summary().cost_usd, handler.failures) == (Decimal(33), 2)


def test_a_message_that_makes_no_sense_never_reaches_the_call(handler: CostCallbackHandler) -> None:
    """Attempts that are none are a counted failure."""
    handler.raise_error = True
    reply = SilentRouter(messages=iter([answer(llm_costopt={"attempts": [7]})])).invoke("Why?", watched(handler))

    assert (reply.content, handler.failures) == ("yes", 1)


def test_calls_that_never_end_do_not_pile_up(handler: CostCallbackHandler) -> None:
    """Of calls without an end, the oldest are forgotten, and one that ends after all is kept without its latency."""
    first = UUID(int=0)
    for n in range(10_001):
        handler.on_chat_model_start({}, [], run_id=UUID(int=n), metadata={"ls_model_name": "cheap"})
    handler.on_llm_end(LLMResult(generations=[[ChatGeneration(message=answer())]]), run_id=first)
    (record,) = handler.records()

    assert len(handler._running) == 10_000
    assert (record.id, record.cost, record.latency) == (str(first), Decimal(3), None)


def test_an_ended_call_is_forgotten(handler: CostCallbackHandler) -> None:
    """Neither success nor failure leaves anything behind."""
    chat(answer()).invoke("Why?", watched(handler))
    with pytest.raises(StopIteration):
        chat().invoke("Why?", watched(handler))

    assert not handler._running


def test_it_asks_for_no_event_that_it_does_not_use(handler: CostCallbackHandler) -> None:
    """Chains, tools and retrievers do not hop to another thread for nothing."""
    assert (handler.ignore_chain, handler.ignore_agent, handler.ignore_retriever) == (True, True, True)
    assert (handler.ignore_llm, handler.ignore_chat_model) == (False, False)


def test_a_path_is_a_ledger_that_others_can_read(tmp_path: Path) -> None:
    """With a path, the records are in the file, and another handler on it sums up both."""
    first, second = (CostCallbackHandler(ledger=tmp_path / "ledger.db", prices=price) for _ in range(2))
    chat(answer()).invoke("Why?", watched(first))
    chat(answer()).invoke("Why?", watched(second))

    assert [h.summary().cost_usd for h in (first, second)] == [6, 6]


def usage_of(into: dict[str, int], out: dict[str, int] | None = None) -> Usage | None:
    """Translate a report of 100 tokens read and 50 written with these details."""
    reported: Any = {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150, "input_token_details": into}
    return usage(AIMessage("", usage_metadata=reported | {"output_token_details": out or {}}))


@pytest.mark.parametrize(
    ("into", "out", "parts"),
    [
        ({}, {}, {}),
        ({"cache_read": 40}, {"reasoning": 30}, {"cache_read_tokens": 40, "reasoning_tokens": 30}),
        ({"audio": 9}, {"audio": 8}, {"input_audio_tokens": 9, "output_audio_tokens": 8}),
        (
            {"flex": 60, "flex_cache_read": 40},
            {"flex": 20, "flex_reasoning": 30},
            {"cache_read_tokens": 40, "reasoning_tokens": 30},
        ),
        ({"priority": 60, "priority_cache_read": 40}, {}, {"cache_read_tokens": 40}),
        ({"cache_creation": 70}, {}, {"cache_write_tokens": 70}),
        (
            {"cache_creation": 0, "ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
            {},
            {"cache_write_tokens": 50, "cache_write_1h_tokens": 30},
        ),
        ({"cache_creation": 50, "ephemeral_5m_input_tokens": 50}, {}, {"cache_write_tokens": 50}),
    ],
)
def test_token_details_come_under_many_names(into: dict[str, int], out: dict[str, int], parts: dict[str, Any]) -> None:
    """Service tiers and Anthropic's cache lifetimes rename the details; each token lands where it belongs."""
    assert usage_of(into, out) == Usage(input_tokens=100, output_tokens=50, **parts)


def test_openais_own_names_are_understood_too() -> None:
    """Models that pass on `token_usage` instead of `usage_metadata` are read as well."""
    used = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 9},
        "completion_tokens_details": {"reasoning_tokens": 30},
    }

    assert usage(AIMessage("", response_metadata={"token_usage": used})) == Usage(
        input_tokens=100, output_tokens=50, cache_read_tokens=40, input_audio_tokens=9, reasoning_tokens=30
    )


@pytest.mark.parametrize("reported", [None, {}, {"total_cost": 0}, {"input_tokens": 0, "output_tokens": 0}])
def test_no_report_is_no_usage(reported: Any) -> None:
    """Nothing, a mere mark of the cache, and the zeros of a server that does not count are all unknown."""
    message = AIMessage.model_construct(content="", usage_metadata=reported, response_metadata={})

    assert usage(message) is None


@pytest.mark.parametrize("generations", [[], [[]], [[Generation(text="yes")]]])
def test_a_result_without_messages_has_no_usage(generations: Sequence[Any]) -> None:
    """An empty result, as of a stream that broke, is unknown."""
    assert usage_of_result(LLMResult(generations=list(generations))) is None
    assert usage_of_result(LLMResult(generations=list(generations), llm_output={"token_usage": {}})) is None


def _streamed(model: Any, config: Any) -> Any:
    return list(model.stream("Is it?", config))


async def _astreamed(model: Any, config: Any) -> Any:
    return [chunk async for chunk in model.astream("Is it?", config)]


COLOURS = {
    "invoke": lambda model, config: model.invoke("Is it?", config),
    "ainvoke": lambda model, config: asyncio.run(model.ainvoke("Is it?", config)),
    "batch": lambda model, config: model.batch(["Is it?", "Is it?"], config),
    "abatch": lambda model, config: asyncio.run(model.abatch(["Is it?", "Is it?"], config)),
    "stream": _streamed,
    "astream": lambda model, config: asyncio.run(_astreamed(model, config)),
}


@pytest.mark.parametrize("ask", COLOURS.values(), ids=COLOURS)
def test_a_call_is_kept_with_whom_it_serves(ask: Any, handler: CostCallbackHandler) -> None:
    """The endpoint and the tenant that are said around a call are in its record, in all colours and in the threads of `batch`."""
    with endpoint("POST /ask"), cache_scope(tenant="acme"):
        ask(chat(answer(), answer()), watched(handler))
    ask(chat(answer(), answer()), watched(handler))
    half = len(handler.records()) // 2

    told = [(r.endpoint, r.tenant) for r in handler.records()]
    assert told == [("POST /ask", "acme")] * half + [(None, None)] * half
    assert half in {1, 2}


def test_metadata_says_whom_a_call_serves(handler: CostCallbackHandler) -> None:
    """LangChain's own metadata comes before what stands around, for calls, hits and failures alike."""
    config = watched(handler, metadata={"endpoint": "POST /own", "tenant": "own"})
    cached = chat(answer(), cache=InMemoryCache())
    with endpoint("POST /around"), cache_scope(tenant="around"):
        cached.invoke("Is it?", config)
        cached.invoke("Is it?", config)
        with pytest.raises(StopIteration):
            chat().invoke("Is it?", config)

    assert [(r.endpoint, r.tenant) for r in handler.records()] == [("POST /own", "own")] * 3
    assert [(r.cache, r.error) for r in handler.records()] == [(None, None), ("exact", None), (None, "StopIteration")]


def test_the_start_of_a_stream_says_whom_it_serves(handler: CostCallbackHandler) -> None:
    """A stream that is read to its end elsewhere belongs to the endpoint that began it."""
    with endpoint("POST /ask"):
        stream = chat(answer("yes it is")).stream("Is it?", watched(handler))
        next(stream)
    with endpoint("GET /other"):
        list(stream)

    assert [r.endpoint for r in handler.records()] == ["POST /ask"]


def test_silent_attempts_serve_whom_their_router_serves(handler: CostCallbackHandler) -> None:
    """Drafts and escalations that only the router told of are under the endpoint of its call."""
    attempts = [
        {"id": "a", "model": "cheap", "usage": USED, "complexity": "medium"},
        {"id": "b", "model": "strong", "usage": USED, "complexity": "medium", "replaces": "a"},
    ]
    router = SilentRouter(messages=iter([answer(llm_costopt={"attempts": attempts})]))
    with endpoint("POST /ask"):
        router.invoke("Is it?", watched(handler, metadata={"tenant": "acme"}))

    assert [(r.endpoint, r.tenant) for r in handler.records()] == [("POST /ask", "acme")] * 2


def test_tags_of_the_host_are_not_the_users(handler: CostCallbackHandler) -> None:
    """What LangChain adds to say where in a chain a model stands, or a router to hide a draft, is in no sum by tag."""
    router = RouterChatModel(cheap=chat(answer("")), strong=chat(answer(model="strong")))
    prompt = RunnableLambda(lambda text: text)
    for chain in (
        prompt | chat(answer()),
        RunnableParallel(raw=chat(answer())),
        RunnableBranch((lambda _: True, chat(answer())), prompt),
        router.with_config(tags=["langsmith:hidden"]),
    ):
        chain.invoke("Suggest a name for my bakery", watched(handler, tags=["shop"]))

    assert [record.tags for record in handler.records()] == [("shop",)] * 5
