"""A cache in front of a router: looked up before routing, for streams too."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from langchain_costopt import CostCallbackHandler, RouterChatModel, SemanticCache, cache_scope

RICE, RICE_TOO = "How do I cook rice?", "how can i cook the rice"


class Scripted(BaseChatModel):
    """A model that numbers its answers."""

    model_name: str = "gpt-4o-mini"
    says: str = "Boil it"
    calls: list[int] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(**kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.calls.append(1)
        message = AIMessage(
            f"{self.says} {len(self.calls)}.",
            response_metadata={"model_name": self.model_name, "finish_reason": "stop"},
            usage_metadata={"input_tokens": 1000, "output_tokens": 1000, "total_tokens": 2000},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


@pytest.fixture
def cache() -> Iterator[SemanticCache]:
    """Make a cache that is nobody's global one."""
    made = SemanticCache(threshold=0.95)
    yield made
    made.close()


@pytest.fixture
def cheap() -> Scripted:
    """Make the cheap tier."""
    return Scripted()


@pytest.fixture
def router(cache: SemanticCache, cheap: Scripted) -> RouterChatModel:
    """Make a router with a cache of its own."""
    return RouterChatModel(cheap=cheap, strong=Scripted(model_name="gpt-4o"), cache=cache)


def streamed(model: RouterChatModel, text: str) -> AIMessage:
    """Stream, and join what came."""
    chunks = list(model.stream(text))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


async def astreamed(model: RouterChatModel, text: str) -> AIMessage:
    """Stream asynchronously, and join what came."""
    chunks = [chunk async for chunk in model.astream(text)]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


WAYS: dict[str, Any] = {
    "invoke": lambda model, text: model.invoke(text),
    "ainvoke": lambda model, text: asyncio.run(model.ainvoke(text)),
    "stream": streamed,
    "astream": lambda model, text: asyncio.run(astreamed(model, text)),
    "batch": lambda model, text: model.batch([text])[0],
    "generate": lambda model, text: model.generate_prompt([model._convert_input(text)]).generations[0][0].message,
}


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("then", WAYS)
def test_what_was_answered_one_way_is_found_any_other_way(
    router: RouterChatModel, cheap: Scripted, first: str, then: str
) -> None:
    """Streams fill the cache and are served from it as calls are, exactly and by meaning, and no tier is asked again."""
    answer = WAYS[first](router, RICE)
    hits = [WAYS[then](router, RICE), WAYS[then](router, RICE_TOO)]

    assert [hit.text for hit in hits] == [answer.text, answer.text]
    assert [hit.response_metadata["llm_costopt"]["cache"] for hit in hits] == ["exact", "semantic"]
    assert len(cheap.calls) == 1


class Streaming(Scripted):
    """A model that gives its answer word by word."""

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for word in ("Boil ", "it."):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))


def _closed(router: RouterChatModel) -> None:
    with cache_scope(tenant="acme"):
        stream = router.stream(RICE)
        next(stream)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(stream.close).result(timeout=20)  # type: ignore[attr-defined]


async def _aclosed(router: RouterChatModel) -> None:
    with cache_scope(tenant="acme"):
        stream = router.astream(RICE)
        await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(asyncio.create_task(_asked(router)), 20)


async def _asked(router: RouterChatModel) -> None:
    with cache_scope(tenant="acme"):
        await router.ainvoke(RICE)


def test_nobody_waits_for_a_stream_that_was_closed() -> None:
    """A stream that is closed in another thread, or in a task that goes on, lets those go on that ask the same."""
    made = SemanticCache(threshold=0.95, single_flight=300)
    router = RouterChatModel(cheap=Streaming(), strong=Streaming(model_name="gpt-4o"), cache=made)
    _closed(router)
    asyncio.run(asyncio.wait_for(_asked(router), 20))
    made.clear()
    asyncio.run(_aclosed(router))

    assert made.stats().waited == 0
    made.close()


def test_what_a_reader_makes_of_a_stream_is_not_stored(cache: SemanticCache) -> None:
    """Stored is what the model said, not what whoever read the stream made of its chunks."""
    router = RouterChatModel(cheap=Streaming(), strong=Streaming(model_name="gpt-4o"), cache=cache)
    for chunk in router.stream(RICE):
        chunk.content = f"Dear Bob, {chunk.content}"
        chunk.response_metadata["user"] = "Bob"
    found = router.invoke(RICE)

    assert found.response_metadata["llm_costopt"]["cache"] == "exact"
    assert found.content == "Boil it."
    assert "user" not in found.response_metadata


def test_the_monitor_counts_a_hit(router: RouterChatModel) -> None:
    """A hit is recorded as one: no cost, and what the strong model would have cost is saved by the cache."""
    costs = CostCallbackHandler()
    for text in (RICE, RICE_TOO):
        list(router.stream(text, {"callbacks": [costs]}))
    paid, hit = costs.records()

    assert (paid.cache, hit.cache) == (None, "semantic")
    assert hit.cost == 0
    assert hit.saved is not None
    assert hit.saved.cache > 0


def test_a_hit_says_that_no_tier_was_asked(router: RouterChatModel) -> None:
    """Whoever reads the decision finds the cache as the tier, and no attempts."""
    router.invoke(RICE)
    decision = router.invoke(RICE).response_metadata["llm_costopt"]

    assert (decision["tier"], decision["attempts"]) == ("cache", [])


def test_a_router_is_known_by_its_tiers_and_options(cache: SemanticCache, cheap: Scripted) -> None:
    """Other tiers, other options and other tools do not share answers; the same tools do, to the letter."""

    @tool
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    one, other = (RouterChatModel(tiers=[cheap, Scripted(model_name=name)], cache=cache) for name in ("gpt-4o", "o1"))
    calls = [one, other, one.bind(stop=["."]), one.bind_tools([add]), one.bind_tools([add])]
    marks = [call.invoke(RICE).response_metadata["llm_costopt"].get("cache") for call in calls]

    assert marks == [None, None, None, None, "exact"]
    assert one.bind_tools([add]).invoke(RICE_TOO).response_metadata["llm_costopt"].get("cache") is None


def test_structured_answers_are_not_looked_up(cache: SemanticCache) -> None:
    """They go to the tiers each time."""

    class Place(BaseModel):
        city: str

    class Structured(Scripted):
        def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
            return self | (lambda message: {"raw": message, "parsed": Place(city="Rome"), "parsing_error": None})

    tier = Structured()
    router = RouterChatModel(tiers=[tier], cache=cache).with_structured_output(Place)

    assert [router.invoke(RICE), router.invoke(RICE)] == [Place(city="Rome")] * 2
    assert len(tier.calls) == 2


def test_without_a_cache_of_its_own_nothing_is_looked_up(cheap: Scripted, cache: SemanticCache) -> None:
    """A global cache serves the tiers, as it does without a router."""
    set_llm_cache(cache)
    try:
        router = RouterChatModel(cheap=cheap, strong=Scripted(model_name="gpt-4o"))
        router.invoke(RICE)
        decision = router.invoke(RICE).response_metadata["llm_costopt"]
    finally:
        set_llm_cache(None)

    assert (decision["tier"], decision["cache"], len(cheap.calls)) == ("cheap", "exact", 1)


def test_a_cache_that_fails_harms_nobody(cheap: Scripted, cache: SemanticCache) -> None:
    """After the cache was closed, the tiers answer."""
    router = RouterChatModel(tiers=[cheap], cache=cache)
    cache.close()

    assert router.invoke(RICE).text == "Boil it 1."
    assert streamed(router, RICE).text == "Boil it 2."
