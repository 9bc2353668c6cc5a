"""`use_batch_api`: LlamaIndex's models through the Batch API, with tools, structure, events and the ledger as ever."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import openai as sdk
import pytest
from llama_index.core.agent import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.llms import LLM, CustomLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI, OpenAIResponses
from pydantic import BaseModel, PrivateAttr

from llamaindex_costopt import CachedLLM, CostEventHandler, use_batch_api
from llm_costopt import BatchQueue, Prices, SemanticCache
from tests.batch_provider import Batch, Json, Provider, Told, chat, message, ok, result

HALF = Decimal("0.0001050")
"""1,000 tokens in and 100 out of gpt-4o-mini, 0.15 and 0.60 dollars a million, at half the price."""

HALF_OF_CLAUDE = Decimal("0.00075")
"""The same of claude-haiku-4-5, 1 and 5 dollars a million."""

# Its releases up to 0.12.3 pass arguments that releases of the SDK from 1.0 on do not take.
_RUNS = bool(find_spec("llama_index.llms.anthropic")) and int(version("anthropic").partition(".")[0]) < 1

Make = Callable[..., LLM]


class Anthropic(CustomLLM):
    """A stand-in for the integration with any release of the SDK: its clients under the same names, and little else."""

    model: str = "claude-haiku-4-5"
    max_tokens: int = 64000
    _client: Any = PrivateAttr()
    _aclient: Any = PrivateAttr()

    def __init__(self, base_url: str, **more: Any) -> None:
        import anthropic

        super().__init__(**more)
        self._client = anthropic.Anthropic(base_url=base_url, api_key="k")
        self._aclient = anthropic.AsyncAnthropic(base_url=base_url, api_key="k")

    @classmethod
    def class_name(cls) -> str:
        return "Anthropic_LLM"

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True, model_name=self.model)

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._said(self._client.messages.create(**self._asked(messages)))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._said(await self._aclient.messages.create(**self._asked(messages)))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self.chat([ChatMessage(prompt)]).message.content or "")

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=(await self.achat([ChatMessage(prompt)])).message.content or "")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError

    def _asked(self, messages: Sequence[ChatMessage]) -> Json:
        said = [{"role": m.role.value, "content": m.content} for m in messages]
        return {"model": self.model, "max_tokens": self.max_tokens, "messages": said}

    def _said(self, reply: Any) -> ChatResponse:
        return ChatResponse(message=ChatMessage(role="assistant", content=reply.content[0].text), raw=dict(reply))


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[BatchQueue]:
    """Open a queue that does not dawdle."""
    with BatchQueue(tmp_path / "jobs.db", gather=0.1, poll=(0.02, 0.05), prices=Prices()) as queue:
        yield queue


def of_openai(provider: Provider, **more: Any) -> OpenAI:
    """Make a model that asks *provider* as OpenAI's chat completions."""
    return OpenAI(model="gpt-4o-mini", api_base=f"{provider.url}/v1", api_key="k", **more)


def of_anthropic(provider: Provider, **more: Any) -> LLM:
    """Make a model that asks *provider* as Anthropic's messages, through the integration."""
    integration = import_module("llama_index.llms.anthropic").Anthropic
    made: LLM = integration(model="claude-haiku-4-5", base_url=provider.url, api_key="k", max_tokens=64000, **more)
    return made


def of_stand_in(provider: Provider, **more: Any) -> LLM:
    """Make a model that asks *provider* as Anthropic's messages, with whatever release of the SDK there is."""
    return Anthropic(base_url=provider.url, **more)


needs_integration = pytest.mark.skipif(not _RUNS, reason="needs llama-index-llms-anthropic, and anthropic below 1.0")
needs_sdk = pytest.mark.skipif(not find_spec("anthropic"), reason="needs anthropic")
ANTHROPIC = pytest.param(of_anthropic, marks=needs_integration)
ALL = [of_openai, ANTHROPIC, pytest.param(of_stand_in, marks=needs_sdk)]
BOTH = [of_openai, ANTHROPIC]


def question(row: Json) -> str:
    """Read what was asked last; the integration of Anthropic sends blocks."""
    said = (row.get("body") or row.get("params") or {})["messages"][-1]["content"]
    return said if isinstance(said, str) else str(said[0]["text"])


def answer(batch: Batch, *, tool: Json | None = None, text: str | None = None) -> Told:
    """Answer every row with `re: ` and its question, with a text, or with a call of a tool."""
    if "params" not in batch.rows[0]:
        calls = [{"id": "c1", "type": "function", "function": tool}] if tool else None
        said: Callable[[Json], Json] = lambda row: {  # noqa: E731
            "content": None if tool else text or f"re: {question(row)}",
            "tool_calls": calls,
        }
        return Told(output=[ok(row, chat(row, said(row))) for row in batch.rows])
    use = {"type": "tool_use", "id": "t1", "name": tool["name"], "input": {"setup": "knock"}} if tool else None
    block: Callable[[Json], Json] = lambda row: use or {"type": "text", "text": text or f"re: {question(row)}"}  # noqa: E731
    return Told(status="ended", output=[result(r, message={**message(r), "content": [block(r)]}) for r in batch.rows])


