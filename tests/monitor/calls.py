"""Calls for the tests of what is reported of them."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

from llm_costopt.monitor.ledger import Ledger
from llm_costopt.types import CallRecord

NOW = 1_795_478_400.0
"""24 November 2026, 00:00 UTC."""


def call(name: str, **fields: Any) -> CallRecord:
    """Make a record of a call that cost a dollar and took a second."""
    return replace(CallRecord(id=name, at=NOW, model="cheap", cost=Decimal(1), latency=1.0), **fields)


def ledger_of(*records: CallRecord) -> Ledger:
    """Make a ledger in memory that holds *records*."""
    ledger = Ledger(clock=lambda: NOW)
    for record in records:
        ledger.append(record)
    return ledger
