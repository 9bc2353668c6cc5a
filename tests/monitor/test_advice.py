"""What to change next: each rule fires on numbers that speak for it, and on no others."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import pytest

from llm_costopt.monitor.ab import compare
from llm_costopt.monitor.advice import Advice, Goals, advise
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.types import CallRecord, Saved, Usage
from tests.monitor.calls import NOW, call, ledger_of

DAY = 86_400.0
TOKENS = Usage(input_tokens=1, output_tokens=1)


def advised(ledger: Ledger, goals: Goals | None = None) -> tuple[dict[str, Advice], str]:
    """Give the advice by its title, and all that cannot be told as one text."""
    figures = ledger.figures()
    assert figures is not None
    try:
        comparison = compare(ledger)
    except ValueError:
        comparison = None
    advice, lacking = advise(figures, comparison=comparison, repeats=ledger.repeats(None), goals=goals)
    return {a.title: a for a in advice}, " ".join(x.text for x in lacking)


def spread(many: int, make: Callable[[int], CallRecord]) -> Iterable[CallRecord]:
    """Make *many* records, evenly over the 30 days before now."""
    return (call(f"{make(n).id}-{n}", **_fields(make(n), n / many)) for n in range(many))


def _fields(record: CallRecord, part: float) -> dict[str, Any]:
    fields = {name: getattr(record, name) for name in CallRecord.__slots__ if name not in {"id", "at"}}
    return {**fields, "at": NOW - 30 * DAY * (1 - part)}


def hit_or_call(every: int, name: str = "POST /a") -> Callable[[int], CallRecord]:
    """Make every *every*th request a hit that saves a dollar."""

    def make(n: int) -> CallRecord:
        if n % every:
            return call("call", endpoint=name, saved=Saved())
        return call("hit", endpoint=name, cache="semantic", cost=Decimal(0), saved=Saved(cache=Decimal(1)))

    return make


def test_a_cache_that_rarely_hits_is_to_be_switched_off() -> None:
    """Where the rate is below 15 % beyond doubt, its few hits are what is given up."""
    found, _ = advised(ledger_of(*spread(1000, hit_or_call(20))))
    advice = found["Switch the cache off for POST /a"]

    assert "5.0 % (3.8 to 6.5 %) of 1,000 requests" in advice.because
    assert advice.usd == pytest.approx(-50, rel=0.01)
    assert "$50.0" in advice.effect


@pytest.mark.parametrize(
    ("many", "every"),
    [(1000, 5), (500, 8), (300, 20), (1000, 1001)],
    ids=["it hits often enough", "it may hit often enough", "too few requests", "one hit in 1,000"],
)
def test_a_cache_is_left_on_where_the_numbers_do_not_speak_against_it(many: int, every: int) -> None:
    """Neither a rate of 20 %, nor few requests, are reason enough; a cache that hit once in 1,000 is one all the same."""
    found, _ = advised(ledger_of(*spread(many, hit_or_call(every))))

    assert ("Switch the cache off for POST /a" in found) is (every > many)


def test_a_cache_that_got_better_is_left_on() -> None:
    """A rate that is low over all of the time may be that of a cold start: both halves count."""
    cold = spread(1000, hit_or_call(20))
    warm = [call(f"warm-{r.id}", **{**_fields(r, 1), "at": r.at + 31 * DAY}) for r in spread(1000, hit_or_call(6))]
    found, _ = advised(ledger_of(*cold, *warm))

    assert "Switch the cache off for POST /a" not in found


def scored_hits(kind: str, wrong: int, right: int, calls: int) -> Ledger:
    """Make a ledger of hits, all scored, and of calls."""
    hit = {"cache": kind, "cost": Decimal(0), "saved": Saved(cache=Decimal(1))}
    ledger = ledger_of(
        *spread(wrong + right, lambda _: call("hit", **hit)), *spread(calls, lambda _: call("call", saved=Saved()))
    )
    for n in range(wrong + right):
        ledger.score(f"hit-{n}", float(n >= wrong))
    return ledger


def test_too_many_wrong_hits_ask_for_a_stricter_cache() -> None:
    """Where the lower end of the wrong hits is above the limit, what they seem to save is to be given up."""
    found, _ = advised(scored_hits("semantic", 60, 440, 500))
    advice = found["Make the cache stricter"]

    assert "60 of 500 scored semantic hits were wrong" in advice.because
    assert "6.0 % (4.7 to 7.6 %) of all requests; 1.0 % is allowed" in advice.because
    assert advice.usd == pytest.approx(-60, rel=0.01)


def test_wrong_exact_hits_ask_for_a_shorter_time_to_live() -> None:
    """The very same request got an answer that no longer holds."""
    found, _ = advised(scored_hits("exact", 60, 440, 500))

    assert "ttl" in found["Keep answers for a shorter time"].how
    assert "Make the cache stricter" not in found


def test_room_below_the_limit_asks_for_more_hits() -> None:
    """Where even the upper end is below half of the limit, a point of the hit rate has its price on it."""
    found, _ = advised(scored_hits("semantic", 0, 500, 1500), Goals(max_error=0.02))

    assert found["Let the cache answer more"].usd == pytest.approx(20, rel=0.01)
    assert "Let the cache answer more" not in advised(scored_hits("semantic", 0, 500, 1500), Goals(max_error=0.003))[0]
    assert "Let the cache answer more" not in advised(scored_hits("exact", 0, 500, 1500), Goals(max_error=0.02))[0]


@pytest.mark.parametrize(
    ("wrong", "right", "says"),
    [
        (1, 20, "Whether semantic hits are right: 21 of 21 have a score and 30 are needed"),
        (2, 100, "Whether the cache keeps to its limit: 2 of 102 scored semantic hits were wrong"),
        (3, 97, "Whether the cache keeps to its limit: 3 of 100 scored semantic hits were wrong"),
    ],
)
def test_too_few_scores_of_hits_give_no_advice(wrong: int, right: int, says: str) -> None:
    """It says how many there are, or that the interval holds the limit."""
    found, lacking = advised(scored_hits("semantic", wrong, right, 100))

    assert says in lacking
    assert not {"Make the cache stricter", "Let the cache answer more"} & set(found)


def arms(routed_wrong: int, control_wrong: int, scored: int = 800) -> Ledger:
    """Make a ledger of two arms of 1,000 requests; of each, some scores are 0 and the other 1."""

    def routed(n: int) -> CallRecord:
        cheap = {"tier": "cheap", "complexity": "simple", "cost": Decimal(1), "saved": Saved(router=Decimal(9))}
        strong = {"tier": "strong", "complexity": "complex", "cost": Decimal(10), "saved": Saved()}
        return call("routed", arm="routed", **(strong if n % 4 == 0 else cheap))

    control = call("control", arm="control", cost=Decimal(10), saved=Saved())
    ledger = ledger_of(*spread(1000, routed), *spread(1000, lambda _: control))
    for arm, wrong in (("routed", routed_wrong), ("control", control_wrong)):
        for n in range(scored):
            ledger.score(f"{arm}-{n}", float(n >= wrong))
    return ledger


def test_quality_to_spare_asks_for_more_routing_and_a_smaller_control_arm() -> None:
    """Where the lower end is above the target, each tenth of the strong answers and the control arm have a price on them."""
    found, lacking = advised(arms(10, 10))
    more = found["Send more to cheap"]

    assert "Routed answers keep 100.0 %" in more.because
    assert more.usd == pytest.approx(0.1 * 250 * 9, rel=0.01)
    assert found["Shrink the control arm to 5 %"].usd == pytest.approx(900 * (10 - 3.25), rel=0.01)
    assert "Whether to route" not in lacking


def test_quality_below_the_target_asks_for_less_routing() -> None:
    """Where the upper end is below it, what each tenth of the cheap answers would cost is said."""
    found, _ = advised(arms(200, 10))

    assert found["Send less to cheap"].usd == pytest.approx(-0.1 * 750 * 9, rel=0.01)
    assert "Shrink the control arm to 5 %" not in found


@pytest.mark.parametrize(
    ("scored", "says"),
    [(800, "Whether to route more or less"), (20, "one side has 20 scores and 30 are needed")],
)
def test_undecided_quality_gives_no_advice(scored: int, says: str) -> None:
    """Neither an interval that holds the target nor a handful of scores decides anything."""
    found, lacking = advised(arms(scored // 20, scored // 80, scored))

    assert says in lacking
    assert not [title for title in found if title.startswith(("Send more", "Send less", "Shrink"))]


def test_sides_that_nobody_assigned_by_chance_give_no_advice() -> None:
    """Without a control arm the comparison may show the requests' differences, not the router's."""
    ledger = ledger_of(
        *spread(500, lambda _: call("routed", tier="cheap", complexity="simple")),
        *spread(500, lambda _: call("other", cost=Decimal(9))),
    )
    for n in range(500):
        ledger.score(f"routed-{n}", 1)
        ledger.score(f"other-{n}", 1)
    found, lacking = advised(ledger)

    assert found == {}
    assert "no request was kept from the router by chance" in lacking


@pytest.mark.parametrize(("kept", "fires"), [(0, True), (20, False)])
def test_drafts_that_lose_money_are_to_be_left_off(kept: int, fires: bool) -> None:
    """Where rejected drafts of a complexity cost more than accepted ones save, that sum is what stopping saves."""
    told = {"complexity": "medium", "saved": Saved(router=Decimal(10))}
    drafts = spread(100, lambda _: call("draft", tier="cheap", **told))
    after = [call(f"after-{n}", tier="strong", replaces=f"draft-{n}", complexity="medium") for n in range(100)]
    accepted = spread(kept, lambda _: call("kept", tier="cheap", **told))
    found, _ = advised(ledger_of(*drafts, *after, *accepted))

    assert ("Ask for no drafts of medium requests" in found) is fires
    if fires:
        assert found["Ask for no drafts of medium requests"].usd == pytest.approx(100, rel=0.02)


def test_a_job_that_a_clock_starts_may_go_through_the_batch_api() -> None:
    """Where nearly all calls come in the same three hours on many days, half of what they cost is at stake."""
    nightly = [
        call(f"{day}-{n}", at=NOW - day * DAY + 3600 + n * 60, endpoint="nightly")
        for day in range(1, 31)
        for n in range(9)
    ]
    daily = spread(900, lambda _: call("daily", endpoint="daily"))
    found, _ = advised(ledger_of(*nightly, *daily))
    advice = found["Send nightly through the Batch API"]

    assert "of its 270 calls come between" in advice.because
    assert advice.usd == pytest.approx(135, rel=0.01)
    assert "Send daily through the Batch API" not in found


def test_three_days_are_no_habit() -> None:
    """A peak in the same hours of three days may be chance."""
    calls = [call(f"{d}-{n}", at=NOW - d * DAY + n, endpoint="nightly") for d in range(1, 4) for n in range(90)]

    assert advised(ledger_of(*calls))[0] == {}


def test_an_endpoint_that_half_goes_there_may_go_there_wholly() -> None:
    """Calls that already wait show that the others might."""
    found, _ = advised(
        ledger_of(*spread(400, lambda n: call("call", endpoint="extract", batch=n % 2 == 0, cost=Decimal(n % 2 + 1))))
    )

    assert found["Send extract through the Batch API"].usd == pytest.approx(200, rel=0.01)


@pytest.mark.parametrize(
    ("hits", "title"), [(0, "Put a cache before the models"), (1, "Keep answers for longer")], ids=["none", "one"]
)
def test_repeated_requests_ask_for_a_cache_or_for_a_longer_time_to_live(hits: int, title: str) -> None:
    """What was paid for the very same request once more is the most that it saves."""
    repeated = spread(100, lambda n: call("call", request=f"{n % 60}"))
    found, _ = advised(ledger_of(*repeated, *(call(f"h{n}", cache="exact", cost=Decimal(0)) for n in range(hits))))

    assert found[title].usd == pytest.approx(40, rel=0.02)
    assert "40 requests, 40.0 % (30.9 to 49.8 %)" in found[title].because


@pytest.mark.parametrize("distinct", [98, 100])
def test_a_few_repetitions_are_left_alone(distinct: int) -> None:
    """Where they may be less than one in twenty, a cache changes little."""
    assert advised(ledger_of(*spread(100, lambda n: call("call", request=f"{n % distinct}"))))[0] == {}


def test_models_without_a_price_are_to_be_given_one() -> None:
    """What they may have cost is said as a range, and no saving is claimed."""
    found, _ = advised(
        ledger_of(
            *spread(10, lambda _: call("unknown", model="in-house", cost=None, usage=TOKENS)),
            *spread(10, lambda n: call("known", complexity="simple", tier=f"t{n % 2}", cost=Decimal(1 + n % 2))),
        )
    )
    advice = found["Give a price for in-house"]

    assert advice.usd is None
    assert "$11.11 to $22.22 in 30 days" in advice.effect
    assert "Prices({'in-house': (input, output)})" in advice.how


def test_calls_that_told_no_tokens_are_not_for_want_of_a_price() -> None:
    """A price would change nothing for a stream that reported no usage: it is to be asked for that."""
    found, _ = advised(
        ledger_of(
            *spread(3, lambda _: call("stream", model="in-house", cost=None)),
            *spread(2, lambda _: call("unknown", model="in-house", cost=None, usage=TOKENS)),
        )
    )

    assert "2 calls went to it" in found["Give a price for in-house"].because
    assert "3 calls of it told none" in found["Have in-house tell its tokens"].because
    assert "stream_usage=True" in found["Have in-house tell its tokens"].how


def test_nothing_priced_leaves_the_amount_open() -> None:
    """Without a single price nothing is known of the others'."""
    found, _ = advised(ledger_of(call("unknown", model="in-house", cost=None, usage=TOKENS)))

    assert "which nothing here tells" in found["Give a price for in-house"].effect


def test_less_than_a_day_is_not_projected() -> None:
    """An amount of some hours stays what it is."""
    calls = [call(f"{n}", at=NOW - n * 60, request="same") for n in range(101)]
    found, _ = advised(ledger_of(*calls))
    advice = found["Put a cache before the models"]

    assert advice.usd == 100
    assert "$100.00 in the time seen" in advice.effect


def test_advice_comes_the_most_dollars_first_and_what_has_no_price_on_it_last() -> None:
    """So that the eye meets what matters."""
    ledger = ledger_of(
        *spread(1000, hit_or_call(20)),
        *spread(400, lambda n: call("batch", endpoint="extract", batch=n % 2 == 0)),
        *spread(10, lambda _: call("unknown", model="in-house", cost=None, usage=TOKENS)),
    )

    assert list(advised(ledger)[0]) == [
        "Send extract through the Batch API",
        "Switch the cache off for POST /a",
        "Give a price for in-house",
    ]


def test_an_empty_mind_gives_no_advice() -> None:
    """A handful of calls speaks for nothing."""
    assert advised(ledger_of(call("one"), call("two"))) == ({}, "")