@pytest.mark.parametrize("make", ALL)
async def test_what_is_asked_at_once_becomes_one_job(queue: BatchQueue, make: Make) -> None:
    """Many calls under `gather` are one batch, in order; the event handler hears of each at half the price."""
    costs = CostEventHandler().install()
    try:
        with Provider(answer) as provider:
            llm = use_batch_api(make(provider), queue)
            answers = await asyncio.gather(*(llm.achat([ChatMessage(f"q{n}")]) for n in range(50)))
    finally:
        costs.uninstall()

    assert [reply.message.content for reply in answers] == [f"re: q{n}" for n in range(50)]
    assert [len(batch.rows) for batch in provider.batches] == [50]
    half = HALF if make is of_openai else HALF_OF_CLAUDE
    records = costs.records()
    assert queue.stats().cost == 50 * half
    if make is not of_stand_in:  # which tells nobody of its calls
        assert {(record.cost, record.batch) for record in records} == {(half, True)}
        assert len(records) == 50


@pytest.mark.parametrize("make", ALL)
def test_blocking_calls_and_streams_come_in_one_piece(queue: BatchQueue, make: Make) -> None:
    """Blocking, each call is a job of its own; a stream yields the whole answer at once instead of failing."""
    with Provider(answer) as provider:
        llm = use_batch_api(make(provider), queue)
        said = llm.complete("a").text, llm.chat([ChatMessage("b")]).message.content
        streamed = [chunk.delta for chunk in llm.stream_chat([ChatMessage("c")])]
        completed = [chunk.delta for chunk in llm.stream_complete("d")]

    assert (*said, *streamed, *completed) == ("re: a", "re: b", "re: c", "re: d")
    assert (len(provider.batches), provider.real_time) == (4, [])


@pytest.mark.parametrize("make", ALL)
async def test_streams_of_async_code_come_in_one_piece(queue: BatchQueue, make: Make) -> None:
    """The same in an event loop, where two streams that are read at once are one job."""

    async def read(chunks: Any) -> list[str]:
        return [chunk.delta async for chunk in await chunks]

    with Provider(answer) as provider:
        llm = use_batch_api(make(provider), queue)
        said = await asyncio.gather(read(llm.astream_chat([ChatMessage("a")])), read(llm.astream_complete("b")))

    assert [*said] == [["re: a"], ["re: b"]]
    assert [len(batch.rows) for batch in provider.batches] == [2]


class Joke(BaseModel):
    """A joke."""

    setup: str


@pytest.mark.filterwarnings("ignore:The 'output_format' parameter is deprecated")
@pytest.mark.parametrize("make", BOTH)
async def test_structured_output_works(queue: BatchQueue, make: Make) -> None:
    """A structure travels in the row and is parsed as ever, blocking and not."""
    prompt = PromptTemplate("tell {what}")

    def script(batch: Batch) -> Told:
        body = batch.rows[0].get("body") or batch.rows[0].get("params") or {}
        asks_tool = "tools" in body
        tool = {"name": "Joke", "arguments": '{"setup": "knock"}'} if asks_tool else None
        return answer(batch, tool=tool, text='{"setup": "knock"}')

    with Provider(script) as provider:
        llm = use_batch_api(make(provider), queue)
        found = await asyncio.gather(
            llm.astructured_predict(Joke, prompt, what="a"),
            llm.as_structured_llm(Joke).achat([ChatMessage("b")]),
            asyncio.to_thread(llm.structured_predict, Joke, prompt, what="c"),
        )

    assert found[0] == found[1].raw == found[2] == Joke(setup="knock")
    assert provider.real_time == []


@pytest.mark.parametrize("make", BOTH)
async def test_an_agent_works(queue: BatchQueue, make: Make) -> None:
    """An agent, which streams by itself, calls its tool and answers; each of its steps is a row."""

    def script(batch: Batch) -> Told:
        told = str(batch.rows[0]).count("knock knock")
        return (
            answer(batch, text="done")
            if told
            else answer(batch, tool={"name": "joke", "arguments": '{"setup": "knock"}'})
        )

    def joke(setup: str) -> str:
        """Tell a joke."""
        return f"{setup} knock"

    with Provider(script) as provider:
        agent = FunctionAgent(tools=[FunctionTool.from_defaults(joke)], llm=use_batch_api(make(provider), queue))
        said = await agent.run("a joke, please")

    assert str(said) == "done"
    assert len(provider.batches) == 2


