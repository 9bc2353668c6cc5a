"""Alerts judged in process, for applications without a Prometheus; each is told once when it begins and once when it ends."""

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, Self

from llm_costopt.monitor.alert_rules import Rule, Severity, default_rules
from llm_costopt.monitor.guarded import Guard, callables
from llm_costopt.monitor.stream import About
from llm_costopt.monitor.summary import Summary
from llm_costopt.monitor.watched import Batches, SpendingLimit, check_watched, name_of
from llm_costopt.monitor.windows import Facts, Windows, facts
from llm_costopt.types import CallRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert that begins or ends."""

    name: str
    """The rule's."""
    state: Literal["firing", "resolved"]
    """Whether it begins or ends."""
    about: str
    """The model, budget or part that it is about; empty for all."""
    severity: Severity
    """How urgent it is."""
    value: float
    """What was measured."""
    limit: float
    """The value from which on it fires."""
    text: str
    """A sentence for people, of an alert that ends the one that it began with; it holds no text of a request."""
    at: float
    """When it was seen, in seconds since the epoch."""


AlertSink = Callable[[Alert], object]
"""Whoever is to be told of an alert."""


class Alerts:
    """Judge what calls cost as they end: `CostCallbackHandler(on_record=alerts)`, `RouterChatModel(on_score=alerts.score)`.

    Of several processes each tells its sinks; with `summary=` let one of them look, and the others not listen.
    A call only adds to totals (about 13 µs); a thread of its own judges and tells the sinks. What a sink, a budget or
    a summary fails at is counted in `failures`, and the others are told. Totals begin with the process, in
    a forked child anew; earlier records can be told to it again: `for record in ledger.records(since): alerts(record)`.

    Args:
        sinks: callables such as `Webhook(url)`, `print`, or a logger's method.
        rules: what to judge; all of `default_rules()` if None.
        summary: `ledger.summary`, to judge the calls of all processes that share the ledger instead of this one's alone.
        budgets: those to judge.
        batches: tells how the work of batches stands.
        every: seconds between two looks; None if nobody looks but who calls `check`.
        clock: tells the time in seconds since the epoch.

    Raises:
        TypeError: a sink, *summary* or *batches* cannot be called, or *budgets* or *rules* is no list of such.
        ValueError: *every* is no number above 0.
    """

    def __init__(
        self,
        sinks: Iterable[AlertSink],
        *,
        rules: Sequence[Rule] | None = None,
        summary: Callable[[float], Summary] | None = None,
        budgets: Sequence[SpendingLimit] = (),
        batches: Batches | None = None,
        every: float | None = 15.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if every is not None and not (isinstance(every, Real) and 0 < every <= threading.TIMEOUT_MAX):
            raise ValueError(f"every is a number of seconds above 0, or None for no looks of its own, not {every!r}")
        check_watched(budgets, batches)
        if not callable(summary) and summary is not None:
            raise TypeError(f"summary is a function, such as ledger.summary of a Ledger, not {type(summary).__name__}")
        self._sinks = callables(sinks)
        self._rules = default_rules() if rules is None else _checked(rules)
        self._summary, self._budgets, self._batches = summary, budgets, batches
        self._every, self._clock = every, clock
        self._guard = Guard("An alert")
        self._closed = threading.Event()
        self._start_over()

    def _start_over(self) -> None:
        self._windows = Windows()
        self._firing: dict[tuple[str, str], Alert] = {}
        self._looking = threading.Lock()
        self._pid = os.getpid()
        if self._every is not None:
            told = weakref.ref(self), self._closed, self._every
            threading.Thread(target=_look, args=told, name="llm-costopt-alerts", daemon=True).start()

    def _own(self) -> None:
        """Begin anew in a forked child: its parent's threads are not there, and may have held locks."""
        if self._pid != os.getpid():
            self._start_over()

    @property
    def failures(self) -> int:
        """Count what failed: sinks, budgets, summaries."""
        return self._guard.failures

    @property
    def firing(self) -> tuple[Alert, ...]:
        """List the alerts that have begun and not ended."""
        return tuple(self._firing.values())

    def __call__(self, record: CallRecord) -> None:
        """Count *record*, once."""
        with self._guard():
            self._own()
            self._windows.add(record)

    def score(self, call: str, score: float, *, about: About | None = None) -> None:
        """Count how good the answer of *call*, a record's id, was, from 0 to 1.

        *about* says whose answer it was; if None, the record tells. Scores of drafts and shadow calls count for nothing.
        """
        with self._guard():
            self._own()
            self._windows.score(call, score, self._clock(), about)

    def check(self) -> None:
        """Judge now, and tell the sinks what began or ended."""
        self._own()
        with self._looking:
            for alert in self._news(self._clock()):
                for sink in self._sinks:
                    with self._guard():
                        sink(alert)

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _news(self, now: float) -> list[Alert]:
        known = self._facts(now)
        if known is None:
            return []
        news = []
        for rule in self._rules:
            with self._guard():
                news += [
                    a for about, value in rule.measure(known).items() if (a := self._turn(rule, about, value, now))
                ]
        return news

    def _turn(self, rule: Rule, about: str, value: float, now: float) -> Alert | None:
        """Tell whether the alert begins or ends at *value*."""
        key = rule.name, about
        was = self._firing.get(key)
        if rule.state(value, firing=was is not None) is (was is not None):
            return None
        says = rule.says.format(value=value, about=about, limit=rule.limit)
        alert = Alert(
            name=rule.name,
            state="resolved" if was else "firing",
            about=about,
            severity=rule.severity,
            value=value,
            limit=rule.limit,
            text=f"Over: {was.text}" if was else says,  # what is measured now is not what the sentence says
            at=now,
        )
        if was:
            del self._firing[key]
        else:
            self._firing[key] = alert
        return alert

    def _facts(self, now: float) -> Facts | None:
        budgets: dict[str, tuple[float, float]] = {}
        batches = None
        for budget in self._budgets:
            with self._guard():
                name, stands = name_of(budget), (float(budget.spent / budget.usd), budget.elapsed)
                budgets[name] = max(stands, budgets.get(name, stands))  # two may have one name: those of two routers
        with self._guard():
            batches = self._batches() if self._batches else None
        with self._guard():
            return facts(self._windows, now, summary=self._summary, budgets=budgets, batches=batches)
        return None  # without the summary that was asked for, this process's totals would begin and end alerts wrongly

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _checked(rules: Any) -> tuple[Rule, ...]:
    found = tuple(rules) if isinstance(rules, Iterable) else (None,)
    if not all(isinstance(rule, Rule) for rule in found):
        raise TypeError("rules is a list of what the functions of llm_costopt.monitor.alert_rules give: [hit_rate()]")
    return found


def _look(alerts: "weakref.ref[Alerts]", closed: threading.Event, every: float) -> None:
    """Look until they are closed or forgotten."""
    while not closed.wait(every):
        known = alerts()
        if known is None:
            return
        known.check()
        del known
