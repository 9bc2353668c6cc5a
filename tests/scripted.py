"""Models that say what they are told to, and the ways in which LangChain calls one."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ToolCall,
)
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field, PrivateAttr

SOON = 10.0
"""Seconds after which a test that waits gives up; nothing here takes as long."""

SIMPLE = "What is the capital of France?"
MEDIUM = "Suggest a name for my bakery"
COMPLEX = "Analyze the risks of opening a bakery"

SURE = "The Crusty Corner is a friendly name."
UNSURE = "I am not sure, perhaps The Crumb."
BEST = "Call it The Golden Loaf, people will remember."


@dataclass(frozen=True)
class Seen:
    """What a tier was asked."""

    messages: list[BaseMessage]
    stop: list[str] | None
    options: dict[str, Any]


@dataclass(frozen=True)
class Breaking:
    """A reply that ends in an error: streamed, all but the last of its chunks come before it."""

    message: AIMessage
    error: Exception


class Scripted(BaseChatModel):
    """Says what it is told to, the last reply again and again, and remembers what it was asked."""

    model_name: str
    replies: list[Any]
    seen: list[Seen] = Field(default_factory=list)
    wait: Callable[[], Awaitable[object]] | None = None
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

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
        reply = self._next(messages, stop, kwargs)
        if isinstance(reply, Breaking):
            raise reply.error
        message = reply.model_copy(
            update={
                "response_metadata": {
                    "model_name": self.model_name,
                    "finish_reason": "stop",
                    **reply.response_metadata,
                },
                "usage_metadata": usage(reply),
            }
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.wait is not None:
            await self.wait()
        return self._generate(messages, stop, **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        reply = self._next(messages, stop, kwargs)
        message = reply.message if isinstance(reply, Breaking) else reply
        *first, last = chunks_of(message)
        for chunk in first:
            yield ChatGenerationChunk(message=chunk)
        if isinstance(reply, Breaking):
            raise reply.error
        last.usage_metadata = usage(message)
        last.response_metadata = {"model_name": self.model_name, "finish_reason": "stop", **message.response_metadata}
        yield ChatGenerationChunk(message=last)

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        names = [convert_to_openai_tool(t)["function"]["name"] for t in tools]
        chosen = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=[{self.model_name: name} for name in names], **chosen, **kwargs)

    def get_token_ids(self, text: str) -> list[int]:
        return [len(word) for word in text.split()]

    def _next(self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> Any:
        with self._lock:
            reply = self.replies[min(len(self.seen), len(self.replies) - 1)]
            self.seen.append(Seen(messages, stop, options))
        if isinstance(reply, Exception):
            raise reply
        return reply


def usage(message: AIMessage) -> Any:
    """Count what *message* would cost: ten tokens in, and one out for each word."""
    words = len(str(message.text).split())
    return {"input_tokens": 10, "output_tokens": words, "total_tokens": 10 + words}


def chunks_of(message: AIMessage) -> list[AIMessageChunk]:
    """Cut *message* as providers do: word by word, and the arguments of tool calls in the middle."""
    chunks = [AIMessageChunk(content=word) for word in re.findall(r"\S+\s*|\s+", str(message.text)) or [""]]
    for index, call in enumerate(message.tool_calls):
        args = json.dumps(call["args"])
        half = len(args) // 2
        pieces = [(call["name"], args[:half], call["id"]), (None, args[half:], None)]
        chunks += [
            AIMessageChunk(content="", tool_call_chunks=[tool_call_chunk(name=name, args=part, id=id_, index=index)])
            for name, part, id_ in pieces
        ]
    return chunks


def scripted(name: str, *replies: Any) -> Scripted:
    """Make a tier."""
    return Scripted(
        model_name=name,
        replies=[AIMessage(reply) if isinstance(reply, str) else reply for reply in replies],
    )


def cheap(*replies: Any) -> Scripted:
    """Make the cheap tier."""
    return scripted("cheap", *replies)


def strong(*replies: Any) -> Scripted:
    """Make the strong tier."""
    return scripted("strong", *(replies or (BEST,)))


def calling(name: str, args: dict[str, Any], id_: str = "call_1") -> AIMessage:
    """Make a reply that calls a tool."""
    return AIMessage("", tool_calls=[ToolCall(name=name, args=args, id=id_)])


def mark(message: Any) -> dict[str, Any]:
    """Read the router's decision."""
    decision = message.response_metadata["llm_costopt"]
    assert json.loads(json.dumps(decision)) == decision
    return dict(decision)


def attempts(message: Any) -> list[tuple[str, str]]:
    """List tier and result of each attempt."""
    return [(a["tier"], a["result"]) for a in mark(message)["attempts"]]


def whole(chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
    """Add up a stream."""
    first, *rest = chunks
    for chunk in rest:
        first += chunk
    return first


async def listed(items: AsyncIterator[Any]) -> list[Any]:
    """Read a stream to its end."""
    return [item async for item in items]


def invoke(runnable: Runnable[Any, Any], asked: Any, config: RunnableConfig | None = None) -> Any:
    """Call, blocking."""
    return runnable.invoke(asked, config)


def ainvoke(runnable: Runnable[Any, Any], asked: Any, config: RunnableConfig | None = None) -> Any:
    """Call on an event loop."""
    return asyncio.run(runnable.ainvoke(asked, config))


def batch(runnable: Runnable[Any, Any], asked: Any, config: RunnableConfig | None = None) -> Any:
    """Call in a batch of one."""
    return runnable.batch([asked], config)[0]


def abatch(runnable: Runnable[Any, Any], asked: Any, config: RunnableConfig | None = None) -> Any:
    """Call in a batch of one on an event loop."""
    return asyncio.run(runnable.abatch([asked], config))[0]


def stream(runnable: Runnable[Any, Any], asked: Any, config: RunnableConfig | None = None) -> Any:
    """Stream and add up."""
    return whole(list(runnable.stream(asked, config)))


def astream(runnable: Runnable[Any, Any], asked: Any, config: RunnableConfig | None = None) -> Any:
    """Stream on an event loop and add up."""
    return whole(asyncio.run(listed(runnable.astream(asked, config))))


every_way = pytest.mark.parametrize("call", [invoke, ainvoke, batch, abatch, stream, astream])
each_colour = pytest.mark.parametrize("call", [invoke, ainvoke])
both_streams = pytest.mark.parametrize(
    "chunks",
    [lambda r, x: list(r.stream(x)), lambda r, x: asyncio.run(listed(r.astream(x)))],
    ids=["stream", "astream"],
)
