import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_costopt.router.task import LONG, task_of
from llm_costopt.types import Message, ToolCall

FILLER = "The committee met on a rainy day and spoke at length about the budget of the coming year. " * 20


def human(text: str) -> Message:
    """Make a turn of the user's."""
    return Message(role="human", text=text)


def ai(text: str) -> Message:
    """Make a turn of the model's."""
    return Message(role="ai", text=text)


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param(
            "Use the following pieces of context to answer the question at the end. If you don't know the answer, say"
            f" so.\n\n{FILLER}\n\nQuestion: Who met?\nHelpful Answer:",
            id="stuff",
        ),
        pytest.param(
            "You are an assistant for question-answering tasks. Use the following pieces of retrieved context.\n"
            f"Question: Who met? \nContext: {FILLER} \nAnswer:",
            id="context-last",
        ),
        pytest.param(
            f"Answer the question based only on the following context:\n{FILLER}\n\nQuestion: Who met?\n",
            id="context-first",
        ),
        pytest.param(
            f"Context information is below.\n---------------------\n{FILLER}\n---------------------\n"
            "Given the context information and not prior knowledge, answer the query.\nQuery: Who met?\nAnswer: ",
            id="llama-index",
        ),
        pytest.param(
            f"Answer as the board would.\n\n### Instruction:\nWho met?\n\n### Input:\n{FILLER}\n\n### Response:\n",
            id="alpaca",
        ),
        pytest.param(f"**Context:** {FILLER}\n\n**Question:** Who met?", id="markdown"),
    ],
)
def test_a_rag_template_is_not_the_task(prompt: str) -> None:
    """Of the usual templates for retrieved context only the question is left, and the rest is counted apart."""
    task = task_of([human(prompt)])

    assert (task.text, task.words) == ("Who met?", 2)
    assert task.material > LONG


def test_the_last_of_labelled_questions_is_the_task() -> None:
    """In a few-shot prompt of labelled pairs the examples are material."""
    task = task_of([human("Q: 2 + 2?\nA: 4\n\nQ: 3 + 3?\nA: 6\n\nQ: 4 + 4?\nA:")])

    assert task.text == "4 + 4?"


def test_examples_as_messages_are_not_the_task() -> None:
    """In a few-shot prompt of turns only the last human turn is the task."""
    examples = [human(FILLER), ai("negative"), human(FILLER), ai("positive")]
    task = task_of([Message(role="system", text=FILLER), *examples, human("I liked it.")])

    assert task.text == "I liked it."
    assert task.material == 3 * len(FILLER.split()) + len(["negative", "positive"])


@pytest.mark.parametrize("gap", ["\n", "\n\n"])
def test_text_pasted_after_an_instruction(gap: str) -> None:
    """A first line that ends with a colon says what to do with all that follows it."""
    task = task_of([human(f"Summarise this in one sentence:{gap}{FILLER}")])

    assert task.text == "Summarise this in one sentence:"


def test_a_colon_at_the_end_introduces_nothing() -> None:
    """A lone line with a colon at its end is the whole task."""
    assert task_of([human("Complete the proverb, a bird in the hand:")]).words == 8


@pytest.mark.parametrize("tag", ["context", "document", "documents", "source", "examples", "transcript", "TEXT"])
def test_tagged_material_is_not_the_task(tag: str) -> None:
    """What stands between tags for material does not count, with attributes and any number of times."""
    block = f'<{tag} index="1">\n{FILLER}\n<note>a < b</note></{tag}>'
    task = task_of([human(f"{block}\n{block}\nWho met?")])

    assert task.text == "Who met?"


def test_tags_in_tags() -> None:
    """Material of one name may hold material of another name."""
    task = task_of([human(f"<documents><document>{FILLER}</document></documents> Who met?")])

    assert task.text == "Who met?"


def test_other_tags_are_part_of_the_task() -> None:
    """Markup that is not known to hold material stays."""
    assert task_of([human("What does <b>bold</b> do?")]).text == "What does <b>bold</b> do?"


def test_material_in_a_word_is_not_less_than_nothing() -> None:
    """A word that falls apart when material is taken out of it leaves no negative count."""
    task = task_of([human("be<text>tw</text>een")])

    assert (task.words, task.material) == (2, 0)


def test_nothing_but_material_is_the_task() -> None:
    """If all of the turn is material, it is taken as a whole rather than as nothing."""
    assert task_of([human("<text>Who met?</text>")]).text == "<text>Who met?</text>"


def test_a_question_after_a_long_text() -> None:
    """A short question in the last paragraph is the task of a long turn."""
    task = task_of([human(f"{FILLER}\n\nWho met?")])

    assert (task.text, task.words) == ("Who met?", 2)


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param("I have a cat.\n\nWhat does it eat?", id="short-text"),
        pytest.param(f"{FILLER}\n\nIt was cold.", id="no-question"),
        pytest.param(f"{FILLER}\n\n{FILLER}, who met?", id="long-question"),
    ],
)
def test_paragraphs_that_stay_together(prompt: str) -> None:
    """A short turn, or a long one that does not end with a short question, is one task."""
    assert task_of([human(prompt)]).text == prompt


def test_a_tool_result_as_the_last_turn() -> None:
    """While tools run, the task is still what the user asked for."""
    call = ToolCall(id="1", name="search", args={"q": "committee"})
    messages = [
        human("Who met?"),
        Message(role="ai", text="", tool_calls=(call,)),
        Message(role="tool", text=FILLER, tool_call_id="1"),
    ]

    assert task_of(messages).text == "Who met?"


def test_no_human_turn() -> None:
    """Without a human turn the last turn is the task."""
    assert task_of([Message(role="system", text="Say hello."), Message(role="chat", text="Go on.")]).text == "Go on."


def test_a_plain_request() -> None:
    """Most requests are their own task, without material."""
    task = task_of([human("  What is the capital of France? ")])

    assert (task.text, task.words, task.material) == ("What is the capital of France?", 6, 0)


@pytest.mark.parametrize("repeated", ["<text>", "<text ", "</text>", "<text><data>", "Q:\n", "\n \t", "# *", "a:\n\n"])
def test_a_hostile_prompt_costs_no_time(repeated: str) -> None:
    """A megabyte of unclosed tags or labels is read in one pass; were it not, this test would take hours."""
    assert task_of([human(repeated * (1_000_000 // len(repeated)))]).material >= 0


@given(st.text(alphabet=st.sampled_from("<text>/ :?\nQA\x00aé"), max_size=60))
def test_any_text_has_a_task(text: str) -> None:
    """Whatever is typed, the task is part of it or nothing, and no count is negative."""
    task = task_of([human(text)])

    assert task.words == len(task.text.split())
    assert bool(task.text) == bool(text.strip())
    assert task.material >= 0
