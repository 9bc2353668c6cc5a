"""The semantic cache in front of LlamaIndex's models."""

import asyncio
import io
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import PromptTemplate, Settings
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    LLMMetadata,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import LLM, CustomLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.storage.kvstore import SimpleKVStore
from llmock.pytest_plugin import LLMock
from pydantic import Field, PrivateAttr

from llamaindex_costopt import CachedLLM, RouterLLM, cache_scope
from llamaindex_costopt._checks import QUESTION, City, _Retriever, weather_tool
from llamaindex_costopt.embed import TextEmbedder
from llm_costopt import SemanticCache
from tests.llamaindex.echo import Echo

ASKED = "How do I reset my password?"
AGAIN = "how can I reset my password"
OTHER = "What is the capital of France?"
TEMPLATE = PromptTemplate("Context:\n{context_str}\nQuery: {query_str}\nAnswer: ")


@pytest.fixture
def inner() -> Echo:
    """A model that counts its calls."""
    return Echo()


@pytest.fixture
def cached(inner: Echo) -> CachedLLM:
    """A cache by the plain rule, in front of it: every hit is served, none is checked."""
    return CachedLLM(inner, cache=SemanticCache(threshold=0.95))


def _user(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


async def _all(stream: Any) -> list[Any]:
    return [chunk async for chunk in await stream]


ENDPOINTS: dict[str, Callable[[LLM, str], Any]] = {
    "chat": lambda m, text: m.chat(_user(text)),
    "achat": lambda m, text: asyncio.run(m.achat(_user(text))),
    "stream_chat": lambda m, text: list(m.stream_chat(_user(text)))[-1],
    "astream_chat": lambda m, text: asyncio.run(_all(m.astream_chat(_user(text))))[-1],
}


def _kind(response: Any) -> str | None:
    kind: str | None = response.additional_kwargs.get("llm_costopt", {}).get("cache")
    return kind


@pytest.mark.parametrize("second", ENDPOINTS.values(), ids=ENDPOINTS.keys())
@pytest.mark.parametrize("first", ENDPOINTS.values(), ids=ENDPOINTS.keys())
def test_every_way_of_chatting_shares_the_answers(first: Any, second: Any, cached: CachedLLM, inner: Echo) -> None:
    """What was asked in one way, streamed or not, is answered from store in every other, word for word."""
    said, again, reworded = first(cached, ASKED), second(cached, ASKED), second(cached, AGAIN)

    assert said.message.content == again.message.content == reworded.message.content
    assert (_kind(said), _kind(again), _kind(reworded)) == (None, "exact", "semantic")
    assert len(inner.seen) == 1


def test_completions_are_cached_apart_from_chats(cached: CachedLLM, inner: Echo) -> None:
    """A completion is served to completions, whole or streamed, and never to a chat of the same words."""
    said = cached.complete(ASKED).text
    streamed = list(cached.stream_complete(ASKED))

    assert [(c.text, c.delta) for c in streamed] == [(said, said)]
    assert asyncio.run(cached.acomplete(ASKED)).text == said
    assert [c.text for c in asyncio.run(_all(cached.astream_complete(ASKED)))] == [said]
    assert len(inner.seen) == 1
    assert _kind(cached.chat(_user(ASKED))) is None


def test_where_the_question_stands_apart_it_alone_is_compared(cached: CachedLLM, inner: Echo) -> None:
    """In a RAG prompt a reworded question over the same context hits, another question or an edited context does not."""
    context = "Leave accrues at 1.5 days a month. Passwords are reset on the account page."
    said = cached.predict(TEMPLATE, query_str=ASKED, context_str=context)

    assert cached.predict(TEMPLATE, query_str=AGAIN, context_str=context) == said
    assert cached.predict(TEMPLATE.partial_format(query_str=AGAIN), context_str=context) == said
    assert asyncio.run(cached.apredict(TEMPLATE, query_str=AGAIN, context_str=context)) == said
    assert "".join(cached.stream(TEMPLATE, query_str=AGAIN, context_str=context)) == said
    assert "".join(asyncio.run(_all(cached.astream(TEMPLATE, query_str=AGAIN, context_str=context)))) == said
    assert len(inner.seen) == 1
    cached.predict(TEMPLATE, query_str=OTHER, context_str=context)
    cached.predict(TEMPLATE, query_str=AGAIN, context_str=context.replace("1.5", "2.5"))
    cached.predict(PromptTemplate("{context_str}\n{query_str}"), query_str=AGAIN, context_str=context)
    assert len(inner.seen) == 4


def test_a_question_that_its_context_holds_too_is_not_mistaken(cached: CachedLLM, inner: Echo) -> None:
    """Where the words of the question are in the context as well, contexts that differ in just them stay two."""
    for question in (ASKED, AGAIN):
        cached.predict(TEMPLATE, query_str=question, context_str=f"Asked before: {question}")

    assert len(inner.seen) == 2


def test_a_template_that_does_more_with_the_question_is_compared_whole(cached: CachedLLM, inner: Echo) -> None:
    """A function of the question in the template, as one that chooses examples, makes the prompt one whole."""
    template = PromptTemplate(
        "{shout}\n{query_str}", function_mappings={"shout": lambda **said: said["query_str"].upper()}
    )
    for question in (ASKED, AGAIN, ASKED):
        cached.predict(template, query_str=question)

    assert len(inner.seen) == 2


def test_a_query_engine_hits_by_meaning(cached: CachedLLM, inner: Echo) -> None:
    """A query engine over the cached model answers a reworded query from store, and keeps its fresh sources."""
    engine = RetrieverQueryEngine.from_args(_Retriever(), llm=cached)
    said, again = engine.query(ASKED), engine.query(AGAIN)

    assert str(said) == str(again)
    assert len(again.source_nodes) == 2
    assert len(inner.seen) == 1


def test_tool_calls_hit_exactly_with_fresh_ids(cached: CachedLLM, inner: Echo) -> None:
    """A tool call is served to the very same request only, with another id in all places where it stands."""
    tools = [weather_tool()]
    first, second, third = (cached.chat_with_tools(tools, user_msg=ASKED) for _ in range(3))
    cached.chat_with_tools(tools, user_msg=AGAIN)
    ids = [
        [*(b.tool_call_id for b in r.message.blocks if isinstance(b, ToolCallBlock)), *_legacy_ids(r)]
        for r in (first, second, third)
    ]

    assert len(inner.seen) == 2
    assert [len(set(own)) for own in ids] == [1, 1, 1]
    assert len({own[0] for own in ids}) == 3
    assert [c.tool_name for c in cached.get_tool_calls_from_response(third)] == ["get_weather"]


def _legacy_ids(response: Any) -> list[str]:
    calls = response.message.additional_kwargs["tool_calls"]
    assert all(isinstance(call, ToolSelection) for call in calls)
    return [call.tool_id for call in calls]


class Signing(Echo):
    """A model that calls a tool as Google's does: by its name in place of an id, and with a signature."""

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        call = ToolCallBlock(tool_call_id="get_weather", tool_name="get_weather", tool_kwargs={"city": "x"})
        extra = {"thought_signatures": [None, b"\xff1"], "prompt_tokens": 10}
        message = ChatMessage(role="assistant", blocks=[TextBlock(text="So:"), call], additional_kwargs=extra)
        return ChatResponse(message=message, raw={"model": self.name})


def test_a_call_that_has_a_signature_and_no_id_is_repeated_as_it_was() -> None:
    """The next step sends back what Google's models ask for: the signature, and the name of the tool for its id."""
    cached = CachedLLM(Signing())
    first, hit = (cached.chat_with_tools([weather_tool()], user_msg=ASKED) for _ in range(2))

    result = ChatMessage(role="tool", content="sunny", additional_kwargs={"tool_call_id": "get_weather"})
    steps = [cached.chat([*_user(ASKED), reply.message, result]) for reply in (first, hit)]

    assert [_kind(reply) for reply in (hit, *steps)] == ["exact", None, "exact"]
    assert hit.message.blocks == first.message.blocks
    assert hit.message.additional_kwargs == {"thought_signatures": [None, b"\xff1"]}


def test_ids_of_earlier_tool_calls_do_not_keep_a_step_from_hitting(cached: CachedLLM, inner: Echo) -> None:
    """An agent that goes the same way again, with ids that a provider minted anew, is answered from store at each step."""

    async def ask() -> str:
        agent = FunctionAgent(tools=[weather_tool()], llm=cached)
        return str(await agent.run(ASKED, memory=ChatMemoryBuffer.from_defaults(token_limit=3000)))

    first, again = asyncio.run(ask()), asyncio.run(ask())

    assert first == again
    assert len(inner.seen) == 2
    assert cached.cache.stats().hits_exact == 2


def test_structures_are_cached_in_the_models_own_way(openai: Callable[..., LLM], llmock: LLMock) -> None:
    """OpenAI's schema reaches the server through the cache, and its answer is served from store, streamed too."""
    cached = CachedLLM(openai("gpt-4o-mini"))
    prompt = ChatPromptTemplate.from_messages([("user", "{question}")])
    said = cached.structured_predict(City, prompt, question=OTHER)
    streamed = list(cached.stream_structured_predict(City, prompt, question=OTHER))

    assert isinstance(said, City)
    assert streamed == [said]
    assert [r.body["response_format"]["type"] for r in llmock.requests] == ["json_schema"]


def test_streamed_tool_calls_of_openai_are_read_from_store(openai: Callable[..., LLM], llmock: LLMock) -> None:
    """A stream of structured objects by tool calls is the same from store: the calls stand where the host looks for them."""
    llmock.call_tool("City", {"name": "Paris", "population": 2}, times=None)
    cached: Any = CachedLLM(openai("gpt-4"))  # a model that knows tools and no schemas
    prompt = ChatPromptTemplate.from_messages([("user", "{question}")])
    first = list(cached.stream_structured_predict(City, prompt, llm_kwargs={}, question=OTHER))
    again = list(cached.stream_structured_predict(City, prompt, llm_kwargs={}, question=OTHER))

    assert first[-1] == again[-1] == City(name="Paris", population=2)
    assert len(llmock.requests) == 1


def test_a_stream_is_stored_only_when_it_ends_whole(cached: CachedLLM, inner: Echo) -> None:
    """A stream that is closed early leaves nothing behind, and keeps nobody waiting."""
    stream = cached.stream_chat(_user(ASKED))
    next(stream)
    stream.close()

    assert _kind(cached.chat(_user(ASKED))) is None
    assert _kind(cached.chat(_user(ASKED))) == "exact"


@pytest.mark.parametrize("ask", ENDPOINTS.values(), ids=ENDPOINTS.keys())
def test_a_failure_reaches_the_caller_and_is_not_stored(ask: Any) -> None:
    """An error of the model is the caller's, and the next request asks again at once."""
    inner = Echo(replies=[RuntimeError("no"), "Open the account page."])
    cached = CachedLLM(inner)

    with pytest.raises(RuntimeError, match="no"):
        ask(cached, ASKED)
    assert ask(cached, ASKED).message.content == "Open the account page."


def _closed(cached: CachedLLM) -> None:
    stream = cached.stream_chat(_user(ASKED))
    next(stream)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(stream.close).result(timeout=20)


def _unread(cached: CachedLLM) -> None:
    cached.stream_chat(_user(ASKED))


def _failed(cached: CachedLLM) -> None:
    cached.llm.replies[:] = [RuntimeError("no")]  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):
        cached.chat(_user(ASKED))


