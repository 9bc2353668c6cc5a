"""The ledger: every call once, exact sums, and what many processes and a full disk do to it."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_costopt.monitor.ledger import Ledger, Text
from llm_costopt.types import CallRecord, Saved, Usage

NOW = 1_000_000.0


def call(name: str, **fields: Any) -> CallRecord:
    """Make a record of a call that cost a dollar and saved nothing."""
    return replace(CallRecord(id=name, at=NOW, model="cheap", cost=Decimal(1), saved=Saved()), **fields)


@pytest.fixture(params=["memory", "file"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """Make an empty ledger, once in memory and once in a file."""
    with Ledger(None if request.param == "memory" else tmp_path / "ledger.db", clock=lambda: NOW) as ledger:
        yield ledger


def test_a_record_comes_back_as_it_was(ledger: Ledger) -> None:
    """Every field survives, the smallest amount of money included."""
    full = CallRecord(
        id="a",
        at=NOW + 0.25,
        model="cheap",
        provider="openai",
        usage=Usage(input_tokens=5, output_tokens=4, cache_read_tokens=3, reasoning_tokens=2),
        cost=Decimal("0.00000000001"),
        saved=Saved(cache=Decimal("0.1"), router=Decimal("-0.2"), batch=Decimal("0.3"), prompt_cache=Decimal("-0.4")),
        latency=1.5,
        cache="semantic",
        complexity="medium",
        replaces="b",
        batch=True,
        tags=("x", "y"),
        error="TimeoutError",
        tier="strong",
        why="long question",
        arm="control",
        endpoint="POST /ask",
        tenant="acme",
        request="5f2c",
    )
    bare = CallRecord(id="c", at=NOW + 1, model=None, cost=None)
    ledger.append(bare)
    ledger.append(full)

    assert ledger.records() == [full, bare]


def test_records_can_be_listed_from_a_moment_on(ledger: Ledger) -> None:
    """Only what ended then or later is listed, oldest first."""
    for name, at in [("late", 3.0), ("early", 1.0), ("then", 2.0)]:
        ledger.append(call(name, at=at))

    assert [record.id for record in ledger.records(since=2.0)] == ["then", "late"]


def test_an_empty_ledger_has_no_rates(ledger: Ledger) -> None:
    """Without a request, sums are 0 and everything per request is undefined."""
    summary = ledger.summary()

    assert (summary.requests, summary.cost_usd, summary.saved_usd, summary.unpriced) == (0, Decimal(0), Decimal(0), 0)
    assert (summary.cost_per_request, summary.hit_rate, summary.escalation_rate, summary.mean_latency) == (None,) * 4
    assert (summary.cost_by_model, summary.unpriced_models) == ({}, ())


def test_a_record_counts_once(ledger: Ledger) -> None:
    """A record that is appended again, even with another amount, changes nothing."""
    ledger.append(call("a", cost=Decimal(1)))
    ledger.append(call("a", cost=Decimal(5)))

    assert ledger.summary().cost_usd == 1


def test_a_record_without_what_it_must_have_is_an_error(ledger: Ledger) -> None:
    """Only a known id is ignored; a record that cannot be kept is not dropped in silence."""
    with pytest.raises(sqlite3.IntegrityError):
        ledger.append(call("a", at=None))


def test_the_summary_counts_by_kind(ledger: Ledger) -> None:
    """Calls, hits, failures and amounts each land in their own figure."""
    ledger.append(call("a", cost=Decimal(3), latency=2.0))
    ledger.append(call("b", cost=Decimal(4), model="strong", latency=4.0, saved=Saved(batch=Decimal(4))))
    ledger.append(call("c", cost=Decimal(0), cache="exact", latency=0.0, saved=Saved(cache=Decimal(3))))
    ledger.append(call("d", cost=Decimal(0), cache="semantic", latency=0.0, saved=Saved(cache=Decimal(5))))
    ledger.append(call("e", cost=None, saved=None, error="TimeoutError"))
    summary = ledger.summary()

    assert (summary.requests, summary.calls, summary.errors, summary.unpriced) == (5, 3, 1, 0)
    assert summary.unpriced_models == ()
    assert (summary.hits, summary.hit_rate) == ({"exact": 1, "semantic": 1}, 0.4)
    assert (summary.cost_usd, summary.cost_per_request) == (Decimal(7), Decimal("1.75"))
    assert list(summary.cost_by_model.items()) == [("strong", Decimal(4)), ("cheap", Decimal(3))]
    assert (summary.saved, summary.saved_usd) == (Saved(cache=Decimal(8), batch=Decimal(4)), Decimal(12))
    assert summary.mean_latency == 1.5


def test_the_summary_looks_back_some_hours(ledger: Ledger) -> None:
    """A day is the default, None is all there is."""
    ledger.append(call("old", at=NOW - 25 * 3600))
    ledger.append(call("older than an hour", at=NOW - 2 * 3600))
    ledger.append(call("new"))

    assert [ledger.summary(hours).requests for hours in (1, 24, None)] == [1, 2, 3]
    assert ledger.summary().requests == 2


def test_an_unpriced_call_is_named_and_not_taken_for_free(ledger: Ledger) -> None:
    """A call of unknown cost is counted and named, and leaves the mean cost alone."""
    ledger.append(call("a", cost=Decimal(2)))
    ledger.append(call("b", cost=None, saved=None, model="new"))
    ledger.append(call("c", cost=None, saved=None, model=None))
    summary = ledger.summary()

    assert (summary.unpriced, summary.unpriced_models) == (2, ("new", "unknown"))
    assert (summary.cost_usd, summary.cost_per_request) == (Decimal(2), Decimal(2))


def test_an_escalated_request_is_one_request_of_two_calls(ledger: Ledger) -> None:
    """The draft's saving is taken back and its cost charged, when the call that replaces it is appended."""
    ledger.append(call("draft", complexity="medium", latency=1.0, saved=Saved(router=Decimal(9))))
    before = ledger.summary()
    ledger.append(call("final", model="strong", cost=Decimal(10), complexity="medium", latency=3.0, replaces="draft"))
    after = ledger.summary()

    assert (before.requests, before.saved_usd, before.escalation_rate) == (1, Decimal(9), 0.0)
    assert (after.requests, after.calls, after.escalation_rate) == (1, 2, 1.0)
    assert (after.cost_usd, after.cost_per_request, after.saved) == (
        Decimal(11),
        Decimal(11),
        Saved(router=Decimal(-1)),
    )
    assert after.mean_latency == 4.0


