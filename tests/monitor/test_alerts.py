"""Alerts in process: each kind fires and does not fire, once, with hysteresis and floors, and never reaches a call."""

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from importlib.resources import files
from itertools import count
from typing import Any

import pytest
import yaml

from llm_costopt.monitor.alert_rules import default_rules, hit_rate
from llm_costopt.monitor.alerts import Alert, Alerts
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.watched import BatchState
from llm_costopt.router.spending import Budget
from llm_costopt.types import CallRecord

HOUR = 3600.0
SOON = 10.0
"""Seconds after which a test that waits gives up."""


class Desk:
    """Alerts over a clock that the test sets, and what they told."""

    def __init__(self, **options: Any) -> None:
        self.now = 1_000 * HOUR
        self.told: list[Alert] = []
        self._ids = count()
        self.alerts = Alerts([self.told.append], every=None, clock=lambda: self.now, **options)

    def calls(self, number: int, *, to: Callable[[CallRecord], None] | None = None, **fields: Any) -> list[str]:
        """Tell of calls that cost a cent each, and return their ids."""
        names = [f"call {next(self._ids)}" for _ in range(number)]
        for name in names:
            base = CallRecord(id=name, at=self.now, model="m", cost=Decimal("0.01"))
            (to or self.alerts)(replace(base, **fields))
        return names

    def seen(self) -> list[tuple[str, str, str]]:
        """Look, and list what was told since the last time."""
        self.alerts.check()
        told: list[tuple[str, str, str]] = [(a.name, a.about, a.state) for a in self.told]
        self.told.clear()
        return told


HITS: dict[str, Any] = {"cache": "exact", "cost": Decimal(0)}


def test_a_low_hit_rate_is_told_once_and_again_when_it_is_over() -> None:
    """Below 20 % it fires once; at 22 % it still does, since it did; from 25 % on it is over."""
    desk = Desk()
    desk.calls(90)
    desk.calls(10, **HITS)

    assert desk.seen() == [("LLMCacheHitRateLow", "", "firing")]
    assert desk.seen() == []
    desk.calls(15, **HITS)
    assert desk.seen() == []  # 25 of 115
    desk.calls(20, **HITS)
    assert desk.seen() == [("LLMCacheHitRateLow", "", "resolved")]
    desk.calls(70)
    assert desk.seen() == []  # 45 of 205


def test_an_alert_says_what_was_measured() -> None:
    """Sentence, value, limit, severity and time are those of the moment."""
    desk = Desk()
    desk.calls(90)
    desk.calls(10, **HITS)
    desk.alerts.check()
    (alert,) = desk.told

    assert alert.text == "The cache answered 10% of the last hour's requests, less than 20%."
    assert (alert.value, alert.limit, alert.severity, alert.at) == (0.1, 0.2, "warning", desk.now)
    assert desk.alerts.firing == (alert,)


def test_an_alert_that_ends_says_what_is_over() -> None:
    """Its sentence is the one that it began with: what is measured now is not below the limit."""
    desk = Desk()
    desk.calls(90)
    desk.calls(10, **HITS)
    desk.alerts.check()
    desk.calls(30, **HITS)
    desk.alerts.check()
    began, over = desk.told

    assert (over.state, over.value > over.limit) == ("resolved", True)
    assert (
        over.text == f"Over: {began.text}" == "Over: The cache answered 10% of the last hour's requests, less than 20%."
    )


def test_what_chance_explains_is_no_matter() -> None:
    """Of 100 requests 13 hits may be chance where 20 are usual; of 1,000 requests 130 are not."""
    few, many = Desk(), Desk()
    few.calls(87)
    few.calls(13, **HITS)
    many.calls(870)
    many.calls(130, **HITS)

    assert few.seen() == []
    assert many.seen() == [("LLMCacheHitRateLow", "", "firing")]


def test_few_requests_and_no_cache_are_no_matter() -> None:
    """99 requests are too few to tell, and a program that never had a hit seems to have no cache."""
    few, none = Desk(), Desk()
    few.calls(98)
    few.calls(1, **HITS)
    none.calls(1000)

    assert few.seen() == none.seen() == []


def test_a_quiet_night_changes_nothing() -> None:
    """An alert that fires while there is traffic is neither over nor told anew when there is too little to tell."""
    desk = Desk()
    desk.calls(95)
    desk.calls(5, **HITS)
    assert len(desk.seen()) == 1
    desk.now += 8 * HOUR
    assert desk.seen() == []
    desk.calls(95)
    desk.calls(5, **HITS)
    assert desk.seen() == []


