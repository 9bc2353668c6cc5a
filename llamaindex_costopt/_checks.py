"""The ways in which LlamaIndex calls a model, each as a function of the model: what `testing` goes through."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.evaluation import FaithfulnessEvaluator
from llama_index.core.extractors import (
    KeywordExtractor,
    QuestionsAnsweredExtractor,
    SummaryExtractor,
    TitleExtractor,
)
from llama_index.core.llms import LLM, ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

T = TypeVar("T")

QUESTION = "What is the capital of France?"
_TEMPLATE = PromptTemplate("Context:\n{context_str}\nQuery: {query_str}\nAnswer: ")
_CHAT_TEMPLATE = ChatPromptTemplate.from_messages([("system", "Use {context_str}"), ("user", "{query_str}")])
_ASKED = {"query_str": QUESTION, "context_str": "Paris is the capital of France."}


class City(BaseModel):
    """A city."""

    name: str
    population: int


def weather_tool() -> FunctionTool:
    """Make a tool that a model may call."""

    def get_weather(city: str) -> str:
        """Say what the weather is like in a city."""
        return f"sunny in {city}"

    return FunctionTool.from_defaults(fn=get_weather)


def _turns() -> list[ChatMessage]:
    return [ChatMessage(role="system", content="Be kind."), ChatMessage(role="user", content=QUESTION)]


def _run(awaitable: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await awaitable()

    return asyncio.run(main())


async def _all(stream: Awaitable[Any]) -> list[Any]:
    return [chunk async for chunk in await stream]


class _Retriever(BaseRetriever):
    def __init__(self, texts: int = 2) -> None:
        self._texts = texts
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        del query_bundle
        nodes = [TextNode(text=f"Fact {n}: Paris is the capital of France.", id_=f"n{n}") for n in range(self._texts)]
        return [NodeWithScore(node=node, score=1.0) for node in nodes]


def _engine(model: LLM, **options: Any) -> RetrieverQueryEngine:
    return RetrieverQueryEngine.from_args(_Retriever(), llm=model, **options)


def _synthesized(mode: ResponseMode) -> Callable[[LLM], Any]:
    def way(model: LLM) -> Any:
        synthesizer = get_response_synthesizer(llm=model, response_mode=mode)
        return str(synthesizer.synthesize(QUESTION, nodes=_Retriever(3).retrieve(QUESTION)))

    return way


async def _aquery_stream(model: LLM) -> str:
    response: Any = await _engine(model, streaming=True).aquery(QUESTION)
    return "".join([token async for token in response.async_response_gen()])


def _two_turns(make: Callable[[LLM], Any]) -> Callable[[LLM], Any]:
    def way(model: LLM) -> Any:
        engine = make(model)
        return [str(engine.chat(QUESTION)), str(engine.chat("And how many people live there?"))]

    return way


def _streamed_turn(model: LLM) -> Any:
    engine = SimpleChatEngine.from_defaults(llm=model, memory=_memory())
    return "".join(engine.stream_chat(QUESTION).response_gen)


async def _astreamed_turn(model: LLM) -> str:
    response = await SimpleChatEngine.from_defaults(llm=model, memory=_memory()).astream_chat(QUESTION)
    return "".join([token async for token in response.async_response_gen()])


def _memory() -> ChatMemoryBuffer:
    # The default one opens a database that nobody closes.
    return ChatMemoryBuffer.from_defaults(token_limit=3000)


async def _agent(model: LLM, **options: Any) -> str:
    agent = FunctionAgent(tools=[weather_tool()], llm=model, system_prompt="Use tools.", **options)
    return str(await agent.run("What is the weather in Paris?", memory=_memory()))


async def _workflow(model: LLM) -> str:
    workflow = AgentWorkflow.from_tools_or_functions([weather_tool()], llm=model)
    return str(await workflow.run("What is the weather in Paris?", memory=_memory()))


async def _react(model: LLM) -> str:
    agent = ReActAgent(tools=[weather_tool()], llm=model)
    return str(await agent.run("What is the weather in Paris?", memory=_memory()))


def _extracted(make: Callable[[LLM], Any]) -> Callable[[LLM], Any]:
    nodes = [TextNode(text="Paris is the capital of France.", id_="n0")]  # of several, the order is left to chance
    return lambda model: _run(lambda: make(model).aextract(nodes))


def _with_tools(model: Any, **options: Any) -> Any:
    return model.chat_with_tools([weather_tool()], user_msg=QUESTION, **options)


def _read_calls(model: Any) -> Any:
    found = model.get_tool_calls_from_response(_with_tools(model), error_on_no_tool_call=False)
    return [[call.tool_name, call.tool_kwargs] for call in found]


def _structured(method: str) -> Callable[[Any], Any]:
    return lambda model: getattr(model, method)(City, _CHAT_TEMPLATE, **_ASKED)


WAYS: dict[str, Callable[[Any], Any]] = {
    "chat": lambda m: m.chat(_turns()),
    "chat with options": lambda m: m.chat(_turns(), temperature=0.7),
    "achat": lambda m: _run(lambda: m.achat(_turns())),
    "stream_chat": lambda m: list(m.stream_chat(_turns())),
    "astream_chat": lambda m: _run(lambda: _all(m.astream_chat(_turns()))),
    "complete": lambda m: m.complete(QUESTION),
    "complete formatted": lambda m: m.complete(QUESTION, formatted=True),
    "acomplete": lambda m: _run(lambda: m.acomplete(QUESTION)),
    "stream_complete": lambda m: list(m.stream_complete(QUESTION)),
    "astream_complete": lambda m: _run(lambda: _all(m.astream_complete(QUESTION))),
    "predict": lambda m: m.predict(_TEMPLATE, **_ASKED),
    "predict a chat template": lambda m: m.predict(_CHAT_TEMPLATE, **_ASKED),
    "predict a filled template": lambda m: m.predict(_TEMPLATE.partial_format(**_ASKED)),
    "apredict": lambda m: _run(lambda: m.apredict(_TEMPLATE, **_ASKED)),
    "stream": lambda m: list(m.stream(_TEMPLATE, **_ASKED)),
    "astream": lambda m: _run(lambda: _all(m.astream(_TEMPLATE, **_ASKED))),
    "chat_with_tools": _with_tools,
    "chat_with_tools required": lambda m: _with_tools(m, tool_required=True),
    "chat_with_tools parallel": lambda m: _with_tools(m, allow_parallel_tool_calls=True),
    "achat_with_tools": lambda m: _run(lambda: m.achat_with_tools([weather_tool()], user_msg=QUESTION)),
    "achat_with_tools required": lambda m: _run(
        lambda: m.achat_with_tools([weather_tool()], user_msg=QUESTION, tool_required=True)
    ),
    "stream_chat_with_tools": lambda m: list(m.stream_chat_with_tools([weather_tool()], user_msg=QUESTION)),
    "astream_chat_with_tools": lambda m: _run(
        lambda: _all(m.astream_chat_with_tools([weather_tool()], user_msg=QUESTION))
    ),
    "get_tool_calls_from_response": _read_calls,
    "predict_and_call": lambda m: str(m.predict_and_call([weather_tool()], user_msg=QUESTION)),
    "apredict_and_call": lambda m: str(_run(lambda: m.apredict_and_call([weather_tool()], user_msg=QUESTION))),
    "structured_predict": _structured("structured_predict"),
    "astructured_predict": lambda m: _run(lambda: _structured("astructured_predict")(m)),
    "stream_structured_predict": lambda m: list(_structured("stream_structured_predict")(m)),
    "astream_structured_predict": lambda m: _run(lambda: _all(_structured("astream_structured_predict")(m))),
    "structured LLM chat": lambda m: m.as_structured_llm(City).chat(_turns()).message,
    "structured LLM achat": lambda m: _run(lambda: m.as_structured_llm(City).achat(_turns())).message,
    "structured LLM stream_chat": lambda m: [r.message for r in m.as_structured_llm(City).stream_chat(_turns())],
    "structured LLM complete": lambda m: m.as_structured_llm(City).complete(QUESTION).text,
    "query engine": lambda m: str(_engine(m).query(QUESTION)),
    "query engine async": lambda m: str(_run(lambda: _engine(m).aquery(QUESTION))),
    "query engine streaming": lambda m: "".join(
        getattr(_engine(m, streaming=True).query(QUESTION), "response_gen", ())
    ),
    "query engine async streaming": lambda m: _run(lambda: _aquery_stream(m)),
    "query engine structured": lambda m: str(_engine(m.as_structured_llm(City)).query(QUESTION)),
    "refine": _synthesized(ResponseMode.REFINE),
    "compact": _synthesized(ResponseMode.COMPACT),
    "tree_summarize": _synthesized(ResponseMode.TREE_SUMMARIZE),
    "accumulate": _synthesized(ResponseMode.ACCUMULATE),
    "simple chat engine": _two_turns(lambda m: SimpleChatEngine.from_defaults(llm=m, memory=_memory())),
    "simple chat engine streaming": _streamed_turn,
    "simple chat engine async streaming": lambda m: _run(lambda: _astreamed_turn(m)),
    "context chat engine": _two_turns(
        lambda m: ContextChatEngine.from_defaults(retriever=_Retriever(), llm=m, memory=_memory())
    ),
    "condense question chat engine": _two_turns(
        lambda m: CondenseQuestionChatEngine.from_defaults(query_engine=_engine(m), llm=m, memory=_memory())
    ),
    "condense plus context chat engine": _two_turns(
        lambda m: CondensePlusContextChatEngine.from_defaults(retriever=_Retriever(), llm=m, memory=_memory())
    ),
    "function agent": lambda m: _run(lambda: _agent(m)),
    "function agent without streaming": lambda m: _run(lambda: _agent(m, streaming=False)),
    "function agent structured": lambda m: _run(lambda: _agent(m, output_cls=City)),
    "agent workflow": lambda m: _run(lambda: _workflow(m)),
    "react agent": lambda m: _run(lambda: _react(m)),
    "title extractor": _extracted(lambda m: TitleExtractor(llm=m)),
    "summary extractor": _extracted(lambda m: SummaryExtractor(llm=m)),
    "keyword extractor": _extracted(lambda m: KeywordExtractor(llm=m)),
    "questions extractor": _extracted(lambda m: QuestionsAnsweredExtractor(llm=m)),
    "selector": lambda m: str(LLMSingleSelector.from_defaults(llm=m).select(["France", "Spain"], QUESTION)),
    "evaluator": lambda m: FaithfulnessEvaluator(llm=m).evaluate(QUESTION, "Paris", ["Paris is it."]).feedback,
}
