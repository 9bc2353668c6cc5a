"""What makes an answer unfit, and what only sounds like it."""

import pytest

from llm_costopt.faults import fault
from llm_costopt.types import Answer, ToolCall

CALL = ToolCall(id="1", name="weather", args={})


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Answer(text="Rome"), None),
        (Answer(text="Rome", finish="stop"), None),
        (Answer(text="Rome", finish="pause_turn"), None),
        (Answer(text="", finish="tools", tool_calls=(CALL,)), None),
        (Answer(text="The city of", finish="length"), "truncated"),
        (Answer(text="", finish="length"), "truncated"),
        (Answer(text="The city of", finish="filter"), "filtered"),
        (Answer(text="Rome", refused=True), "refused"),
        (Answer(text="Rome", invalid="Expecting value"), "unparsable"),
        (Answer(text="", invalid="tool call"), "unparsable"),
        (Answer(text=""), "empty"),
        (Answer(text=" \n\t", finish="stop"), "empty"),
    ],
)
def test_faults_that_the_host_reports(answer: Answer, problem: str | None) -> None:
    """Each sign of a bad answer has its name, and a good one has none."""
    assert fault(answer) == problem


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with that request.",
        "I am very sorry, but I cannot provide that.",
        "I'm really sorry, but I don't have access to your files.",
        "I'm sorry, we're unable to do this.",
        "Im sorry but I won't do that",
        "Sorry, I can't do that.",
        "Unfortunately, I am unable to open links.",
        "Apologies, but I cannot say.",
        "I cannot help you with this.",
        "I can’t comply with that request.",
        "I'm not able to provide medical advice.",
        "As an AI language model, I cannot have opinions.",
        '"I will not continue this conversation."',
    ],
)
def test_refusals_in_words(text: str) -> None:
    """The usual openings of a refusal are recognised."""
    assert fault(Answer(text=text)) == "refused"


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that, I can help you return it.",
        "I am so sorry for the delay, we will send a new one.",
        "I'm sorry for the mix-up, I am checking it now.",
        "The phrase means: I can't help with that.",
        "Sorry is the name of a song.",
        "Unfortunately, the museum is closed on Mondays.",
        "I can see three birds.",
        "You can't return it, I'm sorry.",
        "As an AI assistant, I can draft it for you.",
    ],
)
def test_what_is_no_refusal(text: str) -> None:
    """An apology with an answer, and a refusal that is only quoted, are answers."""
    assert fault(Answer(text=text)) is None
