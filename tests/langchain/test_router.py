import asyncio
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypedDict
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import (
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
)
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    ToolCall,
    ToolMessage,
    message_chunk_to_message,
)
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, Runnable, RunnableBinding, RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from openai import LengthFinishReasonError
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ValidationError

from langchain_costopt import CostCallbackHandler, RouterChatModel, RouterMiddleware
from llm_costopt import Prices
from llm_costopt.router.complexity import Level
from llm_costopt.router.learned import LearnedRules, learn_rules
from llm_costopt.router.value import Example
from llm_costopt.types import Answer, Message, Question
from tests.scripted import (
    BEST,
    COMPLEX,
    MEDIUM,
    SIMPLE,
    SOON,
    SURE,
    UNSURE,
    Breaking,
    Scripted,
    astream,
    attempts,
    both_streams,
    calling,
    cheap,
    each_colour,
    every_way,
    invoke,
    listed,
    mark,
    scripted,
    stream,
    strong,
    usage,
    whole,
)


@dataclass
class Run:
    """What a handler was told of a run."""

    kind: str
    name: str | None
    parent: UUID | None
    tags: list[str]
    metadata: dict[str, Any]
    ended: str | None = None
    tokens: list[str] = field(default_factory=list)


class Tracer(BaseCallbackHandler):
    """Remembers all runs, in the order of their starts."""

    def __init__(self) -> None:
        self.runs: dict[UUID, Run] = {}

    def on_chain_start(self, serialized: Any, inputs: Any, **told: Any) -> None:
        self._start("chain", told)

    def on_chat_model_start(self, serialized: Any, messages: Any, **told: Any) -> None:
        self._start("llm", told)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **told: Any) -> None:
        self.runs[run_id].tokens.append(token)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **told: Any) -> None:
        self.runs[run_id].ended = "ok"

    def on_llm_end(self, response: Any, *, run_id: UUID, **told: Any) -> None:
        self.runs[run_id].ended = "ok"

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        self.runs[run_id].ended = type(error).__name__

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        self.runs[run_id].ended = type(error).__name__

    def _start(self, kind: str, told: dict[str, Any]) -> None:
        metadata = told.get("metadata") or {}
        name = metadata.get("ls_model_name") if kind == "llm" else told.get("name")
        self.runs[told["run_id"]] = Run(kind, name, told.get("parent_run_id"), list(told.get("tags") or ()), metadata)

    def tree(self) -> list[tuple[str, str | None, str | None]]:
        """List kind and name of each run, and the name of its parent."""
        return [(r.kind, r.name, self.runs[r.parent].name if r.parent else None) for r in self.runs.values()]

    def only(self, kind: str) -> Run:
        """Find the one run of *kind*."""
        (run,) = [r for r in self.runs.values() if r.kind == kind]
        return run


@pytest.fixture(autouse=True)
def _no_handler_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """LangChain logs and swallows what a handler raises; no test passes with such a failure."""
    yield

    assert not [record for record in caplog.get_records("call") if record.name == "langchain_core.callbacks.manager"]


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class City(BaseModel):
    """A city."""

    name: str
    people: int


class CityDict(TypedDict):
    """A city."""

    name: str
    people: int


CITY_SCHEMA = {**City.model_json_schema(), "title": "City"}

PARIS = {"name": "Paris", "people": 2_000_000}


@every_way
def test_simple_goes_to_the_cheap_model(call: Any) -> None:
    """A simple request is answered by the cheap model alone, unchecked, however it is called."""
    router = RouterChatModel(cheap=cheap(UNSURE), strong=strong())
    reply = call(router, SIMPLE)

    assert reply.content == UNSURE
    assert attempts(reply) == [("cheap", "accepted")]
    assert (mark(reply)["complexity"], mark(reply)["tier"]) == ("simple", "cheap")
    assert isinstance(reply, AIMessage)


@every_way
def test_complex_goes_to_the_strong_model(call: Any) -> None:
    """A complex request never reaches the cheap model."""
    router = RouterChatModel(cheap=cheap(SURE), strong=strong())
    reply = call(router, COMPLEX)

    assert reply.content == BEST
    assert attempts(reply) == [("strong", "accepted")]
    assert (mark(reply)["complexity"], mark(reply)["tier"]) == ("complex", "strong")


@every_way
def test_a_good_draft_is_kept(call: Any) -> None:
    """A medium request ends with the cheap model if its answer is good enough."""
    router = RouterChatModel(cheap=cheap(SURE), strong=strong())
    reply = call(router, MEDIUM)

    assert reply.content == SURE
    assert attempts(reply) == [("cheap", "accepted")]
    assert mark(reply)["attempts"][0]["confidence"] == 0.9
    assert not mark(reply)["escalated"]


@every_way
def test_a_doubtful_draft_is_escalated(call: Any) -> None:
    """A medium request whose draft is doubtful is answered by the strong model, and the draft is not seen."""
    tier = strong()
    router = RouterChatModel(cheap=cheap(UNSURE), strong=tier)
    reply = call(router, [("system", "Be kind."), ("human", MEDIUM)])
    decision = mark(reply)

    assert reply.content == BEST
    assert attempts(reply) == [("cheap", "rejected"), ("strong", "accepted")]
    assert (decision["escalated"], decision["fell_back"], decision["tier"]) == (True, False, "strong")
    assert [message.content for message in tier.seen[0].messages] == ["Be kind.", MEDIUM]


@every_way
def test_the_record_of_every_attempt(call: Any) -> None:
    """Each attempt says what a bill needs: model, tokens, time, and which draft it replaces."""
    router = RouterChatModel(cheap=cheap(UNSURE), strong=strong())
    draft, kept = mark(call(router, MEDIUM))["attempts"]

    assert (draft["model"], kept["model"]) == ("cheap", "strong")
    assert draft["usage"] == usage(AIMessage(UNSURE))
    assert kept["usage"] == usage(AIMessage(BEST))
    assert (draft["why"], draft["error"], draft["replaces"]) == ("hedging", None, None)
    assert draft["confidence"] < 0.7
    assert kept["replaces"] == draft["id"]
    assert kept["confidence"] is None
    assert {draft["baseline"], kept["baseline"]} == {"strong"}
    assert {draft["complexity"], kept["complexity"]} == {"medium"}
    assert draft["latency"] >= 0


@every_way
def test_the_tier_keeps_its_own_word(call: Any) -> None:
    """What the model says of its reply (its name, why it stopped, its tokens) stays on the message."""
    reply = call(RouterChatModel(cheap=cheap(SURE), strong=strong()), MEDIUM)

    assert reply.response_metadata["model_name"] == "cheap"
    assert reply.response_metadata["finish_reason"] == "stop"
    assert reply.usage_metadata == usage(AIMessage(SURE))
    assert reply.id


def test_batches_keep_their_order() -> None:
    """Each item of a batch is routed by itself and comes back in its place, errors included."""
    router = RouterChatModel(cheap=cheap(SURE), strong=strong(BEST, ValueError("out of order")))
    replies = router.batch([SIMPLE, COMPLEX, SIMPLE], {"max_concurrency": 1})
    failed = router.batch([COMPLEX, SIMPLE], {"max_concurrency": 1}, return_exceptions=True)

    assert [mark(reply)["tier"] for reply in replies] == ["cheap", "strong", "cheap"]
    assert isinstance(failed[0], ValueError)
    assert mark(failed[1])["tier"] == "cheap"


@both_streams
@pytest.mark.parametrize(("asked", "text"), [(SIMPLE, UNSURE), (COMPLEX, BEST)])
def test_simple_and_complex_stream_as_their_tier_does(chunks: Any, asked: str, text: str) -> None:
    """A reply that nobody will judge is passed on word by word."""
    shown = chunks(RouterChatModel(cheap=cheap(UNSURE), strong=strong()), asked)

    assert [chunk.content for chunk in shown if chunk.content] == re.findall(r"\S+\s*", text)


