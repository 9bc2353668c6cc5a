"""What LlamaIndex's monitor keeps of a request: nothing but a hash, unless text is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage

from llamaindex_costopt import CachedLLM, CostEventHandler, RouterLLM, cache_scope
from llm_costopt import SemanticCache
from llm_costopt.monitor.ledger import Text
from tests.everywhere import Everywhere
from tests.llamaindex.echo import Echo

SECRET = "xylophone"


@contextmanager
def listening(**options: Any) -> Iterator[CostEventHandler]:
    """Make a handler that listens."""
    handler = CostEventHandler(**options).install()
    try:
        yield handler
    finally:
        handler.uninstall()


def ask(model: Any, text: str = SECRET, **options: Any) -> Any:
    """Ask *model* something."""
    return model.chat(
        [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content=text)], **options
    )


def failing(*_: Any, **__: Any) -> Decimal:
    """Quote what nobody should see."""
    raise ValueError(SECRET)


def test_nothing_of_a_request_is_found_anywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither prompts nor answers are in the ledger's files, logs, metrics, spans or alerts, of calls, drafts, hits, streams and failures alike."""
    everywhere = Everywhere(tmp_path, caplog)
    with listening(ledger=everywhere.ledger, on_record=everywhere.on_record) as handler:
        tiers: dict[str, Any] = {
            "cheap": Echo(replies=["I am not sure."]),
            "strong": Echo(name="gpt-4o", replies=[SECRET]),
        }
        model = CachedLLM(RouterLLM(**tiers), cache=SemanticCache(threshold=0.95))
        ask(model)
        ask(model)
        list(Echo(replies=[SECRET]).stream_chat([ChatMessage(role="user", content=SECRET)]))
        Echo(replies=[SECRET]).complete(SECRET)
        with pytest.raises(ValueError, match=SECRET):
            ask(Echo(replies=[ValueError(SECRET)]))
        handler._keeper._prices = failing
        ask(Echo(replies=[SECRET]))
        found = everywhere.text()

    assert len(handler.records()) == 7
    assert any(r.replaces for r in handler.records())
    assert handler.failures == 1
    assert all((r.request is None) == (r.cache is not None) for r in handler.records())
    assert "The cost monitor failed at 'price'" in found
    assert SECRET not in found
    handler.ledger.close()


def test_text_is_kept_if_it_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The last turn of the user and the answer of each call are in the ledger, redacted, and in no metric, span or log."""
    everywhere = Everywhere(tmp_path, caplog)
    redacted: dict[str, Any] = {"keep_text": True, "redact": lambda text: text.replace("Ann", "[name]")}
    with listening(on_record=everywhere.on_record, **redacted) as handler:
        ask(Echo(replies=[f"{SECRET}, Ann?"]), f"Ann: {SECRET}")
        Echo(replies=["No"]).complete("Ann?")
        list(Echo(replies=[SECRET]).stream_chat([ChatMessage(role="user", content=SECRET)]))
        with pytest.raises(ValueError, match=SECRET):
            ask(Echo(replies=[ValueError(SECRET)]))

    assert [handler.ledger.text(r.id) for r in handler.records()] == [
        Text(question=f"[name]: {SECRET}", answer=f"{SECRET}, [name]?"),
        Text(question="[name]?", answer="No"),
        Text(question=SECRET, answer=SECRET),
        None,
    ]
    assert SECRET not in everywhere.text()


def test_repeated_requests_are_told_by_their_hash() -> None:
    """The very same request to the same model for the same tenant is a repetition; another word, option, model or tenant is not."""
    with listening() as handler:
        for _ in range(3):
            ask(Echo(replies=["Yes."]))
        ask(Echo(replies=["Yes."]), "another")
        ask(Echo(replies=["Yes."]), stop=["."])
        ask(Echo(name="strong", replies=["Yes."]))
        with cache_scope(tenant="acme"):
            ask(Echo(replies=["Yes."]))
        hashes = [r.request for r in handler.records()]

        assert handler.ledger.repeats(None).requests == 2
    assert len(set(hashes)) == 5
    assert hashes[0] == hashes[1] == hashes[2]


def test_a_key_of_ones_own_makes_hashes_comparable(tmp_path: Path) -> None:
    """Two ledgers with the same `hash_key` give a request the same hash, and otherwise not; a file's own key lasts."""

    def hashed(**options: Any) -> str | None:
        with listening(**options) as handler:
            ask(Echo(replies=["Yes."]))
        return handler.records()[-1].request

    assert hashed(hash_key="fleet") == hashed(hash_key="fleet")
    assert hashed() != hashed()
    assert hashed(ledger=tmp_path / "a.db") == hashed(ledger=tmp_path / "a.db")
    assert hashed(ledger=tmp_path / "a.db") != hashed(ledger=tmp_path / "b.db")
