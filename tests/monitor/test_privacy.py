"""What of a request is kept: a keyed hash, and text only where it was asked for."""

import logging
import secrets
import stat
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llm_costopt.monitor.keeper import Keeper
from llm_costopt.monitor.ledger import Ledger, Repeats, Text
from llm_costopt.monitor.privacy import MOST_CHARACTERS, VARIABLE, asked, hash_of, key_for
from llm_costopt.types import CallRecord, Message, ToolCall

NOW = 1_000_000.0
KEY = b"k" * 32
HELLO = Message(role="human", text="Hello")


def call(name: str, request: str | None = "same", **fields: Any) -> CallRecord:
    """Make a record of a call that cost a dollar."""
    return replace(CallRecord(id=name, at=NOW, model="m", cost=Decimal(1), request=request), **fields)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the key of whoever runs the tests."""
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("messages", "about"),
    [
        ([replace(HELLO, text="hello")], ["m"]),
        ([replace(HELLO, role="system")], ["m"]),
        ([replace(HELLO, name="Ann")], ["m"]),
        ([replace(HELLO, parts=({"type": "image", "id": 1},))], ["m"]),
        ([replace(HELLO, tool_calls=(ToolCall(id="a", name="look", args={"x": 1}),))], ["m"]),
        ([replace(HELLO, status="error")], ["m"]),
        ([HELLO, HELLO], ["m"]),
        ([HELLO], ["n"]),
        ([HELLO], ["m", None]),
        ([HELLO], [{"model": "m", "temperature": 1}]),
    ],
)
def test_another_request_has_another_hash(messages: list[Message], about: list[Any]) -> None:
    """Each word, role, attachment and option makes another request."""
    assert hash_of(KEY, messages, *about) != hash_of(KEY, [HELLO], "m")


def test_the_same_request_has_the_same_hash() -> None:
    """The order of options and the ids that a provider mints for each call make no difference; another key does."""

    def turns(id_: str) -> list[Message]:
        call = ToolCall(id=id_, name="look", args={"x": 1})
        return [
            HELLO,
            Message(role="ai", text="", tool_calls=(call,)),
            Message(role="tool", text="2", tool_call_id=id_),
        ]

    assert hash_of(KEY, turns("a"), {"a": 1, "b": 2}) == hash_of(KEY, turns("b"), {"b": 2, "a": 1})
    assert hash_of(KEY, [HELLO]) != hash_of(b"other", [HELLO])
    assert "Hello" not in hash_of(KEY, [HELLO])


def test_what_cannot_be_told_apart_is_no_repetition() -> None:
    """Of an option that only has an address, two are two requests; a lone surrogate is a character like others."""
    one, other = object(), object()

    assert hash_of(KEY, [HELLO], one) != hash_of(KEY, [HELLO], other)
    assert hash_of(KEY, [replace(HELLO, text="\ud800")]) != hash_of(KEY, [HELLO])


def test_the_key_is_given_or_of_the_environment_or_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given comes first, then the environment; else all ledgers of a file share one key, which is not in that file."""
    path = tmp_path / "ledger.db"
    own = key_for(None, path)
    stored = tmp_path / "ledger.db.key"

    assert key_for(None, path) == own
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [stored]
    assert key_for(None, None) != key_for(None, None)
    monkeypatch.setenv(VARIABLE, "fleet")
    assert key_for(None, path) == key_for(None, None) == key_for("fleet", path) != own
    assert key_for("given", path) not in {own, key_for(None, path)}


@pytest.mark.parametrize("held", [b"", b"ab", b"no key", b"\xff\x00", b"ab" * 100])
def test_a_key_that_is_none_is_refused_with_the_way_out(tmp_path: Path, held: bytes) -> None:
    """An empty key would let anybody test what was asked, and one that is too long would fail with each call."""
    (tmp_path / "ledger.db.key").write_bytes(held)
    with pytest.raises(ValueError, match=r"ledger\.db\.key' does not hold the ledger's key of hashes: delete it"):
        key_for(None, tmp_path / "ledger.db")


