"""LangChain's prompts, messages and replies as the core reads them."""

import json
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.load import dumps
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, Generation
from pydantic import BaseModel

from langchain_costopt._convert import answer_of, answer_of_message, messages_of, question_of_prompt
from llm_costopt.cache.key import exact_only, key_of
from llm_costopt.faults import fault
from llm_costopt.types import Message, Question, ToolCall, Usage


class Weather(BaseModel):
    """A schema that can be found by its name."""

    city: str


def read(messages: list[BaseMessage], llm_string: str = "model") -> Question:
    """Read messages back from what LangChain hands to a cache."""
    question = question_of_prompt(dumps(messages), llm_string)
    assert question
    return question


def called(
    *, run: str, text: str = "cold", args: dict[str, Any] | None = None, artifact: object = None
) -> list[BaseMessage]:
    """Make a conversation with a tool call in which all that is minted per run is named after *run*."""
    call: Any = {"name": "weather", "args": args or {"city": "Oslo"}, "id": f"call_{run}", "type": "tool_call"}
    return [
        HumanMessage("Is it cold in Oslo?", id=f"human-{run}"),
        AIMessage(
            "",
            id=f"run-{run}",
            tool_calls=[call],
            additional_kwargs={"refusal": None, "tool_calls": [{"id": f"call_{run}"}]},
            response_metadata={"id": f"chatcmpl-{run}", "token_usage": {"total_tokens": len(run)}, "model_name": "m"},
            usage_metadata={"input_tokens": len(run), "output_tokens": 1, "total_tokens": len(run) + 1},
        ),
        ToolMessage(text, tool_call_id=f"call_{run}", artifact=artifact, id=f"tool-{run}"),
        AIMessage("Yes.", id=f"run-{run}-2", response_metadata={"system_fingerprint": run}),
        HumanMessage("And in Rome?"),
    ]


def test_messages_are_read_back_as_they_were_written() -> None:
    """Roles, texts, names, calls and results survive the way through LangChain's prompt string."""
    question = read(
        [
            SystemMessage("Be brief."),
            HumanMessage([{"type": "text", "text": "Is it "}, "cold?"], name="ann"),
            AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Oslo"}, "id": "1", "type": "tool_call"}]),
            ToolMessage("boom", tool_call_id="1", status="error"),
            ChatMessage(content="Mind the gap", role="conductor"),
            FunctionMessage(content="42", name="f"),
        ]
    )

    assert question.messages == (
        Message(role="system", text="Be brief."),
        Message(role="human", text="Is it cold?", name="ann"),
        Message(role="ai", text="", tool_calls=(ToolCall(id="1", name="weather", args={"city": "Oslo"}),)),
        Message(role="tool", text="boom", tool_call_id="1", status="error"),
        Message(role="conductor", text="Mind the gap"),
        Message(role="function", text="42", name="f"),
    )
    assert (question.model, question.with_tools, question.with_schema) == ("model", False, False)


def test_objects_and_their_prompt_string_are_read_alike() -> None:
    """A router that sees messages and a cache that sees a string make the same of a conversation."""
    conversation = called(run="a")

    assert messages_of(conversation) == read(conversation).messages


@pytest.mark.parametrize(
    "prompt",
    [
        "Say hello",
        "",
        "[1, 2]",
        "[",
        "[]",
        '["a"]',
        '[{"lc": 1}]',
        '[{"kwargs": {}}]',
        '{"lc": 1, "kwargs": {}}',
        "[[[[[",
    ],
)
def test_a_prompt_that_is_no_message_list_is_one_human_turn(prompt: str) -> None:
    """Completion models pass plain text, which may look like anything."""
    question = question_of_prompt(prompt, "model")

    assert question
    assert question.messages == (Message(role="human", text=prompt),)


def test_what_is_minted_per_run_does_not_matter() -> None:
    """Message ids, call ids, response and usage metadata and artifacts leave the key alone."""
    one, other = called(run="a", artifact=object()), called(run="other", artifact={"rows": [1]})

    assert key_of(read(one)) == key_of(read(other))


@pytest.mark.parametrize(
    "other", [called(run="a", text="warm"), called(run="a", args={"city": "Bergen"}), called(run="a")[1:]]
)
def test_what_was_said_matters(other: list[BaseMessage]) -> None:
    """Another tool result, other arguments or a missing turn is another conversation."""
    assert key_of(read(called(run="a"))).scope != key_of(read(other)).scope


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": "{1}"}}),
            AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": "{2}"}}),
        ),
        (
            AIMessage("", additional_kwargs={"audio": {"id": "audio_1", "transcript": "yes"}}),
            AIMessage("", additional_kwargs={"audio": {"id": "audio_2", "transcript": "no"}}),
        ),
        (
            AIMessage(
                "",
                invalid_tool_calls=[
                    {"name": "f", "args": "{1", "id": "1", "error": "bad", "type": "invalid_tool_call"}
                ],
            ),
            AIMessage(
                "",
                invalid_tool_calls=[
                    {"name": "f", "args": "{2", "id": "1", "error": "bad", "type": "invalid_tool_call"}
                ],
            ),
        ),
        (
            HumanMessage([{"type": "image", "base64": "AAAA", "mime_type": "image/png"}]),
            HumanMessage([{"type": "image", "base64": "AAAB", "mime_type": "image/png"}]),
        ),
    ],
)
def test_what_is_said_outside_of_the_text_matters(one: BaseMessage, other: BaseMessage) -> None:
    """Old function calls, speech, unreadable calls and images tell conversations apart and are never compared by meaning."""
    questions = [read([turn, HumanMessage("Go on")]) for turn in (one, other)]
    first, second = map(key_of, questions)

    assert first.scope != second.scope
    assert [exact_only(q, "Go on", 50) for q in questions] == ["attachment", "attachment"]


