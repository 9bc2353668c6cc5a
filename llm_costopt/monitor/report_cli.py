"""What is to be looked at, on the command line: `llm-costopt report`, `llm-costopt top`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from llm_costopt.monitor.cli import open_ledger

_Ledger = Annotated[Path, typer.Argument(help="The file that a `Ledger` keeps.")]


def report(
    ledger: _Ledger,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the page is written.")] = Path("report.html"),
    hours: Annotated[float | None, typer.Option(min=0, help="How far to look back; all there is if not given.")] = None,
    days: Annotated[float | None, typer.Option(min=0, help="The same in days.")] = None,
    max_error: Annotated[float, typer.Option(help="Share of the requests that the cache may answer wrongly.")] = 0.01,
    target_quality: Annotated[float, typer.Option(help="Share of the control's quality to keep.")] = 0.95,
) -> None:
    """Write one HTML page: what was spent and saved, how good the answers are, and what to change next."""
    from llm_costopt.monitor.advice import Goals
    from llm_costopt.monitor.report import write_report

    if hours is not None and days is not None:
        raise ValueError("--hours and --days say the same: give one of them")
    if not 0 < max_error < 1 or not 0 < target_quality <= 1:
        raise ValueError("--max-error and --target-quality are shares, such as 0.01 and 0.95")
    if out.exists() and ledger.exists() and out.samefile(ledger):
        raise ValueError(f"{out} is the ledger itself: give the report another name")
    with open_ledger(ledger) as opened:
        write_report(
            opened,
            out,
            name=ledger.name,
            hours=hours if days is None else 24 * days,
            goals=Goals(max_error=max_error, target_quality=target_quality),
        )
    Console().print(f"written to {out}: open it in a browser", highlight=False, soft_wrap=True)


def top(
    ledger: _Ledger,
    hours: Annotated[float, typer.Option(min=0.01, help="How far to look back.")] = 1,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1,
    once: Annotated[bool, typer.Option("--once", help="Print one look and end.")] = False,
) -> None:
    """Watch a ledger live: what it costs an hour, what is saved, hits, escalations, errors; q or Ctrl-C ends."""
    from llm_costopt.monitor.top import Watched, watch

    watch(Watched(ledger), Console(), hours=hours, interval=interval, once=once)
