"""The ledger live in a terminal."""

import io
import os
import pty
import select
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.top import Watched, watch
from llm_costopt.types import Saved
from tests.monitor.calls import NOW, call

PROGRAM = "from llm_costopt.cli import main; main()"


def look(path: Path, *, hours: float = 1) -> str:
    """Give one look at the ledger as text."""
    out = io.StringIO()
    watch(Watched(path, clock=lambda: NOW), Console(file=out, width=90), hours=hours, interval=1, once=True)
    return out.getvalue()


def filled(path: Path) -> Path:
    """Make a ledger with a call, a hit, an escalation, a failure and a call without a price."""
    with Ledger(path, clock=lambda: NOW) as ledger:
        ledger.append(call("draft", complexity="medium", cost=Decimal("0.25"), endpoint="POST /a"))
        ledger.append(call("final", model="strong", complexity="medium", replaces="draft", endpoint="POST /a"))
        hit = {"cache": "exact", "cost": Decimal(0), "saved": Saved(cache=Decimal(3))}
        ledger.append(call("hit", endpoint="GET /b", **hit))
        ledger.append(call("failed", error="APITimeoutError", cost=None))
        ledger.append(call("unpriced", model="[red]in-house", cost=None))
        ledger.append(call("old", at=NOW - 7200, cost=Decimal(100)))
    return path


def test_a_look_shows_what_the_last_hour_came_to(tmp_path: Path) -> None:
    """Cost and its rate, savings by cause, hits, escalations, failures, models, endpoints and what has no price."""
    shown = look(filled(tmp_path / "costs.db"))

    for line in (
        r"paid $1.25 an hour $1.25",
        r"saved $2.75, 68.8 % per request",
        r"by the cache $3.00 hit rate 25.0 %",
        r"by the router −$0.25 escalated 100.0 %",
        r"requests 4 mean latency",
        r"failed calls 1",
        r"1 calls have no known cost: [red]in-house",
        r"strong 1 $1.00 $0 0 0",
        r"POST /a 1 $1.25 −$0.25 0 0",
        r"GET /b 1 $0 $3.00 0 0",
    ):
        assert line in " ".join(shown.split())


def test_the_rate_is_by_the_hour_whatever_the_time(tmp_path: Path) -> None:
    """Over four hours the old call counts too, and the rate is a quarter of the sum."""
    assert "paid $101.25 an hour $25.31" in " ".join(look(filled(tmp_path / "costs.db"), hours=4).split())


def test_many_models_fit_on_a_screen(tmp_path: Path) -> None:
    """The dearest eight are listed, and how many are not."""
    with Ledger(tmp_path / "costs.db", clock=lambda: NOW) as ledger:
        for n in range(11):
            ledger.append(call(f"{n}", model=f"model-{n:02}", cost=Decimal(20 - n)))
    shown = look(tmp_path / "costs.db")

    assert "model-07" in shown
    assert "model-08" not in shown
    assert "and 3 more" in shown


def test_an_empty_ledger_and_none_are_no_error(tmp_path: Path) -> None:
    """Where nothing was called yet there are zeros, and where there is no file it says so and makes none."""
    Ledger(tmp_path / "empty.db").close()

    assert "hit rate unknown" in " ".join(look(tmp_path / "empty.db").split())
    assert "no ledger yet, its first call makes it" in " ".join(look(tmp_path / "none.db").split())
    assert [p.name for p in tmp_path.iterdir()] == ["empty.db"]


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    """Somebody else's file is named in one sentence."""
    (tmp_path / "notes.txt").write_text("these are notes, and not a database of any kind")
    with pytest.raises(ValueError, match="not a database"):
        look(tmp_path / "notes.txt")


def test_it_draws_until_it_is_told_to_end(tmp_path: Path) -> None:
    """A ledger that appears while it waits is taken up, and each look shows what came meanwhile."""
    path, out, waited = tmp_path / "costs.db", io.StringIO(), []

    def wait(interval: float) -> bool:
        waited.append(interval)
        with Ledger(path, clock=lambda: NOW) as ledger:
            ledger.append(call(f"{len(waited)}"))
        return len(waited) < 3

    console = Console(file=out, width=90, force_terminal=True)
    watch(Watched(path, clock=lambda: NOW), console, hours=1, interval=0.5, once=False, wait=wait)

    assert waited == [0.5, 0.5, 0.5]
    assert "no ledger yet" in out.getvalue()
    assert [f"${n}.00" in out.getvalue() for n in (1, 2, 3)] == [True, True, False]


def test_a_pipe_gets_one_look(tmp_path: Path) -> None:
    """Where nobody watches, it prints once and ends, and colours stay out of it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "top", str(filled(tmp_path / "costs.db"))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert "llm-costopt · costs.db · last 1 h" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("how", ["q", "ctrl-c"])
def test_a_key_or_an_interrupt_ends_it_cleanly(tmp_path: Path, how: str) -> None:
    """In a terminal q and Ctrl-C end it with exit code 0, no trace, and the screen given back."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", PROGRAM, "top", str(filled(tmp_path / "costs.db")), "--interval", "30"]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "90", "LINES": "40"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as running:
        os.close(theirs)
        try:
            shown = read_until(ours, b"q ends")
            if how == "q":
                os.write(ours, b"xq")
            else:
                running.send_signal(signal.SIGINT)
            shown += read_until(ours, b"\x1b[?1049l")
            code = running.wait(timeout=30)
        finally:
            running.kill()
    os.close(ours)

    assert code == 0
    assert b"Traceback" not in shown


def read_until(terminal: int, mark: bytes) -> bytes:
    """Read what the program draws, up to *mark*."""
    read = b""
    while mark not in read:
        ready, _, _ = select.select([terminal], [], [], 20)
        assert ready, read[-500:]
        read += os.read(terminal, 65_536)
    return read