class _Odd(Echo):
    """A model whose replies hold an object."""

    def _reply(self, messages: Any, options: dict[str, Any]) -> Any:
        response = super()._reply(messages, options)
        response.message.additional_kwargs["tool_calls"] = [object()]
        return response


def _asked(cached: CachedLLM) -> None:
    cached.chat(_user(ASKED))


@pytest.mark.parametrize(("lead", "inner"), [(_closed, Echo()), (_unread, Echo()), (_failed, Echo()), (_asked, _Odd())])
def test_nobody_waits_for_an_answer_that_does_not_come(lead: Any, inner: Echo) -> None:
    """A stream closed in another thread, or left unread, a failure, and what cannot be stored let the others ask at once."""
    cached = CachedLLM(inner, cache=SemanticCache(threshold=0.95, single_flight=300))
    lead(cached)
    inner.replies[:] = []
    with ThreadPoolExecutor(1) as pool:
        try:
            pool.submit(cached.chat, _user(ASKED)).result(timeout=20)
        finally:
            cached.cache.leave()

    assert cached.cache.stats().waited == 0


async def _aclosed(cached: CachedLLM) -> None:
    stream = await cached.astream_chat(_user(ASKED))
    await anext(stream)
    await stream.aclose()


async def _aunread(cached: CachedLLM) -> None:
    await (await cached.astream_chat(_user(ASKED))).aclose()