@pytest.mark.parametrize("make", BOTH)
async def test_a_failed_row_raises_the_sdks_error(queue: BatchQueue, make: Make) -> None:
    """The caller of a failed row gets the SDK's own error, after one more try of the queue's and none of the integration's."""

    def script(batch: Batch) -> Told:
        if "params" in batch.rows[0]:
            return Told(
                status="ended", output=[result(r, "errored", error={"type": "rate_limit_error"}) for r in batch.rows]
            )
        bad = {"status_code": 429, "body": {"error": {"message": "not now", "type": "x", "code": None}}}
        return Told(output=[{"custom_id": row["custom_id"], "response": bad} for row in batch.rows])

    with Provider(script) as provider:
        llm = use_batch_api(make(provider), queue)
        with pytest.raises(Exception, match="429") as caught:
            await llm.achat([ChatMessage("a")])

    assert type(caught.value).__name__ == "RateLimitError"
    assert len(provider.batches) == 2


async def test_the_model_itself_is_left_alone(queue: BatchQueue) -> None:
    """The model that was given still asks in real time."""
    with Provider() as provider:
        llm = of_openai(provider)
        use_batch_api(llm, queue)
        await llm.achat([ChatMessage("a")])

    assert (len(provider.batches), len(provider.real_time)) == (0, 1)


async def test_a_model_that_makes_a_client_for_each_call(queue: BatchQueue) -> None:
    """With `reuse_client=False` the copy keeps its client, since the transport is in it."""
    with Provider() as provider:
        llm = use_batch_api(of_openai(provider, reuse_client=False), queue)
        said = [(await llm.acomplete(text)).text for text in ("a", "b")]

    assert said == ["re: a", "re: b"]
    assert provider.real_time == []


async def test_a_cache_goes_around_it(queue: BatchQueue) -> None:
    """A hit of a cache around it costs no row."""
    with Provider() as provider:
        llm = CachedLLM(use_batch_api(of_openai(provider), queue), cache=SemanticCache())
        said = [(await llm.acomplete("q")).text for _ in range(2)]

    assert said == ["re: q", "re: q"]
    assert provider.paid() == {"q": 1}


async def test_classes_of_its_kind_are_taken(queue: BatchQueue) -> None:
    """A class that is derived from OpenAI's, as `OpenAILike` is, and `OpenAIResponses` travel as well."""

    class OpenAILike(OpenAI):
        """A model of somebody who speaks OpenAI's protocol."""

    said = {"type": "message", "id": "m", "status": "completed", "role": "assistant"}
    text = [{"type": "output_text", "text": "yes", "annotations": []}]
    usage = {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10, "input_tokens_details": {"cached_tokens": 0}}
    body = {"id": "r", "object": "response", "created_at": 1, "model": "m", "output": [{**said, "content": text}]}
    more = {"usage": {**usage, "output_tokens_details": {"reasoning_tokens": 0}}, "status": "completed", "tools": []}

    def script(batch: Batch) -> Told:
        if "input" in batch.rows[0]["body"]:
            return Told(output=[ok(row, {**body, **more}) for row in batch.rows])
        return answer(batch)

    with Provider(script) as provider:
        where: Json = {"model": "gpt-4o-mini", "api_base": f"{provider.url}/v1", "api_key": "k"}
        like, responses = (use_batch_api(kind(**where), queue) for kind in (OpenAILike, OpenAIResponses))
        found = await asyncio.gather(like.acomplete("a"), responses.achat([ChatMessage("b")]))

    assert (found[0].text, found[1].message.content) == ("re: a", "yes")
    assert provider.real_time == []


def test_unknown_classes_are_refused(queue: BatchQueue) -> None:
    """A model that it does not know, and a wrapper, are refused by name, with the way out."""
    from llama_index.core.llms import MockLLM

    known = OpenAI(model="gpt-4o-mini", api_key="k")
    for llm in (MockLLM(), CachedLLM(known, cache=SemanticCache())):
        with pytest.raises(TypeError, match=f"not {type(llm).__name__}: give a wrapper such a model inside"):
            use_batch_api(llm, queue)


def test_clients_of_other_clouds_are_refused(queue: BatchQueue) -> None:
    """A known model that calls Azure is refused: its batches are of another kind."""
    azure = sdk.AzureOpenAI(azure_endpoint="http://a", api_key="k", api_version="1")

    with pytest.raises(TypeError, match="not through AzureOpenAI: Azure, Vertex"):
        use_batch_api(OpenAI(model="gpt-4o-mini", api_key="k", openai_client=azure), queue)


def test_models_that_complete_are_refused(queue: BatchQueue) -> None:
    """A model that would ask another endpoint, past the batch and at the full price, is refused."""
    with pytest.raises(ValueError, match="give it is_chat_model=True"):
        use_batch_api(OpenAI(model="gpt-3.5-turbo-instruct", api_key="k"), queue)


async def test_a_path_is_enough(tmp_path: Path) -> None:
    """Given a path, it opens the queue itself, in a file of that name."""
    llm: Any = use_batch_api(OpenAI(model="gpt-4o-mini", api_key="k"), tmp_path / "jobs.db")

    with pytest.raises(sdk.BadRequestError, match="cannot stream"):
        await llm.llm._aclient.chat.completions.create(model="m", messages=[], stream=True)
    assert (tmp_path / "jobs.db").exists()
