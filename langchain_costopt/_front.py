"""A cache in front of a router: looked up before routing, and for streams too, which LangChain's own look-up leaves out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_costopt._convert import MARK, ROUTER, openai_tools, prompt_of
from langchain_costopt.cache import SemanticCache
from llm_costopt import switch


@dataclass(frozen=True, kw_only=True)
class Front:
    """One request in the cache of its router."""

    cache: BaseCache
    """The cache."""
    prompt: str
    """The request, as a cache is handed it."""
    llm_string: str
    """The router with its tiers and the call's options, as a cache is handed it."""
    context: Context = field(default_factory=copy_context)
    """What is said around the call."""

    def find(self) -> "Replay | None":
        """Look for a stored answer."""
        return _replay(self.cache.lookup(self.prompt, self.llm_string))

    async def afind(self) -> "Replay | None":
        """Look for a stored answer."""
        return _replay(await self.cache.alookup(self.prompt, self.llm_string))

    def store(self, message: AIMessage) -> None:
        """Store the accepted answer."""
        self.cache.update(self.prompt, self.llm_string, _generations(message))

    async def astore(self, message: AIMessage) -> None:
        """Store the accepted answer."""
        await self.cache.aupdate(self.prompt, self.llm_string, _generations(message))


def front(
    model: BaseChatModel, messages: list[BaseMessage], options: Mapping[str, Any], tools: Sequence[Any]
) -> Front | None:
    """Find the place of a request in the cache that *model* was given; None if it has none, or is switched off."""
    if not isinstance(model.cache, BaseCache) or switch.mode() == "off":
        return None
    written = openai_tools(tools)
    if written is None:  # nothing may tell such a tool from another one of its name
        return None
    said = {**options, "tools": written} if tools else options
    llm_string = model._get_llm_string(**said)  # noqa: SLF001 - what the host itself keys a cache by
    return Front(cache=model.cache, prompt=prompt_of(messages), llm_string=llm_string)


@contextmanager
def awaited(front: Front | None) -> Iterator[None]:
    """Let those go on that wait for the answer where the block fails or is closed: a stream may end in another thread."""
    try:
        yield
    except BaseException:
        if front and isinstance(front.cache, SemanticCache):
            front.context.run(front.cache.leave, front.prompt, front.llm_string)
        raise


class Replay(BaseChatModel):
    """A stored answer as a model, so that callbacks, streams and usage see a call as they see any other."""

    message: AIMessage
    """The answer."""
    cache: BaseCache | bool | None = False
    """A global cache is not asked for what this one has found."""

    @property
    def _llm_type(self) -> str:
        return "llm_costopt-cache"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        name = self.message.response_metadata.get("model_name")
        return LangSmithParams(**{**params, "ls_provider": ROUTER, **({"ls_model_name": name} if name else {})})

    def _generate(
        self,
        messages: list[BaseMessage],  # noqa: ARG002
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.message)])

    def _stream(
        self,
        messages: list[BaseMessage],  # noqa: ARG002
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> Iterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=as_chunk(self.message))


def as_chunk(message: AIMessage) -> AIMessageChunk:
    """Give *message* as the only chunk of a stream."""
    kept = ("content", "additional_kwargs", "response_metadata", "name", "id", "tool_calls", "invalid_tool_calls")
    return AIMessageChunk(
        **{k: getattr(message, k) for k in kept}, usage_metadata=message.usage_metadata, chunk_position="last"
    )


def _replay(found: RETURN_VAL_TYPE | None) -> Replay | None:
    generation = found[0] if found else None
    if not isinstance(generation, ChatGeneration) or not isinstance(generation.message, AIMessage):
        return None
    message = generation.message
    mark = {"cache": "exact", **message.response_metadata.get(MARK, {}), "tier": "cache", "attempts": []}
    return Replay(message=message.model_copy(update={"response_metadata": {**message.response_metadata, MARK: mark}}))


def _generations(message: AIMessage) -> RETURN_VAL_TYPE:
    whole = message_chunk_to_message(message) if isinstance(message, AIMessageChunk) else message
    said = {name: value for name, value in whole.response_metadata.items() if name != MARK}
    return [ChatGeneration(message=whole.model_copy(update={"response_metadata": said}))]