async def _afailed(cached: CachedLLM) -> None:
    cached.llm.replies[:] = [RuntimeError("no")]  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):
        await cached.achat(_user(ASKED))


async def _afailed_stream(cached: CachedLLM) -> None:
    cached.llm.replies[:] = [RuntimeError("no")]  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):
        await _all(cached.astream_chat(_user(ASKED)))


@pytest.mark.parametrize("lead", [_aclosed, _aunread, _afailed, _afailed_stream])
async def test_nobody_waits_for_a_task_that_goes_on_without_an_answer(lead: Any, inner: Echo) -> None:
    """A task that lives as long as the program holds nobody up when one of its calls fails or its stream is not read."""
    cached = CachedLLM(inner, cache=SemanticCache(threshold=0.95, single_flight=300))
    await lead(cached)
    inner.replies[:] = []
    await asyncio.wait_for(asyncio.create_task(cached.achat(_user(ASKED))), 20)

    assert cached.cache.stats().waited == 0


def _changing(cached: CachedLLM) -> str:
    for chunk in cached.stream_chat(_user(ASKED)):
        chunk.message.blocks[0].text = "Dear Bob"
    return str(cached.chat(_user(ASKED)).message.content)


async def _achanging(cached: CachedLLM) -> str:
    async for chunk in await cached.astream_chat(_user(ASKED)):
        chunk.message.content = "Dear Bob"
    return str((await cached.achat(_user(ASKED))).message.content)