def test_a_draft_may_be_recorded_after_the_call_that_replaced_it(ledger: Ledger) -> None:
    """The order in which two records arrive makes no difference."""
    ledger.append(call("final", cost=Decimal(10), replaces="draft"))
    ledger.append(call("draft", saved=Saved(router=Decimal(9), batch=Decimal(1))))
    summary = ledger.summary()

    assert (summary.requests, summary.saved) == (1, Saved(router=Decimal(-1)))


def test_a_draft_is_charged_once(ledger: Ledger) -> None:
    """Repeating either record leaves the totals as they are."""
    draft, final = call("draft", saved=Saved(router=Decimal(9))), call("final", cost=Decimal(10), replaces="draft")
    for record in (draft, final, draft, final):
        ledger.append(record)

    assert ledger.summary().saved == Saved(router=Decimal(-1))
    assert ledger.records()[0].saved == Saved(router=Decimal(-1))


def test_a_draft_from_the_cache_saves_nothing(ledger: Ledger) -> None:
    """A hit that was not good enough is neither a hit nor a saving."""
    ledger.append(call("draft", cost=Decimal(0), cache="exact", saved=Saved(cache=Decimal(10))))
    ledger.append(call("final", cost=Decimal(10), replaces="draft"))
    summary = ledger.summary()

    assert (summary.hit_rate, summary.saved_usd, summary.calls) == (0.0, Decimal(0), 1)


def test_a_draft_of_unknown_cost_stays_unknown(ledger: Ledger) -> None:
    """A rejected draft without a price is still unpriced, and a failed one is still an error."""
    ledger.append(call("draft", cost=None, saved=None, model="new"))
    ledger.append(call("failed", cost=None, saved=None, error="TimeoutError", replaces="draft"))
    ledger.append(call("final", cost=Decimal(10), replaces="failed"))
    summary = ledger.summary()

    assert (summary.requests, summary.calls, summary.errors, summary.unpriced) == (1, 3, 1, 1)
    assert ledger.records()[0].saved is None