def test_who_speaks_matters_wherever_it_is_said() -> None:
    """A name that is given beside the message, and sent to OpenAI, is no other one's."""
    one, other, none = (
        key_of(read([HumanMessage("Who am I?", additional_kwargs=extra)]))
        for extra in ({"name": "Ann"}, {"name": "Bob"}, {})
    )

    assert len({one.scope, other.scope, none.scope}) == 3


def test_an_unreadable_call_is_the_same_under_another_id() -> None:
    """The id of a call that could not be parsed is minted like any other."""
    first, second = (
        AIMessage(
            "", invalid_tool_calls=[{"name": "f", "args": "{", "id": i, "error": "bad", "type": "invalid_tool_call"}]
        )
        for i in ("1", "2")
    )

    assert key_of(read([first])) == key_of(read([second]))


@pytest.mark.parametrize(
    ("llm_string", "with_tools", "with_schema"),
    [
        ("model---[('stop', None)]", False, False),
        ("model---[('stop', None), ('tools', [{'type': 'function'}])]", True, False),
        ("model---[('stop', None), ('tools', None)]", False, False),
        ("model---[('stop', None), ('tools', [])]", False, False),
        ("model---[('functions', [{'name': 'f'}])]", True, False),
        ("model---[('tool_choice', 'any')]", True, False),
        ("model---[('tool_choice', None)]", False, False),
        ('{"kwargs": {"model_kwargs": {"tools": [{"type": "web_search"}]}}}---[]', True, False),
        ('{"kwargs": {"model_kwargs": {"tools": []}}}---[]', False, False),
        ("model---[('response_format', {'type': 'json_object'})]", False, True),
        ("model---[('response_format', None)]", False, False),
        ('{"kwargs": {"format": "json"}}---[]', False, True),
        ('{"kwargs": {"format": null}}---[]', False, False),
        ('{"kwargs": {"response_mime_type": "application/json"}}---[]', False, True),
        ("model---[('stop', ['tools: none'])]", False, False),
    ],
)
def test_tools_and_schemas_are_seen_in_the_parameters(llm_string: str, with_tools: bool, with_schema: bool) -> None:
    """A parameter that is set counts, one that is None or empty does not."""
    question = question_of_prompt("hi", llm_string)

    assert question
    assert (question.with_tools, question.with_schema) == (with_tools, with_schema)


@pytest.mark.parametrize(
    "llm_string",
    [
        "[('client', <object object at 0x7f54aa11bb22>)]",
        "[('response_format', <class 'tests.nowhere.Weather'>)]",
        "[('response_format', <class 'Weather'>)]",
        "[('response_format', <class 'tests.test_x.test_y.<locals>.Weather'>)]",
        f"[('response_format', <class '{__name__}.Missing'>)]",
    ],
)
def test_what_cannot_be_told_by_its_name_is_no_question(llm_string: str) -> None:
    """An address, a class of a function and a class that is not there make a request that nothing may be shared with."""
    assert question_of_prompt("hi", llm_string) is None


def test_a_message_that_langchain_could_not_serialise_is_exact_only() -> None:
    """A conversation with an unreadable turn is read turn by turn, and its text is not taken for the question."""
    unreadable = {"lc": 1, "type": "not_implemented", "id": ["x", "Own"], "repr": "Own('hi')"}
    human = {"lc": 1, "type": "constructor", "id": ["x"], "kwargs": {"type": "human", "content": "hi"}}
    question = question_of_prompt(json.dumps([unreadable, human]), "model")

    assert question
    assert [m.role for m in question.messages] == ["unknown", "human"]
    assert question.messages[0].parts


@pytest.mark.parametrize("whole", [True, False])
def test_an_object_that_only_has_an_address_is_no_question(whole: bool) -> None:
    """The next picture may have the address of this one, so that nothing may be shared with the request; an artifact is not sent."""
    object_ = {"lc": 1, "type": "not_implemented", "id": ["x", "Own"], "repr": "<Own object at 0x7f54aa11bb22>"}
    content = "hi" if whole else [{"type": "image", "image": object_}]
    human = {"lc": 1, "type": "constructor", "id": ["x"], "kwargs": {"type": "human", "content": content}}
    answered = {**human, "kwargs": {"type": "tool", "content": "hi", "tool_call_id": "1", "artifact": object_}}

    assert question_of_prompt(json.dumps([object_, human] if whole else [human]), "model") is None
    assert question_of_prompt(json.dumps([answered]), "model") is not None


