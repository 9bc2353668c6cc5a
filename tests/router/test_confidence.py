import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_costopt.router.confidence import UNREMARKABLE, confidence
from llm_costopt.types import Answer, Message, Question, ToolCall

THRESHOLD = 0.7
"""What the adapters ask for unless told otherwise."""

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
}

FINE = "Paris has been the capital of France since the Middle Ages."


def asking(text: str = "What is the capital of France?", **tools: Any) -> Question:
    """Make a request that may call *tools*, which are given with the schema of their arguments."""
    return Question(messages=(Message(role="human", text=text),), with_tools=bool(tools), tools=tools)


def calling(name: str, *, text: str = "", **args: Any) -> Answer:
    """Make an answer that calls a tool."""
    return Answer(text=text, finish="tools", tool_calls=(ToolCall(id="1", name=name, args=args),))


def python(code: str) -> Answer:
    """Make an answer that shows Python code."""
    return Answer(text=f"Here you are:\n\n```python\n{code}\n```\n\nIt was tested.")


@pytest.mark.parametrize(
    ("answer", "flaw"),
    [
        pytest.param(Answer(text=FINE, finish="length"), "truncated", id="truncated"),
        pytest.param(Answer(text=FINE, finish="filter"), "filtered", id="filtered"),
        pytest.param(Answer(text=FINE, refused=True), "refused", id="refused"),
        pytest.param(Answer(text="I'm sorry, but I can't help with that."), "refused", id="refused-in-words"),
        pytest.param(Answer(text="As an AI language model, I cannot know."), "refused", id="refused-as-an-ai"),
        pytest.param(Answer(text=FINE, invalid="bad JSON"), "unparsable", id="unparsable"),
        pytest.param(Answer(text=""), "empty", id="empty"),
        pytest.param(Answer(text=" \n\t"), "empty", id="blank"),
    ],
)
def test_a_flaw_decides_alone(answer: Answer, flaw: str) -> None:
    """What is surely wrong with an answer takes all trust from it, however good its text looks."""
    assert confidence(asking(), answer) == (0.0, flaw)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(text="Perhaps I am not sure, I guess.", finish="length"), id="truncated"),
        pytest.param(Answer(text="I cannot help you, perhaps.", finish="stop"), id="refused"),
        pytest.param(calling("wether", text="Perhaps this, I guess."), id="tool"),
        pytest.param(python("def f(:"), id="code"),
    ],
)
def test_a_flaw_comes_before_the_text(answer: Answer) -> None:
    """If a flaw and the text both speak against an answer, the flaw is the reason that is given."""
    question = asking("Explain why we should check the weather in Paris", weather=WEATHER)
    score, why = confidence(question, answer)

    assert score == 0.0
    assert "hedging" not in why
    assert "short" not in why


def test_a_right_tool_call_is_kept() -> None:
    """A call of a known tool with arguments of its schema needs no text."""
    assert confidence(asking(weather=WEATHER), calling("weather", city="Paris", days=2)) == (
        UNREMARKABLE,
        "valid tool call",
    )


def test_an_unknown_tool() -> None:
    """A call of a tool that was not offered is rejected by name."""
    assert confidence(asking(weather=WEATHER), calling("wether", city="Paris")) == (0.0, "unknown tool 'wether'")


@pytest.mark.parametrize(
    "args",
    [{}, {"city": 75}, {"city": "Paris", "days": 0}, {"city": "Paris", "days": "two"}],
    ids=["missing", "type", "bound", "text-for-number"],
)
def test_bad_arguments(args: dict[str, Any]) -> None:
    """Arguments that the tool's schema forbids are rejected."""
    assert confidence(asking(weather=WEATHER), calling("weather", **args)) == (0.0, "bad arguments for 'weather'")


def test_one_bad_call_of_several() -> None:
    """All calls of an answer are checked, not the first one."""
    calls = (*calling("weather", city="Paris").tool_calls, *calling("weather").tool_calls)

    assert confidence(asking(weather=WEATHER), Answer(text="", tool_calls=calls))[0] == 0.0


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(None, id="none"),
        pytest.param({"type": "no such type"}, id="type"),
        pytest.param({"properties": {"city": {"pattern": "("}}}, id="pattern"),
        pytest.param({"properties": {"city": {"$ref": "#/nowhere"}}}, id="reference"),
    ],
)
def test_a_schema_that_is_wrong_itself(schema: Any) -> None:
    """A tool without a usable schema proves nothing against the answer."""
    assert confidence(asking(weather=schema), calling("weather", city="Paris"))[0] == UNREMARKABLE


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jsonschema's own, as it follows the reference
def test_no_schema_is_fetched(tmp_path: Path) -> None:
    """A reference that leads out of a tool's schema is not followed: checking an answer does no I/O."""
    elsewhere = tmp_path / "city.json"
    elsewhere.write_text('{"type": "integer"}')
    schema = {"properties": {"city": {"$ref": elsewhere.as_uri()}}}

    assert confidence(asking(weather=schema), calling("weather", city="Paris"))[0] == UNREMARKABLE