def test_only_routed_requests_can_be_escalated(ledger: Ledger) -> None:
    """Requests that no router saw do not dilute the rate."""
    ledger.append(call("plain"))
    ledger.append(call("simple", complexity="simple"))
    ledger.append(call("draft", complexity="medium"))
    ledger.append(call("final", complexity="medium", replaces="draft"))

    assert ledger.summary().escalation_rate == 0.5


def test_the_batch_api_does_not_count_as_slow(ledger: Ledger) -> None:
    """Hours in the Batch API say nothing about how long people wait."""
    ledger.append(call("quick", latency=1.0))
    ledger.append(call("overnight", latency=30_000.0, batch=True))

    assert ledger.summary().mean_latency == 1.0


def test_a_shadow_call_is_cost_and_no_request(ledger: Ledger) -> None:
    """What is asked only to compare is a call that saves minus its cost, and changes nothing of the requests."""
    ledger.append(call("answer", cost=Decimal(2), latency=1.0, complexity="simple", saved=Saved(router=Decimal(8))))
    before = ledger.summary()
    shadow = call("shadow", cost=Decimal(10), latency=9.0, complexity="simple", shadow=True, model="strong")
    ledger.append(replace(shadow, saved=Saved(router=Decimal(5), cache=Decimal(1))))
    ledger.append(replace(shadow, id="hit", cost=Decimal(0), cache="semantic", saved=Saved(cache=Decimal(10))))
    ledger.append(replace(shadow, id="lost", cost=None, saved=None, error="TimeoutError"))
    ledger.append(replace(shadow, id="unpriced", cost=None, saved=None, model="new"))
    after = ledger.summary()

    assert after == replace(
        before,
        calls=4,
        shadow_calls=4,
        errors=1,
        unpriced=1,
        unpriced_models=("new",),
        cost_usd=Decimal(12),
        shadow_usd=Decimal(10),
        cost_per_request=Decimal(12),
        cost_by_model={"strong": Decimal(10), "cheap": Decimal(2)},
        saved=Saved(router=Decimal(-2)),
        saved_usd=Decimal(-2),
    )
    assert [r.saved for r in ledger.records()[1:]] == [Saved(router=Decimal(-10)), Saved(), None, None]


def test_a_shadow_call_replaces_no_answer(ledger: Ledger) -> None:
    """An answer stays a request even if a shadow call names it, in either order."""
    ledger.append(call("early"))
    for name in ("early", "late"):
        ledger.append(call(f"beside {name}", shadow=True, replaces=name))
    ledger.append(call("late"))

    assert (ledger.summary().requests, ledger.summary().rejected_usd) == (2, Decimal(0))


def test_rejected_drafts_are_a_part_of_the_cost(ledger: Ledger) -> None:
    """What drafts cost is told apart, each once."""
    ledger.append(call("draft", cost=Decimal(3)))
    ledger.append(call("final", cost=Decimal(10), replaces="draft"))
    summary = ledger.summary()

    assert (summary.cost_usd, summary.rejected_usd, summary.shadow_usd) == (Decimal(13), Decimal(3), Decimal(0))


def scores(ledger: Ledger) -> list[tuple[Any, ...]]:
    """Read the table of scores."""
    return [tuple(row) for row in ledger._db.run("SELECT id, source, at, score FROM scores ORDER BY id, source")]


def test_the_newest_score_of_a_source_counts(ledger: Ledger) -> None:
    """A source may change its mind, several sources stand beside each other, and no record is needed."""
    ledger.score("a", 0)
    ledger.score("a", 0.25, source="judge")
    ledger.score("a", 1)
    ledger.score("later", 0.5)

    assert scores(ledger) == [("a", "judge", NOW, 0.25), ("a", "user", NOW, 1.0), ("later", "user", NOW, 0.5)]


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan"), float("inf"), "1", None])
def test_a_score_is_from_0_to_1(ledger: Ledger, score: Any) -> None:
    """Stars, percentages and no number at all are refused, and nothing is kept."""
    with pytest.raises(ValueError, match="a score is from 0"):
        ledger.score("a", score)

    assert scores(ledger) == []


@given(st.lists(st.decimals(0, 50, places=11), max_size=30))
def test_sums_are_exact(amounts: list[Decimal]) -> None:
    """The sum of any amounts is the sum to the last digit, which floats would not give."""
    with Ledger(clock=lambda: NOW) as ledger:
        for number, amount in enumerate(amounts):
            ledger.append(call(str(number), cost=amount, saved=Saved(router=-amount)))
        summary = ledger.summary()

    assert (summary.cost_usd, summary.saved_usd) == (sum(amounts), -sum(amounts))


