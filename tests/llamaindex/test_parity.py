"""LangChain and LlamaIndex do the same with the same request."""

import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest

import langchain_costopt.demo
from llm_costopt import cache_scope, endpoint
from llm_costopt.demo.log import read_log
from llm_costopt.demo.result import Result, Served
from llm_costopt.demo.run import Models
from llm_costopt.types import CallRecord

pytest.importorskip("llama_index.core", reason="both hosts are needed")


@pytest.fixture(scope="module")
def results() -> tuple[Result, Result]:
    """The shipped log in both hosts."""

    def played(host: Any) -> Result:
        random.seed(0)
        with endpoint("POST /ask"), cache_scope(tenant="acme"):
            result: Result = host.replay(read_log(), models=Models())
        return result

    import llamaindex_costopt.demo

    return played(langchain_costopt.demo), played(llamaindex_costopt.demo)


def _told(records: Sequence[CallRecord], seen: dict[str | None, int]) -> list[dict[str, Any]]:
    """Say all of *records* but what is minted or measured anew, and LangChain's own tags.

    A replaced draft is named by its place, and a request by when it was first *seen*: hosts and ledgers hash it differently.
    """
    places = {record.id: place for place, record in enumerate(records)}
    own = {"id": None, "at": None, "latency": None, "tags": None}
    return [
        {
            **asdict(record),
            **own,
            "replaces": places.get(record.replaces or ""),
            "request": record.request and seen.setdefault(record.request, len(seen)),
        }
        for record in records
    ]


def _differences(one: Sequence[Served], other: Sequence[Served]) -> list[tuple[str, Any, Any]]:
    found, seen, seen_there = [], dict[str | None, int](), dict[str | None, int]()
    for a, b in zip(one, other, strict=True):
        assert len(a.records) == len(b.records), a.request.id
        for x, y in zip(_told(a.records, seen), _told(b.records, seen_there), strict=True):
            found += [(name, x[name], y[name]) for name in x if x[name] != y[name]]
    return found


def test_each_request_has_the_same_decision_and_records(results: tuple[Result, Result]) -> None:
    """Over the demo's log, tier, reason, model, tokens, cost, savings, hit, endpoint, tenant and repetition of every call are the same in both hosts."""
    langchain, llamaindex = results
    # OpenAI's client raises when an answer with a schema was cut off, LlamaIndex's own integration returns it: for both it is a
    # rejected draft of the same cost, and only LangChain's record has the name of an error, and so no savings of its own.
    refused = [d for d in _differences(langchain.after, llamaindex.after) if d[0] in {"error", "saved"}]

    assert len(langchain.after) >= 300
    assert _differences(langchain.before, llamaindex.before) == []
    assert _differences(langchain.after, llamaindex.after) == refused
    assert [d[1:] for d in refused if d[0] == "error"] == [("LengthFinishReasonError", None)]
    assert len(refused) == 2
    assert {(r.endpoint, r.tenant) for s in langchain.after for r in s.records} == {("POST /ask", "acme")}
    assert len({r.request for s in langchain.before for r in s.records}) < len(langchain.before)  # some are repeated
    assert any(r.cache == "semantic" for s in langchain.after for r in s.records)
    assert any(r.replaces for s in langchain.after for r in s.records)


def test_the_table_is_the_same(results: tuple[Result, Result]) -> None:
    """All figures of the demo's table but the latencies are the same, and the same requests are answered rightly."""
    langchain, llamaindex = (
        {
            part: {k: v for k, v in figures.items() if "latency" not in k}
            for part, figures in r.to_dict().items()
            if part != "requests"
        }
        for r in results
    )

    assert langchain == llamaindex
    assert [s.right for s in results[0].after] == [s.right for s in results[1].after]