@both_streams
def test_an_accepted_draft_is_shown_at_once(chunks: Any) -> None:
    """A draft is shown when it has been judged, whole."""
    shown = chunks(RouterChatModel(cheap=cheap(SURE), strong=strong()), MEDIUM)

    assert [chunk.content for chunk in shown] == [SURE]


@both_streams
def test_a_rejected_draft_is_never_shown(chunks: Any) -> None:
    """After an escalation only the strong model's words are seen, and they stream."""
    shown = chunks(RouterChatModel(cheap=cheap(UNSURE), strong=strong()), MEDIUM)

    assert [chunk.content for chunk in shown if chunk.content] == re.findall(r"\S+\s*", BEST)


@both_streams
@pytest.mark.parametrize("asked", [SIMPLE, MEDIUM, COMPLEX])
@pytest.mark.parametrize("draft", [SURE, UNSURE])
def test_a_stream_tells_its_decision_once(chunks: Any, asked: str, draft: str) -> None:
    """The last chunk of a stream, and no other, carries the decision: added up, two would be garbled."""
    shown = chunks(RouterChatModel(cheap=cheap(draft), strong=strong()), asked)

    assert ["llm_costopt" in chunk.response_metadata for chunk in shown] == [*[False] * (len(shown) - 1), True]
    assert shown[-1].chunk_position == "last"
    assert mark(whole(shown)) == mark(shown[-1])


TEXTS = st.one_of(st.sampled_from([SURE, UNSURE, ""]), st.text(max_size=30))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
CALLS = st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=2), max_size=2)
REPLIES = st.builds(
    lambda text, calls: AIMessage(
        text, tool_calls=[ToolCall(name=f"tool_{n}", args=args, id=f"call_{n}") for n, args in enumerate(calls)]
    ),
    TEXTS,
    CALLS,
)


@settings(deadline=None)
@given(asked=st.sampled_from([SIMPLE, MEDIUM, COMPLEX]), draft=REPLIES, best=REPLIES)
def test_a_stream_adds_up_to_what_invoke_returns(asked: str, draft: AIMessage, best: AIMessage) -> None:
    """Whatever the tiers say, text, tool calls, tokens and decision are the same, streamed or not, async or not."""
    router = RouterChatModel(cheap=cheap(draft), strong=strong(best))
    expected = router.invoke(asked)
    for streamed in (stream(router, asked), astream(router, asked)):
        message = message_chunk_to_message(streamed)

        assert isinstance(message, AIMessage)
        assert message.text == expected.text
        assert message.tool_calls == expected.tool_calls
        assert message.usage_metadata == expected.usage_metadata
        assert attempts(message) == attempts(expected)


def test_a_stream_that_is_left_early() -> None:
    """A reader who has seen enough ends the run without an error."""
    tracer = Tracer()
    chunks = RouterChatModel(cheap=cheap(SURE), strong=strong()).stream(SIMPLE, {"callbacks": [tracer]})
    first = next(chunks)
    chunks.close()  # type: ignore[attr-defined]  # it is a generator, which the host's type does not say

    assert first.content == "The "
    assert tracer.only("chain").ended == "ok"


@every_way
def test_the_runs_are_a_chain_with_its_models(call: Any) -> None:
    """A trace shows the router as a chain and each tier's call as a model below it."""
    tracer = Tracer()
    call(RouterChatModel(cheap=cheap(UNSURE), strong=strong()), MEDIUM, {"callbacks": [tracer]})

    assert tracer.tree() == [
        ("chain", "RouterChatModel", None),
        ("llm", "cheap", "RouterChatModel"),
        ("llm", "strong", "RouterChatModel"),
    ]
    assert {run.ended for run in tracer.runs.values()} == {"ok"}


@every_way
def test_the_attempts_are_known_by_their_runs(call: Any) -> None:
    """The ids of the attempts are those of the tiers' runs, and the runs say what they are for."""
    tracer = Tracer()
    reply = call(RouterChatModel(cheap=cheap(UNSURE), strong=strong()), MEDIUM, {"callbacks": [tracer]})
    models = {str(run_id): run.metadata for run_id, run in tracer.runs.items() if run.kind == "llm"}
    draft, kept = [a["id"] for a in mark(reply)["attempts"]]

    assert list(models) == [draft, kept]
    assert models[kept]["llm_costopt_replaces"] == draft
    assert "llm_costopt_replaces" not in models[draft]
    assert {m["llm_costopt_baseline"] for m in models.values()} == {"strong"}
    assert {m["llm_costopt_complexity"] for m in models.values()} == {"medium"}


@every_way
def test_below_a_chain(call: Any) -> None:
    """In a chain the router's run is the chain's child."""
    tracer = Tracer()
    chain = ChatPromptTemplate.from_template("{question}") | RouterChatModel(cheap=cheap(SURE), strong=strong())
    call(chain, {"question": MEDIUM}, {"callbacks": [tracer]})

    assert ("chain", "RouterChatModel", "RunnableSequence") in tracer.tree()
    assert ("llm", "cheap", "RouterChatModel") in tracer.tree()


@every_way
@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        (SIMPLE, {"cheap": usage(AIMessage(UNSURE))}),
        (MEDIUM, {"cheap": usage(AIMessage(UNSURE)), "strong": usage(AIMessage(BEST))}),
        (COMPLEX, {"strong": usage(AIMessage(BEST))}),
    ],
)
def test_each_token_is_counted_once(call: Any, asked: str, tokens: dict[str, Any]) -> None:
    """LangChain's own counter sees the tokens of both tiers, each once, under the model that was paid for."""
    counter = UsageMetadataCallbackHandler()
    call(RouterChatModel(cheap=cheap(UNSURE), strong=strong()), asked, {"callbacks": [counter]})

    assert counter.usage_metadata == tokens


class Ask(MessagesState):
    """The state of a graph with one node."""


def graph(router: RouterChatModel) -> Any:
    """Make a LangGraph graph whose only node calls *router*, as nodes do."""

    def node(state: Ask) -> dict[str, Any]:
        return {"messages": [router.invoke(state["messages"])]}

    async def anode(state: Ask) -> dict[str, Any]:
        return {"messages": [await router.ainvoke(state["messages"])]}

    builder = StateGraph(Ask)
    builder.add_node("model", RunnableLambda(node, afunc=anode))
    builder.add_edge(START, "model")
    builder.add_edge("model", END)
    return builder.compile()


def asking(text: str) -> dict[str, Any]:
    """Make the input of a graph."""
    return {"messages": [HumanMessage(text)]}


def shown_by(app: Any, text: str) -> list[str]:
    """Stream a graph's messages, blocking, and list the texts that a user sees."""
    return [m.text for m, _ in app.stream(asking(text), stream_mode="messages") if m.text]


def ashown_by(app: Any, text: str) -> list[str]:
    """Stream a graph's messages on an event loop, and list the texts that a user sees."""
    events = asyncio.run(listed(app.astream(asking(text), stream_mode="messages")))
    return [m.text for m, _ in events if m.text]


@pytest.mark.parametrize("shown", [shown_by, ashown_by])
@pytest.mark.parametrize(
    ("asked", "draft", "texts"),
    [
        (SIMPLE, UNSURE, re.findall(r"\S+\s*", UNSURE)),
        (MEDIUM, SURE, [SURE]),
        (MEDIUM, UNSURE, re.findall(r"\S+\s*", BEST)),
        (COMPLEX, SURE, re.findall(r"\S+\s*", BEST)),
    ],
    ids=["simple", "accepted", "rejected", "complex"],
)
def test_what_a_graph_shows(shown: Any, asked: str, draft: str, texts: list[str]) -> None:
    """LangGraph's message stream shows each word of the answer once, and nothing of a rejected draft."""
    app = graph(RouterChatModel(cheap=cheap(draft), strong=strong()))

    assert shown(app, asked) == texts


