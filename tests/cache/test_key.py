"""What makes two requests the same, what makes them comparable by meaning, and what forbids that."""

import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_costopt.cache.key import exact_only, key_of
from llm_costopt.types import Message, Question, ToolCall

ROLES = ("system", "human", "ai", "tool")

TEXTS = st.text(alphabet=st.sampled_from('ab"\\,:[]{}\n\x00 \u00e9e\u0301\ud800\udfff'), max_size=6)
"""Texts made of what a careless key would join texts with, of accents, and of halves of surrogate pairs."""

TURNS = st.lists(st.tuples(st.sampled_from(ROLES), TEXTS), min_size=1, max_size=3)

Turns = list[tuple[str, str]]


@st.composite
def two_alike(draw: st.DrawFn) -> tuple[Turns, Turns]:
    """Draw a conversation, and the same or one in which a border between texts moved or a character came."""
    turns = draw(TURNS)
    number = draw(st.integers(0, len(turns) - 1))
    (role, text), rest = turns[number], turns[number + 1 :]
    cut = draw(st.integers(0, len(text)))
    changed = [
        [(role, text)],
        [(role, text[:cut]), (role, text[cut:])],
        [(role, text[:cut] + draw(TEXTS) + text[cut:])],
        [(draw(st.sampled_from(ROLES)), text)],
    ]
    if rest:
        (next_role, next_text), *rest = rest
        changed = [[*turn, (next_role, next_text)] for turn in changed]
        changed.append([(role, text[:cut]), (next_role, text[cut:] + next_text)])
    return turns, [*turns[:number], *draw(st.sampled_from(changed)), *rest]


CALL = ToolCall(id="call_1", name="weather", args={"city": "Oslo", "days": 2})

FULL = Question(
    messages=(
        Message(role="system", text="Be brief."),
        Message(role="human", text="Is it cold in Oslo?", name="ann"),
        Message(role="ai", text="", tool_calls=(CALL,)),
        Message(role="tool", text="-3 degrees", tool_call_id="call_1", name="weather"),
        Message(role="ai", text="Yes."),
        Message(role="human", text="And in Rome?", name="ann"),
    ),
    model="gpt-4o-mini at 0.2",
)


def plain(*turns: tuple[str, str]) -> Question:
    """Make a question of roles and texts."""
    return Question(messages=tuple(Message(role=role, text=text) for role, text in turns))


def with_turn(number: int, **fields: Any) -> Question:
    """Change one turn of `FULL`."""
    messages = list(FULL.messages)
    messages[number] = replace(messages[number], **fields)
    return replace(FULL, messages=tuple(messages))


def with_part(part: Any) -> Question:
    """Ask about one content block."""
    return Question(messages=(Message(role="human", text="What is this?", parts=(part,)),))


@given(two_alike())
@example(([("human", "a\ud800")], [("human", "a\udfff")]))
@settings(max_examples=300, deadline=None)
def test_requests_share_a_key_only_if_they_are_the_same(pair: tuple[Turns, Turns]) -> None:
    """No text, however full of separators, makes two conversations collide; only the ends of the question are trimmed."""
    one, other = pair

    def meaning(turns: Turns) -> object:
        *earlier, (role, text) = turns
        return earlier, role, unicodedata.normalize("NFC", text).strip()

    same = key_of(plain(*one)).exact == key_of(plain(*other)).exact

    assert same == (meaning(one) == meaning(other))


@given(TURNS, TEXTS)
@settings(deadline=None)
def test_the_question_is_no_part_of_the_scope(turns: Turns, text: str) -> None:
    """Whatever is asked in a conversation, the scope stays."""
    *earlier, (role, _) = turns

    assert key_of(plain(*turns)).scope == key_of(plain(*earlier, (role, text))).scope


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=5), st.permutations(["x", "y", "z"]))
@settings(deadline=None)
def test_the_ids_of_tool_calls_never_matter(ids: list[str | None], fresh: list[str]) -> None:
    """Renaming the ids of calls and of the results that answer them changes nothing."""
    renamed: Mapping[str | None, str | None] = dict(zip(("a", "b", "c"), fresh, strict=True)) | {None: None}

    def conversation(names: Mapping[str | None, str | None]) -> Question:
        calls = [Message(role="ai", text="", tool_calls=(replace(CALL, id=names[i]),)) for i in ids]
        results = [Message(role="tool", text="cold", tool_call_id=names[i]) for i in reversed(ids)]
        return Question(messages=(*calls, *results))

    assert key_of(conversation(renamed)) == key_of(conversation({i: i for i in renamed}))


