"""Every call in an append-only SQLite table; prompts and answers are kept only by whoever calls `keep_text`."""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import partial
from math import isnan
from numbers import Real
from pathlib import Path
from typing import Any, Self

from llm_costopt.database import Database
from llm_costopt.monitor import rollup, tables
from llm_costopt.monitor.figures import Figures, figures_of
from llm_costopt.monitor.late import Late
from llm_costopt.monitor.requests import Request, requests_of
from llm_costopt.monitor.summary import CAUSES, Summary, summarise, units, usd
from llm_costopt.monitor.totals import By, Total, totals_of
from llm_costopt.types import CallRecord, Saved, Usage

_OURS = 0x6C6C6D63
"""`llmc` in the header of the file: what tells a ledger from somebody else's database."""

_PATIENCE = 5.0
"""Seconds to wait for another process that is writing."""

# `INSERT OR IGNORE` would also swallow a record that lacks what it must have.
_INSERT = """
INSERT INTO calls (id, at, model, provider, usage, cost, saved_cache, saved_router, saved_batch, saved_prompt_cache,
                   latency, cache, complexity, replaces, batch, tags, error, tier, why, arm, shadow, rejected,
                   endpoint, tenant, request)
VALUES (:id, :at, :model, :provider, :usage, :cost, :saved_cache, :saved_router, :saved_batch, :saved_prompt_cache,
        :latency, :cache, :complexity, :replaces, :batch, :tags, :error, :tier, :why, :arm, :shadow, :rejected,
        :endpoint, :tenant, :request)
ON CONFLICT (id) DO NOTHING
"""

# A draft saves nothing: the call that replaced it is compared with the baseline, and the draft came on top.
# The last condition serves a draft whose record arrives late, the first one also a draft that came as an error, which has
# saved nothing but was paid for.
_REJECT = """
UPDATE calls SET rejected = 1, saved_cache = 0, saved_batch = 0, saved_prompt_cache = 0, saved_router = -cost
WHERE (NOT rejected OR saved_router IS NULL) AND NOT :shadow
AND (id = :replaces OR (id = :id AND EXISTS (SELECT 1 FROM calls WHERE replaces = :id AND NOT shadow)))
"""

_SCORE = """
INSERT INTO scores (id, source, at, score) VALUES (?, ?, ?, ?)
ON CONFLICT (id, source) DO UPDATE SET at = excluded.at, score = excluded.score
"""

_TEXT = "INSERT INTO texts (id, at, question, answer) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"

_REPEATS = """
SELECT count(*) AS requests, count(*) - count(cost) AS unpriced, coalesce(sum(cost), 0) AS cost FROM (
    SELECT at, cost, row_number() OVER (PARTITION BY request ORDER BY at, rowid) AS nth FROM calls
    WHERE request IS NOT NULL AND cache IS NULL AND error IS NULL AND NOT shadow AND NOT rejected
)
WHERE nth > 1 AND at >= :since
"""

