"""Calls put together to requests."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.requests import Request
from llm_costopt.types import CallRecord

NOW = 1_000_000.0


def call(name: str, **fields: Any) -> CallRecord:
    """Make a record of a call that cost a dollar and took a second."""
    return replace(CallRecord(id=name, at=NOW, model="cheap", cost=Decimal(1), latency=1.0), **fields)


def ledger_of(*records: CallRecord) -> Ledger:
    """Make a ledger in memory that holds *records*."""
    ledger = Ledger(clock=lambda: NOW)
    for record in records:
        ledger.append(record)
    return ledger


def test_a_request_is_its_answer_with_all_of_its_drafts() -> None:
    """Cost and time are those of the whole chain, the rest is the answer's own, and shadow calls are left out."""
    ledger = ledger_of(
        call("first", cost=Decimal("0.5"), tags=("nostream",)),
        call("second", cost=Decimal(2), replaces="first", latency=2.0),
        call("final", cost=Decimal(10), replaces="second", latency=4.0, arm="routed", tags=("shop",), at=NOW + 1),
        call("beside", cost=Decimal(100), latency=50.0, shadow=True),
    )
    ledger.score("final", 1)
    ledger.score("final", 0.5, source="judge")
    ledger.score("first", 0)

    assert ledger.requests() == [
        Request(
            id="final",
            at=NOW + 1,
            arm="routed",
            routed=True,
            tags=("shop",),
            cost=12.5,
            latency=7.0,
            hit=False,
            failed=False,
            score=0.75,
        )
    ]


def test_requests_come_in_the_order_of_time_and_of_the_last_hours() -> None:
    """A request belongs to the moment of its answer, even if its draft is older."""
    ledger = ledger_of(
        call("old", at=NOW - 30 * 3600),
        call("draft", at=NOW - 25 * 3600),
        call("final", replaces="draft"),
        call("early", at=NOW - 2 * 3600),
    )

    assert [(r.id, r.cost) for r in ledger.requests()] == [("early", 1.0), ("final", 2.0)]
    assert [r.id for r in ledger.requests(None)] == ["old", "early", "final"]


def test_what_a_part_of_a_request_lacks_the_request_lacks() -> None:
    """An unknown cost or time of a draft or of the answer is not taken for 0."""
    unknown = {"cost": None, "latency": None}
    ledger = ledger_of(
        call("a1"),
        call("a2", replaces="a1", **unknown),
        call("a", replaces="a2"),
        call("b1"),
        call("b", replaces="b1", **unknown),
        call("c", **unknown),
    )

    assert [(r.id, r.cost, r.latency) for r in ledger.requests()] == [
        ("a", None, None),
        ("b", None, None),
        ("c", None, None),
    ]


def test_a_draft_that_nobody_recorded_is_missed_alone() -> None:
    """A lost draft leaves the rest of the request as it is known."""
    assert [(r.id, r.cost) for r in ledger_of(call("final", replaces="lost")).requests()] == [("final", 1.0)]


def test_calls_that_replace_each_other_end() -> None:
    """Records that make no sense are no endless loop."""
    ledger = ledger_of(call("a", replaces="b"), call("b", replaces="a"), call("c", replaces="a"))

    assert [(r.id, r.cost) for r in ledger.requests()] == [("c", 3.0)]


def test_hits_failures_and_batches_are_told_apart() -> None:
    """Each has its own mark, and hours in the Batch API are no latency."""
    ledger = ledger_of(
        call("hit", cache="exact"), call("failed", error="TimeoutError"), call("batch", batch=True), call("plain")
    )

    found = {r.id: (r.hit, r.failed, r.latency, r.routed) for r in ledger.requests()}
    assert found == {
        "hit": (True, False, 1.0, False),
        "failed": (False, True, 1.0, False),
        "batch": (False, False, None, False),
        "plain": (False, False, 1.0, False),
    }


def test_a_router_shows_in_any_of_its_marks() -> None:
    """A level, a tier or a replaced draft says that a router decided."""
    ledger = ledger_of(call("a", complexity="simple"), call("b", tier="cheap"), call("c", replaces="lost"))

    assert all(request.routed for request in ledger.requests())
