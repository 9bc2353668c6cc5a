"""How one request is put to one model: the same for each tier, and prepared by each in its own way."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms import LLM
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.tools import BaseTool

from llamaindex_costopt._convert import Reading
from llamaindex_costopt._view import view


@dataclass(slots=True, kw_only=True)
class Reply:
    """What a tier gave."""

    reading: Reading
    """What its response says; of a stream, what it has said so far."""
    response: Any = None
    """The whole response; None of a stream."""
    chunks: Any = None
    """The stream, if it is one."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request, in the host's terms."""

    messages: list[ChatMessage] = field(default_factory=list)
    """The conversation; empty for a completion."""
    prompt: str | None = None
    """The prompt of a completion; None for a chat."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the call."""

    def call(self, model: LLM) -> Reply:
        """Ask, blocking."""
        if "output_cls" in self.options:
            tap = Tap(model)
            found = view(model, tap).structured_predict(*self._schema(), llm_kwargs=self._rest("output_cls"))
            return _structured(tap, found)
        response = self._method(model, "")(*self._args(), **self._options())
        return Reply(reading=Reading().add(response), response=response)

    async def acall(self, model: LLM) -> Reply:
        """Ask, awaiting."""
        if "output_cls" in self.options:
            tap = Tap(model)
            found = await view(model, tap).astructured_predict(*self._schema(), llm_kwargs=self._rest("output_cls"))
            return _structured(tap, found)
        response = await self._method(model, "a")(*self._args(), **self._options())
        return Reply(reading=Reading().add(response), response=response)

    def stream(self, model: LLM) -> Reply:
        """Start a stream as far as its first chunk, where most errors show."""
        if "output_cls" in self.options:
            tap = Tap(model)
            inside: Any = view(model, tap)
            objects = inside.stream_structured_predict(*self._schema(), llm_kwargs=self._rest("output_cls"))
            return Reply(reading=tap.reading, chunks=_begun(_json_of(found) for found in objects))
        chunks = self._method(model, "stream_")(*self._args(), **self._options())
        return Reply(reading=Reading(), chunks=_begun(chunks))

    async def astream(self, model: LLM) -> Reply:
        """Start a stream as far as its first chunk, where most errors show."""
        if "output_cls" in self.options:
            tap = Tap(model)
            inside: Any = view(model, tap)
            objects = await inside.astream_structured_predict(*self._schema(), llm_kwargs=self._rest("output_cls"))
            return Reply(reading=tap.reading, chunks=await _abegun(_json_of(found) async for found in objects))
        chunks = await self._method(model, "astream_")(*self._args(), **self._options())
        return Reply(reading=Reading(), chunks=await _abegun(chunks))

    @property
    def with_tools(self) -> bool:
        """Tell whether each tier is to prepare the tools itself: they are the host's own objects."""
        tools = self.options.get("tools") or ()
        return bool(tools) and all(isinstance(tool, BaseTool) for tool in tools)

    def _method(self, model: LLM, prefix: str) -> Any:
        name = "chat" if self.prompt is None else "complete"
        return getattr(model, f"{prefix}{name}_with_tools" if self.with_tools else f"{prefix}{name}")

    def _args(self) -> list[Any]:
        if self.with_tools:
            return [self.options["tools"]]
        return [list(self.messages)] if self.prompt is None else [self.prompt]

    def _options(self) -> dict[str, Any]:
        # Integrations append to the list of messages that they are handed: each tier gets its own.
        return {**self._rest("tools"), "chat_history": list(self.messages)} if self.with_tools else dict(self.options)

    def _rest(self, name: str) -> dict[str, Any]:
        return {key: value for key, value in self.options.items() if key != name}

    def _schema(self) -> tuple[Any, Any]:
        return self.options["output_cls"], ChatPromptTemplate(message_templates=list(self.messages))


class Tap:
    """The endpoints of *model*, and a reading of what went through them."""

    def __init__(self, model: LLM) -> None:
        self._model = model
        self.reading = Reading()
        """What the newest call has said so far."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._model, name)
        if name.startswith("astream_"):
            return self._astream(method)
        if name.startswith("stream_"):
            return lambda *args, **kwargs: self._read(method(*args, **kwargs))
        return self._acall(method) if name.startswith("a") else self._call(method)

    def _call(self, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            response = method(*args, **kwargs)
            self.reading.add(response)
            return response

        return call

    def _acall(self, method: Any) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            response = await method(*args, **kwargs)
            self.reading.add(response)
            return response

        return call

    def _astream(self, method: Any) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return self._aread(await method(*args, **kwargs))

        return call

    def _read(self, chunks: Iterator[Any]) -> Iterator[Any]:
        for chunk in chunks:
            self.reading.add(chunk)
            yield chunk

    async def _aread(self, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for chunk in chunks:
            self.reading.add(chunk)
            yield chunk


def _structured(tap: Tap, found: Any) -> Reply:
    response = _json_of(found)
    # Without the object: a field of the user's might be called `usage`.
    tap.reading.add(response.model_copy(update={"raw": None}))
    return Reply(reading=tap.reading, response=response)


def _json_of(found: Any) -> ChatResponse:
    """Say an object in words, as the host's `StructuredLLM` does."""
    message = ChatMessage(role="assistant", content=found.model_dump_json(by_alias=True))
    return ChatResponse(message=message, raw=found)


def _begun(chunks: Iterator[Any]) -> Iterator[Any]:
    rest = iter(chunks)
    first = next(rest, None)

    def gen() -> Iterator[Any]:
        if first is not None:
            yield first
            yield from rest

    return gen()


async def _abegun(chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
    rest = aiter(chunks)
    first = await anext(rest, None)

    async def gen() -> AsyncIterator[Any]:
        if first is not None:
            yield first
            async for chunk in rest:
                yield chunk

    return gen()