HOUR = 3600
DAY = 24 * HOUR
MOMENTS = st.sampled_from([0.0, 0.5, HOUR - 0.5, HOUR, HOUR + 0.5, 5 * HOUR, DAY - 1e-6, DAY, DAY + 0.5, 2 * DAY])
RECORDS = st.builds(
    CallRecord,
    id=st.sampled_from("abcdef"),
    at=MOMENTS,
    model=st.sampled_from(["cheap", "strong", None]),
    cost=st.none() | st.sampled_from([Decimal(0), Decimal("0.5"), Decimal(2)]),
    saved=st.none()
    | st.builds(
        Saved,
        router=st.sampled_from([Decimal(-1), Decimal(3)]),
        cache=st.just(Decimal(1)),
        prompt_cache=st.sampled_from([Decimal(0), Decimal(5)]),
    ),
    latency=st.none() | st.sampled_from([0.25, 4.0]),
    cache=st.sampled_from([None, None, "exact", "semantic"]),
    complexity=st.sampled_from([None, "simple"]),
    replaces=st.none() | st.sampled_from("abcdef"),
    batch=st.booleans(),
    error=st.sampled_from([None, None, "TimeoutError"]),
    shadow=st.booleans(),
)


def counted(ledger: Ledger, since: float) -> dict[str, Any]:
    """Count one record after the other."""
    everything, calls = ledger.records(), ledger.records(since)
    replaced = {r.replaces for r in everything if not r.shadow}
    requests = [r for r in calls if r.id not in replaced and not r.shadow]
    timed = [r for r in requests if r.latency is not None and not r.batch]
    seconds = [r.latency for r in calls if r.latency is not None and not r.batch and not r.shadow]
    routed = [r for r in requests if r.complexity or r.replaces]
    paid = {r.model or "unknown": Decimal(0) for r in calls if not r.cache and r.cost is not None}
    for r in calls:
        if r.model in paid or (r.model is None and "unknown" in paid):
            paid[r.model or "unknown"] += r.cost or 0
    return {
        "requests": len(requests),
        "calls": sum(r.cache is None for r in calls),
        "shadow_calls": sum(r.shadow for r in calls),
        "errors": sum(r.error is not None for r in calls),
        "hits": {kind: sum(r.cache == kind for r in requests) for kind in ("exact", "semantic")},
        "escalation_rate": sum(r.replaces is not None for r in routed) / len(routed) if routed else None,
        "mean_latency": sum(seconds) / len(timed) if timed else None,
        "unpriced": sum(r.cost is None and r.error is None for r in calls),
        "unpriced_models": tuple(sorted({r.model or "unknown" for r in calls if r.cost is None and r.error is None})),
        "cost_usd": sum(r.cost or 0 for r in calls),
        "rejected_usd": sum(r.cost or 0 for r in calls if r.id in replaced and not r.shadow),
        "shadow_usd": sum(r.cost or 0 for r in calls if r.shadow),
        "cost_by_model": paid,
        "saved": Saved(**{c.name: sum(getattr(r.saved, c.name) for r in calls if r.saved) for c in fields(Saved)}),
    }


@given(st.lists(RECORDS, max_size=12), MOMENTS)
def test_a_summary_is_what_counting_gives(records: list[CallRecord], moment: float) -> None:
    """Whatever is appended, twice, late or out of order, the days, the hours and the part before them add up to every call."""
    with Ledger(clock=lambda: 50.0 * HOUR) as ledger:
        for record in records:
            ledger.append(record)
        since = moment - 0.25  # between two moments, since hours that are looked back are rounded
        spent = ledger.spent(since), ledger.spent(float("-inf")), ledger.spent(float("inf"))
        spans = [
            (ledger.summary(hours), counted(ledger, at)) for hours, at in ((50 - since / HOUR, since), (None, 0.0))
        ]

    assert spent == (*(expected["cost_usd"] for _, expected in spans), 0)
    for summary, expected in spans:
        assert {name: getattr(summary, name) for name in expected} == expected
        assert summary.saved_usd == summary.saved.cache + summary.saved.router + summary.saved.batch


