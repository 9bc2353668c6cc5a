"""What the handler on LlamaIndex's dispatcher keeps."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import instrument_tags
from llmock.pytest_plugin import LLMock

from llamaindex_costopt import BatchingLLM, CachedLLM, CostEventHandler, RouterLLM, cache_scope, endpoint
from llamaindex_costopt._checks import City, weather_tool
from llamaindex_costopt._convert import Reading, provider_of
from llm_costopt import Prices, SemanticCache, Usage
from tests.llamaindex.echo import Echo

PRICES = Prices({"cheap": (1, 1), "strong": (100, 100)})
MILLION = Decimal(1_000_000)


@pytest.fixture
def handler() -> Iterator[CostEventHandler]:
    """A handler that listens for one test."""
    one = CostEventHandler(prices=PRICES).install()
    yield one
    one.uninstall()


def _user(text: str = "What is the capital of France?") -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


async def _all(stream: Any) -> list[Any]:
    return [chunk async for chunk in await stream]


COLOURS: dict[str, Callable[[Any], Any]] = {
    "chat": lambda m: m.chat(_user()),
    "achat": lambda m: asyncio.run(m.achat(_user())),
    "stream_chat": lambda m: list(m.stream_chat(_user())),
    "astream_chat": lambda m: asyncio.run(_all(m.astream_chat(_user()))),
    "complete": lambda m: m.complete("Hi"),
    "acomplete": lambda m: asyncio.run(m.acomplete("Hi")),
    "stream_complete": lambda m: list(m.stream_complete("Hi")),
    "astream_complete": lambda m: asyncio.run(_all(m.astream_complete("Hi"))),
    "predict": lambda m: m.predict(PromptTemplate("{query_str}"), query_str="Hi"),
}


@pytest.mark.parametrize("ask", COLOURS.values(), ids=COLOURS)
def test_each_call_is_kept_once(ask: Any, handler: CostEventHandler) -> None:
    """Under all wrappers a real call is one record with what the model reported, priced, and the hit after it another."""
    model = CachedLLM(
        RouterLLM(tiers=[BatchingLLM(Echo(replies=["Paris it is."]), flush_interval=0)]),
        cache=SemanticCache(threshold=0.95),
    )
    ask(model)
    ask(model)
    real, hit = handler.records()

    assert (real.model, real.provider, real.usage) == ("cheap", "echo", Usage(input_tokens=10, output_tokens=3))
    assert (real.cost, real.cache, real.tier) == (Decimal(13) / MILLION, None, "strong")
    assert (hit.model, hit.provider, hit.usage, hit.cost) == ("cheap", "echo", real.usage, Decimal(0))
    assert hit.saved is not None
    assert (hit.cache, hit.saved.cache) == ("exact", real.cost)
    assert handler.failures == 0


def test_a_model_that_chats_by_completing_is_counted_once(handler: CostEventHandler) -> None:
    """`CustomLLM` tells of a chat and of the completion inside it; both are one call, in all colours."""
    model = MockLLM(max_tokens=3)
    model.chat(_user())
    asyncio.run(model.achat(_user()))
    list(model.stream_chat(_user()))
    asyncio.run(_all(model.astream_chat(_user())))
    asyncio.run(_all(model.astream_complete("Hi")))

    assert [record.error for record in handler.records()] == [None] * 5


STRUCTURED: dict[str, Callable[[Any], Any]] = {
    "chat": lambda m: m.chat(_user()),
    "achat": lambda m: asyncio.run(m.achat(_user())),
    "stream_chat": lambda m: list(m.stream_chat(_user())),
    "astream_chat": lambda m: asyncio.run(_all(m.astream_chat(_user()))),
    "complete": lambda m: m.complete("Hi"),
    "acomplete": lambda m: asyncio.run(m.acomplete("Hi")),
}


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # the host's own
@pytest.mark.parametrize("ask", STRUCTURED.values(), ids=STRUCTURED)
def test_a_structured_model_is_counted_by_the_model_inside(
    ask: Any, openai: Callable[..., LLM], handler: CostEventHandler
) -> None:
    """`as_structured_llm` tells of a call of its own: it is no second one, and a hit under it was not paid for."""
    model = CachedLLM(RouterLLM(cheap=openai("gpt-4o-mini"), strong=openai("gpt-4o")), cache=SemanticCache())
    ask(model.as_structured_llm(City))
    ask(model.as_structured_llm(City))
    real, hit = handler.records()

    assert (real.model, real.cache, real.tier) == ("gpt-4o-mini", None, "cheap")
    assert real.cost
    assert (hit.model, hit.cache, hit.cost) == ("gpt-4o-mini", "exact", Decimal(0))


def test_an_asynchronous_stream_that_is_closed_is_one_call(handler: CostEventHandler) -> None:
    """The stream inside it, which `CustomLLM` leaves to the collector, is no failure of its own."""

    async def first() -> None:
        for _ in range(2):  # the same is asked again, which is another call
            stream = await MockLLM(max_tokens=3).astream_chat(_user())
            await anext(stream)
            await stream.aclose()

    asyncio.run(first())
    gc.collect()

    assert [record.error for record in handler.records()] == ["GeneratorExit"] * 2


async def _streams_at_once(model: LLM, count: int) -> None:
    await asyncio.gather(*(_all(model.astream_chat(_user())) for _ in range(count)))


@pytest.mark.parametrize("model", [MockLLM(max_tokens=3), Echo(replies=["one two"])], ids=["custom", "own"])
def test_the_same_streams_at_once_are_each_a_call(model: LLM, handler: CostEventHandler) -> None:
    """Several that ask the very same, and have said nothing yet, are not taken for parts of each other."""
    asyncio.run(_streams_at_once(model, 4))

    assert len(handler.records()) == 4


def test_a_call_beside_an_open_stream_is_another_call(handler: CostEventHandler) -> None:
    """A stream that is still being read does not swallow the calls that are made meanwhile."""
    model = Echo(replies=["one two three"])
    stream = model.stream_chat(_user())
    next(stream)
    model.chat(_user())
    list(stream)

    assert len(handler.records()) == 2


def test_tokens_that_nobody_reported_are_counted_and_marked(
    openai: Callable[..., LLM], handler: CostEventHandler
) -> None:
    """OpenAI's streams come without usage: the host's tokenizer counts, and the record says so; with usage it does not."""
    list(openai().stream_chat(_user()))
    list(openai(additional_kwargs={"stream_options": {"include_usage": True}}).stream_chat(_user()))
    estimated, told = (r.usage for r in handler.records())

    assert estimated is not None
    assert told is not None
    assert (estimated.estimated, told.estimated) == (True, False)
    assert estimated.input_tokens > 0
    assert handler.ledger.records()[0].usage == estimated


@pytest.mark.parametrize(
    "ask", [lambda m: m.chat(_user()), lambda m: list(m.stream_chat(_user()))], ids=["chat", "stream"]
)
def test_a_failure_is_kept_with_its_class(ask: Any, handler: CostEventHandler) -> None:
    """A call that fails is a record with the error's class and no cost, and the caller has the error."""
    with pytest.raises(RuntimeError):
        ask(Echo(replies=[RuntimeError("down")]))

    assert [(r.error, r.usage, r.cost) for r in handler.records()] == [("RuntimeError", None, None)]


