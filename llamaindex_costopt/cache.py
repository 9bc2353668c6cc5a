"""The semantic cache in front of a model: `Settings.llm = CachedLLM(llm, cache=SemanticCache())`."""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.llms import LLM
from pydantic import Field

from llamaindex_costopt._convert import identity, messages_of, model_of, question_of, says, spelled
from llamaindex_costopt._lookup import Lookup
from llamaindex_costopt._template import with_question
from llamaindex_costopt._wrapper import Wrapper
from llm_costopt.cache.explain import Explanation
from llm_costopt.cache.semantic import SemanticCache
from llm_costopt.types import Message, Question


class CachedLLM(Wrapper):
    """Answer the same question in other words from store, and a different one never.

    Where the host gives the question apart, as query engines do, that alone is compared by meaning, and template,
    retrieved context and all else must be the same; elsewhere it is the last user message. With tools, a schema,
    images or files only the very same request hits. A hit says so in `additional_kwargs["llm_costopt"]` of the response, emits a
    `CacheHitEvent` and no other event. A stream is served from store, and stored when it ends whole.

    Args:
        llm: the model, or another wrapper.
        cache: where answers are kept; one in memory if not given.
    """

    cache: SemanticCache = Field(default_factory=SemanticCache, exclude=True)
    """Where answers are kept: its `stats`, `feedback`, `invalidate` and `clear` are there."""

    def __init__(self, llm: LLM, **options: Any) -> None:
        super().__init__(llm, **options)

    @classmethod
    def class_name(cls) -> str:
        """Name the wrapper as the host's models are."""
        return "llm_costopt_cached"

    def explain(self, messages: Sequence[ChatMessage], **options: Any) -> Explanation:
        """Say what a lookup of *messages* would do, and why: candidates, evidence, decision. It holds questions in clear.

        Raises:
            ValueError: calls with these *options* are not cached.
        """
        question = self._lookup(messages_of(messages), options).question
        if question is None:
            raise ValueError(
                "such calls are not cached: an object among their options has no name, or the model keeps track of its responses"
            )
        return self.cache.explain(question)

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer from store, or ask."""
        return self._lookup(messages_of(messages), kwargs).answer(lambda: self.llm.chat(messages, **kwargs))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer from store, or ask."""
        return await self._lookup(messages_of(messages), kwargs).aanswer(lambda: self.llm.achat(messages, **kwargs))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        """Answer from store, or ask."""
        return self._lookup(messages_of(messages), kwargs).stream(lambda: self.llm.stream_chat(messages, **kwargs))

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        """Answer from store, or ask."""
        lookup = self._lookup(messages_of(messages), kwargs)
        return await lookup.astream(lambda: self.llm.astream_chat(messages, **kwargs))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer from store, or ask."""
        return self._completion(prompt, formatted, kwargs).answer(
            lambda: self.llm.complete(prompt, formatted, **kwargs)
        )

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer from store, or ask."""
        lookup = self._completion(prompt, formatted, kwargs)
        return await lookup.aanswer(lambda: self.llm.acomplete(prompt, formatted, **kwargs))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Answer from store, or ask."""
        lookup = self._completion(prompt, formatted, kwargs)
        return lookup.stream(lambda: self.llm.stream_complete(prompt, formatted, **kwargs))

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Answer from store, or ask."""
        lookup = self._completion(prompt, formatted, kwargs)
        return await lookup.astream(lambda: self.llm.astream_complete(prompt, formatted, **kwargs))

    def _lookup(self, messages: tuple[Message, ...], options: Mapping[str, Any]) -> Lookup:
        return lookup_of(self.llm, self.cache, messages, options)

    def _completion(self, prompt: str, formatted: bool, options: Mapping[str, Any]) -> Lookup:
        # A completion and a chat message of the same words are two requests, and have answers of two kinds.
        return self._lookup((Message(role="human", text=prompt),), {**options, "completion": formatted})


def lookup_of(model: LLM, cache: SemanticCache, messages: tuple[Message, ...], options: Mapping[str, Any]) -> Lookup:
    """Find the place in *cache* of a call of *model*; a failure is logged and counted, and makes it a call without one."""
    question: Question | None = None
    named = model_of(model)
    with cache.failsafe("key"):
        own = identity(model)
        # Requests of one that tracks its responses lack the turns before, and it would not know of a hit.
        if not says(own, ("track_previous_responses",)):
            said = spelled([own, dict(options)])
            question = question_of(with_question(messages), model=said, name=named.name, options=options, own=own)
    return Lookup(cache=cache, question=question, model=named, baseline=getattr(model, "costopt_baseline", None))