def _changing_text(cached: CachedLLM) -> str:
    for chunk in cached.stream_complete(ASKED):
        chunk.text = "Dear Bob"
    return cached.complete(ASKED).text


@pytest.mark.parametrize("ask", [_changing, lambda cached: asyncio.run(_achanging(cached)), _changing_text])
def test_what_a_caller_does_to_a_stream_stays_his(ask: Any, cached: CachedLLM, inner: Echo) -> None:
    """Stored is what the model said, not what whoever read the stream made of it before it ended."""
    assert ask(cached) == f"You asked: {ASKED}"
    assert len(inner.seen) == 1


def test_what_a_caller_does_to_a_hit_stays_his(cached: CachedLLM) -> None:
    """A hit is a copy: changing it changes neither what is stored nor what others hold."""
    cached.chat(_user(ASKED))
    first = cached.chat(_user(ASKED))
    text = first.message.content
    first.message.blocks.append(TextBlock(text="!"))
    first.message.additional_kwargs["x"] = 1

    assert cached.chat(_user(ASKED)).message.content == text
    assert cached.chat(_user(ASKED)).message.additional_kwargs == {}


@pytest.mark.parametrize(
    "other",
    [
        lambda m: m.chat(_user(ASKED), temperature=0.9),
        lambda m: m.chat([ChatMessage(role="system", content="Be brief."), *_user(ASKED)]),
        lambda m: m.chat([*_user("Hi"), ChatMessage(role="assistant", content="Hello"), *_user(ASKED)]),
        lambda m: m.chat([ChatMessage(role="user", blocks=[TextBlock(text=ASKED), ImageBlock(image=b"aGk=")])]),
        lambda m: m.chat([ChatMessage(role="user", content=ASKED, additional_kwargs={"cache_control": 1})]),
        lambda m: CachedLLM(Echo(name="another"), cache=m.cache).chat(_user(ASKED)),
    ],
    ids=["option", "system prompt", "history", "image", "extra", "model"],
)
def test_what_differs_besides_the_question_must_be_the_same(other: Any, cached: CachedLLM) -> None:
    """Another parameter, system prompt, history, attachment or model is another request."""
    cached.chat(_user(ASKED))

    assert _kind(other(cached)) is None
    assert _kind(other(cached)) == "exact"