def test_a_stream_that_is_closed_is_paid_for(handler: CostEventHandler) -> None:
    """What a stream said before it was closed is counted, and marked as an estimate."""
    stream = Echo(replies=["one two three"]).stream_chat(_user())
    next(stream)
    stream.close()
    (record,) = handler.records()

    assert record.error == "GeneratorExit"
    assert record.usage is not None
    assert record.usage.estimated


def test_a_stream_of_a_router_that_is_closed_is_a_request_that_failed(handler: CostEventHandler) -> None:
    """No other tier stands in once something was shown, so that the request counts; for a call that failed at once one does."""
    router = RouterLLM(cheap=Echo(replies=["one two three", RuntimeError("down")]), strong=Echo(name="strong"))
    stream = router.stream_chat(_user())
    next(stream)
    stream.close()
    closed = handler.summary()
    list(router.stream_chat(_user()))
    both = handler.summary()

    assert (closed.requests, closed.errors) == (1, 1)
    assert (both.requests, both.errors, both.calls) == (2, 2, 3)


async def test_a_cancelled_call_of_a_router_is_a_request_that_failed(handler: CostEventHandler) -> None:
    """Nor does anybody stand in for a call that was cancelled."""
    started = asyncio.Event()

    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    asked = asyncio.ensure_future(RouterLLM(cheap=Echo(wait=wait), strong=Echo(name="strong")).achat(_user()))
    await started.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    assert (handler.summary().requests, handler.summary().errors) == (1, 1)