def test_savings_of_an_hour_follow_a_late_rejection(ledger: Ledger) -> None:
    """A draft of an hour that is long over is charged in that hour."""
    ledger.append(call("draft", at=NOW - 5 * HOUR, saved=Saved(router=Decimal(9))))
    ledger.append(call("final", replaces="draft"))

    assert [ledger.summary(hours).saved.router for hours in (1, 6, None)] == [Decimal(0), Decimal(-1), Decimal(-1)]


def test_calls_are_forgotten_with_their_scores() -> None:
    """What ended before the hour that many days ago is gone from every figure, and the rest stays as it is."""
    begin, now = NOW // HOUR * HOUR, [0.0]
    with Ledger(clock=lambda: now[0]) as ledger:
        for name, at in (("old", begin - 86_400 - 1), ("edge", begin - 86_400), ("new", NOW)):
            now[0] = at
            ledger.append(call(name, at=at))
            ledger.score(name, 1)
        ledger.score("never recorded", 1)

        assert ledger.prune(days=1) == 1
        assert ledger.prune(days=1) == 0
        assert [record.id for record in ledger.records()] == ["edge", "new"]
        assert [request.id for request in ledger.requests(None)] == ["edge", "new"]
        assert (ledger.summary(None).requests, ledger.summary(None).cost_usd) == (2, Decimal(2))
        assert [name for name, *_ in scores(ledger)] == ["edge", "never recorded", "new"]


def test_what_is_left_of_a_day_is_summed_up() -> None:
    """However much of a day is forgotten, the totals are those of the calls that are left, and go on with new ones."""
    begin = 10 * 86_400
    for hours_ago in range(20, 76, 5):
        with Ledger(clock=lambda: begin + 3 * 86_400.0) as ledger:
            for hour in range(72):
                ledger.append(call(str(hour), at=begin + hour * HOUR + 60.0, model=f"m{hour % 2}"))
            ledger.prune(hours_ago / 24)
            ledger.append(call("new", at=begin + 71 * HOUR + 90.0, replaces="71"))
            left = ledger.records()

            assert ledger.summary(None).calls == len(left) == min(hours_ago, 72) + 1
            assert ledger.summary(None).requests == len(left) - 1
            assert sum(t.calls for t in ledger.totals("day", None)) == len(left)
            assert sum(t.calls for t in ledger.totals("day", 26.5)) == sum(r.at >= begin + 45.5 * HOUR for r in left)


def test_a_score_of_a_call_that_stays_is_kept_however_old() -> None:
    """A score that came long before its record goes with the record, and one without a record by its own age."""
    now = [NOW - 9 * 86_400]
    with Ledger(clock=lambda: now[0]) as ledger:
        ledger.score("late", 1)
        ledger.score("never recorded", 1)
        now[0] = NOW
        ledger.append(call("late"))
        ledger.prune(days=1)

        assert [name for name, *_ in scores(ledger)] == ["late"]


def test_a_ledger_keeps_calls_for_some_days(tmp_path: Path) -> None:
    """With `keep_days`, appending forgets what is older, once an hour and never while it is only read."""
    path, now = tmp_path / "ledger.db", [NOW]
    with Ledger(path, clock=lambda: now[0]) as ledger:
        ledger.append(call("old", at=NOW - 3 * 86_400))
    with Ledger(path, keep_days=2, clock=lambda: now[0]) as ledger:
        read = ledger.summary(None).requests
        ledger.append(call("new"))
        ledger.append(call("late", at=NOW - 3 * 86_400))
        kept = [record.id for record in ledger.records()]
        now[0] += HOUR
        ledger.append(call("newer"))
        later = [record.id for record in ledger.records()]

    assert (read, kept, later) == (1, ["late", "new"], ["new", "newer"])


@pytest.mark.parametrize("days", [-1.0, float("nan"), float("inf"), "3"])
def test_days_are_a_number(tmp_path: Path, days: Any) -> None:
    """Days that are none are refused before anything is opened or forgotten."""
    with pytest.raises(ValueError, match="a number of days"):
        Ledger(tmp_path / "ledger.db", keep_days=days)
    with Ledger() as ledger, pytest.raises(ValueError, match="a number of days"):
        ledger.prune(days)

    assert list(tmp_path.iterdir()) == []