def test_escalations() -> None:
    """Above 30 % of the routed requests fires; what chance explains and 49 requests do not; shadow calls count for nothing."""
    many, some, few = Desk(), Desk(), Desk()
    for desk, routed, escalated in ((many, 100, 40), (some, 100, 39), (few, 49, 49)):
        drafts = desk.calls(routed, complexity="medium")
        for draft in drafts[:escalated]:
            desk.calls(1, complexity="medium", replaces=draft)
    some.calls(50, shadow=True, replaces="x")

    assert many.seen() == [("LLMEscalationRateHigh", "", "firing")]
    assert some.seen() == few.seen() == []


@pytest.mark.parametrize(
    ("day", "cents", "hour", "fires"),
    [
        pytest.param(1000, 5, 100, True, id="five times as dear"),
        pytest.param(1000, 1.9, 100, False, id="less than twice"),
        pytest.param(1000, 50, 49, False, id="too few in the hour"),
        pytest.param(100, 5, 100, False, id="too few to compare with"),
        pytest.param(1000, 1, 900, False, id="more of the same"),
    ],
)
def test_cost_per_request(day: int, cents: float, hour: int, fires: bool) -> None:
    """Above twice the mean of the day before fires, if both windows hold enough to tell."""
    desk = Desk()
    desk.calls(day)
    desk.now += 2 * HOUR
    desk.calls(hour, cost=Decimal(str(cents)) / 100)

    assert desk.seen() == ([("LLMCostPerRequestHigh", "", "firing")] if fires else [])


def test_an_hour_of_cents_is_no_matter() -> None:
    """A hundred times the usual cost per request is not told while the hour cost less than a dollar."""
    desk = Desk()
    desk.calls(1000, cost=Decimal("0.0001"))
    desk.now += 2 * HOUR
    desk.calls(90, cost=Decimal("0.01"))

    assert desk.seen() == []


def test_queue_and_batches() -> None:
    """A request that waits for more than 5 minutes and a job within two hours of its end fire, and end when they are gone."""
    state = BatchState(oldest_queued=300.0, next_expiry=7200.0)
    desk = Desk(batches=lambda: state)
    assert desk.seen() == []
    state = BatchState(oldest_queued=301.0, next_expiry=7199.0)
    assert desk.seen() == [("LLMQueueOld", "", "firing"), ("LLMBatchNearExpiry", "", "firing")]
    state = BatchState()
    assert desk.seen() == [("LLMQueueOld", "", "resolved"), ("LLMBatchNearExpiry", "", "resolved")]


def test_failed_rows_of_batches() -> None:
    """More than 5 % of 20 rows fire; 19 are too few."""
    many, few = Desk(), Desk()
    for desk, good in ((many, 18), (few, 17)):
        desk.calls(good, batch=True)
        desk.calls(2, batch=True, error="expired")

    assert many.seen() == [("LLMBatchRowsFailed", "", "firing")]
    assert few.seen() == []


def test_budgets() -> None:
    """A budget ahead of its clock by more than a fifth fires, and one that is used up does; each for itself."""
    noon = 12 * HOUR
    search, chat, late = (Budget(10, per="day", tag=tag, clock=lambda: noon) for tag in ("search", "chat", "late"))
    search.charge(6.5)
    chat.charge(5.5)
    desk = Desk(budgets=[search, chat, late])
    assert desk.seen() == [("LLMBudgetBurn", "search per day", "firing")]
    search.charge(3.4)
    assert desk.seen() == [("LLMBudgetSpent", "search per day", "firing")]


@pytest.mark.parametrize("spent", [("9.9", "1"), ("1", "9.9")])
def test_of_budgets_with_one_name_the_one_that_is_short_is_told(spent: tuple[str, str]) -> None:
    """Two routers may each have a budget of a day without a tag: neither hides the other."""
    budgets = [Budget(10, clock=lambda: 12 * HOUR) for _ in spent]
    for budget, usd in zip(budgets, spent, strict=True):
        budget.charge(float(usd))

    assert ("LLMBudgetSpent", "all per day", "firing") in Desk(budgets=budgets).seen()


def test_the_beginning_of_a_budget_is_no_matter() -> None:
    """A fifth of a day's budget in its first hour is uneven traffic, not yet a pace."""
    budget = Budget(10, per="day", clock=lambda: HOUR)
    budget.charge(2)

    assert Desk(budgets=[budget]).seen() == []


def test_unknown_prices_are_told_by_model_and_end_after_an_hour() -> None:
    """The first call of a model without a price fires, a failed call does not, and it is over an hour after the last."""
    desk = Desk()
    desk.calls(1, model="new", cost=None)
    desk.calls(1, model="gone", cost=None, error="TimeoutError")
    assert desk.seen() == [("LLMUnpricedRequests", "new", "firing")]
    desk.now += 2 * HOUR
    assert desk.seen() == [("LLMUnpricedRequests", "new", "resolved")]