def test_tools_whose_schemas_are_not_known() -> None:
    """A provider's own tools, which the host cannot describe, are not held to be unknown."""
    question = Question(messages=(Message(role="human", text="News?"),), with_tools=True)

    assert confidence(question, calling("web_search"))[0] == UNREMARKABLE


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(python("def add(a, b)\n    return a + b"), id="python"),
        pytest.param(python("print('hello"), id="quote"),
        pytest.param(Answer(text="```py\nfor x in\n```"), id="py"),
        pytest.param(Answer(text='```json\n{"a": 1,}\n```'), id="json"),
        pytest.param(Answer(text="```sh\nls\n```\nand\n```Python\n1 +\n```"), id="second-block"),
    ],
)
def test_code_that_does_not_parse(answer: Answer) -> None:
    """A block of Python or JSON with a syntax error gives the answer away."""
    score, why = confidence(asking("How do I do it?"), answer)

    assert score == 0.0
    assert "does not parse" in why


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(python("def add(a, b):\n    return a + b"), id="python"),
        pytest.param(python(">>> 1 + 1\n2"), id="doctest"),
        pytest.param(python("!pip install numpy\n%matplotlib inline\nimport numpy"), id="notebook"),
        pytest.param(python("pattern = '\\d'"), id="odd-escape"),
        pytest.param(
            Answer(text="1. First:\n   ```python\n   x = 1\n   if x:\n       print(x)\n   ```"), id="in-a-list"
        ),
        pytest.param(Answer(text="```\nnot python at all\n```"), id="no-language"),
        pytest.param(Answer(text="```rust\nfn main() {}\n```"), id="other-language"),
        pytest.param(Answer(text='```json\n{"a": [1, null]}\n```'), id="json"),
        pytest.param(Answer(text="```python\nan opening that never closes"), id="open"),
    ],
)
def test_code_that_parses_or_is_not_known(answer: Answer) -> None:
    """Sound code, and what only its own tool could judge, is not held against an answer."""
    assert confidence(asking("How do I do it?"), answer)[0] >= THRESHOLD


@pytest.mark.parametrize(
    "text", ["The capital is Paris.", "{'capital': 'Paris'}", '{"capital": "Par', "```\nParis\n```"]
)
def test_json_was_asked_for_but_not_given(text: str) -> None:
    """Whoever asks for JSON is not served with prose or with half of an object."""
    assert confidence(asking("Give me the capital of France as JSON"), Answer(text=text)) == (0.0, "not JSON")


@pytest.mark.parametrize(
    "text", ['{"capital": "Paris"}', '["Paris"]', 'Sure:\n```json\n{"capital": "Paris"}\n```\nAnything else?']
)
def test_json_was_asked_for_and_given(text: str) -> None:
    """JSON alone, or in one block, is what was asked for."""
    assert confidence(asking("Give me the capital of France as JSON"), Answer(text=text))[0] == UNREMARKABLE


def test_json_in_the_material_is_not_asked_for() -> None:
    """Only the task asks: JSON in the context calls for no JSON in the answer."""
    question = asking('Context: we return JSON only: {"a": 1}\n\nQuestion: What is the capital of France?')

    assert confidence(question, Answer(text="Paris"))[0] == UNREMARKABLE


def test_a_tool_call_where_json_is_asked_for() -> None:
    """A call of a tool on the way to the JSON is not the JSON yet."""
    question = asking("Give me the weather in Paris as JSON", weather=WEATHER)

    assert confidence(question, calling("weather", city="Paris"))[0] == UNREMARKABLE


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("What is 2 + 2?", "4"),
        ("What is the capital of France?", "Paris."),
        ("Is water wet?", "Yes"),
        ("Translate to French: thank you very much indeed", "Merci infiniment"),
        ("Why?", "Because."),
    ],
)
def test_a_right_terse_answer_is_kept(task: str, text: str) -> None:
    """Short is not wrong where a short answer is what was asked for."""
    assert confidence(asking(task), Answer(text=text)) == (UNREMARKABLE, "nothing speaks against it")