@each_colour
def test_a_graph_keeps_every_answer(call: Any) -> None:
    """Answers of two turns both stay in the state of a graph: their ids differ."""
    app = graph(RouterChatModel(cheap=cheap(SURE), strong=strong()))
    first = call(app, asking(MEDIUM))
    second = call(app, {"messages": [*first["messages"], HumanMessage(MEDIUM)]})

    assert [m.type for m in second["messages"]] == ["human", "ai", "human", "ai"]


async def test_events() -> None:
    """An event stream tells the router as a chain, its models below it, and the answer as the chain's chunks."""
    router = RouterChatModel(cheap=cheap(UNSURE), strong=strong())
    events = [event async for event in router.astream_events(MEDIUM, version="v2")]
    told = [(event["event"], event["name"]) for event in events]
    shown = [
        event["data"]["chunk"].content
        for event in events
        if event["event"] == "on_chain_stream" and event["name"] == "RouterChatModel"
    ]

    assert told[0] == ("on_chain_start", "RouterChatModel")
    assert told[-1] == ("on_chain_end", "RouterChatModel")
    assert [event for event, _ in told].count("on_chat_model_end") == 2
    assert "".join(shown) == BEST


async def test_events_of_a_draft_are_tagged() -> None:
    """Events that show a model's tokens can be told apart: those of a draft have LangGraph's tag for silence."""
    router = RouterChatModel(cheap=cheap(UNSURE), strong=strong())
    shown = [
        event["data"]["chunk"].content
        for event in [e async for e in router.astream_events(MEDIUM, version="v2")]
        if event["event"] == "on_chat_model_stream" and "nostream" not in event["tags"]
    ]

    assert "".join(shown) == BEST


def test_bind_tools_gives_a_binding() -> None:
    """Agents look for a `RunnableBinding` of the router, which is what they get, and no tool choice unless given."""
    bound = RouterChatModel(cheap=cheap(SURE), strong=strong()).bind_tools([add])

    assert isinstance(bound, RunnableBinding)
    assert isinstance(bound.bound, RouterChatModel)
    assert "tool_choice" not in bound.kwargs


@every_way
def test_each_tier_gets_the_tools_in_its_own_form(call: Any) -> None:
    """Tools are bound by the tier that is called, with the tool choice and other options."""
    tiers = cheap(UNSURE), strong()
    router = RouterChatModel(cheap=tiers[0], strong=tiers[1])
    call(router.bind_tools([add, City], tool_choice="auto", parallel_tool_calls=False), MEDIUM)

    for tier in tiers:
        names = [{tier.model_name: "add"}, {tier.model_name: "City"}]
        assert tier.seen[0].options == {"tools": names, "tool_choice": "auto", "parallel_tool_calls": False}


@every_way
def test_a_right_tool_call_is_kept(call: Any) -> None:
    """A draft that calls a known tool rightly is the answer."""
    draft = calling("add", {"a": 1, "b": 2})
    reply = call(RouterChatModel(cheap=cheap(draft), strong=strong()).bind_tools([add]), MEDIUM)

    assert [(c["name"], c["args"], c["id"]) for c in reply.tool_calls] == [("add", {"a": 1, "b": 2}, "call_1")]
    assert attempts(reply) == [("cheap", "accepted")]


@every_way
@pytest.mark.parametrize(
    ("draft", "why"),
    [
        (calling("subtract", {"a": 1, "b": 2}), "unknown tool 'subtract'"),
        (calling("add", {"a": 1}), "bad arguments for 'add'"),
        (calling("add", {"a": 1, "b": "two"}), "bad arguments for 'add'"),
        (
            AIMessage("", invalid_tool_calls=[{"name": "add", "args": "{", "id": "call_1", "error": "no JSON"}]),
            "unparsable",
        ),
    ],
    ids=["unknown", "missing", "type", "unparsable"],
)
def test_a_wrong_tool_call_is_escalated(call: Any, draft: AIMessage, why: str) -> None:
    """A draft that calls what there is not, or with wrong arguments, never leaves the router, not even for a lookup."""
    best = calling("add", {"a": 1, "b": 2}, "call_2")
    reply = call(RouterChatModel(cheap=cheap(draft), strong=strong(best)).bind_tools([add]), SIMPLE)

    assert [(c["name"], c["id"]) for c in reply.tool_calls] == [("add", "call_2")]
    assert mark(reply)["attempts"][0]["why"] == why


def test_tools_of_a_providers_own_form() -> None:
    """With a tool that LangChain cannot describe no call is held to be unknown."""
    draft = calling("web_search", {"query": "bakeries"})
    bound = RouterChatModel(cheap=Plain(model_name="cheap", replies=[draft]), strong=strong()).bind_tools(
        [{"type": "web_search"}]
    )

    assert attempts(bound.invoke(MEDIUM)) == [("cheap", "accepted")]


class Plain(Scripted):
    """Takes tools as they are."""

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        return self.bind(tools=tools, **kwargs)


@every_way
def test_options_reach_the_tier(call: Any) -> None:
    """What is bound to the router, as another model name, is sent to the tier; stop words too."""
    tier = cheap(SURE)
    call(RouterChatModel(cheap=tier, strong=strong()).bind(temperature=0, stop=["!"]), MEDIUM)

    assert (tier.seen[0].options, tier.seen[0].stop) == ({"temperature": 0}, ["!"])


@each_colour
@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize(
    ("schema", "parsed"),
    [(City, City(**PARIS)), (CityDict, PARIS), (CITY_SCHEMA, PARIS)],
    ids=["pydantic", "typed-dict", "dict"],
)
def test_structured_output(call: Any, include_raw: bool, schema: Any, parsed: Any) -> None:
    """A schema of each kind is parsed by the tier; with the raw message comes the router's decision."""
    draft = calling("CityDict" if schema is CityDict else "City", PARIS)
    router = RouterChatModel(cheap=cheap(draft), strong=strong())
    reply = call(router.with_structured_output(schema, include_raw=include_raw), SIMPLE)

    if include_raw:
        assert (reply["parsed"], reply["parsing_error"]) == (parsed, None)
        assert attempts(reply["raw"]) == [("cheap", "accepted")]
        assert mark(reply["raw"])["complexity"] == "medium"
    else:
        assert reply == parsed


COMPLETION = ChatCompletion(id="1", choices=[], created=0, model="cheap", object="chat.completion")

UNPARSABLE = [
    pytest.param(calling("City", {"name": "Paris"}), "unparsable", id="missing-field"),
    pytest.param("It is Paris, of course.", "unparsable", id="no-call"),
    pytest.param(
        LengthFinishReasonError(completion=COMPLETION),
        "truncated",
        id="sdk-length",
    ),
]


def _validation_error() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        City.model_validate_json('{"name": "Par')
    return caught.value


@each_colour
@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize(
    ("draft", "why"), [*UNPARSABLE, pytest.param(_validation_error(), "unparsable", id="sdk-parse")]
)
def test_a_parse_failure_is_escalated(call: Any, include_raw: bool, draft: Any, why: str) -> None:
    """A draft that is not what the schema says is rejected, also when the SDK says so by an error of its own."""
    router = RouterChatModel(cheap=cheap(draft), strong=strong(calling("City", PARIS)))
    reply = call(router.with_structured_output(City, include_raw=True), MEDIUM)
    decision = mark(reply["raw"])

    assert call(router.with_structured_output(City), MEDIUM) == City(**PARIS)
    assert reply["parsed"] == City(**PARIS)
    assert attempts(reply["raw"]) == [("cheap", "rejected"), ("strong", "accepted")]
    assert (decision["escalated"], decision["fell_back"]) == (True, False)
    assert (decision["attempts"][0]["why"], decision["attempts"][0]["error"]) == (why, None)


