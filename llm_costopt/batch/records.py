"""Rows of batches as the records that a ledger keeps, each once."""

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import astuple
from decimal import Decimal

from llm_costopt.account import Price, account
from llm_costopt.batch.backend import BatchBackend
from llm_costopt.batch.jobs import JobStore
from llm_costopt.batch.stored import Settled
from llm_costopt.errors import place_of
from llm_costopt.types import CallRecord, OnRecord, Saved, Usage

log = logging.getLogger(__name__)

_UNPAID = frozenset({"errored", "expired", "cancelled", "rejected"})
"""Outcomes that no provider charges for; of a row that is missing or lost nobody knows."""


class Records:
    """Tell *on_record* of every answered row, under the same id if it must be told again.

    Args:
        on_record: who wants to know; None for nobody.
        prices: what a row costs; None leaves the cost unknown.
        clock: tells the time in seconds since the epoch.
    """

    def __init__(self, on_record: OnRecord | None, prices: Price | None, clock: Callable[[], float]) -> None:
        self._on_record = on_record
        self._prices = prices
        self._clock = clock
        self.told = 0
        self.cost = Decimal(0)
        self.saved = Decimal(0)
        self.unpriced = 0
        self.failures = 0

    def tell(self, store: JobStore, backends: Mapping[str, BatchBackend]) -> None:
        """Tell of all rows of which nobody was told yet; stops where telling fails, and begins there next time."""
        try:
            while some := store.unrecorded(self._clock()):
                told = {row.row: self._told(row, backends) for row in some}
                store.record(told)
                if not all(told.values()):
                    return
        except sqlite3.Error as problem:  # such as a full disk; those who wait for their rows are no part of this
            self._failed(problem)

    def _told(self, row: Settled, backends: Mapping[str, BatchBackend]) -> bool:
        try:
            record = self._record(row, backends[row.lane.provider])
            if self._on_record is not None:
                self._on_record(record)
        except Exception as problem:  # noqa: BLE001 - whatever fails here must not fail a request
            self._failed(problem)
            return False
        self.told += 1
        self.cost += record.cost or 0
        self.saved += record.saved.batch if record.saved else 0
        self.unpriced += record.cost is None
        return True

    def _failed(self, problem: Exception) -> None:
        if not self.failures:
            # Without its message, which may quote an answer.
            log.warning(
                "Telling of a batch's row failed (%s); from here on, this is only counted\n%s",
                type(problem).__name__,
                place_of(problem),
            )
        self.failures += 1

    def _record(self, row: Settled, backend: BatchBackend) -> CallRecord:
        succeeded = row.outcome == "succeeded"
        body = _object(row.body) if succeeded else {}
        usage, model = _usage(backend, body), str(body.get("model") or row.lane.model)
        cost, saved = self._amounts(model, usage, row.lane.provider)
        return CallRecord(
            id=row.id,
            at=self._clock(),
            model=model,
            provider=row.lane.provider,
            usage=usage,
            cost=Decimal(0) if row.outcome in _UNPAID else cost,
            saved=saved,
            batch=True,
            error=None if succeeded else row.outcome,
            endpoint=row.endpoint,
            tenant=row.tenant,
        )

    def _amounts(self, model: str, usage: Usage | None, provider: str) -> tuple[Decimal | None, Saved | None]:
        if self._prices is None:
            return None, None
        return account(self._prices, model=model, provider=provider, usage=usage, batch=True)


def _usage(backend: BatchBackend, body: Mapping[str, object]) -> Usage | None:
    """Read the tokens of an answer; None too where a server says what is no count."""
    try:
        usage = backend.usage(body)
    except (AttributeError, TypeError, ValueError):
        return None
    return usage if usage and all(isinstance(n, int) and n >= 0 for n in astuple(usage)) else None


def _object(body: bytes) -> Mapping[str, object]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
