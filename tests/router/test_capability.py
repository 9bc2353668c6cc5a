"""What a model lacks for a request, by its profile."""

from typing import Any

import pytest

from llm_costopt.router.capability import lacks, limit_of, needs_of, unsaid
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


@pytest.mark.parametrize(
    ("block", "key", "lack"),
    [
        ({"type": "audio", "base64": "UklG", "mime_type": "audio/wav"}, "audio_inputs", "no audio"),
        ({"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}, "audio_inputs", "no audio"),
        ({"type": "video", "url": "https://x.test/a.mp4"}, "video_inputs", "no video"),
        ({"type": "file", "base64": "JVBE", "mime_type": "application/pdf"}, "pdf_inputs", "no PDF files"),
        ({"type": "file", "source_type": "url", "mime_type": "image/png"}, "image_inputs", "no images"),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE"}}, "pdf_inputs", "no PDF files"),
        ({"type": "input_file", "file_data": "data:application/pdf;base64,JVBE"}, "pdf_inputs", "no PDF files"),
        ({"type": "document", "source": {"media_type": "application/pdf"}}, "pdf_inputs", "no PDF files"),
        ({"type": "media", "mime_type": "image/png", "data": "iVBO"}, "image_inputs", "no images"),
        ({"type": "media", "mime_type": "audio/mpeg", "file_uri": "gs://a"}, "audio_inputs", "no audio"),
    ],
)
def test_what_is_shown_is_told_by_its_type_or_by_what_is_in_it(block: dict[str, Any], key: str, lack: str) -> None:
    """A model whose profile says that it cannot read that is turned away, one that merely does not say is not."""
    needs = needs_of(Question(messages=(Message(role="human", text="What is it?", parts=(block,)),)))
    others = dict.fromkeys({"image_inputs", "audio_inputs", "video_inputs", "pdf_inputs"} - {key}, False)

    assert lacks({key: False}, needs) == lack
    assert lacks({key: True, **others}, needs) is None
    assert lacks({}, needs) is None
    assert lack == f"no {unsaid({}, needs)}"


@pytest.mark.parametrize(
    "block", [{"type": "file", "file_id": "file-1"}, {"type": "text-plain", "mime_type": "text/plain"}, "a word"]
)
def test_a_file_that_does_not_say_what_it_is_turns_nobody_away(block: Any) -> None:
    """A guess must not cost the dearer model."""
    needs = needs_of(Question(messages=(Message(role="human", text="What is it?", parts=(block,)),)))

    assert lacks(dict.fromkeys(("image_inputs", "audio_inputs", "video_inputs", "pdf_inputs"), False), needs) is None


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


@pytest.mark.parametrize(("given", "limit"), [(5, 5), (None, 0), ("5", 0), (-1, 0), (5.5, 0)])
def test_a_limit_that_is_no_number_is_for_the_provider_to_judge(given: Any, limit: int) -> None:
    """Routing goes on as if nobody had said how long the answer may be."""
    assert limit_of({"max_tokens": given}) == limit
    assert limit_of({}) == 0