@each_colour
def test_a_parse_failure_of_the_strong_model(call: Any) -> None:
    """When no tier is left the failure is told as a bare model tells it: raised, or beside the raw message."""
    bad = calling("City", {"name": "Paris"})
    router = RouterChatModel(cheap=cheap(bad), strong=strong(bad))
    reply = call(router.with_structured_output(City, include_raw=True), MEDIUM)
    with pytest.raises(ValidationError):
        call(router.with_structured_output(City), MEDIUM)

    assert isinstance(reply["parsing_error"], ValidationError)
    assert reply["parsed"] is None
    assert attempts(reply["raw"]) == [("cheap", "rejected"), ("strong", "accepted")]


def test_structured_output_counts_and_traces() -> None:
    """The tokens of a structured answer are counted once, below the router's own run."""
    counter, tracer = UsageMetadataCallbackHandler(), Tracer()
    router = RouterChatModel(cheap=cheap(calling("City", PARIS)), strong=strong(), tags=["ours"])
    router.with_structured_output(City).invoke(MEDIUM, {"callbacks": [counter, tracer]})

    assert counter.usage_metadata == {"cheap": usage(AIMessage(""))}
    assert next(iter(tracer.runs.values())).kind == "chain"
    assert "ours" in tracer.only("llm").tags


@each_colour
def test_the_attempts_at_a_structure_are_known_by_their_calls(call: Any) -> None:
    """Around a parser the attempts' ids are not those of the models' runs, so each run names its attempt."""
    tracer = Tracer()
    router = RouterChatModel(cheap=cheap("No."), strong=strong(calling("City", PARIS)))
    reply = call(router.with_structured_output(City, include_raw=True), MEDIUM, {"callbacks": [tracer]})
    models = [run.metadata for run in tracer.runs.values() if run.kind == "llm"]
    draft, kept = [a["id"] for a in mark(reply["raw"])["attempts"]]

    assert [m["llm_costopt_call"] for m in models] == [draft, kept]
    assert models[1]["llm_costopt_replaces"] == draft


def test_structured_output_in_a_chain() -> None:
    """The structured router is a runnable like others: it pipes, batches and streams its one object."""
    router = RouterChatModel(cheap=cheap(calling("City", PARIS)), strong=strong())
    chain = ChatPromptTemplate.from_template("{q}") | router.with_structured_output(City) | (lambda city: city.name)

    assert chain.batch([{"q": SIMPLE}, {"q": MEDIUM}]) == ["Paris", "Paris"]
    assert list(chain.stream({"q": SIMPLE})) == ["Paris"]


@every_way
@pytest.mark.parametrize("asked", [SIMPLE, MEDIUM])
def test_an_error_of_the_cheap_model_falls_back(call: Any, asked: str) -> None:
    """If the cheap model fails the strong one answers, which is told apart from an escalation."""
    router = RouterChatModel(cheap=cheap(ConnectionError("no network")), strong=strong())
    reply = call(router, asked)
    failed = mark(reply)["attempts"][0]

    assert reply.content == BEST
    assert attempts(reply) == [("cheap", "failed"), ("strong", "accepted")]
    assert (mark(reply)["fell_back"], mark(reply)["escalated"]) == (True, False)
    assert (failed["error"], failed["usage"], failed["model"]) == ("ConnectionError", None, "cheap")
    assert mark(reply)["attempts"][1]["replaces"] is None


@every_way
@pytest.mark.parametrize("asked", [SIMPLE, MEDIUM, COMPLEX])
def test_an_error_of_the_strong_model_reaches_the_user(call: Any, asked: str) -> None:
    """When no tier is left the error is raised as it is, and the runs end with it."""
    tracer, problem = Tracer(), PermissionError("no such key")
    router = RouterChatModel(cheap=cheap(ConnectionError("no network")), strong=strong(problem))
    with pytest.raises(PermissionError) as caught:
        call(router, asked, {"callbacks": [tracer]})

    assert caught.value is problem
    assert tracer.only("chain").ended == "PermissionError"


@both_streams
def test_a_stream_that_breaks_later_reaches_the_user(chunks: Any) -> None:
    """Words that were shown cannot be taken back, so an error behind them is the user's to handle."""
    router = RouterChatModel(cheap=cheap(Breaking(AIMessage(SURE), OSError("cut off"))), strong=strong())

    with pytest.raises(OSError, match="cut off"):
        chunks(router, SIMPLE)


@both_streams
def test_a_tier_whose_streams_break_off_is_left_alone(chunks: Any) -> None:
    """Three streams in a row that break after their first chunk count as an outage, as three calls that fail do."""
    first = cheap(Breaking(AIMessage(SURE), RuntimeError()))
    router = RouterChatModel(cheap=first, strong=strong())
    for _ in range(3):
        with pytest.raises(RuntimeError):
            chunks(router, SIMPLE)

    assert whole(chunks(router, SIMPLE)).content == BEST
    assert len(first.seen) == 3


@both_streams
def test_a_draft_that_breaks_in_the_middle_falls_back(chunks: Any) -> None:
    """Nothing of a draft has been shown yet when it breaks."""
    router = RouterChatModel(cheap=cheap(Breaking(AIMessage(SURE), OSError("cut off"))), strong=strong())
    reply = whole(chunks(router, MEDIUM))

    assert reply.content == BEST
    assert attempts(reply) == [("cheap", "failed"), ("strong", "accepted")]


@each_colour
def test_a_reply_that_is_no_ai_message(call: Any) -> None:
    """A model that answers in another role is passed through, without a decision that the message has no place for."""
    other = ChatMessage(content="Bonjour", role="guide")
    reply = call(RouterChatModel(cheap=GenericFakeChatModel(messages=iter([other])), strong=strong()), SIMPLE)

    assert (reply.content, reply.type) == ("Bonjour", "chat")


async def test_cancelling() -> None:
    """A cancelled call is neither a failure of the tier nor a reason to ask the other one."""
    started, tracer, tier = asyncio.Event(), Tracer(), strong()

    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    waiting = Scripted(model_name="cheap", replies=[AIMessage(SURE)], wait=wait)
    router = RouterChatModel(cheap=waiting, strong=tier)
    task = asyncio.create_task(router.ainvoke(MEDIUM, {"callbacks": [tracer]}))
    await asyncio.wait_for(started.wait(), SOON)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert tier.seen == []
    assert tracer.only("chain").ended == "CancelledError"


async def test_many_at_once() -> None:
    """Calls that run together do not mix up their answers or their decisions."""
    router = RouterChatModel(cheap=cheap(SURE), strong=strong())
    asked = [SIMPLE, MEDIUM, COMPLEX] * 10
    replies = await asyncio.gather(*[router.ainvoke(text) for text in asked])

    assert [mark(reply)["complexity"] for reply in replies] == ["simple", "medium", "complex"] * 10


@every_way
def test_the_threshold_can_be_configured(call: Any) -> None:
    """`configurable_fields` changes the threshold for one call."""
    router = RouterChatModel(cheap=cheap(UNSURE), strong=strong()).configurable_fields(
        threshold=ConfigurableField(id="threshold")
    )

    assert call(router, MEDIUM).content == BEST
    assert call(router, MEDIUM, {"configurable": {"threshold": 0}}).content == UNSURE


@each_colour
def test_own_rules(call: Any) -> None:
    """The rules that a user gives are asked instead of ours, with the whole question and the whole answer."""
    asked: list[Any] = []

    def hard(question: Question) -> tuple[Level, str]:
        asked.append(question)
        return "medium", "all are"

    def doubt(question: Question, answer: Answer) -> tuple[float, str]:
        asked.append(answer)
        return 0.1, "never enough"

    router = RouterChatModel(cheap=cheap(SURE), strong=strong(), complexity=hard, confidence=doubt)
    reply = call(router.bind_tools([add]), SIMPLE)
    question, answer = asked

    assert reply.content == BEST
    assert mark(reply)["why"] == "all are"
    assert (mark(reply)["attempts"][0]["confidence"], mark(reply)["attempts"][0]["why"]) == (0.1, "never enough")
    assert [m.text for m in question.messages] == [SIMPLE]
    assert list(question.tools) == ["add"]
    assert (answer.text, answer.model, answer.usage.output_tokens) == (SURE, "cheap", len(SURE.split()))