_SPENT_UNDER = """
SELECT coalesce(sum(cost), 0) FROM calls
WHERE at >= :since AND EXISTS (SELECT 1 FROM json_each(tags) WHERE value = :tag)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What was asked and answered in one call."""

    question: str
    """The last turn of the user, as far as it was kept."""
    answer: str
    """The answer, as far as it was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """Requests that were the very same as an earlier one, and went to a model all the same."""

    requests: int
    """How many there were."""
    unpriced: int
    """How many of them have no known cost; the amount lacks them."""
    cost_usd: Decimal
    """US dollars paid for them: what a cache of exact matches would have saved, had it kept every answer."""


class Ledger:
    """Keep every call and sum them up.

    Any number of threads and processes may share the file, and may fork. An append takes about 110 µs in memory
    and 180 µs in a file.

    Args:
        path: the file, made for its owner's eyes only if it is new; None keeps the calls in memory,
            each process its own.
        keep_days: how long calls are kept; what is older is forgotten once an hour, while calls are appended.
            For ever if None.
        clock: tells the time in seconds since the epoch.

    Raises:
        ValueError: the file cannot be opened, is no ledger, or is one of a later version; *keep_days* is no number
            of 0 or more.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        keep_days: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keep_days = None if keep_days is None else _checked(keep_days)
        self._db = Database(
            path,
            what="ledger",
            schema=tables.SCHEMA,
            owner=_OURS,
            version=tables.VERSION,
            upgrades=tables.UPGRADES,
            patience=_PATIENCE,
        )
        self._late = Late()
        self._clock = clock
        self._next_prune = float("-inf")

    @property
    def path(self) -> Path | None:
        """The file; None for a ledger in memory."""
        return self._db.path

    def append(self, record: CallRecord) -> None:
        """Keep *record*, once, and charge the draft that it replaces; a shadow call saves minus its cost.

        Raises sqlite3.Error if it cannot be written, as on a full disk; then nothing of it is kept.
        """
        self._append(_row(record))

    def append_soon(self, record: CallRecord) -> None:
        """Do the same, but wait for nobody: what is locked gets *record* when it is free, or when the program or the ledger ends.

        Raises sqlite3.Error if it cannot be written for another reason, or if thousands of records wait.
        """
        if type(self).append is not Ledger.append:  # whoever makes a ledger of their own does so by that
            self.append(record)
        else:
            self._late(partial(self._append, _row(record)))

    def _append(self, row: Mapping[str, Any], patience: float | None = None) -> None:
        with self._db.transaction("IMMEDIATE", patience=patience) as db:
            if db.execute(_INSERT, row).rowcount:
                db.execute(_REJECT, row)
        if self._keep_days is not None and self._clock() >= self._next_prune:
            self._next_prune = self._clock() + 3600
            self._prune(self._keep_days, patience)

    def records(self, since: float | None = None) -> list[CallRecord]:
        """List the calls that ended at *since* (seconds since the epoch) or later, the oldest first.

        The savings of a rejected draft or a shadow call are those that it was left with: minus its cost.
        """
        with self._db.transaction() as db:
            earliest = float("-inf") if since is None else _moment(since)
            rows = db.execute("SELECT * FROM calls WHERE at >= ? ORDER BY at, rowid", [earliest])
            return [_record(dict(row)) for row in rows]

    def score(self, id: str, score: float, *, source: str = "user") -> None:  # noqa: A002 - as in `CallRecord`
        """Keep how good the answer of the record *id* was, from 0 to 1, as *source* judges it.

        The newest score of a source counts. The record may be appended later.
        Raises ValueError for any other score, and sqlite3.Error if it cannot be written.
        """
        if not isinstance(score, Real) or not 0 <= score <= 1:
            raise ValueError(f"a score is from 0 (bad) to 1 (good), not {score!r}")
        self._db.run(_SCORE, id, source, self._clock(), float(score))

    def keep_text(self, id: str, question: str, answer: str, *, at: float) -> None:  # noqa: A002 - as in `CallRecord`
        """Keep what was asked and answered in the call of the record *id*, which ended at *at*; once.

        It is forgotten with the calls of its time. It waits for nobody, as `append_soon`, and raises what that raises.
        """
        row = (_utf8(id), at, _utf8(question), _utf8(answer))

        def write(patience: float) -> None:
            with self._db.transaction("IMMEDIATE", patience=patience) as db:
                db.execute(_TEXT, row)

        self._late(write)

    def text(self, id: str) -> Text | None:  # noqa: A002 - as in `CallRecord`
        """Return what was asked and answered in the call of the record *id*; None if it was not kept."""
        rows = self._db.run("SELECT question, answer FROM texts WHERE id = ?", id)
        return Text(**dict(rows[0])) if rows else None

    def repeats(self, hours: float | None = 24) -> Repeats:
        """Count the requests of the last *hours*, or of all time if None, that repeat an earlier one of any time.

        The same is a request of the same tenant to the same model, word for word and with the same options, told by
        `CallRecord.request`. Every call is read, some seconds for a million.
        """
        with self._db.transaction() as db:
            row = db.execute(_REPEATS, {"since": self._since(hours)}).fetchone()
        return Repeats(requests=row["requests"], unpriced=row["unpriced"], cost_usd=usd(row["cost"]))

    def summary(self, hours: float | None = 24) -> Summary:
        """Sum up the last *hours*; all there is if None."""
        with self._db.transaction() as db:
            return summarise(db, self._since(hours))

    def requests(self, hours: float | None = 24) -> list[Request]:
        """List the requests that ended in the last *hours*, the oldest first, each with its drafts; all if None."""
        with self._db.transaction() as db:
            return list(requests_of(db, self._since(hours)))

    def spent(self, since: float, tag: str | None = None) -> Decimal:
        """Sum up the US dollars paid at *since* (seconds since the epoch) or later, by calls with *tag* if one is given.

        With a tag every call since then is read, some 0.1 s for 200,000.
        """
        query = rollup.SPENT if tag is None else _SPENT_UNDER
        with self._db.transaction() as db:
            (paid,) = db.execute(query, {**rollup.span(_moment(since)), "tag": tag}).fetchone()
        return usd(paid)

    def totals(self, by: By, hours: float | None = 24) -> list[Total]:
        """Sum up the last *hours*, or all there is if None, under each model, tag, endpoint, tenant or day.

        Days come the oldest first, all else the dearest first. A call with several tags counts under each of them.
        By tag, endpoint or tenant every call is read, some seconds for a million.
        """
        with self._db.transaction() as db:
            return totals_of(db, by, self._since(hours))

    def figures(self, hours: float | None = None) -> Figures | None:
        """Sum up what a report shows of the last *hours*, or of all there is; None without a call.

        Every call is read, some seconds for a million, but a few thousand rows are kept.
        """
        with self._db.transaction() as db:
            return figures_of(db, self._since(hours), self._clock())

    def prune(self, days: float) -> int:
        """Forget the calls that ended more than *days* before this hour began, their scores and texts; say how many calls.

        The file keeps its size, and its room is used again.
        """
        return self._prune(_checked(days), None)

    def _prune(self, days: float, patience: float | None) -> int:
        first = int(self._clock() - days * 86_400) // 3600
        with self._db.transaction("IMMEDIATE", patience=patience) as db:
            gone = db.execute("DELETE FROM calls WHERE at < ?", [first * 3600]).rowcount
            for statement in rollup.FORGET:
                db.execute(statement, {"first": first})
            db.execute("DELETE FROM texts WHERE at < ?", [first * 3600])
            db.execute("DELETE FROM scores WHERE at < ? AND id NOT IN (SELECT id FROM calls)", [first * 3600])
        return gone

    def close(self) -> None:
        """Close the file; what was appended stays, and what is late is waited for."""
        self._late.settle()
        self._db.close()

    def _since(self, hours: float | None) -> float:
        if hours is None:
            return float("-inf")
        if not isinstance(hours, Real) or not hours >= 0:
            raise ValueError(f"calls are summed up over a number of hours, 0 or more, or None for all, not {hours!r}")
        return self._clock() - hours * 3600

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _checked(days: float) -> float:
    if not isinstance(days, Real) or not 0 <= days < float("inf"):
        raise ValueError(f"calls are kept for a number of days, 0 or more, not {days!r}")
    return days