def test_a_file_survives(tmp_path: Path) -> None:
    """What one ledger kept, the next one finds."""
    path = tmp_path / "ledger.db"
    with Ledger(path) as first:
        first.append(call("a"))
    with Ledger(str(path)) as second:
        found = second.records()

    assert found == [call("a")]


def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """Nobody else may read the file or SQLite's files beside it, and permissions that were given stay."""
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        ledger.append(call("a"))
        modes = {stat.S_IMODE(f.stat().st_mode) for f in tmp_path.iterdir()}
    path.chmod(0o640)
    Ledger(path).close()

    assert modes == {0o600}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_closed_ledger_says_so(ledger: Ledger) -> None:
    """A call that comes too late is an error, and closing twice is none."""
    ledger.close()
    ledger.close()

    with pytest.raises(ValueError, match="the ledger is closed: make another one"):
        ledger.append(call("a"))


def test_a_path_that_cannot_be_opened_names_the_way_out(tmp_path: Path) -> None:
    """A missing folder or a folder in place of a file is named at construction."""
    for path in (tmp_path / "missing" / "ledger.db", tmp_path):
        with pytest.raises(
            ValueError, match=r"cannot open the ledger .*; give a file of its own in a folder that exists"
        ):
            Ledger(path)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A text file is not overwritten."""
    path = tmp_path / "notes.txt"
    path.write_text("precious " * 100)

    with pytest.raises(ValueError, match="file is not a database; give a file of its own"):
        Ledger(path)
    assert path.read_text() == "precious " * 100


@pytest.mark.parametrize("sql", ["CREATE TABLE theirs (x)", "PRAGMA user_version = 1", "PRAGMA application_id = 7"])
def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path, sql: str) -> None:
    """A database of something else gets no table of ours, even if its version number is ours."""
    path = tmp_path / "theirs.db"
    theirs = sqlite3.connect(path)
    theirs.execute(sql)
    theirs.close()
    before = path.read_bytes()

    with pytest.raises(ValueError, match="is a database, but not a ledger"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    """A later release's file is not written to."""
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger, ledger._db.transaction() as db:
        db.execute("PRAGMA user_version = 5")

    with pytest.raises(ValueError, match="has schema version 5, and this release keeps version 4: give another path"):
        Ledger(path)


def shape(ledger: Ledger) -> list[tuple[str, str]]:
    """Say what the file is made of, however its statements are laid out."""
    rows = ledger._db.run("SELECT name, coalesce(sql, '') FROM sqlite_master ORDER BY name")
    return [(name, "".join(sql.split())) for name, sql in rows]


OF_RELEASE_0_1 = """
CREATE TABLE calls (
    id TEXT PRIMARY KEY, at REAL NOT NULL, model TEXT, provider TEXT, usage TEXT, cost INTEGER, saved_cache INTEGER,
    saved_router INTEGER, saved_batch INTEGER, latency REAL, cache TEXT, complexity TEXT, replaces TEXT,
    batch INTEGER NOT NULL, tags TEXT NOT NULL, error TEXT, rejected INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX calls_at ON calls (at);
CREATE INDEX calls_replaces ON calls (replaces) WHERE replaces IS NOT NULL;
INSERT INTO calls VALUES
    ('draft', 1, 'cheap', NULL, NULL, 100000000000, 0, -100000000000, 0, 1.5, NULL, 'medium', NULL, 0, '["x"]', NULL, 1),
    ('final', 2, 'strong', NULL, NULL, 1000000000000, 0, 0, 0, 3.5, NULL, 'medium', 'draft', 0, '["x"]', NULL, 0);
PRAGMA application_id = 1819045219;
PRAGMA user_version = 1;
"""


def test_a_ledger_of_version_1_goes_on(tmp_path: Path) -> None:
    """A file of release 0.1 keeps its calls and takes new ones, and its tables are those of a new file."""
    path = tmp_path / "ledger.db"
    old = sqlite3.connect(path)
    old.executescript(OF_RELEASE_0_1)
    old.close()
    with Ledger(path, clock=lambda: NOW) as ledger, Ledger() as new:
        ledger.append(call("new", tier="cheap"))
        ledger.score("final", 1)
        draft, final, last = ledger.records()
        summary = ledger.summary(None)
        shapes = [shape(ledger), shape(new)]

    assert draft == call(
        "draft", at=1.0, saved=Saved(router=Decimal(-1)), latency=1.5, complexity="medium", tags=("x",)
    )
    assert (final.replaces, final.tier, final.shadow, last.tier) == ("draft", None, False, "cheap")
    assert (summary.requests, summary.calls, summary.cost_usd, summary.rejected_usd) == (2, 3, Decimal(12), Decimal(1))
    assert shapes[0] == shapes[1]