def test_hedging_lowers_the_score() -> None:
    """Each hedge makes an answer less sure, down to a floor that is still an answer."""
    texts = [FINE, "I think it is Paris.", "I think it might be Paris.", "Perhaps, maybe, possibly. " * 40 + "maybe be"]
    scores = [confidence(asking(), Answer(text=text)) for text in texts]

    assert [score for score, _ in scores] == sorted((score for score, _ in scores), reverse=True)
    assert scores[0][0] > scores[1][0] > scores[2][0] >= scores[3][0] > 0
    assert [why for _, why in scores] == ["nothing speaks against it", *["hedging"] * 3]


@pytest.mark.parametrize(
    "hedge",
    [
        *(
            "I'm not sure",
            "i am not entirely certain",
            "I’m unsure",
            "I am uncertain",
            "I don't know",
            "I do not really know",
        ),
        *(
            "I think",
            "I believe",
            "I guess",
            "It's hard to say",
            "it is difficult to say",
            "not entirely clear",
            "might be",
        ),
        *("may be", "could be", "possibly", "perhaps", "probably", "as far as I know", "If I remember", "it depends"),
        "I cannot be certain",
    ],
)
def test_each_hedge_is_heard(hedge: str) -> None:
    """Every wording of doubt that the rules know lowers the score."""
    assert confidence(asking(), Answer(text=f"Well: {hedge}, Paris."))[1] == "hedging"


def test_one_hedge_is_enough_to_ask_again() -> None:
    """At the adapters' threshold an answer that says it is not sure is escalated."""
    assert confidence(asking(), Answer(text="I'm not entirely sure, but it is Paris."))[0] < THRESHOLD


def test_too_short_for_the_question() -> None:
    """A few words do not explain anything."""
    question = asking("Explain to me how photosynthesis works in plants")

    assert confidence(question, Answer(text="With light.")) == (0.6, "too short for the question")
    assert confidence(question, Answer(text=FINE))[0] == UNREMARKABLE


def test_short_and_hedging() -> None:
    """All that speaks against an answer is named."""
    question = asking("Explain to me how photosynthesis works in plants")

    assert confidence(question, Answer(text="Perhaps light.")) == (0.35, "hedging, too short for the question")


DEEP: dict[str, Any] = {}
for _ in range(2 * sys.getrecursionlimit()):
    DEEP = {"next": DEEP}

LIST: dict[str, Any] = {
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
    "$ref": "#/$defs/node",
}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(python("(" * 100_000), id="brackets"),
        pytest.param(python("-" * 100_000 + "1"), id="signs"),
        pytest.param(python("f" + "()" * 100_000), id="calls"),
        pytest.param(python("x = 1\0"), id="null-byte"),
        pytest.param(python("'\ud800'"), id="surrogate"),
        pytest.param(python("9" * 100_000), id="number"),
        pytest.param(Answer(text="```json\n" + "[" * 100_000 + "\n```"), id="json"),
        pytest.param(Answer(text="```json\n" + "9" * 100_000 + "\n```"), id="json-number"),
        pytest.param(calling("weather", **DEEP), id="arguments"),
    ],
)
def test_a_hostile_answer_is_rejected(answer: Answer) -> None:
    """What makes a parser give up is an answer that does not parse, not an error of the caller's."""
    assert confidence(asking("Return only JSON", weather=LIST), answer)[0] == 0.0


@pytest.mark.parametrize("repeated", ["`", "``` ", "```a", "```\n", "!", "I am not ", "I'm sorry ", "\n ", "perhap"])
@pytest.mark.parametrize("start", ["", "```", "```python\n"])
def test_a_hostile_answer_costs_no_time(start: str, repeated: str) -> None:
    """Half a megabyte is read in one pass; were it not, this test would take hours."""
    score, _ = confidence(asking(), Answer(text=start + repeated * (500_000 // len(repeated))))

    assert 0 <= score <= UNREMARKABLE


@given(st.text(), st.text(alphabet="`python\njson{}[]()' \t\0:x", max_size=80))
def test_any_answer_has_a_score(task: str, text: str) -> None:
    """Whatever is asked and answered, the score is between 0 and 1 and comes with a reason."""
    score, why = confidence(asking(task), Answer(text=text))

    assert 0 <= score <= 1
    assert why
