"""Records as they come, read as the ledger reads its table: each once, drafts charged to the router."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Literal

from llm_costopt.observed import has_routed
from llm_costopt.recent import Recent
from llm_costopt.types import CallRecord, Saved

About = Literal["cache", "router", "control", "other"]
"""Whose work a score judges: an answer from the cache, one that a router chose, one of the control arm, any other."""

_REMEMBERED = 10_000
"""Calls that a draft's replacement, a second telling or a score may refer to; some 3 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What one record adds to totals."""

    begins: bool
    """Whether it is the first call, or the hit, of a request; shadow calls, escalations and calls that fell back begin none."""
    routed: bool
    """Whether it begins a request for which a router decided, and did not merely observe."""
    escalates: bool
    """Whether it is the first that replaces a rejected draft of its request; with more than two tiers there may be more."""
    unpriced: bool
    """Whether it succeeded at an unknown cost."""
    saved: Mapping[str, Decimal]
    """US dollars by cause, negative where they are lost; what the draft that it replaces had saved is taken back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    about: About | None
    cost: Decimal | None
    saved: Mapping[str, Decimal]
    escalated: bool
    """Whether its request counts among the escalated."""
    waits: bool
    """Whether it failed and its request is not counted yet, since another call is to stand in."""


class Stream:
    """Read records one by one, from any number of threads.

    The last 10,000 calls are remembered. A record that is told again after as many others counts again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Recent[str, _Call] = Recent(_REMEMBERED)
        self._replaced: Recent[str, bool] = Recent(_REMEMBERED)

    def read(self, record: CallRecord) -> News | None:
        """Say what *record* adds; None if it was read before."""
        with self._lock:
            if self._calls.get(record.id) is not None:
                return None
            is_draft = self._replaced.get(record.id) is not None
            saved = _charged(record.cost) if record.shadow or is_draft else _saved(record.saved)
            about = None if record.shadow or is_draft else _about(record)
            is_spared = record.spare and record.error is not None  # the call that stands in for it is the request
            replaces = None if record.shadow else record.replaces
            before = self._calls.get(replaces) if replaces else None
            escalated = before is not None and before.escalated
            # A draft that is told late is of a request that has counted.
            escalates = replaces is not None and not (escalated or is_spared or is_draft)
            waits = is_spared and not (replaces or is_draft)
            begins = before is not None and before.waits if replaces else not (record.shadow or waits)
            self._calls.put(
                record.id,
                _Call(about=about, cost=record.cost, saved=saved, escalated=escalates or escalated, waits=waits),
            )
            taken_back = self._reject(replaces) if replaces else {}
        return News(
            begins=begins,
            routed=begins and (record.complexity or record.tier) is not None and has_routed(record.why),
            escalates=escalates,
            unpriced=record.cost is None and record.error is None,
            saved={cause: saved.get(cause, Decimal(0)) + taken_back.get(cause, 0) for cause in {**saved, **taken_back}},
        )

    def about(self, call: str) -> About | None:
        """Say whose work the answer of *call* is; None for drafts, shadow calls and what is not remembered."""
        known = self._calls.get(call)
        return known.about if known else None

    def _reject(self, draft: str) -> Mapping[str, Decimal]:
        """Take back what *draft* saved and charge what it cost, once; a draft that is told later is charged then."""
        if self._replaced.get(draft) is not None:
            return {}
        self._replaced.put(draft, value=True)
        call = self._calls.get(draft)
        if call is None:
            return {}
        self._calls.put(draft, replace(call, about=None, saved={}, waits=False))
        back = {cause: -amount for cause, amount in call.saved.items()}
        for cause, amount in _charged(call.cost).items():
            back[cause] = back.get(cause, Decimal(0)) + amount
        return back


def _saved(saved: Saved | None) -> dict[str, Decimal]:
    return {} if saved is None else {cause.name: getattr(saved, cause.name) for cause in fields(saved)}


def _charged(cost: Decimal | None) -> dict[str, Decimal]:
    return {} if cost is None else {"router": -cost}


def _about(record: CallRecord) -> About:
    if record.arm == "control":
        return "control"
    if record.cache is not None:
        return "cache"
    return "router" if (record.complexity or record.tier or record.replaces) is not None else "other"
