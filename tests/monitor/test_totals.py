"""Totals by model, tag, endpoint, tenant and day."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.totals import By, Total
from llm_costopt.types import CallRecord, Saved

NOON = 1_000_080_000.0 + 12 * 3600
"""Noon of 2001-09-10, UTC."""


def call(name: str, **fields: Any) -> CallRecord:
    """Make a record of a call that cost a dollar and saved two."""
    record = CallRecord(id=name, at=NOON, model="cheap", cost=Decimal(1), saved=Saved(router=Decimal(2)))
    return replace(record, **fields)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """Make a ledger with a hit, an escalation, a failure, an unpriced call and a shadow call."""
    with Ledger(clock=lambda: NOON) as ledger:
        for record in (
            call("hit", cost=Decimal(0), cache="exact", saved=Saved(cache=Decimal(4)), tags=("shop",)),
            call("draft", tags=("shop", "eu")),
            call("final", model="strong", cost=Decimal(10), saved=Saved(), replaces="draft", tags=("shop", "eu")),
            call("failed", cost=None, saved=None, error="TimeoutError"),
            call("unpriced", model=None, cost=None, saved=None, at=NOON - 86_400),
            call("shadow", model="strong", cost=Decimal(10), shadow=True, at=NOON - 20 * 3600, tags=("eu",)),
            call("batch", saved=Saved(batch=Decimal(1)), batch=True, at=NOON - 30 * 86_400),
        ):
            ledger.append(record)
        yield ledger


def total(key: str | None, *, saved: Saved = Saved(), **figures: Any) -> Total:  # noqa: B008 - a frozen record
    """Make a total that is 0 where nothing is said."""
    zeros = {"requests": 0, "calls": 0, "errors": 0, "unpriced": 0, "cost_usd": Decimal(0)}
    return Total(key=key, saved=saved, saved_usd=saved.total, **{**zeros, **figures})


def test_totals_by_model(ledger: Ledger) -> None:
    """Each model has its own figures, the dearest first; a draft and a shadow call are calls that cost, no requests."""
    assert ledger.totals("model", None) == [
        total("strong", requests=1, calls=2, cost_usd=Decimal(20), saved=Saved(router=Decimal(-10))),
        total(
            "cheap",
            requests=3,
            calls=3,
            errors=1,
            cost_usd=Decimal(2),
            saved=Saved(cache=Decimal(4), router=Decimal(-1), batch=Decimal(1)),
        ),
        total("unknown", requests=1, calls=1, unpriced=1),
    ]


def test_totals_by_day(ledger: Ledger) -> None:
    """Days are those of UTC, the oldest first, and such without calls are left out."""
    found = ledger.totals("day", None)

    assert [(t.key, t.calls, t.cost_usd) for t in found] == [
        ("2001-08-11", 1, Decimal(1)),
        ("2001-09-09", 2, Decimal(10)),
        ("2001-09-10", 3, Decimal(11)),
    ]


def test_totals_by_tag(ledger: Ledger) -> None:
    """A call counts under each of its tags, and one without any under None."""
    found = ledger.totals("tag", None)

    assert [(t.key, t.requests, t.calls, t.cost_usd) for t in found] == [
        ("eu", 1, 3, Decimal(21)),
        ("shop", 2, 2, Decimal(11)),
        (None, 3, 3, Decimal(1)),
    ]


def test_totals_by_endpoint_and_by_tenant(ledger: Ledger) -> None:
    """Each endpoint and each tenant has its own figures, the dearest first, and calls of none are under None."""
    ledger.append(call("asked", cost=Decimal(30), endpoint="/ask", tenant="acme", latency=1.0))
    ledger.append(call("other", cost=Decimal(2), endpoint="/sum", tenant="acme", saved=Saved(prompt_cache=Decimal(5))))

    assert ledger.totals("endpoint", 1)[0] == total(
        "/ask", requests=1, calls=1, cost_usd=Decimal(30), saved=Saved(router=Decimal(2))
    )
    assert [(t.key, t.calls, t.cost_usd) for t in ledger.totals("endpoint", None)] == [
        ("/ask", 1, Decimal(30)),
        (None, 6, Decimal(22)),
        ("/sum", 1, Decimal(2)),
    ]
    assert ledger.totals("tenant", 1)[0] == total(
        "acme", requests=2, calls=2, cost_usd=Decimal(32), saved=Saved(router=Decimal(2), prompt_cache=Decimal(5))
    )
    assert [t.key for t in ledger.totals("tenant", None)] == ["acme", None]


@pytest.mark.parametrize(("by", "calls"), [("model", [2, 2]), ("day", [1, 3]), ("tag", [3, 2, 1]), ("endpoint", [4])])
def test_totals_look_back_some_hours(ledger: Ledger, by: By, calls: list[int]) -> None:
    """Only what ended since counts, half an hour that is cut in the middle included."""
    assert [t.calls for t in ledger.totals(by, 20.5)] == calls
    assert ledger.totals(by, 24 * 20) == ledger.totals(by, 24)


@pytest.mark.parametrize("by", ["model", "tag", "endpoint", "tenant", "day"])
def test_totals_of_nothing(by: By) -> None:
    """An empty ledger has none."""
    with Ledger() as ledger:
        assert ledger.totals(by) == []


def test_totals_by_anything_else_are_refused(ledger: Ledger) -> None:
    """The message names what there is."""
    by: Any = "user"

    with pytest.raises(ValueError, match="totals are by 'model', 'day', 'tag', 'endpoint', 'tenant', not by 'user'"):
        ledger.totals(by)