@each_colour
def test_rules_that_raise(call: Any) -> None:
    """A broken rule never breaks the call."""

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    reply = call(RouterChatModel(cheap=cheap(SURE), strong=strong(), complexity=broken, confidence=broken), SIMPLE)

    assert reply.content == BEST
    assert mark(reply)["complexity"] == "medium"


@pytest.mark.parametrize(
    "rubbish", [None, "simple", ("easy", "x"), (float("nan"), "x"), ("0.9", "x"), (5, "x"), (0.9,)]
)
@each_colour
def test_rules_that_return_rubbish(call: Any, rubbish: Any) -> None:
    """A rule that returns neither a level nor a score breaks no call: the request counts as medium, the draft as doubtful."""
    rules: Any = {"complexity": lambda _: rubbish, "confidence": lambda *_: rubbish}
    reply = call(RouterChatModel(cheap=cheap(SURE), strong=strong(), **rules), SIMPLE)

    assert reply.content == BEST
    assert (mark(reply)["complexity"], mark(reply)["why"]) == ("medium", "the rule failed")
    assert mark(reply)["attempts"][0]["confidence"] == 0


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "high"])
def test_a_threshold_out_of_range(threshold: Any) -> None:
    """A threshold that no score can be compared with is refused when the router is made."""
    with pytest.raises(ValidationError, match="threshold"):
        RouterChatModel(cheap=cheap(SURE), strong=strong(), threshold=threshold)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("mode", "of", "'on', 'observe' or 'off'"),
        ("threshold", 5, "less than or equal to 1"),
        ("budgets", 5, "valid list"),
        ("max_strong_share", 0.1, "frozen"),
        ("target_quality", 0.9, "frozen"),
        ("preset", "aggressive", "frozen"),
    ],
)
def test_what_is_set_later_is_checked_as_well(name: str, value: Any, says: str) -> None:
    """An option set on a router is refused if it is wrong, or if it counts at the start alone; others hold from then on."""
    router = RouterChatModel(cheap=cheap(SURE), strong=strong())
    with pytest.raises(ValidationError, match=rf"{name}\n.*{says}"):
        setattr(router, name, value)
    router.mode = "off"

    assert router.invoke(MEDIUM).text == BEST