def test_a_record_counts_once_and_models_stay_few() -> None:
    """A record that is told twice is one; from the 101st model without a price on, they are told as `other`; a score of an unknown call is none."""
    desk = Desk()
    (name,) = desk.calls(1, model="twice", cost=None)
    desk.alerts(CallRecord(id=name, at=desk.now, model="twice", cost=None))
    for n in range(120):
        desk.calls(1, model=f"ft:{n}", cost=None)
    desk.alerts.score("unheard of", 0.0)
    desk.alerts.check()
    told = {alert.about: alert.value for alert in desk.told}

    assert len(told) == 101
    assert (told["twice"], told["other"]) == (1, 21)


@pytest.mark.parametrize(
    ("day", "wrong", "fires"),
    [
        pytest.param(200, 30, True, id="from 5 to 15 %"),
        pytest.param(49, 20, False, id="too few"),
        pytest.param(50, 5, False, id="within chance"),
        pytest.param(200, 10, False, id="the same"),
    ],
)
@pytest.mark.parametrize(("about", "fields"), [("router", {"complexity": "medium"}), ("cache", HITS)])
def test_drift(about: str, fields: dict[str, Any], day: int, wrong: int, fires: bool) -> None:
    """An error that rose by more than chance explains fires, for whoever's answers were judged."""
    desk = Desk(rules=[rule for rule in default_rules() if rule.name == "LLMAnswerErrorDrift"])

    def judged(number: int, bad: int) -> None:
        for n, name in enumerate(desk.calls(number, **fields)):
            desk.alerts.score(name, float(n >= bad))

    judged(400, 20)
    desk.now += 48 * HOUR
    judged(day, wrong)

    assert desk.seen() == ([("LLMAnswerErrorDrift", about, "firing")] if fires else [])


def test_the_calls_of_all_processes_count_through_the_ledger() -> None:
    """With `summary=` windows are the ledger's, though this process saw none of its calls."""
    ledger = Ledger(clock=lambda: desk.now)
    desk = Desk(summary=ledger.summary)
    desk.calls(1000, to=ledger.append)
    desk.now += 2 * HOUR
    desk.calls(95, to=ledger.append, cost=Decimal("0.05"))
    desk.calls(5, to=ledger.append, **HITS)
    desk.calls(1, to=ledger.append, model="new", cost=None)

    assert desk.seen() == [
        ("LLMCacheHitRateLow", "", "firing"),
        ("LLMCostPerRequestHigh", "", "firing"),
        ("LLMUnpricedRequests", "new", "firing"),
    ]
    desk.now += 2 * HOUR
    assert desk.seen() == [("LLMUnpricedRequests", "new", "resolved")]


def test_an_unknown_cost_ends_however_long_nobody_looked() -> None:
    """A computer that slept for days still tells that the alert from before is over."""
    ledger = Ledger(clock=lambda: desk.now)
    desk = Desk(summary=ledger.summary)
    desk.calls(1, to=ledger.append, model="new", cost=None)

    assert desk.seen() == [("LLMUnpricedRequests", "new", "firing")]
    desk.now += 100 * HOUR
    assert desk.seen() == [("LLMUnpricedRequests", "new", "resolved")]


def test_old_totals_are_forgotten() -> None:
    """Only what the longest window needs is kept: a record of long ago adds nothing and fails nothing."""
    desk = Desk()
    desk.calls(100, **HITS)
    desk.now += 9 * 24 * HOUR
    desk.calls(200)
    desk.calls(50, at=1.0, **HITS)

    assert desk.seen() == []  # without a hit within a week there seems to be no cache
    assert desk.alerts.failures == 0
    for _ in range(30):
        desk.now += 24 * HOUR
        desk.calls(1)
    assert len(desk.alerts._windows._steps) <= 9


def test_a_failing_sink_is_counted_and_hides_nothing() -> None:
    """The other sinks are told, the alert counts as told, and nothing is raised."""
    told: list[Alert] = []

    def fail(alert: Alert) -> None:
        raise OSError("no network")

    alerts = Alerts([fail, told.append], every=None, clock=lambda: 0.0)
    alerts(CallRecord(id="a", at=0.0, model="m", cost=None))
    alerts.check()
    alerts.check()

    assert len(told) == 1
    assert alerts.failures == 1


def test_a_failing_source_is_counted_and_the_other_rules_are_judged() -> None:
    """A rule that breaks does not keep the others from being judged; a job store that breaks is counted."""

    def broken(_: object) -> dict[str, float]:
        raise ZeroDivisionError

    desk = Desk(rules=[replace(hit_rate(), measure=broken), *default_rules()])
    desk.calls(1, cost=None)
    assert desk.seen() == [("LLMUnpricedRequests", "m", "firing")]
    assert desk.alerts.failures == 1

    def gone() -> BatchState:
        raise OSError("disk gone")

    alerts = Alerts([], every=None, batches=gone)
    alerts.check()
    alerts("no record")  # type: ignore[arg-type]
    assert alerts.failures == 2


