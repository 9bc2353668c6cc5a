"""`use_batch_api`: LangChain's models through the Batch API, with callbacks, chains and the ledger as ever."""

import asyncio
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from pydantic import BaseModel, SecretStr

from langchain_costopt import CostCallbackHandler, use_batch_api
from llm_costopt import BatchQueue, Prices
from tests.batch.conftest import rest
from tests.batch_provider import Batch, Provider, Told, all_ok, chat, ok, result

HALF = Decimal("0.0001050")
"""1,000 tokens in and 100 out of gpt-4o-mini, 0.15 and 0.60 dollars a million, at half the price."""


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[BatchQueue]:
    """Open a queue that does not dawdle."""
    with BatchQueue(tmp_path / "jobs.db", gather=0.1, poll=(0.02, 0.05), prices=Prices()) as queue:
        yield queue


def model_of(provider: Provider, **more: Any) -> ChatOpenAI:
    """Make a model that asks *provider*."""
    return ChatOpenAI(model="gpt-4o-mini", base_url=f"{provider.url}/v1", api_key=SecretStr("k"), **more)


async def test_a_chain_becomes_one_job(queue: BatchQueue) -> None:
    """`chain.abatch` with many inputs is one batch, in order, and whoever listens hears of each call at half the price."""
    costs = CostCallbackHandler()
    with Provider() as provider:
        chain = ChatPromptTemplate.from_template("say {word}") | use_batch_api(model_of(provider), queue)
        answers = await chain.abatch([{"word": str(n)} for n in range(200)], {"callbacks": [costs]})
        await rest()

    assert [answer.content for answer in answers] == [f"re: say {n}" for n in range(200)]
    assert len(provider.batches) == 1
    records = costs.records()
    assert {(record.cost, record.batch) for record in records} == {(HALF, True)}
    assert len({record.id for record in records}) == 200
    assert (queue.stats().cost, queue.stats().saved) == (200 * HALF, 200 * HALF)


def test_batch_is_one_job_per_round_of_threads(queue: BatchQueue) -> None:
    """`batch` with `max_concurrency` as large as the inputs is one batch as well."""
    with Provider() as provider:
        answers = use_batch_api(model_of(provider), queue).batch(["a", "b", "c"], {"max_concurrency": 3})

    assert [answer.content for answer in answers] == ["re: a", "re: b", "re: c"]
    assert len(provider.batches) == 1


async def test_structured_output_and_tools_work(queue: BatchQueue) -> None:
    """A schema and a tool travel in the row, and what comes back is parsed as ever."""

    class Joke(BaseModel):
        """A joke."""

        setup: str

    call = {"id": "c1", "type": "function", "function": {"name": "Joke", "arguments": '{"setup": "knock"}'}}

    def script(batch: Batch) -> Told:
        said: Callable[[Any], dict[str, Any]] = lambda row: (  # noqa: E731
            {"content": None, "tool_calls": [call]} if "tools" in row["body"] else {"content": '{"setup": "knock"}'}
        )
        return Told(output=[ok(row, chat(row, said(row))) for row in batch.rows])

    with Provider(script) as provider:
        model = use_batch_api(model_of(provider), queue)
        by_schema, by_tool, bound = await asyncio.gather(
            model.with_structured_output(Joke).ainvoke("a"),
            model.with_structured_output(Joke, method="function_calling").ainvoke("a"),
            model.bind_tools([Joke]).ainvoke("a"),
        )

    assert by_schema == by_tool == Joke(setup="knock")
    assert bound.tool_calls[0]["args"] == {"setup": "knock"}


async def test_a_failed_row_raises_the_sdks_error(queue: BatchQueue) -> None:
    """`abatch(return_exceptions=True)` has the provider's error in its place and the others' answers in theirs."""

    def script(batch: Batch) -> Told:
        bad = {"status_code": 400, "body": {"error": {"message": "not this", "type": "x", "code": None}}}
        lines = [
            {"custom_id": r["custom_id"], "response": bad} if t == "bad" else ok(r)
            for r, t in zip(batch.rows, batch.asked, strict=True)
        ]
        return Told(output=lines)

    with Provider(script) as provider:
        answers = await use_batch_api(model_of(provider), queue).abatch(["a", "bad", "b"], return_exceptions=True)

    assert isinstance(answers[1], openai.BadRequestError)
    assert [answer.content for answer in (answers[0], answers[2])] == ["re: a", "re: b"]