def test_processes_that_begin_at_once_share_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another process keeps its key while this one is about to, both use that one, and nothing is left behind."""
    stored, draw = tmp_path / "ledger.db.key", secrets.token_hex

    def beaten(length: int) -> str:
        if length == 8:  # for the name of the file that is to become the key
            stored.write_text("ab" * 32)
        return draw(length)

    monkeypatch.setattr(secrets, "token_hex", beaten)

    assert key_for(None, tmp_path / "ledger.db") == bytes.fromhex("ab" * 32)
    assert list(tmp_path.iterdir()) == [stored]


def test_the_last_turn_of_the_user_is_what_was_asked() -> None:
    """Tools and assistants that speak later are not the user."""
    turns = [HELLO, Message(role="human", text="And?"), Message(role="ai", text="Yes"), Message(role="tool", text="2")]

    assert asked(turns) == "And?"
    assert asked(turns[2:]) == ""


def test_repeated_requests_are_counted_without_their_text() -> None:
    """A request repeats an earlier one of any time if it went to a model, was answered, and is no draft and no comparison."""
    with Ledger(clock=lambda: NOW) as ledger:
        for record in (
            call("long ago", at=NOW - 9 * 86_400),
            call("first of its kind", "other"),
            call("again", cost=Decimal(3)),
            call("once more", cost=None),
            call("hit", cost=Decimal(0), cache="exact"),
            call("failed", error="TimeoutError"),
            call("compared", shadow=True),
            call("draft"),
            call("final", "escalated", replaces="draft"),
            call("unknown", None),
            call("unknown again", None),
        ):
            ledger.append(record)

        assert ledger.repeats() == Repeats(requests=2, unpriced=1, cost_usd=Decimal(3))
        assert ledger.repeats(None) == ledger.repeats()
    with Ledger() as empty:
        assert empty.repeats() == Repeats(requests=0, unpriced=0, cost_usd=Decimal(0))


def test_only_what_was_answered_is_repeated() -> None:
    """A failure before the first answer does not make that answer a repetition."""
    with Ledger(clock=lambda: NOW) as ledger:
        ledger.append(call("failed", at=NOW - 1, error="TimeoutError", cost=None))
        ledger.append(call("answered"))

        assert ledger.repeats().requests == 0


def keeper(redact: Callable[[str], str] | None = None, *, keep_text: bool = True) -> Keeper:
    """Make a keeper of text."""
    return Keeper(prices=lambda *_, **__: None, keep_text=keep_text, redact=redact, clock=lambda: NOW)


def test_text_is_kept_if_it_is_asked_for() -> None:
    """Each call has its own, redacted before it is cut; it is forgotten with the calls of its time, and by default there is none."""
    kept, silent = keeper(lambda text: text.replace("Ann", "[name]")), keeper(keep_text=False)
    for one in (kept, silent):
        one.keep(call("a"), None, ("I am Ann", "Ann! " + "x" * MOST_CHARACTERS))
        one.keep(call("bare"), None)

    assert kept.ledger.text("a") == Text(
        question="I am [name]", answer=("[name]! " + "x" * MOST_CHARACTERS)[:MOST_CHARACTERS]
    )
    assert kept.ledger.text("bare") is None
    assert silent.ledger.text("a") is None
    assert kept.ledger.prune(0) == 0
    kept.ledger.keep_text("old", "q", "a", at=NOW - 2 * 86_400)
    kept.ledger.prune(1)
    assert (kept.ledger.text("old"), kept.ledger.text("a") is None) == (None, False)


@pytest.mark.parametrize("on", ["question", "answer"])
def test_a_redaction_that_fails_keeps_nothing(on: str, caplog: pytest.LogCaptureFixture) -> None:
    """The call is kept, neither of its texts is, the failure is counted, and its message, which may quote a text, is not logged."""

    def fragile(text: str) -> str:
        if text == on:
            raise ValueError(f"cannot read {text} of Ann")
        return text

    one = keeper(fragile)
    with caplog.at_level(logging.DEBUG):
        one.keep(call("a"), None, ("question", "answer"))
        one.keep(call("b"), None, ("question", "answer"))

    assert [r.id for r in one.records()] == ["a", "b"]
    assert (one.ledger.text("a"), one.failures) == (None, 2)
    assert len(caplog.records) == 1
    assert "of Ann" not in caplog.text.replace("{text} of Ann", "")


def test_a_redaction_gives_a_text() -> None:
    """What is none, as from a function that forgets to return, keeps nothing and is counted."""
    forgetful: Any = lambda _: None  # noqa: E731
    one = keeper(forgetful)
    one.keep(call("a"), None, ("question", "answer"))

    assert (one.ledger.text("a"), one.failures) == (None, 1)
