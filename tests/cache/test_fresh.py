"""Ids of tool calls and marks of hits, as both hosts use them."""

from llm_costopt.cache.fresh import with_fresh_ids
from llm_costopt.cache.marks import mark_of
from llm_costopt.cache.records import Hit


def test_an_id_is_replaced_wherever_it_is_an_id() -> None:
    """One fresh id stands in all places of an old one; what a model wrote for a tool keeps its own."""
    stored = {
        "calls": [{"id": "call_1", "args": {"id": "call_1"}}],
        "block": {"tool_call_id": "call_1"},
        "text": "call_1",
        "signatures": {"call_1": "c2lnbmVk"},
    }
    first, second = (with_fresh_ids(stored, ["call_1", None]) for _ in range(2))

    assert first["calls"][0]["id"] == first["block"]["tool_call_id"] != second["block"]["tool_call_id"]
    assert first["calls"][0]["id"].startswith("call_")
    assert first["signatures"] == {first["calls"][0]["id"]: "c2lnbmVk"}
    assert (first["calls"][0]["args"], first["text"]) == ({"id": "call_1"}, "call_1")
    assert with_fresh_ids(stored, []) is stored


def test_a_mark_says_what_applies() -> None:
    """How sure and how stale a hit is stands there only where it is so."""
    hit = Hit(id="a/1", payload="", kind="exact", similarity=1.0, sure=None, age=1.26)
    sure = Hit(id="a/1", payload="", kind="semantic", similarity=0.98765, sure=0.99, age=1.26, stale=True)

    assert mark_of(hit) == {"cache": "exact", "similarity": 1.0, "age_s": 1.3, "id": "a/1"}
    assert mark_of(sure)["sure"] == 0.99
    assert mark_of(sure)["stale"] is True
