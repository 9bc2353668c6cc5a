"""What wrappers hand on, and what is read of messages and responses."""

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, TextBlock, ToolCallBlock
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.llms.llm import ToolSelection
from llmock.pytest_plugin import LLMock
from pydantic import ValidationError

from llamaindex_costopt import BatchingLLM, CachedLLM, RouterLLM
from llamaindex_costopt._checks import weather_tool
from llamaindex_costopt._convert import Reading, messages_of
from llm_costopt import Budget, Prices, SemanticCache
from llm_costopt.types import ToolCall
from tests.llamaindex.echo import Echo

ASKED = "What is the weather in Paris?"


def test_what_is_set_on_a_wrapper_is_set_on_the_model_inside() -> None:
    """A callback manager or a system prompt, given at the start or later, is the model's own."""
    inner, manager = Echo(), CallbackManager([])
    wrapped = CachedLLM(inner, callback_manager=manager)
    wrapped.system_prompt = "Be brief."

    assert inner.callback_manager is manager
    assert inner.system_prompt == "Be brief."
    tiers = [Echo(), Echo()]
    RouterLLM(tiers=tiers, callback_manager=manager)
    assert all(tier.callback_manager is manager for tier in tiers)


@pytest.mark.parametrize(
    "make",
    [
        lambda llm: RouterLLM(tiers=[llm], budgets=[Budget(1)], prices=Prices({"m": (1, 2)})),
        lambda llm: CachedLLM(llm, cache=SemanticCache()),
        BatchingLLM,
    ],
    ids=["router", "cache", "batching"],
)
def test_a_copy_for_another_process_is_refused(make: Callable[[LLM], LLM]) -> None:
    """The host takes out of a model what it cannot pickle, such as cache and budgets; asked in vain, it leaves them there."""
    model = make(Echo(name="m", replies=["Paris."]))
    with pytest.raises(TypeError, match="cannot be pickled: what it keeps lives in this process"):
        pickle.dumps(model)

    assert model.complete("What is the capital of France?").text == "Paris."


def test_a_request_with_tools_is_prepared_as_the_model_does(openai: Callable[..., LLM]) -> None:
    """Whoever prepares and validates through the wrapper gets what the model inside would give."""
    inner: Any = openai()
    wrapped = BatchingLLM(CachedLLM(inner), flush_interval=0)
    asked: dict[str, Any] = {"user_msg": ASKED, "chat_history": [], "tool_required": True}
    reply = ChatResponse(
        message=ChatMessage(
            role="assistant", blocks=[ToolCallBlock(tool_call_id=f"call_{n}", tool_name="t") for n in range(2)]
        )
    )

    assert wrapped._prepare_chat_with_tools([weather_tool()], **asked) == inner._prepare_chat_with_tools(
        [weather_tool()], user_msg=ASKED, chat_history=[], tool_required=True
    )
    assert wrapped._validate_chat_with_tools_response(reply, []) is reply
    assert asked["chat_history"] == []


@pytest.mark.parametrize("front", [False, True], ids=["own cache", "cache in front"])
def test_tool_calls_of_a_router_are_read_from_store(front: bool) -> None:
    """A tool call that a tier once made is read from store, of whichever provider it was."""
    cache, tier = SemanticCache(), Echo()
    model: Any = CachedLLM(RouterLLM(tiers=[tier]), cache=cache) if front else RouterLLM(tiers=[tier], cache=cache)
    for _ in range(2):
        reply = model.chat_with_tools([weather_tool()], user_msg=ASKED)
        (call,) = model.get_tool_calls_from_response(reply)

        assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"city": "x"})
    assert len(tier.seen) == 1
    with pytest.raises(ValueError, match="tool call"):
        model.get_tool_calls_from_response(ChatResponse(message=ChatMessage(role="assistant", content="no")))


def _openai_call(**function: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": function}


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage(
            role="assistant", blocks=[ToolCallBlock(tool_call_id="call_1", tool_name="t", tool_kwargs='{"a": 1}')]
        ),
        ChatMessage(role="assistant", additional_kwargs={"tool_calls": [_openai_call(name="t", arguments='{"a": 1}')]}),
        ChatMessage(
            role="assistant",
            additional_kwargs={"tool_calls": [ToolSelection(tool_id="call_1", tool_name="t", tool_kwargs={"a": 1})]},
        ),
    ],
    ids=["block", "OpenAI's", "the host's"],
)
def test_tool_calls_are_read_in_every_form(message: ChatMessage) -> None:
    """Blocks, OpenAI's dicts and the host's selections are one and the same call."""
    (read,) = messages_of([message])

    assert read.tool_calls == (ToolCall(id="call_1", name="t", args={"a": 1}),)


def test_arguments_that_are_no_json_make_an_answer_unfit() -> None:
    """A tool call that cannot be read is told as that, and is still told from others in a key."""
    block = ToolCallBlock(tool_call_id="call_1", tool_name="t", tool_kwargs='{"a": ')
    message = ChatMessage(role="assistant", blocks=[TextBlock(text=""), block])
    answer = Reading().add(ChatResponse(message=message)).answer()

    assert (answer.invalid, answer.tool_calls) == ("tool call", ())
    assert messages_of([message])[0].parts


def test_a_structure_that_is_no_json_is_a_doubtful_draft(openai: Callable[..., LLM], llmock: LLMock) -> None:
    """With a response format, a draft that is no JSON is rejected."""
    llmock.reply("Paris").reply('{"city": "Paris"}')
    router = RouterLLM(cheap=openai("gpt-4o-mini"), strong=openai("gpt-4o"), complexity=lambda _: ("medium", "a test"))
    reply = router.chat([ChatMessage(role="user", content=ASKED)], response_format={"type": "json_object"})

    assert reply.message.content == '{"city": "Paris"}'
    assert [r.body["model"] for r in llmock.requests] == ["gpt-4o-mini", "gpt-4o"]


def test_a_template_whose_function_fails_without_a_real_question_is_compared_whole() -> None:
    """A function in a template that wants a real question does not break the call."""

    def length(**said: str) -> str:
        return {ASKED: "short"}[said["query_str"]]

    inner = Echo()
    cached = CachedLLM(inner)
    template = PromptTemplate("{length} {query_str}", function_mappings={"length": length})

    assert cached.predict(template, query_str=ASKED) == cached.predict(template, query_str=ASKED)
    assert len(inner.seen) == 1


def test_a_stream_that_cannot_start_keeps_nobody_waiting() -> None:
    """An error before the first chunk reaches the caller at once, and the next one asks again."""

    class Broken(Echo):
        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no")

    cached = CachedLLM(Broken(replies=["yes"]))
    with pytest.raises(RuntimeError, match="no"):
        cached.stream_chat([ChatMessage(role="user", content=ASKED)])

    assert asyncio.run(cached.achat([ChatMessage(role="user", content=ASKED)])).message.content == "yes"


@pytest.mark.parametrize("wrapper", [BatchingLLM, CachedLLM])
def test_a_misspelt_option_and_what_is_no_model_are_refused(wrapper: Any) -> None:
    """Neither is left out in silence, nor found out by the first call."""
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        wrapper(MockLLM(), flush_intervall=5)
    with pytest.raises(TypeError, match="llm is a model of LlamaIndex"):
        wrapper("gpt-4o")