def test_tags_come_from_the_host(handler: CostEventHandler) -> None:
    """What `instrument_tags` says reaches the records, listed or named, through an agent's workflow too; its run ids do not."""

    async def ask() -> None:
        with instrument_tags({"tags": ["demo"], "team": "a"}):
            agent = FunctionAgent(tools=[weather_tool()], llm=Echo())
            await agent.run("Hi", memory=ChatMemoryBuffer.from_defaults(token_limit=3000))

    asyncio.run(ask())

    assert [r.tags for r in handler.records()] == [("demo", "team=a")] * 2


def test_a_rejected_draft_is_charged_to_its_request(handler: CostEventHandler) -> None:
    """Draft and escalation are two records that name each other, with the router's reasons, and one request in the summary."""
    router = RouterLLM(
        cheap=Echo(name="cheap", replies=["I am not sure, perhaps The Crumb."]),
        strong=Echo(name="strong", replies=["The Golden Loaf."]),
    )
    router.chat(_user("Suggest a name for my bakery"))
    draft, answer = handler.records()

    assert (draft.tier, answer.tier, answer.replaces) == ("cheap", "strong", draft.id)
    assert answer.complexity == "medium"
    assert handler.summary().requests == 1


def test_a_hit_in_front_of_a_router_is_held_against_the_strong_model(handler: CostEventHandler) -> None:
    """What a hit saved is what the strongest model would have cost, whichever model once answered."""
    router = RouterLLM(cheap=Echo(name="cheap", replies=["Paris."]), strong=Echo(name="strong"))
    cached = CachedLLM(router, cache=SemanticCache(threshold=0.95))
    for _ in range(2):
        cached.chat(_user())
    hit = handler.records()[-1]

    assert (hit.model, hit.provider) == ("cheap", "echo")
    assert hit.saved is not None
    assert hit.saved.cache == Decimal(11 * 100) / MILLION


def test_nothing_is_remembered_of_what_has_ended(handler: CostEventHandler) -> None:
    """Calls and spans that have ended or failed leave nothing behind."""
    Echo().chat(_user())
    list(Echo().stream_chat(_user()))
    with pytest.raises(RuntimeError):
        Echo(replies=[RuntimeError("down")]).chat(_user())

    assert (len(handler._running), len(handler._spans._parents)) == (0, 0)


def test_installing_twice_counts_once_and_uninstalling_stops() -> None:
    """A handler listens once however often it is installed, and not at all afterwards."""
    handler = CostEventHandler(prices=PRICES).install().install()
    Echo().chat(_user())
    handler.uninstall()
    Echo().chat(_user())

    assert len(handler.records()) == 1
    assert handler not in get_dispatcher().event_handlers