def test_a_file_is_told_by_what_is_in_it(cached: CachedLLM, tmp_path: Path) -> None:
    """A picture that takes the place of another one in its file is another picture."""
    path = tmp_path / "picture.png"

    def ask(picture: bytes) -> str | None:
        path.write_bytes(picture)
        return _kind(cached.chat([ChatMessage(role="user", blocks=[TextBlock(text=ASKED), ImageBlock(path=path)])]))

    assert [ask(picture) for picture in (b"\x89one", b"\x89two", b"\x89one")] == [None, None, "exact"]


def test_what_is_read_from_memory_is_sent_and_told_apart(cached: CachedLLM) -> None:
    """Bytes that are no UTF-8 break no call, by the cache or the router, and leave the model all to read."""

    def ask(model: LLM, sound: bytes) -> Any:
        block = AudioBlock(audio=io.BytesIO(sound), format="wav")
        response = model.chat([ChatMessage(role="user", blocks=[TextBlock(text=ASKED), block])])
        assert block.resolve_audio().read() == sound
        return response

    assert [_kind(ask(cached, sound)) for sound in (b"\xff1", b"\xff2", b"\xff1")] == [None, None, "exact"]
    assert ask(RouterLLM(cheap=Echo(), strong=Echo()), b"\xff1").message.content


class Made(Echo):
    """A model that passes on what it was made with, as OpenAI's does."""

    additional_kwargs: dict[str, Any] = Field(default_factory=dict)
    built_in_tools: list[Any] | None = None
    track_previous_responses: bool = False
    _previous_response_id: str | None = PrivateAttr(default=None)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"additional_kwargs": {"response_format": {"type": "json_object"}}}, "schema"),
        ({"built_in_tools": [{"type": "web_search"}]}, "tools"),
    ],
)
def test_what_a_model_is_made_with_counts_as_what_it_is_asked_with(made: dict[str, Any], reason: str) -> None:
    """A schema or tools that are options of the model, not of the call, let only the very same request hit."""
    model = CachedLLM(Made(**made), cache=SemanticCache(threshold=0.95))
    model.chat(_user(ASKED))

    assert f"only the very same request may hit ({reason})" in str(model.explain(_user(AGAIN)))
    assert "an exact hit" in str(model.explain(_user(ASKED)))


def test_a_model_that_keeps_the_conversation_to_itself_is_not_cached() -> None:
    """Requests of a model that tracks its responses do not say what was said before, so none is answered from store."""
    inner = Made(track_previous_responses=True)
    model = CachedLLM(inner, cache=SemanticCache(threshold=0.95))
    for _ in range(2):
        model.chat(_user(ASKED))

    assert len(inner.seen) == 2
    assert model.cache.stats().errors == 0
    with pytest.raises(ValueError, match="keeps track"):
        model.explain(_user(ASKED))


def test_a_conversation_that_a_model_is_made_to_go_on_with_counts() -> None:
    """Two models that go on from other responses of OpenAI's do not share answers."""
    cache, asked = SemanticCache(threshold=0.95), []
    for response in ("resp_a", "resp_b"):
        inner = Made(name="cheap")
        inner._previous_response_id = response  # where `OpenAIResponses` keeps what it was made with
        CachedLLM(inner, cache=cache).chat(_user(ASKED))
        asked += inner.seen

    assert len(asked) == 2


