"""What a report sums up."""

from decimal import Decimal

import pytest

from llm_costopt.monitor.figures import Figures, Judged
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.types import CallRecord, Saved, Usage
from tests.monitor.calls import NOW, call, ledger_of

HOUR, DAY = 3600.0, 86_400.0


def figures(*records: CallRecord, hours: float | None = None) -> Figures:
    """Sum up *records*, of which there are some."""
    found = ledger_of(*records).figures(hours)
    assert found is not None
    return found


def test_no_call_no_figures() -> None:
    """An empty ledger, or an empty span of time, has nothing to show."""
    assert ledger_of().figures() is None
    assert ledger_of(call("old", at=NOW - 2 * HOUR)).figures(hours=1) is None


@pytest.mark.parametrize(("days", "width"), [(3, 3600), (4, 86_400), (120, 86_400), (121, 604_800), (3000, 604_800)])
def test_slices_are_hours_days_or_weeks(days: float, width: int) -> None:
    """The longer the time, the wider its slices, which begin with the first call's hour or day."""
    first = NOW - days * DAY
    found = figures(call("first", at=first), call("last", at=NOW))

    assert found.width == width
    step = min(width, 86_400)
    assert found.slices[0].start == int(first) // step * step
    assert {(s.start - found.slices[0].start) % width for s in found.slices} == {0}


def test_slices_hold_all_that_the_summary_holds() -> None:
    """No call is lost or counted twice between the slices, whatever moment they begin at."""
    records = [
        call(f"{n}", at=NOW - n * 0.7 * HOUR, saved=Saved(cache=Decimal(n), router=Decimal("0.5"))) for n in range(40)
    ]
    for hours in (None, 0.5, 11.3, 20.95, 100):
        found = figures(*records, hours=hours)

        assert sum(s.requests for s in found.slices) == found.summary.requests
        assert sum(s.cost_usd for s in found.slices) == found.summary.cost_usd
        assert sum(s.baseline_usd for s in found.slices) == found.summary.cost_usd + found.summary.saved_usd


def test_routes_tell_drafts_from_answers() -> None:
    """A rejected draft, the answer after it and an answer at once are three ways, and a hit is none."""
    found = figures(
        call("draft", complexity="medium", tier="cheap"),
        call("after", complexity="medium", tier="strong", replaces="draft", cost=Decimal(4)),
        call("once", complexity="medium", tier="cheap"),
        call("hit", complexity="medium", cache="exact", cost=Decimal(0)),
        call("beside", complexity="medium", tier="strong", shadow=True),
        call("unrouted"),
    )

    ways = {(r.tier, r.escalated, r.rejected): (r.calls, r.cost_usd) for r in found.routes}
    assert ways == {
        ("cheap", False, True): (1, Decimal(1)),
        ("strong", True, False): (1, Decimal(4)),
        ("cheap", False, False): (1, Decimal(1)),
    }


def test_latencies_leave_out_what_waits_by_design() -> None:
    """Calls and hits are apart; batches, shadow calls and failures are in neither; three digits are kept."""
    found = figures(
        call("one", latency=1.23456),
        call("two", latency=1.23499),
        call("hit", latency=0.000456, cache="exact", cost=Decimal(0)),
        call("batched", latency=5000.0, batch=True),
        call("beside", latency=9.0, shadow=True),
        call("failed", latency=30.0, error="APITimeoutError", cost=None),
        call("untimed", latency=None),
    )

    assert [(w.hit, w.seconds, w.calls) for w in found.latencies] == [(True, 0.000456, 1), (False, 1.23, 2)]


def test_hits_are_judged_by_the_mean_of_their_scores() -> None:
    """A hit is wrong below a half; scores of calls and of shadow calls take no part."""
    ledger = ledger_of(
        *(call(name, cache="semantic", cost=Decimal(0)) for name in ("good", "bad", "half", "unscored")),
        call("paid"),
        call("beside", cache="semantic", cost=Decimal(0), shadow=True),
    )
    for name, source, score in (
        ("good", "user", 1.0),
        ("bad", "user", 0.0),
        ("bad", "judge", 0.8),
        ("half", "user", 0.5),
        ("paid", "user", 0.0),
        ("beside", "user", 0.0),
    ):
        ledger.score(name, score, source=source)
    found = ledger.figures()

    assert found is not None
    assert found.judged == (Judged(cache="semantic", judged=3, wrong=1),)


def test_endpoints_come_the_dearest_first_with_both_halves_of_the_time() -> None:
    """Requests and hits are told apart by half, batches by price, and calls that name no endpoint stand under None."""
    found = figures(
        call("early", at=NOW - DAY, endpoint="a"),
        call("late", endpoint="a", cache="exact", cost=Decimal(0), saved=Saved(cache=Decimal(3))),
        call("batched", endpoint="a", batch=True, cost=Decimal(5)),
        call("unnamed", cost=None),
    )
    a, unnamed = found.endpoints

    assert (a.name, a.requests, a.hits, a.late_requests, a.late_hits) == ("a", 3, 1, 2, 1)
    assert (a.calls, a.batched, a.errors) == (2, 1, 0)
    assert (a.cost_usd, a.unbatched_usd, a.saved.cache) == (Decimal(6), Decimal(1), Decimal(3))
    assert (unnamed.name, unnamed.unpriced, unnamed.busy) == (None, 1, None)


def test_the_busiest_hours_of_an_endpoint() -> None:
    """Three hours in a row, across midnight too, with the days and the share of the calls that they hold."""
    midnight = NOW // DAY * DAY
    records = [call(f"{d}-{h}", at=midnight - d * DAY + h * HOUR, endpoint="a") for d in (1, 2) for h in (0, 1, 23, 12)]

    assert figures(*records).endpoints[0].busy == (23, 2, 0.75, 8)


def test_models_of_unknown_price_come_the_most_called_first() -> None:
    """Failed calls, which may cost nothing, are not among them."""
    found = figures(
        call("one", model="rare", cost=None, usage=Usage(input_tokens=1, output_tokens=1)),
        *(call(f"{n}", model="often", cost=None) for n in range(3)),
        call("failed", model="failing", cost=None, error="APITimeoutError"),
        call("known"),
    )

    assert found.unpriced == (("often", 3), ("rare", 1))
    assert found.untold == (("often", 3),)


@pytest.mark.parametrize("hours", [None, 4, 400])
def test_arms_are_compared_over_the_newest_calls_if_there_are_many(
    hours: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the limit all are compared; beyond it the newest ones, so that memory is bounded."""
    records = [call(f"{n}", at=NOW - n * HOUR) for n in range(100)]
    assert figures(*records, hours=hours).compared_hours == hours
    monkeypatch.setattr("llm_costopt.monitor.figures.COMPARED", 3)

    assert figures(*records, hours=hours).compared_hours == 3


def test_a_long_look_back_and_a_short_one_find_the_same_calls() -> None:
    """Most of a ledger is read in another order than a little of it, which changes no figure."""
    records = [call(f"{n}", at=NOW - n * HOUR, endpoint=f"e{n % 3}", model=f"m{n % 2}") for n in range(200)]
    few = Ledger(clock=lambda: NOW)
    for record in records[:11]:
        few.append(record)

    assert ledger_of(*records).figures(hours=10) == few.figures(hours=10)