def test_which_call_a_result_answers_matters() -> None:
    """Two results that change places are another conversation, though only ids tell."""
    calls = Message(role="ai", text="", tool_calls=(replace(CALL, id="a"), replace(CALL, id="b")))

    def results(first: str, second: str) -> Question:
        cold, warm = (Message(role="tool", text=t, tool_call_id=i) for t, i in (("cold", first), ("warm", second)))
        return Question(messages=(calls, cold, warm))

    assert key_of(results("a", "b")).exact != key_of(results("b", "a")).exact


@pytest.mark.parametrize(
    "other",
    [
        with_turn(0, text="Be brief!"),
        with_turn(0, role="human"),
        with_turn(1, text="Is it cold in Oslo? "),
        with_turn(1, name="bob"),
        with_turn(2, tool_calls=(replace(CALL, name="forecast"),)),
        with_turn(2, tool_calls=(replace(CALL, args={"city": "Oslo", "days": 3}),)),
        with_turn(2, tool_calls=(replace(CALL, args={"city": "Oslo", "days": "2"}),)),
        with_turn(2, tool_calls=(CALL, replace(CALL, id="call_2"))),
        with_turn(3, text="-4 degrees"),
        with_turn(3, status="error"),
        with_turn(3, tool_call_id=None),
        with_turn(3, parts=({"type": "image", "base64": "AAAA"},)),
        with_turn(5, name="bob"),
        with_turn(5, role="ai"),
        replace(FULL, model="gpt-4o at 0.2"),
        replace(FULL, with_tools=True),
        replace(FULL, with_schema=True),
        replace(FULL, messages=FULL.messages[1:]),
        replace(FULL, messages=(FULL.messages[0], *FULL.messages)),
    ],
)
def test_any_change_of_the_rest_is_another_scope(other: Question) -> None:
    """Role, text, speaker, tool, arguments, result, model: a change of one of them shares nothing."""
    assert key_of(other).scope != key_of(FULL).scope
    assert key_of(other).exact != key_of(FULL).exact


@pytest.mark.parametrize("one", [{"parts": (1,)}, {"name": 1}, {"parts": ("x",)}])
def test_a_scope_that_is_remembered_is_that_of_the_very_same_turns(one: dict[str, Any]) -> None:
    """What Python takes for equal, as 1 and True, or what is no text at all, is not mistaken for what was asked before."""
    other = {field: (True,) if field == "parts" else True for field in one}
    questions = [
        Question(messages=(Message(role="system", text="s", **fields), Message(role="human", text="q")))
        for fields in (one, other, {})
    ]

    assert len({key_of(question).scope for question in questions}) == 3
    assert key_of(questions[2]) == key_of(questions[2])


def test_a_namespace_is_another_scope() -> None:
    """Tenants share nothing, neither exactly nor by meaning."""
    ours, theirs = key_of(FULL, namespace="ours"), key_of(FULL, namespace="theirs")

    assert ours.scope != theirs.scope
    assert ours.exact != theirs.exact


def test_the_order_of_a_dicts_keys_does_not_matter() -> None:
    """Arguments are compared as JSON objects."""
    turned = replace(CALL, args={"days": 2, "city": "Oslo"})

    assert key_of(with_turn(2, tool_calls=(turned,))) == key_of(FULL)


@pytest.mark.parametrize(
    ("part", "other", "same"),
    [
        ({"type": "text", "text": "a", "id": "1"}, {"type": "text", "text": "a", "id": "2"}, True),
        ({"type": "text", "text": "a", "index": 0}, {"type": "text", "text": "a", "index": 1}, True),
        ({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "a"}, True),
        ({"type": "tool_use", "id": "1", "input": {}}, {"type": "tool_use", "id": "2", "input": {}}, True),
        (
            {"type": "invalid_tool_call", "id": "1", "args": "{"},
            {"type": "invalid_tool_call", "id": "2", "args": "{"},
            True,
        ),
        (
            {"type": "invalid_tool_call", "id": "1", "args": "{"},
            {"type": "invalid_tool_call", "id": "1", "args": "["},
            False,
        ),
        ({"type": "image", "id": "lc_1", "url": "u"}, {"type": "image", "id": "lc_2", "url": "u"}, True),
        ({"type": "image", "id": "lc_1", "url": "u"}, {"type": "image", "id": "lc_1", "url": "v"}, False),
        ({"type": "file", "id": "file-1"}, {"type": "file", "id": "file-2"}, False),
        ({"type": "image", "base64": "AAAA"}, {"type": "image", "base64": "AAAB"}, False),
        ("plain", "other", False),
    ],
)
def test_parts_of_the_content(part: Any, other: Any, same: bool) -> None:
    """What is minted per message or only steers the provider's own cache is ignored, what is content is not."""
    assert (key_of(with_part(part)) == key_of(with_part(other))) is same