def test_a_ledger_of_version_3_goes_on(tmp_path: Path) -> None:
    """A file of the release before keeps its calls, scores and totals, takes what is new, and has the tables of a new file."""
    path = tmp_path / "ledger.db"
    old = sqlite3.connect(path)
    old.executescript((Path(__file__).parent / "ledger_v3.sql").read_text(encoding="utf-8"))
    old.close()
    with Ledger(path, clock=lambda: 4000.0) as ledger, Ledger() as new:
        before = ledger.summary(None)
        ledger.append(call("new", at=4000.0, endpoint="/ask", tenant="acme", saved=Saved(prompt_cache=Decimal(2))))
        after, (draft, *_, last) = ledger.summary(None), ledger.records()
        shapes = [shape(ledger), shape(new)]

        assert [t.key for t in ledger.totals("endpoint", None)] == [None, "/ask"]
        assert [name for name, *_ in scores(ledger)] == ["final"]
    assert (before.requests, before.calls, before.cost_usd, before.rejected_usd) == (3, 3, Decimal(11), Decimal(1))
    assert (before.saved, before.unpriced) == (Saved(cache=Decimal(10), router=Decimal(-1)), 1)
    assert (after.requests, after.saved.prompt_cache) == (4, Decimal(2))
    assert (draft.saved, draft.endpoint, last.endpoint) == (Saved(router=Decimal(-1)), None, "/ask")
    assert shapes[0] == shapes[1]


def test_a_full_disk_is_an_error_that_leaves_the_totals_right(tmp_path: Path) -> None:
    """An append that does not fit raises, keeps nothing of its record, and the rest can still be read."""
    with Ledger(tmp_path / "ledger.db", clock=lambda: NOW) as ledger:
        ledger.append(call("draft", saved=Saved(router=Decimal(9))))
        with ledger._db.transaction() as db:
            pages = db.execute("PRAGMA page_count").fetchone()[0]
            db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            ledger.append(call("final", replaces="draft", model="m" * 100_000))
        summary = ledger.summary()

    assert (summary.requests, summary.saved_usd) == (1, Decimal(9))


def test_a_failure_halfway_keeps_nothing(ledger: Ledger) -> None:
    """If the draft cannot be charged, the call that replaced it is not kept either."""
    ledger.append(call("draft"))
    with ledger._db.transaction() as db:
        db.execute("CREATE TRIGGER no BEFORE UPDATE ON calls BEGIN SELECT raise(ABORT, 'no'); END")
    with pytest.raises(sqlite3.IntegrityError):
        ledger.append(call("final", replaces="draft"))

    assert ledger.summary().requests == 1


def test_whoever_reads_holds_up_nobody(tmp_path: Path) -> None:
    """Another program may look at the file for as long as it likes while calls are appended."""
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        seen = reader.execute("SELECT count(*) FROM calls").fetchone()
        ledger.append(call("a"))
        reader.close()

        assert (seen, len(ledger.records())) == ((0,), 1)


