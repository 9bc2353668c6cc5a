"""What a model lacks for a request, by its profile."""

from typing import Any

import pytest

from llm_costopt.router.capability import lacks, needs_of
from llm_costopt.types import Message, Question, ToolCall

ASKED = Message(role="human", text="What is on it?")
IMAGE = Message(role="human", text="What is on it?", parts=({"type": "image", "url": "https://x.test/a.png"},))
PLAIN = Question(messages=(ASKED,))


@pytest.mark.parametrize(
    ("question", "profile", "lack"),
    [
        (PLAIN, {}, None),
        (PLAIN, {"image_inputs": False, "tool_calling": False, "structured_output": False}, None),
        (Question(messages=(IMAGE,)), {"image_inputs": False}, "no images"),
        (Question(messages=(IMAGE, Message(role="ai", text="A cat."), ASKED)), {"image_inputs": False}, "no images"),
        (Question(messages=(IMAGE,)), {"image_inputs": True}, None),
        (Question(messages=(IMAGE,)), {}, None),
        (Question(messages=(ASKED,), with_tools=True), {"tool_calling": False}, "no tools"),
        (Question(messages=(ASKED,), with_schema=True), {"structured_output": False}, "no structured output"),
        (Question(messages=(ASKED,), with_schema=True), {"structured_output": False, "tool_calling": True}, None),
        (Question(messages=(Message(role="human", text="word " * 1000),)), {"max_input_tokens": 1000}, "do not fit"),
        (Question(messages=(Message(role="human", text="word " * 1000),)), {"max_input_tokens": 4000}, None),
        (PLAIN, {"max_input_tokens": None}, None),
    ],
)
def test_only_what_is_known_to_be_missing_counts(question: Question, profile: dict[str, Any], lack: str | None) -> None:
    """A profile that says no turns the model away, one that says nothing does not."""
    found = lacks(profile, needs_of(question))

    assert found is None if lack is None else lack in str(found)


def test_the_answer_needs_room_too() -> None:
    """The tokens that the answer may take count as those of the request do."""
    assert lacks({"max_input_tokens": 1000}, needs_of(PLAIN, max_tokens=990)) is None
    assert lacks({"max_input_tokens": 1000}, needs_of(PLAIN, max_tokens=1000)) is not None


def test_all_turns_and_tool_calls_take_room() -> None:
    """Earlier turns, pasted blocks and what was sent to tools fill the window as well."""
    long = "word " * 600
    turns = (
        Message(role="system", text=long),
        Message(role="ai", text="", tool_calls=(ToolCall(id="1", name="find", args={"query": long}),)),
        Message(role="human", text="", parts=({"type": "text", "text": long}, {"type": "image", "url": "a"})),
    )

    assert needs_of(Question(messages=turns)).tokens >= 3000
