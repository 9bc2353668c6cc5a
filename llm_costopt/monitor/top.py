"""The ledger live in a terminal: one look at the last hours, drawn again and again."""

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.summary import Summary
from llm_costopt.monitor.totals import Total
from llm_costopt.monitor.wording import count, money, plain, seconds, share

_ROWS = 8
"""Rows of each table, so that a look fits on a screen."""

Wait = Callable[[float], bool]
"""Waits for some seconds and tells whether to go on."""


class Watched:
    """A ledger that may not exist yet."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._ledger: Ledger | None = None

    def look(self, hours: float) -> RenderableType:
        """Draw the last *hours*, or say that there is no ledger yet. Raises ValueError if the file is none."""
        if self._ledger is None and (not self._path.is_file() or not self._path.stat().st_size):
            return Text(f"{self._path}: no ledger yet, its first call makes it")
        self._ledger = self._ledger or Ledger(self._path, clock=self._clock)
        return frame(self._ledger, hours=hours, name=self._path.name)

    def close(self) -> None:
        """Close the ledger, if there was one."""
        if self._ledger is not None:
            self._ledger.close()


def watch(
    watched: Watched, console: Console, *, hours: float, interval: float, once: bool, wait: Wait | None = None
) -> None:
    """Draw *watched* on *console* each *interval* seconds until *wait* says to end; one time if *once*.

    Without *wait*, q or Ctrl-C ends it, and a console that is no terminal gets one look.
    """
    try:
        if once or not (wait or console.is_terminal):
            console.print(watched.look(hours))
            return
        with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
            going = True
            while going:
                live.update(watched.look(hours), refresh=True)
                going = (wait or pressed)(interval)
    except KeyboardInterrupt:
        return
    finally:
        watched.close()


@contextmanager
def _keys() -> Iterator[Wait]:
    """Read single keys, where the terminal can tell them, and leave it as it was."""
    try:
        import termios
        import tty

        before = termios.tcgetattr(sys.stdin)
    except (ImportError, OSError, ValueError, termios.error):  # Windows, or no terminal to read from
        yield _sleep
        return
    try:
        tty.setcbreak(sys.stdin)
        yield _no_q
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


_TURN = 0.2
"""Seconds that an interrupt may go unnoticed."""


def _sleep(interval: float) -> bool:
    time.sleep(interval)
    return True


def _no_q(interval: float) -> bool:
    end = time.monotonic() + interval
    while (left := end - time.monotonic()) > 0:
        # In short turns: an interrupt that comes just before `select` is noticed only after it.
        ready, _, _ = select.select([sys.stdin], [], [], min(left, _TURN))
        # Past the buffer of `sys.stdin`, in which a second key would wait unseen.
        if ready and ((keys := os.read(sys.stdin.fileno(), 64)) == b"" or b"q" in keys.lower()):
            return False  # empty: the terminal is gone
    return True


def frame(ledger: Ledger, *, hours: float, name: str) -> RenderableType:
    """Draw the last *hours* of *ledger*, called *name*."""
    summary = ledger.summary(hours)
    models = _totals("model", ledger.totals("model", hours))
    endpoints = _totals("endpoint", ledger.totals("endpoint", hours))
    title = Text(f"llm-costopt · {plain(name)} · last {hours:g} h")
    parts: list[RenderableType] = [_figures(summary, hours)]
    if summary.unpriced:
        unknown = ", ".join(plain(model) for model in summary.unpriced_models[:5])
        parts.append(Text(f"{count(summary.unpriced)} calls have no known cost: {unknown}", style="yellow"))
    return Panel(Group(*parts, models, endpoints), title=title, subtitle="q ends", padding=(0, 1))


def _figures(summary: Summary, hours: float) -> Table:
    saved = summary.saved
    baseline = summary.cost_usd + summary.saved_usd
    part = float(summary.saved_usd / baseline) if baseline else None
    each = summary.cost_per_request
    pairs = (
        ("paid", money(summary.cost_usd), "an hour", money(float(summary.cost_usd) / hours)),
        (
            "saved",
            f"{money(summary.saved_usd)}, {share(part)}",
            "per request",
            "unknown" if each is None else money(each),
        ),
        ("by the cache", money(saved.cache), "hit rate", share(summary.hit_rate)),
        ("by the router", money(saved.router), "escalated", share(summary.escalation_rate)),
        ("by the Batch API", money(saved.batch), "failed calls", count(summary.errors)),
        ("requests", count(summary.requests), "mean latency", seconds(summary.mean_latency)),
    )
    table = Table.grid(padding=(0, 2))
    for style, justify in (("dim", "left"), ("bold", "right"), ("dim", "left"), ("bold", "right")):
        table.add_column(style=style, justify=justify)  # type: ignore[arg-type]  # rich wants the literals
    for pair in pairs:
        table.add_row(*map(Text, pair))
    return table


def _totals(what: str, totals: list[Total]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    table.add_column(what, no_wrap=True, overflow="ellipsis", max_width=32)
    for head in ("requests", "paid", "saved", "failed", "unpriced"):
        table.add_column(head, justify="right", no_wrap=True)
    for total in totals[:_ROWS]:
        cells = (
            plain(total.key),
            *(count(total.requests), money(total.cost_usd), money(total.saved_usd)),
            *(count(total.errors), count(total.unpriced)),
        )
        table.add_row(*map(Text, cells))
    if len(totals) > _ROWS:
        table.add_row(Text(f"and {len(totals) - _ROWS} more", style="dim"))
    return table