def test_many_threads_share_one_ledger(ledger: Ledger) -> None:
    """Nothing is lost or counted twice when threads append at once."""

    def work(name: int) -> None:
        for number in range(50):
            ledger.append(call(f"{name}-{number}"))

    threads = [threading.Thread(target=work, args=[name]) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (ledger.summary().requests, ledger.summary().cost_usd) == (400, Decimal(400))


WRITER = """
import sys
from decimal import Decimal
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.types import CallRecord, Saved
_, path, name = sys.argv
with Ledger(path) as ledger:
    for n in range(100):
        ledger.append(CallRecord(id=f"{name}-{n}", at=1.0, model="m", cost=Decimal("0.1"), saved=Saved()))
        ledger.append(CallRecord(id=f"shared-{n}", at=1.0, model="m", cost=Decimal("0.1"), saved=Saved()))
"""


def test_several_processes_share_one_file(tmp_path: Path) -> None:
    """Processes that make the file at the same time and write at the same time lose and repeat nothing."""
    path = tmp_path / "ledger.db"
    command = [sys.executable, "-W", "error", "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, str(name)]) for name in range(4)]
    codes = [writer.wait(60) for writer in writers]
    with Ledger(path) as ledger:
        summary = ledger.summary(None)

    assert codes == [0, 0, 0, 0]
    assert (summary.requests, summary.cost_usd) == (500, Decimal(50))


FORKER = """
import os, sys, threading
from decimal import Decimal
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.types import CallRecord, Saved

def append(ledger, id):
    ledger.append(CallRecord(id=id, at=1.0, model="m", cost=Decimal(1), saved=Saved()))

on_disk, in_memory = Ledger(sys.argv[1]), Ledger()
append(in_memory, "parent")
written, stop = [0], threading.Event()
def work():
    while not stop.is_set():
        append(on_disk, f"thread-{written[0]}")
        written[0] += 1
thread = threading.Thread(target=work)
thread.start()
children = []
for n in range(20):
    pid = os.fork()
    if not pid:
        for m in range(5):
            append(on_disk, f"child-{n}-{m}")
        append(in_memory, "child")
        os._exit(in_memory.summary(None).requests - 2)
    children.append(pid)
codes = [os.waitpid(pid, 0)[1] for pid in children]
stop.set()
thread.join()
assert codes == [0] * 20, codes
assert in_memory.summary(None).requests == 1
assert on_disk.summary(None).requests == written[0] + 100
on_disk.close()
check = Ledger(sys.argv[1])
assert check.summary(None).requests == written[0] + 100
check.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="later Pythons warn of any fork beside a thread")
def test_a_fork_is_safe_while_a_thread_writes(tmp_path: Path) -> None:
    """Twenty children, forked beside a busy thread, share the file with it, and each has its own memory."""
    command = [sys.executable, "-W", "error", "-c", FORKER, str(tmp_path / "ledger.db")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (result.returncode, result.stderr) == (0, "")


def test_what_was_spent_under_a_tag() -> None:
    """A budget asks for what calls of a time, and of a tag, have cost; what has no known cost adds nothing."""
    ledger = Ledger()
    for n, (tags, cost) in enumerate([(("a",), "0.1"), (("a", "b"), "0.2"), (("ab",), "0.4"), ((), None)]):
        paid = None if cost is None else Decimal(cost)
        ledger.append(CallRecord(id=str(n), at=float(n), model="m", cost=paid, tags=tags))

    assert ledger.spent(0.0) == Decimal("0.7")
    assert ledger.spent(1.0) == Decimal("0.6")
    assert ledger.spent(0.0, "a") == Decimal("0.3")
    assert ledger.spent(0.0, "nobody") == 0


@pytest.mark.parametrize("hours", [-1, float("nan"), float("-inf"), "24"])
def test_a_span_that_is_none_is_refused(hours: Any) -> None:
    """Sums of no span at all would be zeros that look like nothing spent."""
    ledger = Ledger()
    for read in (ledger.summary, ledger.figures, ledger.requests, ledger.repeats, lambda h: ledger.totals("day", h)):
        with pytest.raises(ValueError, match="number of hours"):
            read(hours)


@pytest.mark.parametrize("since", [float("nan"), "2026-11-24"])
def test_a_moment_that_is_none_is_refused(since: Any) -> None:
    """A budget that asks since when it is no time must not be told that nothing was spent."""
    for read in (Ledger().spent, Ledger().records):
        with pytest.raises(ValueError, match="seconds since the epoch"):
            read(since)


def test_half_a_character_loses_no_call(ledger: Ledger) -> None:
    """What UTF-8 cannot hold, as the half of a cut emoji, becomes a question mark, in names and texts alike."""
    names: dict[str, Any] = dict.fromkeys(("model", "provider", "endpoint", "tenant", "error"), "a\ud83d")
    ledger.append(call("one", tags=("b\ud83d",), **names))
    ledger.keep_text("one", "\ud83d?", "\ud83d!", at=NOW)

    assert [total.key for total in ledger.totals("tag")] == ["b?"]
    assert [total.key for total in ledger.totals("endpoint")] == ["a?"]
    assert ledger.summary().cost_usd == 1
    assert ledger.text("one") == Text(question="??", answer="?!")