HUMAN = Message(role="human", text="Where is my parcel?")


def why(question: Question, max_words: int = 50) -> str | None:
    """Say why *question* may match exactly only."""
    return exact_only(question, key_of(question).text, max_words)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (Question(messages=(HUMAN,)), None),
        (plain(("system", "long\nprompt " * 99), ("human", "Hi"), ("ai", "Hello"), ("human", "Where is it?")), None),
        (Question(messages=(HUMAN,), with_tools=True), "tools"),
        (replace(FULL, messages=(FULL.messages[2], HUMAN)), "tools"),
        (replace(FULL, messages=(FULL.messages[3], HUMAN)), "tools"),
        (Question(messages=(HUMAN,), with_schema=True), "schema"),
        (plain(("human", "Write a poem"), ("ai", "Roses are")), "role"),
        (plain(("system", "Say hello")), "role"),
        (with_part({"type": "image", "url": "https://x.test/a.png"}), "attachment"),
        (replace(FULL, messages=(with_part({"type": "file", "id": "1"}).messages[0], HUMAN)), "attachment"),
        (plain(("human", "Summarise:\nIt rained.")), "lines"),
        (plain(("human", "")), "length"),
        (plain(("human", " \n ")), "length"),
        (plain(("human", "so " * 51)), "length"),
        (plain(("human", "very" * 101)), "length"),
        (plain(("human", "so " * 50)), None),
    ],
)
def test_what_may_only_match_exactly(question: Question, reason: str | None) -> None:
    """Each kind of request that similar words do not make the same answer for is kept to exact matches."""
    assert why(question) == reason


def test_the_bound_of_the_length_can_be_set() -> None:
    """With `max_words=2`, three words match exactly only; with 0 all do."""
    assert why(plain(("human", "Where is Rome?")), max_words=2) == "length"
    assert why(plain(("human", "Rome")), max_words=0) == "length"
    assert why(plain(("human", "Where's Rome")), max_words=2) is None


@pytest.mark.parametrize(
    "text",
    [
        "and the second one?",
        "Why?",
        "How old is he?",
        "What about Spain?",
        "tell me more",
        "make it shorter",
        "Can you explain that?",
        "what else?",
        "2",
        "shorter please",
        "the same but in Python",
        "translate to French",
        "rewrite it in a formal tone",
        "could you elaborate on the third point?",
        "Which one is cheaper?",
        "What are the differences?",
        "what was my last question?",
        "Where is the station you mentioned?",
        "give me another",
        "und warum?",
    ],
)
def test_a_follow_up_needs_its_history(text: str) -> None:
    """A question that points at earlier turns is matched by meaning only where those turns are in the scope."""
    assert why(plain(("system", "Be brief."), ("human", text))) == "follow-up"
    assert why(plain(("human", "List two."), ("ai", "Rome and Paris."), ("human", text))) is None


@pytest.mark.parametrize(
    "text",
    [
        "How do I reset my password?",
        "Is it possible to return an order that arrived damaged?",
        "Why was my card declined?",
        "Which one is cheaper, the bus or the train?",
        "What are the differences between tea and coffee?",
        "Is fish without scales safe?",
        "Make a list of Nordic capitals",
    ],
)
def test_what_stands_alone_is_no_follow_up(text: str) -> None:
    """Pronouns and question words alone make no follow-up."""
    assert why(plain(("human", text))) is None


def test_composed_and_decomposed_letters_are_the_same_question() -> None:
    """What looks the same is the same, whichever keyboard wrote it."""
    assert key_of(plain(("human", "caf\u00e9"))) == key_of(plain(("human", " cafe\u0301 ")))