def test_a_class_counts_with_its_fields() -> None:
    """A schema that is only named is part of the model with all that it asks for."""
    question = question_of_prompt("hi", f"[('response_format', {Weather!r})]")

    assert question
    assert '"city"' in question.model


def test_a_class_without_a_schema_is_known_to_this_process_only() -> None:
    """A class that cannot list its fields stays the same while the process lives, and is no other class's equal."""
    one, again = (question_of_prompt("hi", f"[('x', {Question!r})]") for _ in range(2))

    assert one
    assert again
    assert one.model == again.model
    assert one.model != f"[('x', {Question!r})]"


def reply(**fields: Any) -> AIMessage:
    """Make a reply of a chat model."""
    return AIMessage(**{"content": "Rome"} | fields)


@pytest.mark.parametrize(
    ("message", "finish", "problem"),
    [
        (reply(), None, None),
        (reply(response_metadata={"finish_reason": "stop"}), "stop", None),
        (reply(response_metadata={"finish_reason": "STOP"}), "stop", None),
        (reply(response_metadata={"stop_reason": "end_turn"}), "stop", None),
        (reply(response_metadata={"done_reason": "stop"}), "stop", None),
        (reply(response_metadata={"status": "completed"}), None, None),
        (reply(response_metadata={"stop_reason": "pause_turn"}), "pause_turn", None),
        (reply(response_metadata={"finish_reason": "length"}), "length", "truncated"),
        (reply(response_metadata={"stop_reason": "max_tokens"}), "length", "truncated"),
        (reply(response_metadata={"status": "incomplete", "incomplete_details": None}), "length", "truncated"),
        (reply(response_metadata={"incomplete_details": {"reason": "max_output_tokens"}}), "length", "truncated"),
        (reply(response_metadata={"incomplete_details": {"reason": "content_filter"}}), "filter", "filtered"),
        (reply(response_metadata={"finish_reason": "content_filter"}), "filter", "filtered"),
        (reply(response_metadata={"finish_reason": "SAFETY"}), "filter", "filtered"),
        (reply(response_metadata={"stop_reason": "refusal"}), "filter", "filtered"),
        (reply(additional_kwargs={"refusal": "No."}), None, "refused"),
        (reply(additional_kwargs={"refusal": None}), None, None),
        (reply(content=[{"type": "refusal", "refusal": "No."}]), None, "refused"),
        (reply(content=[{"type": "text", "text": "Rome"}]), None, None),
        (reply(content=""), None, "empty"),
        (reply(content=[]), None, "empty"),
        (
            reply(
                invalid_tool_calls=[
                    {"name": "f", "args": "{", "id": "1", "error": "bad JSON", "type": "invalid_tool_call"}
                ]
            ),
            None,
            "unparsable",
        ),
        (
            reply(
                invalid_tool_calls=[{"name": "f", "args": "{", "id": "1", "error": None, "type": "invalid_tool_call"}]
            ),
            None,
            "unparsable",
        ),
    ],
)
def test_how_a_reply_ended(message: AIMessage, finish: str | None, problem: str | None) -> None:
    """Each provider's words for the end of a reply, and each sign of a bad one, are understood."""
    answer = answer_of_message(message)

    assert answer.finish == finish
    assert fault(answer) == problem


def test_a_generation_says_what_its_message_does_not() -> None:
    """The reason to stop may stand beside the message, as in streams and completions."""
    chat = answer_of(ChatGeneration(message=reply(), generation_info={"finish_reason": "length"}))
    text = answer_of(Generation(text="Rome", generation_info={"finish_reason": "length"}))
    bare = answer_of(Generation(text="Rome"))
    human = answer_of(ChatGeneration(message=HumanMessage("Rome")))

    assert (chat.finish, text.finish, bare.finish) == ("length", "length", None)
    assert [a.text for a in (chat, text, bare, human)] == ["Rome"] * 4


def test_all_of_a_reply_is_read() -> None:
    """Text, calls, tokens and the model's name arrive in the core's words."""
    answer = answer_of_message(
        reply(
            content=[{"type": "text", "text": "Wait."}, {"type": "tool_use", "id": "1", "name": "f", "input": {}}],
            tool_calls=[{"name": "f", "args": {"x": 1}, "id": "1", "type": "tool_call"}],
            usage_metadata={"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
            response_metadata={"model_name": "small", "finish_reason": "tool_calls"},
        )
    )

    assert answer.text == "Wait."
    assert answer.finish == "tools"
    assert answer.tool_calls == (ToolCall(id="1", name="f", args={"x": 1}),)
    assert answer.usage == Usage(input_tokens=3, output_tokens=2)
    assert answer.model == "small"


def test_a_models_own_string_is_a_question() -> None:
    """What LangChain's base class makes of a model that cannot be serialised is accepted."""
    model = GenericFakeChatModel(messages=iter([]))
    question = question_of_prompt(dumps([HumanMessage("hi")]), model._get_llm_string(stop=["x"]))

    assert question
    assert exact_only(question, key_of(question).text, 50) is None
