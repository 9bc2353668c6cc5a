"""The request log: what ships, and what a user hands in."""

import json
from pathlib import Path

import jsonschema
import pytest

from llm_costopt.demo.log import STAND_IN_TOKENS, read_log
from llm_costopt.errors import BadLogError

ROW = {
    "id": "a",
    "messages": [{"role": "user", "content": "hi"}],
    "same_as": "a",
    "cheap": {"content": "x", "right": True, "prompt_tokens": 1, "completion_tokens": 1},
    "strong": {"content": "y", "right": True, "prompt_tokens": 1, "completion_tokens": 1},
}


def test_the_shipped_log_is_an_ordinary_assistants() -> None:
    """It has at least 300 requests, several system prompts, tools, schemas, follow-ups and groups that share answers."""
    rows = read_log()
    systems = {row.messages[0]["content"] for row in rows if row.messages[0]["role"] == "system"}
    groups = {row.same_as for row in rows}

    assert len(rows) >= 300
    assert len(systems) >= 5
    assert len(groups) <= 0.75 * len(rows)
    assert sum(bool(row.tools) for row in rows) >= 10
    assert sum(bool(row.schema) for row in rows) >= 10
    assert sum(len([m for m in row.messages if m["role"] == "user"]) > 1 for row in rows) >= 20
    assert all(row.has_answers and row.answers["strong"].right is not None for row in rows)


def test_requests_that_share_an_answer_share_all_else() -> None:
    """Rows of one group have the same system prompt, and the very same conversation is always of one group."""
    rows = read_log()
    systems: dict[str | None, set[str]] = {}
    groups: dict[str, set[str | None]] = {}
    for row in rows:
        systems.setdefault(row.same_as, set()).add(row.messages[0]["content"])
        groups.setdefault(json.dumps(row.messages), set()).add(row.same_as)

    assert all(len(found) == 1 for found in systems.values())
    assert all(len(found) == 1 for found in groups.values())


def test_right_structured_answers_keep_their_schema() -> None:
    """Each structured answer that is marked right is valid, and some that are marked wrong are not."""
    answers = [(r.schema["schema"], a) for r in read_log() if r.schema for a in r.answers.values()]
    valid = [jsonschema.Draft202012Validator(s).is_valid(_json(a.content)) for s, a in answers]

    assert all(ok for ok, (_, a) in zip(valid, answers, strict=True) if a.right)
    assert not all(valid)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def test_bare_texts_get_stand_ins(tmp_path: Path) -> None:
    """A log of texts alone can be replayed, and says that its answers are stand-ins."""
    log = tmp_path / "log.jsonl"
    log.write_text('{"text": "what is up", "same_as": "greeting"}\n\n{"text": "größer?"}\n', encoding="utf-8")
    first, second = read_log(log)

    assert (first.same_as, second.same_as) == ("greeting", None)
    assert not first.has_answers
    assert first.answers["cheap"].right is None
    assert first.answers["cheap"].completion_tokens == STAND_IN_TOKENS
    assert second.messages == [{"role": "user", "content": "größer?"}]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{not json", "not JSON"),
        ("[1, 2]", 'an object with "text" or with "messages"'),
        ("17", 'an object with "text" or with "messages"'),
        ('{"question": "hi"}', 'an object with "text" or with "messages"'),
        ('{"text": 5}', '"text" is a non-empty string'),
        ('{"text": "  "}', '"text" is a non-empty string'),
        ('{"messages": []}', '"messages" is a non-empty list'),
        ('{"messages": ["hi"]}', '"messages" is a non-empty list'),
        (json.dumps({k: v for k, v in ROW.items() if k != "cheap"}), "'cheap' is missing"),
        (json.dumps({**ROW, "strong": {"content": "y"}}), "'prompt_tokens' is missing"),
        (json.dumps({**ROW, "strong": {**ROW["strong"], "prompt_tokens": "many"}}), "wrong form"),  # type: ignore[dict-item]
        (json.dumps({**ROW, "strong": "y"}), "wrong form"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    """A line that cannot be read is reported with file, number and reason."""
    log = tmp_path / "log.jsonl"
    log.write_text(f"{json.dumps(ROW)}\n{line}\n", encoding="utf-8")

    with pytest.raises(BadLogError, match="line 2: ") as caught:
        read_log(log)
    assert says in str(caught.value)
    assert str(log) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"), [(None, "no such file"), (b"\xff\xfe\x00", "UTF-8"), (b"\n\n", "no request")]
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    """A file that is missing, of another encoding or empty is reported in one sentence."""
    log = tmp_path / "log.jsonl"
    if content is not None:
        log.write_bytes(content)

    with pytest.raises(BadLogError, match=says):
        read_log(log)


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    """A folder instead of a file is reported as such."""
    with pytest.raises(BadLogError, match="folder"):
        read_log(tmp_path)


def test_a_line_ends_where_json_says(tmp_path: Path) -> None:
    """A line separator inside a text, which JSON may hold as it is, does not end the line; a carriage return is no harm."""
    log = tmp_path / "log.jsonl"
    log.write_bytes('{"text": "one\u2028two"}\r\n{"text": "three"}\n'.encode())

    assert [row.messages[-1]["content"] for row in read_log(log)] == ["one\u2028two", "three"]