def test_an_option_that_there_is_none_of(caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt option is refused by its name; what belongs to the tiers is warned of, since the host makes models with it."""
    with pytest.raises(ValidationError, match=r"budget\n.*not permitted"):
        RouterChatModel(cheap=cheap(SURE), strong=strong(), budget=1)
    RouterChatModel(cheap=cheap(SURE), strong=strong(), temperature=0)

    assert caplog.messages == ["temperature= does nothing on a router: give it to the tiers, or with a call"]


@pytest.mark.parametrize("tier", ["cheap", "strong"])
def test_a_bound_model_is_no_tier(tier: str) -> None:
    """A model that tools were bound to is refused, and the error says what to do instead."""
    tiers: dict[str, Any] = {"cheap": cheap(SURE), "strong": strong()}
    tiers[tier] = tiers[tier].bind_tools([add])

    with pytest.raises(
        ValidationError, match=f"tier {1 + (tier == 'strong')} .*bind tools and schemas to the router instead"
    ):
        RouterChatModel(**tiers)


def test_something_else_is_no_tier() -> None:
    """A name is not a model."""
    with pytest.raises(ValidationError, match="tier 1 is no chat model but str"):
        RouterChatModel(cheap="gpt-4o-mini", strong=strong())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given", [{}, {"cheap": 1}, {"strong": 1}, {"cheap": 1, "tiers": 1}, {"cheap": 1, "strong": 1, "tiers": 1}]
)
def test_tiers_are_given_in_one_way(given: dict[str, Any]) -> None:
    """Neither too little nor both forms at once; the error names the two."""
    models: dict[str, Any] = {name: [strong()] if name == "tiers" else strong() for name in given}
    with pytest.raises(ValueError, match="cheap= and strong=, or tiers="):
        RouterChatModel(**models)
    with pytest.raises(ValidationError, match="at least 1 item"):
        RouterChatModel(tiers=[])


@each_colour
def test_three_tiers_are_climbed(call: Any) -> None:
    """A doubtful answer goes one tier up, not to the top; each attempt and the tier's name are told."""
    first, second, third = cheap("I think it might be, perhaps, possibly."), cheap(SURE), strong()
    reply = call(RouterChatModel(tiers=[first, second, third]), "Summarise the plot of Hamlet")
    decision = reply.response_metadata["llm_costopt"]

    assert reply.text == SURE
    assert [a["result"] for a in decision["attempts"]] == ["rejected", "accepted"]
    assert (decision["tier"], decision["escalated"]) == ("tier 2", True)


@each_colour
def test_one_tier_is_just_that_model(call: Any) -> None:
    """A router of one tier asks it, whatever the request, and rejects nothing."""
    reply = call(
        RouterChatModel(tiers=[cheap("I think it might be, perhaps, possibly.")]), "Summarise the plot of Hamlet"
    )

    assert [a["result"] for a in reply.response_metadata["llm_costopt"]["attempts"]] == ["accepted"]
    assert reply.response_metadata["llm_costopt"]["tier"] == "strong"


@each_colour
def test_an_agent_with_tools(call: Any) -> None:
    """`create_agent` runs its loop with a router: a checked tool call, the tool, and an answer."""
    tier = cheap(calling("add", {"a": 1, "b": 2}), "One and two make three.")
    agent = create_agent(RouterChatModel(cheap=tier, strong=strong()), tools=[add])
    messages = call(agent, asking("Please sum up one and two"))["messages"]

    assert [m.type for m in messages] == ["human", "ai", "tool", "ai"]
    assert isinstance(messages[2], ToolMessage)
    assert messages[2].content == "3"
    assert messages[3].content == "One and two make three."
    assert [m.type for m in tier.seen[1].messages] == ["human", "ai", "tool"]


@each_colour
def test_an_agent_whose_cheap_model_calls_a_wrong_tool(call: Any) -> None:
    """An agent never sees a tool call that could not run."""
    router = RouterChatModel(
        cheap=cheap(calling("sum", {"x": [1, 2]})),
        strong=strong(calling("add", {"a": 1, "b": 2}), "One and two make three."),
    )
    messages = call(create_agent(router, tools=[add]), asking("Please sum up one and two"))["messages"]

    assert [m.type for m in messages] == ["human", "ai", "tool", "ai"]
    assert attempts(messages[1]) == [("cheap", "rejected"), ("strong", "accepted")]
    assert messages[2].content == "3"


def test_an_agent_with_a_response_format() -> None:
    """An agent gets its structured response through a router as a tool call."""
    tier = cheap(calling("City", PARIS))
    agent = create_agent(RouterChatModel(cheap=tier, strong=strong()), tools=[add], response_format=City)

    assert invoke(agent, asking(MEDIUM))["structured_response"] == City(**PARIS)


@pytest.mark.parametrize("shown", [shown_by, ashown_by])
def test_what_an_agent_shows(shown: Any) -> None:
    """The message stream of an agent shows nothing of a rejected draft."""
    agent = create_agent(RouterChatModel(cheap=cheap(UNSURE), strong=strong()), tools=[add])

    assert "".join(shown(agent, MEDIUM)) == BEST


def message_of(result: LLMResult) -> BaseMessage:
    """Read the one message of a result."""
    ((generation,),) = result.generations
    assert isinstance(generation, ChatGeneration)
    return generation.message


def generate(router: RouterChatModel, asked: str, *handlers: BaseCallbackHandler) -> Any:
    """Call by `generate`."""
    return message_of(router.generate([[HumanMessage(asked)]], callbacks=list(handlers)))


def agenerate(router: RouterChatModel, asked: str, *handlers: BaseCallbackHandler) -> Any:
    """Call by `agenerate`."""
    return message_of(asyncio.run(router.agenerate([[HumanMessage(asked)]], callbacks=list(handlers))))


by_generate = pytest.mark.parametrize("call", [generate, agenerate])


@by_generate
def test_generate_is_one_run(call: Any) -> None:
    """By `generate` the router is itself the model that runs, and its tiers are silent."""
    tracer = Tracer()
    reply = call(RouterChatModel(cheap=cheap(UNSURE), strong=strong()), MEDIUM, tracer)

    assert reply.content == BEST
    assert tracer.tree() == [("llm", "cheap|strong", None)]
    assert tracer.only("llm").metadata["ls_provider"] == "llm_costopt"


@by_generate
def test_generate_inside_of_a_run(call: Any) -> None:
    """By `generate` the tiers stay silent to the run around it too: its tokens would count twice."""
    around, own = Tracer(), Tracer()
    router = RouterChatModel(cheap=cheap(UNSURE), strong=strong())
    RunnableLambda(lambda asked: call(router, asked, own)).invoke(MEDIUM, {"callbacks": [around]})

    assert [kind for kind, *_ in around.tree()] == ["chain"]
    assert [kind for kind, *_ in own.tree()] == ["llm"]


@by_generate
def test_generate_tells_all_attempts(call: Any) -> None:
    """By `generate` the message alone tells of the tokens of every attempt."""
    reply = call(RouterChatModel(cheap=cheap(UNSURE), strong=strong()), MEDIUM)

    assert [(a["model"], a["usage"]) for a in mark(reply)["attempts"]] == [
        ("cheap", usage(AIMessage(UNSURE))),
        ("strong", usage(AIMessage(BEST))),
    ]


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("asked", [SIMPLE, MEDIUM, COMPLEX])
async def test_events_of_version_three(asked: str) -> None:
    """The newest event stream, which runs the router as a model, shows the answer and never a rejected draft."""
    router = RouterChatModel(cheap=cheap(UNSURE), strong=strong())
    expected = (await router.ainvoke(asked)).text
    events = await router.astream_events(asked, version="v3")

    assert await events.text == expected
    assert "".join(router.stream_events(asked, version="v3").text) == expected


@every_way
def test_what_is_set_on_the_instance_reaches_the_runs(call: Any) -> None:
    """Tags, metadata and handlers of the router are those of its run and of its tiers' runs."""
    tracer, other = Tracer(), Tracer()
    router = RouterChatModel(
        cheap=cheap(SURE), strong=strong(), tags=["ours"], metadata={"team": "bread"}, callbacks=[tracer]
    )
    call(router, MEDIUM, {"callbacks": [other], "tags": ["theirs"], "metadata": {"user": "ann"}})

    assert tracer.tree() == other.tree() == [("chain", "RouterChatModel", None), ("llm", "cheap", "RouterChatModel")]
    for run in tracer.runs.values():
        assert {"ours", "theirs"} <= set(run.tags)
        assert (run.metadata["team"], run.metadata["user"]) == ("bread", "ann")


@pytest.mark.parametrize("call", [invoke, stream])
def test_handlers_of_a_call_overrule_the_surrounding_run(call: Any) -> None:
    """As with a bare model, handlers that are given to the call, even none, are not joined by those around it."""
    around, given_ = Tracer(), Tracer()
    router = RouterChatModel(cheap=cheap(SURE), strong=strong())

    def step(asked: str) -> None:
        call(router, asked, {"callbacks": []})
        call(router, asked, {"callbacks": [given_]})

    RunnableLambda(step).invoke(MEDIUM, {"callbacks": [around]})

    assert [kind for kind, *_ in around.tree()] == ["chain"]
    assert given_.tree() == [("chain", "RouterChatModel", None), ("llm", "cheap", "RouterChatModel")]


@each_colour
def test_without_a_config_the_surrounding_run_is_the_parent(call: Any) -> None:
    """A call inside of another run is traced below it although nothing was passed on."""
    tracer = Tracer()
    router = RouterChatModel(cheap=cheap(SURE), strong=strong())

    async def astep(asked: str) -> Any:
        return await router.ainvoke(asked)

    call(RunnableLambda(router.invoke, afunc=astep, name="step"), MEDIUM, {"callbacks": [tracer]})

    assert ("chain", "RouterChatModel", "step") in tracer.tree()


class Gate(BaseCallbackHandler):
    """Lets one model call run at a time, and fails the call that waits too long for it."""

    raise_error = True

    def __init__(self) -> None:
        self.passed = 0
        self._free = threading.Semaphore(1)

    def on_chat_model_start(self, serialized: Any, messages: Any, **told: Any) -> None:
        assert self._free.acquire(timeout=SOON), "a call waits for itself"
        self.passed += 1

    def on_llm_end(self, response: Any, **told: Any) -> None:
        self._free.release()


@every_way
def test_a_limit_of_one_call_at_a_time(call: Any) -> None:
    """A handler that lets a single call run does not make the router wait for itself."""
    gate = Gate()
    reply = call(RouterChatModel(cheap=cheap(UNSURE), strong=strong()), MEDIUM, {"callbacks": [gate]})

    assert reply.content == BEST
    assert gate.passed == 2


@by_generate
def test_a_limit_of_one_call_by_generate(call: Any) -> None:
    """By `generate` too a single slot is enough."""
    gate = Gate()

    assert call(RouterChatModel(cheap=cheap(UNSURE), strong=strong()), MEDIUM, gate).content == BEST
    assert gate.passed == 1


SILENT: dict[str, Callable[[RouterChatModel, BaseCallbackHandler], object]] = {
    "generate": lambda router, handler: generate(router, MEDIUM, handler),
    "agenerate": lambda router, handler: agenerate(router, MEDIUM, handler),
    "stream_events": lambda router, handler: list(
        router.stream_events(MEDIUM, {"callbacks": [handler]}, version="v3").text
    ),
}


@pytest.mark.parametrize("call", SILENT.values(), ids=SILENT.keys())
@pytest.mark.parametrize(
    "failure", [TimeoutError(), Breaking(AIMessage(BEST), TimeoutError())], ids=["at once", "in the middle"]
)
def test_a_request_that_fails_in_the_end_leaves_its_drafts(call: Any, failure: Any) -> None:
    """Where the tiers are silent too, what the rejected draft cost is kept, and the request counts once, as a failure."""

    def records(ask: Callable[[RouterChatModel, BaseCallbackHandler], object]) -> tuple[Any, Any]:
        handler = CostCallbackHandler(prices=Prices({"cheap": (1, 1), "strong": (9, 9)}))
        with pytest.raises(TimeoutError):
            ask(RouterChatModel(cheap=cheap(UNSURE), strong=strong(failure)), handler)
        told = [(r.model, r.tier, r.usage, r.cost, r.error, r.spare, r.saved) for r in handler.records()]
        return told, replace(handler.summary(), mean_latency=None)

    told, summary = records(call)

    assert (told, summary) == records(lambda router, handler: invoke(router, MEDIUM, {"callbacks": [handler]}))


@pytest.fixture
def cache() -> Iterator[InMemoryCache]:
    """Set LangChain's own cache for all models."""
    made = InMemoryCache()
    set_llm_cache(made)
    yield made
    set_llm_cache(None)


@pytest.mark.parametrize(("draft", "text"), [(SURE, SURE), (UNSURE, BEST)], ids=["accepted", "rejected"])
@each_colour
def test_with_a_cache_below(cache: InMemoryCache, call: Any, draft: str, text: str) -> None:
    """With a cache for all models the tiers' answers are cached, and a hit is routed and told like a reply."""
    tiers = cheap(draft), strong()
    router = RouterChatModel(cheap=tiers[0], strong=tiers[1])
    first, second, third = (call(router, MEDIUM) for _ in range(3))

    assert first.content == second.content == third.content == text
    assert [len(tier.seen) for tier in tiers] == [1, 0 if draft == SURE else 1]
    assert attempts(first) == attempts(second) == attempts(third)
    assert [a["usage"]["total_cost"] for a in mark(third)["attempts"]] == [0] * len(mark(third)["attempts"])


@by_generate
def test_with_a_cache_above(cache: InMemoryCache, call: Any) -> None:
    """By `generate` the router's own answer is cached with its decision."""
    tier = cheap(SURE)
    router = RouterChatModel(cheap=tier, strong=strong())
    first, second = (call(router, MEDIUM) for _ in range(2))

    assert (first.content, second.content) == (SURE, SURE)
    assert attempts(second) == [("cheap", "accepted")]
    assert len(tier.seen) == 1


def _medium(question: Question, why: str = "") -> tuple[Level, str]:
    return "medium", why


class Judge:
    """A rule with a state."""

    def score(self, question: Question, answer: Answer) -> tuple[float, str]:
        """Trust everything."""
        return 1.0, ""


@pytest.mark.parametrize(
    "other",
    [
        {"threshold": 0.1},
        {"complexity": _medium},
        {"complexity": partial(_medium, why="so it is")},
        {"complexity": lambda _: ("simple", "")},
        {"confidence": Judge().score},
        {"cheap": scripted("another", "Rolls and More.")},
        {"strong": scripted("another", "Rolls and More.")},
    ],
    ids=["threshold", "rule", "partial", "lambda", "method", "cheap", "strong"],
)
def test_another_router_is_another_key(cache: InMemoryCache, other: dict[str, Any]) -> None:
    """Whatever an answer depends on keeps two routers' cached answers apart."""
    plain: dict[str, Any] = {"cheap": cheap(SURE), "strong": strong()}
    same, another = RouterChatModel(**plain), RouterChatModel(**(plain | other))
    first, second, third = [generate(router, MEDIUM) for router in (RouterChatModel(**plain), same, another)]

    assert mark(first)["attempts"][0]["id"] == mark(second)["attempts"][0]["id"]
    assert mark(first)["attempts"][0]["id"] != mark(third)["attempts"][0]["id"]


def test_two_lambdas_are_two_rules(cache: InMemoryCache) -> None:
    """Rules that share a name are still told apart in the cache's key."""
    rules: list[Any] = [lambda _, level=level: (level, "") for level in ("simple", "complex")]
    tiers: dict[str, Any] = {"cheap": cheap(SURE), "strong": strong()}
    texts = [generate(RouterChatModel(**tiers, complexity=rule), MEDIUM).content for rule in rules]

    assert texts == [SURE, BEST]


def test_the_profile_promises_what_both_tiers_can_do() -> None:
    """Limits are the smaller ones, abilities those of both, and structured output of one provider's kind is no promise."""
    tiers = cheap(SURE), strong()
    tiers[0].profile = ModelProfile(
        max_input_tokens=8000, tool_calling=True, image_inputs=False, structured_output=True, audio_inputs=True
    )
    tiers[1].profile = ModelProfile(
        max_input_tokens=128000, tool_calling=True, image_inputs=True, structured_output=True
    )

    assert RouterChatModel(cheap=tiers[0], strong=tiers[1]).profile == {
        "max_input_tokens": 8000,
        "tool_calling": True,
        "image_inputs": False,
    }
    assert not RouterChatModel(cheap=cheap(SURE), strong=strong()).profile


def test_the_profile_is_asked_for_once() -> None:
    """To make a router of models without one does not set it again and again, until the interpreter's depth ends that."""
    looked = []

    class Watched(Scripted):
        def __getattribute__(self, name: str) -> Any:
            if name == "profile":
                looked.append(name)
            return super().__getattribute__(name)

    first = Watched(model_name="cheap", replies=[])
    looked.clear()
    router = RouterChatModel(cheap=first, strong=strong())
    router.threshold = 0.5

    assert len(looked) < 10


def test_tokens_are_counted_as_the_strong_model_does() -> None:
    """Counting tokens needs no tokenizer of the router's own."""
    router = RouterChatModel(cheap=cheap(SURE), strong=strong())

    assert router.get_num_tokens("one two three") == 3
    assert router.get_num_tokens_from_messages([HumanMessage("one two")]) == 3  # "Human: one two"


@every_way
def test_a_router_as_a_tier(call: Any) -> None:
    """A router is a chat model, so it can be the strong tier of another one; tokens are still counted once."""
    counter = UsageMetadataCallbackHandler()
    inner = RouterChatModel(cheap=scripted("middle", UNSURE), strong=strong())
    reply = call(RouterChatModel(cheap=cheap(UNSURE), strong=inner), MEDIUM, {"callbacks": [counter]})

    assert reply.content == BEST
    assert attempts(reply) == [("cheap", "rejected"), ("strong", "accepted")]
    assert counter.usage_metadata == {
        "cheap": usage(AIMessage(UNSURE)),
        "middle": usage(AIMessage(UNSURE)),
        "strong": usage(AIMessage(BEST)),
    }


class RateLimitError(Exception):
    """What the SDKs call it."""


def failing(error: Exception) -> Breaking:
    """Make a call that fails."""
    return Breaking(AIMessage(SURE), error)


@each_colour
def test_a_tier_that_cannot_is_not_asked(call: Any) -> None:
    """A tier without tools, images or room for the request is passed over, with the reason in the decision."""
    image = [HumanMessage([{"type": "text", "text": MEDIUM}, {"type": "image", "url": "https://x.test/a.png"}])]
    profiles = [{"image_inputs": False}, {"max_input_tokens": 5}]
    for profile, asked in zip(profiles, [image, MEDIUM], strict=True):
        first, last = cheap(SURE), strong()
        first.profile = profile  # type: ignore[assignment]
        reply = call(RouterChatModel(tiers=[first, last]), asked)
        decision = reply.response_metadata["llm_costopt"]

        assert (reply.text, decision["tier"], first.seen) == (BEST, "strong", [])
        assert list(decision["skipped"]) == ["cheap"]
        assert (decision["escalated"], decision["fell_back"]) == (False, False)


@each_colour
def test_an_option_that_is_none_is_refused_by_the_provider_alone(call: Any) -> None:
    """A limit that is a text fails no request here; what a tier makes of it is between the two."""
    router = RouterChatModel(tiers=[cheap(SURE), strong()]).bind(max_tokens="5")

    assert call(router, SIMPLE).text == SURE


@each_colour
def test_when_no_tier_can_the_last_is_asked(call: Any) -> None:
    """A profile may be wrong: the provider's own answer, or its error, decides."""
    first, last = cheap(SURE), strong()
    first.profile = last.profile = {"max_input_tokens": 1}

    assert call(RouterChatModel(tiers=[first, last]), MEDIUM).text == BEST


@each_colour
def test_a_rate_limited_tier_cools_down(call: Any) -> None:
    """After a rate limit the next requests go straight to the next tier, and the decision says why."""
    first = cheap(failing(RateLimitError()))
    router = RouterChatModel(tiers=[first, strong()])
    decisions = [call(router, SIMPLE).response_metadata["llm_costopt"] for _ in range(2)]

    assert [d["fell_back"] for d in decisions] == [True, False]
    assert "skipped" not in decisions[0]
    assert "left alone" in decisions[1]["skipped"]["cheap"]
    assert len(first.seen) == 1


class BadRequestError(Exception):
    """What the SDKs call it."""

    status_code = 400


@each_colour
def test_bad_requests_cool_no_tier_down(call: Any) -> None:
    """However many requests are too long or filtered, each one falls back by itself, and the tier goes on for everybody."""
    first = cheap(*[failing(BadRequestError())] * 4, SURE)
    router = RouterChatModel(tiers=[first, strong(*[BEST] * 4)])
    replies = [call(router, SIMPLE) for _ in range(5)]

    assert [r.text for r in replies] == [*[BEST] * 4, SURE]
    assert all("skipped" not in r.response_metadata["llm_costopt"] for r in replies)


@each_colour
def test_a_tier_without_cool_down_is_tried_each_time(call: Any) -> None:
    """With `cool_down=0` each request tries it."""
    first = cheap(failing(RateLimitError()))
    router = RouterChatModel(tiers=[first, strong()], cool_down=0)
    for _ in range(3):
        call(router, SIMPLE)

    assert len(first.seen) == 3


def test_the_last_tier_is_always_asked() -> None:
    """It has none to stand in for it: its errors reach the caller, again and again."""
    router = RouterChatModel(tiers=[cheap(SURE), strong(failing(RateLimitError()))])
    for _ in range(3):
        with pytest.raises(RateLimitError):
            router.invoke(COMPLEX)
    assert router.invoke(SIMPLE).text == SURE


@each_colour
@pytest.mark.parametrize("asked", [[], [("system", "Be brief.")], ""], ids=["nothing", "system", "empty"])
@pytest.mark.parametrize("is_learned", [False, True])
def test_a_request_that_asks_nothing_reaches_a_tier(is_learned: bool, asked: Any, call: Any) -> None:
    """Whether an empty request is an error is the provider's word: the router decides about it like about any other."""
    examples = [
        Example(question=Question(messages=(Message(role="human", text=f"{MEDIUM} {n}"),)), scores={0: 1.0, 1: 1.0})
        for n in range(20)
    ]
    rules = learn_rules(examples, prices=[0.1, 1.0])[0] if is_learned else None
    message = call(RouterChatModel(cheap=cheap(SURE), strong=strong(), learned=rules), asked)

    assert message.text in {SURE, BEST}
    assert "failed" not in mark(message)["why"]


@each_colour
def test_learned_rules_take_the_place_of_the_rules(call: Any) -> None:
    """A router decides by what was learned from judged answers, and a cache tells it from one that learned otherwise."""

    def learned(cheap_is_right: float) -> LearnedRules:
        examples = [
            Example(
                question=Question(messages=(Message(role="human", text=f"{MEDIUM} {n}"),)),
                scores={0: cheap_is_right, 1: 1.0},
                answer=Answer(text=UNSURE, finish="stop"),
            )
            for n in range(100)
        ]
        return learn_rules(examples, prices=[0.1, 1.0])[0]

    routers = [
        RouterChatModel(cheap=cheap(UNSURE), strong=strong(), learned=rules) for rules in (learned(1.0), learned(0.0))
    ]

    assert [call(router, MEDIUM).text for router in routers] == [UNSURE, BEST]
    keys = [str(router._identifying_params) for router in routers]
    assert keys[0] != keys[1]
    assert "0x" not in keys[0]


def test_feedback_teaches_the_router() -> None:
    """After judgements that the cheap answers are right, a router keeps drafts that it escalated before, learned rules or not."""
    examples = [
        Example(
            question=Question(messages=(Message(role="human", text=f"{MEDIUM} {n}"),)),
            scores={0: 0.0, 1: 1.0},
            answer=Answer(text=UNSURE, finish="stop"),
        )
        for n in range(20)
    ]
    rules, _ = learn_rules(examples, prices=[0.1, 1.0], target_quality=None, max_strong_share=0.999)
    first, best = cheap(UNSURE), strong()
    router = RouterChatModel(cheap=first, strong=best, learned=rules)
    other = RouterChatModel(cheap=first, strong=best)
    assert other.invoke(MEDIUM).text == BEST
    for model in (router, other):
        for _ in range(200):
            attempts = model.invoke(MEDIUM).response_metadata["llm_costopt"]["attempts"]
            assert model.feedback(attempts[0]["id"], 1.0)

        assert model.invoke(MEDIUM).text == UNSURE
        assert not model.feedback("unknown", 1.0)
    for score in (7, -1, float("nan"), "0.5", None, [1]):
        with pytest.raises(ValueError, match="a score is from 0 to 1, not"):
            router.feedback(attempts[0]["id"], score)  # type: ignore[arg-type]
    for named in (None, UUID(attempts[0]["id"]), router.invoke(MEDIUM)):
        with pytest.raises(TypeError, match="feedback is about the id of a call, not about"):
            router.feedback(named, 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="for 2 tiers, there are 3"):
        RouterChatModel(tiers=[first, first, best], learned=rules)


@each_colour
def test_a_tool_loop_stays_on_its_tier(call: Any) -> None:
    """The answer to a tool's result comes from the tier that called the tool, not from a cheaper one."""
    first, best = cheap(UNSURE, SURE), strong(calling("add", {"a": 1, "b": 2}), BEST)
    agent = create_agent(RouterChatModel(tiers=[first, best]), tools=[add])
    messages = call(agent, asking(MEDIUM))["messages"]

    assert [m.response_metadata["llm_costopt"]["tier"] for m in messages if m.type == "ai"] == ["strong", "strong"]
    assert messages[-1].text == BEST
    assert len(first.seen) == 1
    assert "stays" in messages[-1].response_metadata["llm_costopt"]["skipped"]["cheap"]


@each_colour
@pytest.mark.parametrize("kept", ["{'tier': 'strong'}", ["strong"], {"tier": ["strong"]}, {"would": 5}, 1], ids=str)
def test_a_conversation_that_was_kept_otherwise(call: Any, kept: Any) -> None:
    """What a store of conversations has made of the mark of an earlier answer breaks no later turn."""
    earlier = AIMessage(BEST, response_metadata={"llm_costopt": kept})
    reply = call(
        RouterChatModel(cheap=cheap(SURE), strong=strong()), [HumanMessage("Hi"), earlier, HumanMessage(SIMPLE)]
    )

    assert reply.text == SURE


@each_colour
def test_the_router_as_middleware(call: Any) -> None:
    """An agent whose model is strong asks the cheaper one first, tools and all; one router serves all its calls."""
    first, best = cheap(calling("add", {"a": 1, "b": 2}), "One and two make three."), strong()
    middleware = RouterMiddleware(first)
    agent = create_agent(best, tools=[add], middleware=[middleware])
    messages = call(agent, asking("Please sum up one and two"))["messages"]

    assert [m.response_metadata["llm_costopt"]["tier"] for m in messages if m.type == "ai"] == ["cheap", "cheap"]
    assert (messages[-1].text, best.seen) == ("One and two make three.", [])
    assert middleware.router(best) is middleware.router(best)


def test_a_middleware_is_checked_when_it_is_made() -> None:
    """What a router would refuse is no error of the agent's first call."""
    with pytest.raises(ValueError, match="RouterMiddleware"):
        RouterMiddleware()
    with pytest.raises(ValueError, match=r"no chat model but str: make one with init_chat_model\('gpt-4o-mini'\)"):
        RouterMiddleware("gpt-4o-mini")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="treshold"):
        RouterMiddleware(cheap(SURE), treshold=0.9)


@pytest.mark.parametrize("target", ["target_quality", "max_strong_share", "max_cost_per_request"])
def test_a_middleware_has_a_target(target: str) -> None:
    """It is held with the price of the agent's own model, which is not known when the middleware is made."""
    prices = Prices({"cheap": (1, 2), "strong": (20, 40)})
    middleware = RouterMiddleware(cheap(SURE), prices=prices, **{target: 0.5})

    assert getattr(middleware.router(strong(BEST)), target) == 0.5