class Plain(CustomLLM):
    """A model of plain text, which puts its own words around a request."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="plain")

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        written: Any = self.completion_to_prompt
        around = self.query_wrapper_prompt
        asked = written(prompt) if around is None else around.format(query_str=prompt)
        return CompletionResponse(text=asked if not formatted else prompt)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        yield self.complete(prompt, formatted, **kwargs)


WHO = "Ask a clown: "


def _clown(prompt: str) -> str:
    return WHO + prompt


def _as(who: str) -> Callable[[str], str]:
    return lambda prompt: f"Ask {who}: {prompt}"


@pytest.mark.parametrize(
    "around",
    [
        {"completion_to_prompt": lambda prompt: f"Ask a pirate: {prompt}"},
        {"completion_to_prompt": _as("a cook")},
        {"completion_to_prompt": partial("{}{}".format, "Ask a judge: ")},
        {"messages_to_prompt": lambda messages: f"Ask a king: {messages[-1].content}"},
        {"query_wrapper_prompt": PromptTemplate("Ask a nurse: {query_str}")},
    ],
)
def test_what_a_model_puts_around_a_request_must_be_the_same(around: dict[str, Any]) -> None:
    """Models that differ in nothing but their template, in whatever form it is, do not share answers."""
    cache = SemanticCache(threshold=0.95)

    def ask(**options: Any) -> set[str]:
        model = CachedLLM(Plain(**options), cache=cache)
        return {model.complete(ASKED).text, str(model.chat(_user(ASKED)).message.content)}

    for other in ({"completion_to_prompt": _as("a lawyer")}, {"query_wrapper_prompt": PromptTemplate("{query_str}!")}):
        ask(**other)
    found = ask(**around)
    stored = cache.stats().stored

    assert any(text.startswith("Ask a ") for text in found)
    assert not any("lawyer" in text for text in found)
    assert ask(**around) == found
    assert cache.stats().stored == stored


def test_a_template_that_is_kept_apart_from_its_function_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that the function of a model only names is part of what it says."""
    model = CachedLLM(Plain(completion_to_prompt=_clown), cache=SemanticCache(threshold=0.95))
    model.complete(ASKED)
    monkeypatch.setitem(globals(), "WHO", "Ask a lawyer: ")

    assert model.complete(ASKED).text == f"Ask a lawyer: {ASKED}"


def test_another_key_of_the_same_account_finds_the_same_answers(cached: CachedLLM) -> None:
    """A model's key is no part of a request: a new one does not empty the cache."""
    cached.chat(_user(ASKED))

    assert _kind(CachedLLM(Echo(api_key="sk-new"), cache=cached.cache).chat(_user(ASKED))) == "exact"


def test_tenants_share_nothing(cached: CachedLLM) -> None:
    """`cache_scope` keeps tenants apart, as in LangChain."""
    with cache_scope(tenant="a"):
        cached.chat(_user(ASKED))
    with cache_scope(tenant="b"):
        assert _kind(cached.chat(_user(ASKED))) is None


async def _read_elsewhere(cached: CachedLLM) -> Any:
    with cache_scope(tenant="acme"):
        stream = await cached.astream_chat(_user(ASKED))
    return [chunk async for chunk in stream]


def _read_later(cached: CachedLLM) -> Any:
    with cache_scope(tenant="acme"):
        stream = cached.stream_chat(_user(ASKED))
    return list(stream)


@pytest.mark.parametrize("read", [_read_later, lambda cached: asyncio.run(_read_elsewhere(cached))])
def test_a_stream_belongs_to_whom_it_was_asked_for(read: Any, cached: CachedLLM, inner: Echo) -> None:
    """A stream that is read outside of its `cache_scope`, as web frameworks do, is stored for that tenant alone."""
    read(cached)
    cached.chat(_user(ASKED))
    assert len(inner.seen) == 2

    with cache_scope(tenant="acme"):
        cached.chat(_user(ASKED))
    assert len(inner.seen) == 2


