"""Every wrapper passes for the model that it wraps, alone and stacked; what is known to go wrong is noticed."""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms import LLM
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llmock.pytest_plugin import LLMock

from llamaindex_costopt import BatchingLLM, CachedLLM, RouterLLM
from llamaindex_costopt._wrapper import Wrapper
from llamaindex_costopt.testing import SECRET, assert_llm_conformance
from llm_costopt import SemanticCache
from tests.llamaindex.echo import Echo

Wrap = Callable[[LLM], LLM]


def _cached(model: LLM) -> LLM:
    return CachedLLM(model)


def _routed(model: LLM) -> LLM:
    # A request that is found simple streams natively, as the bare model does; a draft would be fetched whole.
    return RouterLLM(cheap=model, strong=model, complexity=lambda _: ("simple", "a test"))


def _batching(model: LLM) -> LLM:
    return BatchingLLM(model, flush_interval=0.0)


def _with_a_cache(model: LLM) -> LLM:
    return RouterLLM(tiers=[model], cache=SemanticCache())


def _stacked(wraps: tuple[Wrap, ...]) -> Wrap:
    def wrap(model: LLM) -> LLM:
        for one in reversed(wraps):
            model = one(model)
        return model

    return wrap


WRAPPERS: list[Wrap] = [_cached, _routed, _batching]
STACKS = [stack for n in (1, 2, 3) for stack in permutations(WRAPPERS, n)] + [(_with_a_cache,), (_cached, _cached)]


def _name(stack: tuple[Wrap, ...]) -> str:
    return "over".join(one.__name__ for one in stack)


@pytest.mark.parametrize("stack", STACKS, ids=_name)
def test_no_stack_of_wrappers_is_noticed(stack: tuple[Wrap, ...]) -> None:
    """In each of over sixty ways of calling, results, inner calls, events and token counts are those of the bare model, in every stacking."""
    assert assert_llm_conformance(lambda: Echo(api_key=SECRET), _stacked(stack)) >= 60


@pytest.mark.parametrize(
    "wraps", [(_cached,), (_routed,), (_cached, _routed, _batching)], ids=["cached", "routed", "recommended"]
)
def test_the_same_bodies_reach_the_server(wraps: tuple[Wrap, ...], openai: Callable[..., LLM], llmock: LLMock) -> None:
    """With OpenAI's integration the request bodies are the same too, those of tools and structured output among them."""
    # Without usage the host counts the texts of a stream, and with them the ids of tool calls, which are of random letters.
    told = {"stream_options": {"include_usage": True}}
    checks = assert_llm_conformance(
        lambda: openai(api_key=SECRET, additional_kwargs=told),
        _stacked(wraps),
        requests=lambda: [r.body for r in llmock.requests],
    )

    assert checks >= 60


class _Passing(Wrapper):
    """Passes every call on; a base for wrappers that do something wrong."""

    def chat(self, messages: Any, **kwargs: Any) -> Any:
        return self.llm.chat(messages, **kwargs)

    async def achat(self, messages: Any, **kwargs: Any) -> Any:
        return await self.llm.achat(messages, **kwargs)

    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        return self.llm.stream_chat(messages, **kwargs)

    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        return await self.llm.astream_chat(messages, **kwargs)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return self.llm.complete(prompt, formatted, **kwargs)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return await self.llm.acomplete(prompt, formatted, **kwargs)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return self.llm.stream_complete(prompt, formatted, **kwargs)

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return await self.llm.astream_complete(prompt, formatted, **kwargs)


class _Decorated(_Passing):
    @llm_chat_callback()
    def chat(self, messages: Any, **kwargs: Any) -> Any:
        return self.llm.chat(messages, **kwargs)


class _WithoutToolCalls(_Passing):
    def get_tool_calls_from_response(self, response: ChatResponse, *args: Any, **kwargs: Any) -> list[ToolSelection]:
        return FunctionCallingLLM.get_tool_calls_from_response(self, response, *args, **kwargs)


class _OwnStructures(_Passing):
    def structured_predict(self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **prompt_args: Any) -> Any:
        return FunctionCallingLLM.structured_predict(self, output_cls, prompt, llm_kwargs, **prompt_args)


class _LosesToolRequired(_Passing):
    def chat_with_tools(self, tools: Any, *args: Any, **kwargs: Any) -> ChatResponse:
        return super().chat_with_tools(tools, *args, **{**kwargs, "tool_required": False})


class _TellsItsModel(_Passing):
    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        return {**super().to_dict(**kwargs), "llm": self.llm.to_dict()}


class _ChangesHistory(_Passing):
    def chat_with_tools(self, tools: Any, *args: Any, **kwargs: Any) -> ChatResponse:
        if kwargs.get("chat_history") is not None:
            kwargs["chat_history"].append(ChatMessage(role="user", content=kwargs["user_msg"]))
        return super().chat_with_tools(tools, *args, **kwargs)


class _Shares(_Passing):
    def chat(self, messages: Any, **kwargs: Any) -> Any:
        kept = self.__dict__.setdefault("_kept", {})
        return kept.setdefault(str(messages), None) or kept.setdefault(str([*messages, 1]), self.llm.chat(messages))


class _ForgetsTheSystemPrompt(_Passing):
    def predict(self, prompt: Any, **prompt_args: Any) -> str:
        self.__dict__["system_prompt"] = None
        return FunctionCallingLLM.predict(self, prompt, **prompt_args)


def _around(wrapper: type[_Passing]) -> Wrap:
    return lambda model: wrapper(llm=model)


def test_a_wrapper_that_passes_calls_on_is_not_noticed() -> None:
    """The base of the wrong wrappers below is right, so that each fails for its own mistake."""
    assert assert_llm_conformance(lambda: Echo(api_key=SECRET), _around(_Passing)) >= 60


@pytest.mark.parametrize(
    ("wrong", "noticed"),
    [
        (_Decorated, "chat: events"),
        (_Decorated, "chat: tokens"),
        (_WithoutToolCalls, "get_tool_calls_from_response: result"),
        (_LosesToolRequired, "chat_with_tools required: calls"),
        (_TellsItsModel, "secrets: "),
        (_ChangesHistory, "chat history: "),
        (_Shares, "aliasing: "),
        (_ForgetsTheSystemPrompt, "system prompt: "),
    ],
)
def test_what_goes_wrong_is_noticed(wrong: type[_Passing], noticed: str) -> None:
    """Each known mistake of a wrapper fails the battery, and is named."""
    with pytest.raises(AssertionError, match=noticed):
        assert_llm_conformance(lambda: Echo(api_key=SECRET), _around(wrong))


def test_another_way_of_asking_for_a_structure_is_noticed(openai: Callable[..., LLM], llmock: LLMock) -> None:
    """A wrapper that asks for a structure by a tool, where the model itself would use a schema, sends another body."""
    with pytest.raises(AssertionError, match="structured_predict: bodies"):
        assert_llm_conformance(
            lambda: openai(api_key=SECRET),
            _around(_OwnStructures),
            requests=lambda: [r.body for r in llmock.requests],
        )
