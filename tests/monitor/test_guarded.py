"""Several listeners to one record, and what fails in one of them."""

import logging
from decimal import Decimal
from typing import Any

import pytest

from llm_costopt.monitor.alerts import Alerts
from llm_costopt.monitor.guarded import Guard, each
from llm_costopt.types import CallRecord

RECORD = CallRecord(id="a", at=0.0, model="cheap", cost=Decimal(1))


def test_all_are_told_even_if_one_fails() -> None:
    """A failing listener does not keep the record from those after it, and its error is raised at the end."""
    told: list[CallRecord] = []

    def fail(record: CallRecord) -> None:
        raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        each(told.append, fail, told.append)(RECORD)

    assert told == [RECORD, RECORD]


def test_failures_are_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """What fails under a guard does not come out; the log has it once and without its message, the counter each time."""
    guard = Guard("The thing")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with guard():
                problem = "Bearer secret"
                raise ValueError(problem)

    assert guard.failures == 3
    assert "secret" not in caplog.text
    assert [r.message.splitlines()[0] for r in caplog.records] == [
        "The thing failed (ValueError); from here on, this is only counted"
    ]


def test_what_cannot_be_called_is_no_listener() -> None:
    """It is refused at once, where it would only be counted at each call, or each alert."""
    wrong: Any = 5
    with pytest.raises(TypeError, match="not int"):
        each(print, wrong)
    with pytest.raises(TypeError, match="not str"):
        Alerts(["https://hooks.example.com"])  # type: ignore[list-item]