def test_what_has_no_name_is_not_cached(cached: CachedLLM, inner: Echo, caplog: pytest.LogCaptureFixture) -> None:
    """An option that only has an address could be mistaken for another one: such calls go to the model, and `explain` says so."""
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            cached.chat(_user(ASKED), hook=object())

    assert len(inner.seen) == 2
    assert "without it" in caplog.text
    with pytest.raises(ValueError, match="no name"):
        cached.explain(_user(ASKED), hook=object())


def test_explain_says_what_a_lookup_would_do(cached: CachedLLM) -> None:
    """The decision and its reason can be asked for without making a call."""
    cached.chat(_user(ASKED))

    assert "exact hit" in cached.explain(_user(ASKED)).decision


def test_a_hit_is_no_event_of_a_model(inner: Echo) -> None:
    """`TokenCountingHandler` counts the real call and not the hit, through the manager that `Settings` hands on."""
    counter = TokenCountingHandler()
    before = Settings.callback_manager
    try:
        Settings.callback_manager = CallbackManager([counter])
        Settings.llm = CachedLLM(inner)
        for _ in range(3):
            Settings.llm.chat(_user(ASKED))
    finally:
        Settings.callback_manager = before
        Settings._llm = None

    assert (len(counter.llm_token_counts), counter.total_llm_token_count) == (1, inner_tokens(inner))


def inner_tokens(inner: Echo) -> int:
    """Count what the model reports for the question: ten tokens in, one for each word out."""
    return 10 + len(str(Echo().chat(_user(ASKED)).message.content).split())


class _Lopsided(BaseEmbedding):
    """Embeds a query as another thing than the same text, as some models do."""

    def _get_query_embedding(self, query: str) -> list[float]:
        raise AssertionError("asymmetric")

    async def _aget_query_embedding(self, query: str) -> list[float]:
        raise AssertionError("asymmetric")

    def _get_text_embedding(self, text: str) -> list[float]:
        return [1.0, 0.0] if "password" in text else [0.0, 1.0]


@pytest.mark.parametrize("ask", ENDPOINTS.values(), ids=ENDPOINTS.keys())
def test_an_embedding_model_of_the_host_finds_what_is_alike(ask: Any, inner: Echo) -> None:
    """A `BaseEmbedding` embeds both sides as texts, in blocking and in asynchronous calls."""
    cache = SemanticCache(threshold=0.95, embedder=TextEmbedder(_Lopsided(model_name="lopsided")), guards=())
    cached = CachedLLM(inner, cache=cache)
    ask(cached, ASKED)

    assert _kind(ask(cached, "I forgot my password")) == "semantic"
    assert _kind(ask(cached, OTHER)) is None


def test_the_embedding_models_own_cache_is_not_trusted() -> None:
    """Vectors that the host keeps by the text alone, of whichever model, are not taken for this one's."""
    shared = SimpleKVStore()
    shared.put(ASKED, {"anything": [9.0, 9.0, 9.0]}, collection="embeddings")
    embedder = TextEmbedder(_Lopsided(model_name="lopsided", embeddings_cache=shared))

    assert embedder.embed(ASKED).tolist() == [1.0, 0.0]
    assert asyncio.run(embedder.aembed(OTHER)).tolist() == [0.0, 1.0]
    assert embedder.name == "_Lopsided:lopsided"


def test_a_cache_that_fails_breaks_no_call(inner: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed store is a miss, for every way of asking."""
    cached = CachedLLM(inner)
    cached.cache.close()

    for ask in ENDPOINTS.values():
        assert _kind(ask(cached, ASKED)) is None
    assert cached.cache.stats().errors > 0


def test_no_key_is_stored_or_told(cached: CachedLLM) -> None:
    """A model's key is in neither `to_dict()` nor a payload nor a hit."""
    said = [cached.chat(_user(QUESTION)).model_dump_json() for _ in range(2)]

    assert "sk-echo" not in json.dumps(cached.to_dict()) + str(cached.to_payload()) + "".join(said)