async def test_a_stream_comes_in_one_piece(queue: BatchQueue) -> None:
    """`astream` on such a model yields the whole answer at once instead of failing."""
    with Provider() as provider:
        model = use_batch_api(model_of(provider, streaming=True), queue)
        chunks = [chunk.content async for chunk in model.astream("a")]

    assert chunks == ["re: a"]


async def test_the_model_itself_is_left_alone(queue: BatchQueue) -> None:
    """The model that was given still asks in real time."""
    with Provider() as provider:
        model = model_of(provider)
        use_batch_api(model, queue)
        await model.ainvoke("a")

    assert (len(provider.batches), len(provider.real_time)) == (0, 1)


async def test_a_path_is_enough(tmp_path: Path) -> None:
    """Given a path, it opens the queue itself."""
    model = use_batch_api(ChatOpenAI(model="m", api_key=SecretStr("k")), tmp_path / "jobs.db")

    with pytest.raises(openai.BadRequestError, match="cannot stream"):
        await model.root_async_client.chat.completions.create(model="m", messages=[], stream=True)
    assert (tmp_path / "jobs.db").exists()


@pytest.mark.parametrize(
    "model",
    [
        FakeListChatModel(responses=["a"]),
        AzureChatOpenAI(azure_endpoint="http://a", api_key=SecretStr("k"), api_version="1", azure_deployment="d"),
    ],
)
def test_unknown_classes_are_refused(model: Any, queue: BatchQueue) -> None:
    """A model that it does not know is refused by name, with the way out."""
    with pytest.raises(TypeError, match=f"not {type(model).__name__}: if its client takes"):
        use_batch_api(model, queue)


async def test_a_model_whose_key_only_async_code_can_get(queue: BatchQueue) -> None:
    """A model without a blocking client gets the transport for the other one."""

    async def key() -> str:
        return "k"

    with Provider() as provider:
        model = ChatOpenAI(model="gpt-4o-mini", base_url=f"{provider.url}/v1", api_key=key)
        answer = await use_batch_api(model, queue).ainvoke("a")

    assert answer.content == "re: a"


def test_chat_anthropic_works(queue: BatchQueue) -> None:
    """`ChatAnthropic`, which takes no HTTP client, is answered from one batch; its callbacks hear half the price."""
    anthropic = pytest.importorskip("langchain_anthropic")

    def script(batch: Batch) -> Told:
        lines = [
            result(r, "canceled") if t == "bad" else result(r) for r, t in zip(batch.rows, batch.asked, strict=True)
        ]
        return Told(status="ended", output=lines)

    costs = CostCallbackHandler()
    with Provider(script) as provider:
        plain = anthropic.ChatAnthropic(
            model="claude-haiku-4-5", api_key="k", base_url=provider.url, max_tokens=64000, max_retries=5
        )
        model = use_batch_api(plain, queue)
        answers = asyncio.run(model.abatch(["a", "b", "bad"], {"callbacks": [costs]}, return_exceptions=True))
        blocking = model.invoke("c")

    assert [answer.content for answer in answers[:2]] == ["re: a", "re: b"]
    assert type(answers[2]).__name__ == "ConflictError"
    assert blocking.content == "re: c"
    assert [len(batch.rows) for batch in provider.batches] == [3, 1]
    # 1,000 tokens in and 100 out, 1 and 5 dollars a million, at half the price
    assert [record.cost for record in costs.records() if not record.error] == [Decimal("0.00075")] * 2


async def test_with_an_http_client_of_ones_own(queue: BatchQueue) -> None:
    """`ChatOpenAI(http_async_client=…)` takes the transport without any help."""
    from llm_costopt import AsyncBatchTransport

    with Provider(all_ok) as provider:
        model = model_of(provider, http_async_client=httpx.AsyncClient(transport=AsyncBatchTransport(queue)))
        answers = await model.abatch(["a", "b"])

    assert [answer.content for answer in answers] == ["re: a", "re: b"]
