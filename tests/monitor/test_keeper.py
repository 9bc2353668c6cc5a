"""What both hosts' monitors do with a record."""

import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llm_costopt.monitor import late
from llm_costopt.monitor.keeper import Keeper
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.types import CallRecord, Saved, Usage


def test_a_call_is_priced_when_it_is_recorded() -> None:
    """A price that changes later changes nothing of what was kept."""
    dollars = [Decimal(1)]

    def price(model: str, usage: Usage, **_: Any) -> Decimal:
        return dollars[0] * usage.input_tokens

    keeper = Keeper(prices=price, clock=lambda: 0.0)
    call = CallRecord(id="a", at=0.0, model="m", cost=None, usage=Usage(input_tokens=2, output_tokens=0))
    keeper.keep(call, None)
    dollars[0] = Decimal(100)
    keeper.keep(replace(call, id="b"), None)

    assert [r.cost for r in keeper.records()] == [Decimal(2), Decimal(200)]
    assert keeper.summary().cost_usd == Decimal(202)


def test_all_causes_reach_the_summary_and_the_totals() -> None:
    """A routed call in a batch with a prompt cache saves by three causes, of which the provider's own is no part of our total."""

    def price(model: str, usage: Usage, *, batch: bool = False, **_: Any) -> Decimal:
        tokens = usage.input_tokens - Decimal("0.5") * usage.cache_read_tokens
        return (10 if model == "strong" else 1) * tokens / (2 if batch else 1)

    keeper = Keeper(baseline="strong", prices=price, clock=lambda: 0.0)
    usage = Usage(input_tokens=4, output_tokens=0, cache_read_tokens=2)
    keeper.keep(CallRecord(id="a", at=0.0, model="cheap", cost=None, usage=usage, batch=True, endpoint="/ask"), None)
    summary, (total,) = keeper.summary(), keeper.ledger.totals("endpoint")
    saved = Saved(router=Decimal(27), batch=Decimal("1.5"), prompt_cache=Decimal(10))

    assert (summary.cost_usd, summary.saved, summary.saved_usd) == (Decimal("1.5"), saved, Decimal("28.5"))
    assert (total.saved, total.saved_usd) == (saved, Decimal("28.5"))
    assert (
        summary.cost_usd + summary.saved_usd + summary.saved.prompt_cache == 40
    )  # four fresh tokens of the strong model


@pytest.mark.parametrize("said", [0.01, Decimal("nan"), Decimal(-1)])
def test_a_price_that_is_no_amount_leaves_a_call_unpriced(said: Any) -> None:
    """The call is kept, and counted among those whose cost is unknown."""
    keeper = Keeper(prices=lambda *_, **__: said)
    usage = Usage(input_tokens=1, output_tokens=1)
    keeper.keep(CallRecord(id="a", at=time.time(), model="cheap", usage=usage, cost=None), None)
    summary = keeper.summary()

    assert (summary.calls, summary.unpriced, keeper.failures) == (1, 1, 1)
    assert summary.cost_usd == 0


@pytest.mark.parametrize("name", ["prices", "on_record", "clock", "redact"])
def test_what_should_be_called_is_tried_at_once(name: str) -> None:
    """A table of prices or a list of listeners would fail at every call, and only be counted."""
    wrong: dict[str, Any] = {name: {"cheap": (1, 2)}}
    with pytest.raises(TypeError, match=f"{name} is a function"):
        Keeper(**wrong)


@pytest.mark.parametrize("name", ["baseline", "hash_key"])
def test_what_should_be_a_text_is_tried_at_once(name: str) -> None:
    """A model in place of its name would leave every saving unknown."""
    wrong: dict[str, Any] = {name: b"gpt-4o"}
    with pytest.raises(TypeError, match=f"{name} is a text, not bytes"):
        Keeper(**wrong)


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Write in the file at *path* as another program does that is slow."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield other
    other.close()


def kept(path: Path) -> list[str]:
    """List the ids that stand in the ledger at *path*."""
    with Ledger(path) as ledger:
        return [record.id for record in ledger.records()]


def bare(id: str) -> CallRecord:  # noqa: A002 - as in `CallRecord`
    """Make a call of which little is known."""
    return CallRecord(id=id, at=time.time(), model="m", cost=None)


def test_calls_do_not_wait_for_a_locked_ledger_and_are_not_lost(tmp_path: Path) -> None:
    """What calls tell while another program writes stands in the ledger once that is done, with its text, in order."""
    path = tmp_path / "ledger.db"
    keeper = Keeper(ledger=path, keep_text=True)
    with locked(path):
        for n in range(3):
            keeper.keep(bare(f"{n}"), None, ("question", "answer"))
        during = kept(path)
    keeper.ledger.close()

    assert (during, kept(path), keeper.failures) == ([], ["0", "1", "2"], 0)
    with Ledger(path) as ledger:
        assert all(ledger.text(f"{n}") for n in range(3))


def test_a_ledger_that_stays_locked_ends_no_program_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The end waits for it for a while only, and says how much was lost; too much at once is counted."""
    monkeypatch.setattr(late, "LAST", 0.0)
    monkeypatch.setattr(late, "MOST", 2)
    path = tmp_path / "ledger.db"
    keeper = Keeper(ledger=path)
    with locked(path), caplog.at_level(logging.WARNING):
        for n in range(4):
            keeper.keep(bare(f"{n}"), None)
        keeper.ledger.close()

    assert keeper.failures >= 1
    assert "records are lost" in caplog.text
    assert kept(path) == []


def test_what_cannot_be_written_later_either_holds_nothing_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, since there is no call left to count it for, and what is late after it is written."""
    path = tmp_path / "ledger.db"
    keeper = Keeper(ledger=path)
    with locked(path) as other, caplog.at_level(logging.WARNING):
        keeper.keep(bare("a"), None)
        keeper.keep(bare("b"), None)
        other.execute("CREATE TRIGGER no BEFORE INSERT ON calls WHEN new.id = 'a' BEGIN SELECT raise(ABORT, 'no'); END")
        other.execute("COMMIT")
        keeper.ledger.close()

    assert "a record is lost (IntegrityError)" in caplog.text
    assert kept(path) == ["b"]


LATE = """
import os, sys, time
from llm_costopt.monitor.keeper import Keeper
from llm_costopt.types import CallRecord

keeper = Keeper(ledger=sys.argv[1])
print("open", flush=True)
input()
keeper.keep(CallRecord(id="a", at=time.time(), model="m", cost=None), None)
child = os.fork()
keeper.keep(CallRecord(id="b" if child else "c", at=time.time(), model="m", cost=None), None)
print("kept", flush=True)
if child:
    os.waitpid(child, 0)
"""


def test_a_program_that_ends_writes_what_is_late(tmp_path: Path) -> None:
    """A short script whose ledger was locked during its last call leaves that call, and so does its child, each its own."""
    path = tmp_path / "ledger.db"
    command = [sys.executable, "-c", LATE, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdin is not None
        assert script.stdout is not None
        assert script.stdout.readline() == "open\n"
        with locked(path):
            script.stdin.write("\n")
            script.stdin.flush()
            assert [script.stdout.readline() for _ in range(2)] == ["kept\n", "kept\n"]

    assert (script.returncode, sorted(kept(path))) == (0, ["a", "b", "c"])
