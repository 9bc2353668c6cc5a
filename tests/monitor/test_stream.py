"""Records read as they come add up to what the ledger says of them."""

from collections import Counter
from dataclasses import fields, replace
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.stream import Stream
from llm_costopt.types import CallRecord, Saved


def call(name: str, **fields: Any) -> CallRecord:
    """Make a record of a call that cost a dollar and saved two by routing."""
    return replace(
        CallRecord(id=name, at=0.0, model="m", cost=Decimal(1), saved=Saved(router=Decimal(2))),
        **fields,
    )


DRAFT = call("draft", complexity="medium", tier="cheap", saved=Saved(router=Decimal(2), prompt_cache=Decimal(1)))
STRONG = call("strong", complexity="medium", tier="strong", replaces="draft", cost=Decimal(3), saved=Saved())
SHADOW = call("shadow", shadow=True, cost=Decimal(5), saved=Saved(prompt_cache=Decimal(9)))
HIT = call("hit", cache="exact", cost=Decimal(0), saved=Saved(cache=Decimal(4)))
FAILED = call("failed", error="TimeoutError", cost=None, saved=None)
CACHED = call("cached", saved=Saved(prompt_cache=Decimal(7)))
UNPRICED = call("unpriced", cost=None, saved=None)
SPARED = call("spared", error="RateLimitError", spare=True, cost=None, saved=None, complexity="simple", tier="cheap")
DRAFT_OF_THREE = replace(DRAFT, id="draft of three")
STAND_IN = replace(STRONG, id="stand-in", replaces="draft of three")
MIDDLE = replace(STAND_IN, id="middle", error="TimeoutError", spare=True, cost=None, saved=None)
FIRST = replace(DRAFT, id="first of three")
SECOND = replace(DRAFT, id="second of three", replaces="first of three")
THIRD = replace(STRONG, id="third of three", replaces="second of three")
CUT_OFF = replace(DRAFT, id="cut off", error="LengthFinishReasonError", spare=True, saved=None)
ANEW = replace(STRONG, id="anew", replaces="cut off")
OBSERVED = call("observed", complexity="simple", tier="strong", why="observe: cheap would answer; short", saved=Saved())
SCRIPT = [
    DRAFT,
    STRONG,
    SHADOW,
    HIT,
    CACHED,
    FAILED,
    UNPRICED,
    SPARED,
    OBSERVED,
    DRAFT_OF_THREE,
    MIDDLE,
    STAND_IN,
    FIRST,
    SECOND,
    THIRD,
    CUT_OFF,
    ANEW,
]


@given(st.permutations([*SCRIPT, DRAFT, STRONG]))
def test_the_sums_are_those_of_the_ledger(records: list[CallRecord]) -> None:
    """In any order, and with records told twice, requests, escalations, unknown costs and savings are the ledger's."""
    stream, counts, saved = Stream(), Counter[str](), Counter[str]()
    with Ledger(clock=lambda: 0.0) as ledger:
        for record in records:
            ledger.append(record)
            news = stream.read(record)
            if news is None:
                continue
            counts.update(requests=news.begins, routed=news.routed, escalated=news.escalates, unpriced=news.unpriced)
            for cause, amount in news.saved.items():
                saved[cause] += amount  # type: ignore[assignment]  # a Counter adds up whatever is a number
        summary = ledger.summary()

    assert counts["requests"] == summary.requests == 9
    assert counts["escalated"] / counts["routed"] == summary.escalation_rate == 1.0
    assert counts["unpriced"] == summary.unpriced == 1
    assert {f.name: saved[f.name] for f in fields(Saved)} == {
        f.name: getattr(summary.saved, f.name) for f in fields(Saved)
    }
    assert saved["router"] == Decimal(-10)  # the drafts and the shadow call came on top
    assert saved["prompt_cache"] == Decimal(7)


@pytest.mark.parametrize(
    ("record", "about"),
    [
        (HIT, "cache"),
        (call("a", complexity="simple"), "router"),
        (call("a", tier="strong", arm="control"), "control"),
        (call("a"), "other"),
        (SHADOW, None),
    ],
)
def test_a_score_is_about_whoever_answered(record: CallRecord, about: str | None) -> None:
    """The record tells whose work the answer is; a shadow call is nobody's answer."""
    stream = Stream()
    stream.read(record)

    assert stream.about(record.id) == about


def test_a_score_of_a_rejected_draft_is_about_nothing() -> None:
    """A draft is nobody's answer once it is known to be rejected, whichever record comes first."""
    for order in permutations([DRAFT, STRONG]):
        stream = Stream()
        for record in order:
            stream.read(record)

        assert stream.about("draft") is None
        assert stream.about("strong") == "router"


def test_a_draft_is_charged_once() -> None:
    """Two calls that name the same draft, as after a retry, take its savings back once."""
    stream = Stream()
    stream.read(DRAFT)
    first, second = stream.read(STRONG), stream.read(replace(STRONG, id="again"))

    assert first is not None
    assert second is not None
    assert (first.saved["router"], second.saved["router"]) == (Decimal(-3), Decimal(0))


def test_a_request_escalates_once() -> None:
    """However many drafts are rejected on its way: a rate of escalated requests stays a share."""
    stream, chain = Stream(), [call("1"), *(call(str(n), replaces=str(n - 1)) for n in (2, 3, 4))]
    news = [stream.read(record) for record in chain]

    assert [n and (n.begins, n.escalates) for n in news] == [
        (True, False),
        (False, True),
        (False, False),
        (False, False),
    ]
