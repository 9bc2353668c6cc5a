import pytest

from llm_costopt.router.complexity import SHORT, complexity
from llm_costopt.router.task import LONG
from llm_costopt.types import Message, Question

FILLER = "The committee met on a rainy day and spoke at length about the budget of the coming year. " * 20

EVERYDAY = "Suggest a name for my bakery"
"""A request that no rule says anything about."""


def asking(text: str, *before: Message, with_tools: bool = False, with_schema: bool = False) -> Question:
    """Make a request that ends with *text*."""
    messages = (*before, Message(role="human", text=text))
    return Question(messages=messages, with_tools=with_tools, with_schema=with_schema)


@pytest.mark.parametrize(
    "text",
    [
        "Hi there!",
        "Thanks, that helped",
        "What is the capital of France?",
        "What's the boiling point of water?",
        "Who is the author of Hamlet?",
        "Translate to French: good morning",
        "Please extract the e-mail address from: mail bob@example.com",
        "Classify as spam or not: win a prize",
        "I loved it. Positive or negative?",
        "How do I reset my password?",
        "Can I return shoes after 30 days?",
        "“What is love?”",
    ],
)
def test_simple(text: str) -> None:
    """Small talk, lookups, extraction and classification go to the cheap model unchecked."""
    level, why = complexity(asking(text))

    assert level == "simple"
    assert why.strip("“”") in text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "Analyze the risks of this merger",
        "Compare SQL and NoSQL databases",
        "Prove that the square root of two is irrational",
        "Design a rate limiter for our API",
        "Refactor this function",
        "Why does this deadlock happen?",
        "Write a comprehensive guide to composting",
        "Walk me through it step-by-step",
        "Implement quicksort",
        "What is the time complexity of heapsort?",
        "write a Python program that sorts names",
    ],
)
def test_complex(text: str) -> None:
    """Analysis, proofs, design and code of some size go to the strong model, even in the form of a lookup."""
    level, why = complexity(asking(text))

    assert level == "complex"
    assert why.strip("“”") in text.lower()


@pytest.mark.parametrize("text", ["Write a Falcon report", "write the Millers proposal", "Write a report"])
def test_a_reason_holds_no_word_of_the_users_own(text: str) -> None:
    """Reasons are kept in ledgers and spans, where no text of a request may be: only words of the rule are quoted."""
    level, why = complexity(asking(text))

    assert level == "complex"
    assert why in {"“write a”", "“write the”"}


@pytest.mark.parametrize("text", ["🤫 what is the plan?", "\ud83d what is this?", "- ¿what is it?"])
def test_a_reason_holds_no_sign_of_the_users_own(text: str) -> None:
    """Nor what stands before the rule's first word."""
    assert complexity(asking(text)) == ("simple", "“what is”")


@pytest.mark.parametrize("text", [EVERYDAY, "Rewrite my email so that it sounds friendlier", "", "?"])
def test_medium(text: str) -> None:
    """What no rule knows is tried with the cheap model and checked."""
    assert complexity(asking(text)) == ("medium", "no rule applies")


@pytest.mark.parametrize("text", ["I misanalyzed it", "a preimplemented thing", "the shipment", "whatsoever"])
def test_rules_match_words(text: str) -> None:
    """A rule's word inside of another word says nothing."""
    assert complexity(asking(text))[0] == "medium"


def test_a_lookup_of_many_words_is_not_simple() -> None:
    """The first words make only a short request simple."""
    words = ["What", "is", *["very"] * (SHORT - 2)]

    assert complexity(asking(" ".join(words)))[0] == "simple"
    assert complexity(asking(" ".join([*words, "very"])))[0] == "medium"


def test_a_long_task_is_complex() -> None:
    """Beyond 200 words of task the strong model is asked, and not before."""
    assert complexity(asking("very " * LONG))[0] == "medium"
    assert complexity(asking("very " * (LONG + 1))) == ("complex", "more than 200 words")


@pytest.mark.parametrize("task", ["What is the date of the meeting?", EVERYDAY + "?"])
@pytest.mark.parametrize(
    "template",
    [
        pytest.param(f"Context: {FILLER}\n\nQuestion: {{}}\nAnswer:", id="context"),
        pytest.param(f"Question: {{}}\nContext: {FILLER}\nAnswer:", id="context-last"),
        pytest.param(f"<context>{FILLER}</context>\n{{}}", id="tags"),
        pytest.param(f"{FILLER}\n\n{{}}", id="pasted"),
        pytest.param("Q: Analyze the budget.\nA: It is long.\n\n" * 40 + "Q: {}\nA:", id="examples"),
    ],
)
def test_material_in_the_turn_changes_nothing(task: str, template: str) -> None:
    """Long context, pasted text and examples leave a request as hard as its task is alone."""
    assert complexity(asking(template.format(task))) == complexity(asking(task))


@pytest.mark.parametrize("task", ["What is the date of the meeting?", EVERYDAY])
def test_material_around_the_turn_changes_nothing(task: str) -> None:
    """A long system prompt, history and examples as turns leave a request as hard as its task is alone."""
    history = [Message(role=role, text="Analyze this. " + FILLER) for role in ("system", "human", "ai", "tool")]

    assert complexity(asking(task, *history)) == complexity(asking(task))


def test_a_complex_task_over_context_is_complex() -> None:
    """Context does not hide that its task is hard."""
    assert complexity(asking(f"Context: {FILLER}\n\nQuestion: Analyze the budget."))[0] == "complex"


@pytest.mark.parametrize(
    ("options", "why"),
    [({"with_tools": True}, "tools"), ({"with_schema": True}, "structured output")],
    ids=["tools", "schema"],
)
def test_tools_and_schemas_are_never_simple(options: dict[str, bool], why: str) -> None:
    """What can be checked for sure is checked: a lookup with tools or a schema is medium."""
    text = "What is the weather in Paris?"

    assert complexity(asking(text))[0] == "simple"
    assert complexity(asking(text, **options)) == ("medium", why)


@pytest.mark.parametrize("options", [{"with_tools": True}, {"with_schema": True}], ids=["tools", "schema"])
def test_tools_and_schemas_may_be_complex(options: dict[str, bool]) -> None:
    """A hard task stays hard with tools or a schema."""
    assert complexity(asking("Analyze the trade-offs", **options))[0] == "complex"
