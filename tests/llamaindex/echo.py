"""A model without a network: it says what it is told to, or what it was asked, and calls the first tool that it is given."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from pydantic import Field, PrivateAttr


class Echo(FunctionCallingLLM):
    """Replies with the next of *replies*, the last again and again; an exception is raised."""

    name: str = "cheap"
    replies: list[Any] = Field(default_factory=list, exclude=True)
    api_key: str = "sk-echo"
    window: int = 8000
    calls_tools: bool = True
    wait: Callable[[], Awaitable[object]] | None = Field(default=None, exclude=True)
    _seen: list[Any] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @classmethod
    def class_name(cls) -> str:
        return "echo_llm"

    @property
    def seen(self) -> list[Any]:
        """What it was asked, in order."""
        return self._seen

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            context_window=self.window,
            is_chat_model=True,
            is_function_calling_model=self.calls_tools,
            model_name=self.name,
        )

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._reply(messages, kwargs)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        if self.wait is not None:
            await self.wait()
        return self._reply(messages, kwargs)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        def gen() -> Iterator[ChatResponse]:
            yield from _chunks(self._reply(messages, kwargs))

        return gen()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        async def gen() -> AsyncIterator[ChatResponse]:
            if self.wait is not None:
                await self.wait()
            for chunk in _chunks(self._reply(messages, kwargs)):
                yield chunk

        return gen()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _completion(self._reply([ChatMessage(role="user", content=prompt)], kwargs))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _completion(self._reply([ChatMessage(role="user", content=prompt)], kwargs))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        def gen() -> Iterator[CompletionResponse]:
            for chunk in _chunks(self._reply([ChatMessage(role="user", content=prompt)], kwargs)):
                yield _completion(chunk)

        return gen()

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        async def gen() -> AsyncIterator[CompletionResponse]:
            for chunk in _chunks(self._reply([ChatMessage(role="user", content=prompt)], kwargs)):
                yield _completion(chunk)

        return gen()

    def _prepare_chat_with_tools(  # noqa: PLR0917 - the host's signature
        self,
        tools: Sequence[Any],
        user_msg: Any = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = chat_history if chat_history is not None else []
        if user_msg:
            # Appends to what it is handed, as OpenAI's integration does.
            messages.append(ChatMessage(role="user", content=user_msg) if isinstance(user_msg, str) else user_msg)
        specs = [tool.metadata.to_openai_tool() for tool in tools]
        return {"messages": messages, "tools": specs, "tool_choice": "required" if tool_required else "auto", **kwargs}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        calls = [b for b in response.message.blocks if isinstance(b, ToolCallBlock)]
        if error_on_no_tool_call and not calls:
            raise ValueError("no tool call")
        return [
            ToolSelection(tool_id=c.tool_call_id or "", tool_name=c.tool_name, tool_kwargs=dict(c.tool_kwargs))
            for c in calls
            if not isinstance(c.tool_kwargs, str)
        ]

    def _reply(self, messages: Sequence[ChatMessage], options: dict[str, Any]) -> ChatResponse:
        with self._lock:
            number = len(self._seen)
            self._seen.append((list(messages), options))
        reply = self.replies[min(number, len(self.replies) - 1)] if self.replies else None
        if isinstance(reply, Exception):
            raise reply
        blocks: list[Any] = [TextBlock(text=str(reply or f"You asked: {(messages[-1].content or '')[-60:]}"))]
        extra: dict[str, Any] = {}
        tools = options.get("tools")
        if tools and reply is None and not any(m.role.value == "tool" for m in messages):
            function = tools[0]["function"]
            args = {name: _made_up(field) for name, field in function["parameters"]["properties"].items()}
            call = ToolCallBlock(tool_call_id=f"call_{number}", tool_name=function["name"], tool_kwargs=args)
            blocks.append(call)
            extra["tool_calls"] = [
                ToolSelection(tool_id=f"call_{number}", tool_name=function["name"], tool_kwargs=args)
            ]
        text = blocks[0].text
        usage = {"prompt_tokens": 10, "completion_tokens": len(text.split()) or 1}
        message = ChatMessage(role="assistant", blocks=blocks, additional_kwargs=extra)
        return ChatResponse(message=message, raw={"model": self.name, "usage": usage, "finish_reason": "stop"})


def _made_up(field: dict[str, Any]) -> Any:
    return 1 if field.get("type") == "integer" else "x"


def _chunks(response: ChatResponse) -> list[ChatResponse]:
    """Cut a response word by word; the last chunk has its tool calls and tokens."""
    words, said, chunks = (response.message.content or "").split(" "), "", []
    for n, word in enumerate(words):
        delta = word if n == 0 else f" {word}"
        said += delta
        message = ChatMessage(role="assistant", content=said)
        chunks.append(ChatResponse(message=message, delta=delta, raw={"model": "chunk"}))
    chunks[-1] = response.model_copy(update={"delta": chunks[-1].delta})
    return chunks


def _completion(response: ChatResponse) -> CompletionResponse:
    return CompletionResponse(text=response.message.content or "", delta=response.delta, raw=response.raw)