def _moment(since: float) -> float:
    if not isinstance(since, Real) or isnan(since):  # SQLite finds no call after what is no number, and says nothing
        raise ValueError(f"calls are told from a moment on, in seconds since the epoch, not {since!r}")
    return since


def _row(record: CallRecord) -> dict[str, Any]:
    fields = {name: getattr(record, name) for name in CallRecord.__slots__ if name != "saved"}
    fields = {name: _utf8(value) if isinstance(value, str) else value for name, value in fields.items()}
    saved = {cause: None if record.saved is None else getattr(record.saved, cause) for cause in CAUSES}
    if record.shadow:  # the request itself is compared with the baseline, and this call came on top
        saved = dict.fromkeys(CAUSES, Decimal(0)) | {"router": record.cost and -record.cost}
    return fields | {
        "usage": None if record.usage is None else json.dumps(asdict(record.usage)),
        "tags": json.dumps([_utf8(tag) for tag in record.tags]),
        "rejected": record.spare and record.error is not None,  # the call that stands in for it is the request
        "cost": _units(record.cost),
        **{f"saved_{cause}": _units(amount) for cause, amount in saved.items()},
    }


def _record(row: dict[str, Any]) -> CallRecord:
    del row["rejected"]
    saved = {cause: row.pop(f"saved_{cause}") for cause in CAUSES}
    return CallRecord(
        **row
        | {
            "usage": None if row["usage"] is None else Usage(**json.loads(row["usage"])),
            "tags": tuple(json.loads(row["tags"])),
            "cost": None if row["cost"] is None else usd(row["cost"]),
            "saved": None if None in saved.values() else Saved(**{cause: usd(n) for cause, n in saved.items()}),
            "batch": bool(row["batch"]),
            "shadow": bool(row["shadow"]),
        }
    )


def _utf8(text: str) -> str:
    """Put `?` for halves of characters, as a cut emoji leaves them: SQLite refuses them, or their sums ever after."""
    return text.encode(errors="replace").decode()


def _units(amount: Decimal | None) -> int | None:
    return None if amount is None else units(amount)
