"""What LangChain's monitor keeps of a request: nothing but a hash, unless text is asked for."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import HumanMessage, SystemMessage

from langchain_costopt import CostCallbackHandler, RouterChatModel, cache_scope
from llm_costopt.monitor.ledger import Text
from tests.everywhere import Everywhere
from tests.scripted import MEDIUM, UNSURE, Scripted, cheap, strong

SECRET = "xylophone"


def ask(model: Any, handler: CostCallbackHandler, text: str = SECRET, **options: Any) -> Any:
    """Ask *model* something."""
    return model.invoke([SystemMessage("Be brief."), HumanMessage(text)], {"callbacks": [handler]}, **options)


def failing(*_: Any, **__: Any) -> Decimal:
    """Quote what nobody should see."""
    raise ValueError(SECRET)


def test_nothing_of_a_request_is_found_anywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither prompts nor answers are in the ledger's files, logs, metrics, spans or alerts, of calls, drafts, hits, streams and failures alike."""
    everywhere = Everywhere(tmp_path, caplog)
    handler = CostCallbackHandler(ledger=everywhere.ledger, on_record=everywhere.on_record)
    router = RouterChatModel(cheap=cheap(f"{UNSURE} {SECRET}"), strong=strong(SECRET))
    ask(router, handler, f"{MEDIUM} {SECRET}")
    cached = Scripted(model_name="gpt-4o", replies=cheap(SECRET).replies, cache=InMemoryCache())
    ask(cached, handler)
    ask(cached, handler)
    list(cheap(SECRET).stream(SECRET, {"callbacks": [handler]}))
    FakeListLLM(responses=[SECRET]).invoke(SECRET, {"callbacks": [handler]})
    with pytest.raises(ValueError, match=SECRET):
        ask(Scripted(model_name="m", replies=[ValueError(SECRET)]), handler)
    handler._prices = failing
    ask(cheap(SECRET), handler)
    found = everywhere.text()

    assert len(handler.records()) == 8
    assert any(r.replaces for r in handler.records())
    assert handler.failures == 1
    assert all(r.request for r in handler.records() if r.cache is None)
    assert "The cost monitor failed at 'price'" in found
    assert SECRET not in found
    handler.ledger.close()


def test_text_is_kept_if_it_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The last turn of the user and the answer of each call are in the ledger, redacted, and in no metric, span or log."""
    everywhere = Everywhere(tmp_path / "elsewhere", caplog)
    (tmp_path / "elsewhere").mkdir()
    handler = CostCallbackHandler(
        on_record=everywhere.on_record, keep_text=True, redact=lambda text: text.replace("Ann", "[name]")
    )
    ask(cheap(f"{SECRET}, Ann?"), handler, f"Ann: {SECRET}")
    FakeListLLM(responses=["No"]).invoke("Ann?", {"callbacks": [handler]})
    list(cheap(SECRET).stream(SECRET, {"callbacks": [handler]}))
    with pytest.raises(ValueError, match=SECRET):
        ask(Scripted(model_name="m", replies=[ValueError(SECRET)]), handler)

    assert [handler.ledger.text(r.id) for r in handler.records()] == [
        Text(question=f"[name]: {SECRET}", answer=f"{SECRET}, [name]?"),
        Text(question="[name]?", answer="No"),
        Text(question=SECRET, answer=SECRET),
        None,
    ]
    assert SECRET not in everywhere.text()


def test_repeated_requests_are_told_by_their_hash() -> None:
    """The very same request to the same model for the same tenant is a repetition; another word, option, model or tenant is not."""
    handler = CostCallbackHandler()
    for _ in range(3):
        ask(cheap("Yes."), handler)
    ask(cheap("Yes."), handler, "another")
    ask(cheap("Yes."), handler, stop=["."])
    ask(strong("Yes."), handler)
    with cache_scope(tenant="acme"):
        ask(cheap("Yes."), handler)
    hashes = [r.request for r in handler.records()]

    assert handler.ledger.repeats(None).requests == 2
    assert len(set(hashes)) == 5
    assert hashes[0] == hashes[1] == hashes[2]


def test_a_key_of_ones_own_makes_hashes_comparable(tmp_path: Path) -> None:
    """Two ledgers with the same `hash_key` give a request the same hash, and otherwise not; a file's own key lasts."""

    def hashed(**options: Any) -> str | None:
        handler = CostCallbackHandler(**options)
        ask(cheap("Yes."), handler)
        return handler.records()[-1].request

    assert hashed(hash_key="fleet") == hashed(hash_key="fleet")
    assert hashed() != hashed()
    assert hashed(ledger=tmp_path / "a.db") == hashed(ledger=tmp_path / "a.db")
    assert hashed(ledger=tmp_path / "a.db") != hashed(ledger=tmp_path / "b.db")