def test_what_fails_in_the_monitor_reaches_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A callback that raises is counted, and the call goes on."""

    def fail(_: object) -> None:
        raise ValueError("mine")

    handler = CostEventHandler(prices=PRICES, on_record=fail).install()
    try:
        assert Echo(replies=["yes"]).chat(_user()).message.content == "yes"
    finally:
        handler.uninstall()

    assert handler.failures == 1
    assert "from here on, this is only counted" in caplog.text


def _usage(raw: Any, **extra: Any) -> Usage | None:
    message = ChatMessage(role="assistant", content="x")
    return Reading().add(ChatResponse(message=message, raw=raw, additional_kwargs=extra)).usage


def test_every_providers_tokens_are_read() -> None:
    """OpenAI's two APIs, Anthropic and Google: cached and reasoning tokens are parts of the whole."""
    chat = {
        "prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }  # fmt: skip
    responses = {
        "input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 4},
        "output_tokens_details": {"reasoning_tokens": 2},
    }  # fmt: skip
    google = {
        "prompt_token_count": 10,
        "candidates_token_count": 3,
        "thoughts_token_count": 2,
        "cached_content_token_count": 4,
    }
    anthropic = {"input_tokens": 3, "output_tokens": 5, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 3}
    wanted = Usage(input_tokens=10, output_tokens=5, cache_read_tokens=4, reasoning_tokens=2)

    assert _usage({"usage": chat}) == _usage({"usage": responses}) == _usage({"usage_metadata": google}) == wanted
    assert _usage({"usage": anthropic}) == Usage(
        input_tokens=10, output_tokens=5, cache_read_tokens=4, cache_write_tokens=3
    )
    heard = {**google, "tool_use_prompt_token_count": 7, "prompt_tokens_details": [
        {"modality": "TEXT", "token_count": 4}, {"modality": "AUDIO", "token_count": 6}, {"modality": "IMAGE"}
    ]}  # fmt: skip
    assert _usage({"usage_metadata": heard}) == replace(wanted, input_tokens=17, input_audio_tokens=6)
    assert _usage(None, prompt_tokens=10, completion_tokens=5) == Usage(input_tokens=10, output_tokens=5)
    assert _usage({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}) is None


def test_providers_are_named_as_prices_name_them() -> None:
    """The integrations' class names become the providers' names."""
    assert [provider_of(n) for n in ("openai_llm", "Anthropic_LLM", "MistralAI_LLM")] == [
        "openai",
        "anthropic",
        "mistralai",
    ]
    assert provider_of("LLM") is None


def test_a_rate_limit_of_the_server_is_kept(
    openai: Callable[..., LLM], llmock: LLMock, handler: CostEventHandler
) -> None:
    """An error of a real client is kept by its class."""
    llmock.fail(500)
    with pytest.raises(Exception, match="500"):
        openai().chat(_user())

    assert [r.error for r in handler.records()] == ["InternalServerError"]


@pytest.mark.parametrize("ask", COLOURS.values(), ids=COLOURS)
def test_a_call_is_kept_with_whom_it_serves(ask: Any, handler: CostEventHandler) -> None:
    """The endpoint and the tenant that are said around a call, a hit and a routed call are in the record, in all colours."""
    model = CachedLLM(
        RouterLLM(tiers=[BatchingLLM(Echo(replies=["Paris it is."]), flush_interval=0)]),
        cache=SemanticCache(threshold=0.95),
    )
    with endpoint("POST /ask"), cache_scope(tenant="acme"):
        ask(model)
        ask(model)
    ask(model)
    ours = [(r.endpoint, r.tenant, r.cache) for r in handler.records()]

    assert ours == [("POST /ask", "acme", None), ("POST /ask", "acme", "exact"), (None, None, None)]


def test_instrument_tags_say_whom_a_call_serves(handler: CostEventHandler) -> None:
    """LlamaIndex's own tags come before what stands around, for calls and failures alike."""
    own = {"endpoint": "POST /own", "tenant": "own"}
    with endpoint("POST /around"), cache_scope(tenant="around"), instrument_tags(own):
        Echo(replies=["yes"]).chat(_user())
        with pytest.raises(RuntimeError):
            Echo(replies=[RuntimeError("down")]).chat(_user())

    assert [(r.endpoint, r.tenant) for r in handler.records()] == [("POST /own", "own")] * 2


def test_the_start_of_a_stream_says_whom_it_serves(handler: CostEventHandler) -> None:
    """A stream that is read to its end elsewhere belongs to the endpoint that began it."""
    with endpoint("POST /ask"):
        stream = Echo(replies=["yes it is"]).stream_chat(_user())
        next(stream)
    with endpoint("GET /other"):
        list(stream)

    assert [r.endpoint for r in handler.records()] == ["POST /ask"]
