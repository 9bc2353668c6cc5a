"""Through LangChain: identical calls at once, scopes, feedback, invalidation."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda

from langchain_costopt import SemanticCache, cache_scope

RICE, RICE_TOO = "How do I cook rice?", "how can i cook the rice"


class Scripted(BaseChatModel):
    """A model that answers as a function says."""

    model_name: str = "scripted"
    reply: Callable[[], str]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.reply()))])


@pytest.fixture
def cache() -> Iterator[SemanticCache]:
    """Set a cache whose callers wait much longer than any test takes."""
    made = SemanticCache(threshold=0.95, single_flight=300)
    set_llm_cache(made)
    yield made
    set_llm_cache(None)
    made.close()


def until_waiting(cache: SemanticCache, count: int) -> None:
    """Return when so many callers wait."""
    while cache.stats().waited < count:
        threading.Event().wait(0.001)


def test_threads_pay_once(cache: SemanticCache) -> None:
    """Eight threads that send the same at once cause one call of the model."""
    calls = []

    def reply() -> str:
        calls.append(1)
        until_waiting(cache, 7)
        return "Boil it."

    model = Scripted(reply=reply)
    with ThreadPoolExecutor(8) as pool:
        replies = [f.result(timeout=20) for f in [pool.submit(model.invoke, RICE) for _ in range(8)]]

    assert [r.text for r in replies] == ["Boil it."] * 8
    assert len(calls) == 1


def test_a_call_that_fails_frees_those_that_wait(cache: SemanticCache) -> None:
    """When the first call raises, though its thread lives on, the others make their own at once."""
    first = threading.Lock()

    def reply() -> str:
        if first.acquire(blocking=False):
            until_waiting(cache, 3)
            raise RuntimeError
        return "Boil it."

    model = Scripted(reply=reply)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(model.invoke, RICE) for _ in range(4)]
        failed = [f.exception(timeout=20) for f in futures]

    assert sum(isinstance(f, RuntimeError) for f in failed) == 1
    assert sum(f is None for f in failed) == 3


async def test_tasks_pay_once(cache: SemanticCache) -> None:
    """Many tasks that send the same at once cause one call; more wait than there are threads to hold up."""
    calls = []

    def reply() -> str:
        calls.append(1)
        until_waiting(cache, 59)
        return "Boil it."

    model = Scripted(reply=reply)
    replies = await asyncio.wait_for(asyncio.gather(*(model.ainvoke(RICE) for _ in range(60))), 20)

    assert [r.text for r in replies] == ["Boil it."] * 60
    assert len(calls) == 1


async def test_a_task_that_fails_frees_those_that_wait(cache: SemanticCache) -> None:
    """The same with tasks."""
    first = threading.Lock()

    def reply() -> str:
        if first.acquire(blocking=False):
            until_waiting(cache, 3)
            raise RuntimeError
        return "Boil it."

    model = Scripted(reply=reply)
    results = await asyncio.wait_for(
        asyncio.gather(*(model.ainvoke(RICE) for _ in range(4)), return_exceptions=True), 20
    )

    assert sum(isinstance(r, RuntimeError) for r in results) == 1


def test_scopes_reach_the_cache_on_all_ways(cache: SemanticCache) -> None:
    """`invoke`, `batch` in its threads and `ainvoke` see the tenant, and nothing crosses to another one."""
    model = Scripted(reply=lambda: "Boil it.")
    with cache_scope(tenant="one"):
        model.batch([RICE, "Which river is the longest?"])
        marks = [model.invoke(RICE_TOO), asyncio.run(model.ainvoke(RICE_TOO)), *model.batch([RICE_TOO, RICE])]
    with cache_scope(tenant="two"):
        other = [model.invoke(RICE), asyncio.run(model.ainvoke("Which river is the longest?"))]

    kinds = [r.response_metadata.get("llm_costopt", {}).get("cache") for r in (*marks, *other)]
    assert kinds == ["semantic"] * 3 + ["exact", None, None]


def test_feedback_with_the_id_of_a_reply(cache: SemanticCache) -> None:
    """The id in the reply's metadata is enough to have that pair never matched again."""
    model = Scripted(reply=lambda: "Boil it.")
    model.invoke(RICE)
    hit = model.invoke(RICE_TOO).response_metadata["llm_costopt"]["id"]

    assert cache.feedback(hit, ok=False)
    assert "llm_costopt" not in model.invoke(RICE_TOO).response_metadata
    assert not cache.feedback("unknown", ok=True)


def test_invalidation_by_the_models_name(cache: SemanticCache) -> None:
    """The name in the model's own parameters is what entries are found by."""
    one, other = (Scripted(reply=lambda: "So.", model_name=name) for name in ("one", "other"))
    one.invoke(RICE)
    other.invoke(RICE)

    assert cache.invalidate(model="one", dry_run=True) == 1
    assert cache.invalidate(model="one") == 1
    assert "llm_costopt" not in one.invoke(RICE).response_metadata
    assert other.invoke(RICE).response_metadata["llm_costopt"]["cache"] == "exact"


def test_a_lookup_can_be_explained(cache: SemanticCache) -> None:
    """For a model, for one with bound options, and for whatever was asked last, it says what a lookup would do."""
    model = Scripted(reply=lambda: "Boil it.")
    with pytest.raises(ValueError, match="model=chat"):
        cache.explain(RICE)
    model.invoke(RICE)

    assert "exact hit" in str(cache.explain(RICE, model=model))
    assert "semantic hit" in str(cache.explain(RICE_TOO))
    assert "nothing is stored" in str(cache.explain(RICE, model=model.bind(stop=["."])))
    with pytest.raises(TypeError, match="chat model"):
        cache.explain(RICE, model=RunnableLambda(str))
    assert (cache.stats().hits, cache.stats().misses) == (0, 1)


CARD = "Where is my card?"


@pytest.mark.parametrize(
    "before",
    [
        lambda who: [SystemMessage(f"You serve {who}, whose card is on its way.")],
        lambda who: [HumanMessage(f"I am {who}."), AIMessage("Hello.")],
        lambda who: [
            SystemMessage("Be brief."),
            HumanMessage(f"<context>Card of {who}: sent.</context>"),
            AIMessage("Ok."),
        ],
    ],
    ids=["system prompt", "history", "context"],
)
def test_a_personal_question_is_answered_from_what_was_told_about_this_person(
    cache: SemanticCache, before: Any
) -> None:
    """All that can make an answer personal is in the scope: the same words of two people never share an answer."""
    names = iter("abc")
    model = Scripted(reply=lambda: f"Answer {next(names)}.")
    replies = [
        model.invoke([*before(who), HumanMessage(text)]).text
        for who, text in [("Ann", CARD), ("Bob", CARD), ("Bob", "where's my card"), ("Ann", CARD)]
    ]

    assert replies[0] == replies[3] == "Answer a."
    assert replies[1] == "Answer b."
    assert replies[2] != "Answer a."