def test_a_thread_looks_by_itself() -> None:
    """Nobody has to call `check`, and the thread ends when it is closed or forgotten."""

    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "llm-costopt-alerts"]

    told = threading.Event()
    with Alerts([lambda _: told.set()], every=0.01, clock=lambda: 0.0) as alerts:
        alerts(CallRecord(id="b", at=0.0, model="m", cost=None))
        assert told.wait(SOON)
        assert len(threads()) == 1
    del alerts
    forgotten = Alerts([], every=0.01)
    del forgotten
    for thread in threads():
        thread.join(SOON)

    assert threads() == []


_FORKED = """
import os, signal
from llm_costopt.monitor.alerts import Alerts
from llm_costopt.types import CallRecord
told = []
alerts = Alerts([lambda alert: told.append(alert.about)], every=None, clock=lambda: 0.0)
alerts(CallRecord(id="a", at=0.0, model="parent's", cost=None))
with alerts._windows._lock:
    child = os.fork()
if not child:
    signal.alarm(10)
    alerts(CallRecord(id="b", at=0.0, model="child's", cost=None))
if child:
    assert os.waitpid(child, 0)[1] == 0
alerts.check()
print(told)
"""


def test_a_forked_child_begins_anew() -> None:
    """A lock that was held at the fork does not hold the child's calls up, and the parent's calls are not told twice."""
    done = subprocess.run([sys.executable, "-c", _FORKED], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.splitlines() == ['["child\'s"]', '["parent\'s"]']


def test_the_kinds_and_thresholds_are_those_of_prometheus() -> None:
    """Each rule in process is one of rules.yml with the same severity and the same limit."""
    text = files("llm_costopt.monitor").joinpath("rules.yml").read_text(encoding="utf-8")
    shipped = {r["alert"]: r for g in yaml.safe_load(text)["groups"] for r in g["rules"] if "alert" in r}

    for rule in default_rules():
        other = shipped.pop(rule.name)
        limits = {float(n) for n in re.findall(r"[<>] ([\d.]+)(?=\s|$)", other["expr"])}
        assert rule.limit in limits, rule.name
        assert rule.severity == other["labels"]["severity"]
    assert set(shipped) == {"LLMExporterFailures", "LLMMetricsMissing"}  # which are about the scrape itself


@pytest.mark.parametrize("every", [0, -1, float("nan"), float("inf"), "15"])
def test_a_pause_that_is_none_is_refused(every: Any) -> None:
    """Looks without a pause between them would take a processor; a text would end the thread."""
    with pytest.raises(ValueError, match="number of seconds above 0"):
        Alerts([], every=every)


class Lost:
    """A budget whose ledger is gone."""

    usd, per, tag, elapsed = Decimal(1), "day", "lost", 0.5

    @property
    def spent(self) -> Decimal:
        """Fail as a disk does."""
        raise OSError("disk gone")


def test_a_budget_or_a_job_store_that_breaks_hides_no_other() -> None:
    """They are counted; the budget beside them and unknown prices are told."""
    budget = Budget(10, clock=lambda: 12 * HOUR)
    budget.charge(5.9)
    budget.charge(4)
    desk = Desk(budgets=[Lost(), budget], batches=lambda: 1 / 0)
    desk.calls(1, cost=None)
    told = desk.seen()

    assert ("LLMBudgetSpent", "all per day", "firing") in told
    assert ("LLMUnpricedRequests", "m", "firing") in told
    assert desk.alerts.failures == 2


def test_a_clock_that_was_far_ahead_for_a_moment_silences_nothing() -> None:
    """A record from the future does not make those of the present too old to count."""
    desk = Desk()
    desk.calls(1, at=desk.now + 365 * 24 * HOUR)
    desk.calls(1, cost=None)

    assert desk.seen() == [("LLMUnpricedRequests", "m", "firing")]


def test_one_budget_without_a_list_is_refused() -> None:
    """It would end the thread that looks, and with it every alert; so would jobs that are no function."""
    with pytest.raises(TypeError, match=r"budgets is a list, such as \[Budget\(50, spent=ledger.spent\)\], not Budget"):
        Alerts([print], budgets=Budget(50))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"batches is a function, such as queue\.stats of a BatchQueue, not BatchState"):
        Alerts([print], batches=BatchState())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"summary": Ledger()}, {"rules": [hit_rate]}, {"rules": hit_rate()}, {"rules": "all"}], ids=str
)
def test_what_would_silence_all_alerts_is_refused(wrong: dict[str, Any]) -> None:
    """A ledger in place of its `summary`, or a rule that is none, would only be counted at each look."""
    with pytest.raises(
        TypeError, match=r"summary is a function, such as ledger\.summary|rules is a list of .* \[hit_rate\(\)\]"
    ):
        Alerts([print], every=None, **wrong)
