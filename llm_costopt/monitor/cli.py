"""The monitor's part of the command line: `llm-costopt ab`."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from llm_costopt.monitor.ledger import Ledger

if TYPE_CHECKING:
    from llm_costopt.monitor.ab import Comparison
    from llm_costopt.monitor.intervals import Estimate


def ab(
    ledger: Annotated[Path, typer.Argument(help="The file that a `Ledger` keeps.")],
    hours: Annotated[float | None, typer.Option(min=0, help="How far to look back; all there is if not given.")] = None,
    routed_tag: Annotated[str | None, typer.Option(help="Tag of the routed requests, instead of arms.")] = None,
    control_tag: Annotated[str | None, typer.Option(help="Tag of those to compare them with.")] = None,
    target_quality: Annotated[float | None, typer.Option(help="Share of the control's quality to be shown.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures for machines.")] = False,
) -> None:
    """Compare routed with other requests: cost, latency, errors and scores, with 95 % intervals."""
    from llm_costopt.monitor.ab import compare
    from llm_costopt.monitor.verdict import verdict

    with open_ledger(ledger) as opened:
        found = compare(opened, hours=hours, routed_tag=routed_tag, control_tag=control_tag)
    sentences = verdict(found, target_quality=target_quality)
    if as_json:
        print(json.dumps({**asdict(found), "verdict": sentences}))
    else:
        _show(found, sentences)


def open_ledger(path: Path) -> Ledger:
    """Open a ledger that is there; ValueError otherwise, and no file is made."""
    if not path.is_file() or not path.stat().st_size:
        raise ValueError(f"{path}: there is no ledger; give the path that `Ledger(path)` or the monitor was given")
    return Ledger(path)


def _show(found: "Comparison", sentences: list[str]) -> None:
    from llm_costopt.monitor.verdict import interval, percent, points

    def dollars(value: float) -> str:
        return f"${value:.6f}"

    def seconds(value: float) -> str:
        return f"{value:.3f} s"

    table = Table(
        "", found.routed.name, found.control.name, "difference", title="means of requests, with 95 % intervals"
    )
    table.add_row("requests", *(str(side.requests) for side in (found.routed, found.control)))
    for name, figure, write, differs in (
        ("cost per request", "cost", dollars, interval),
        ("mean latency", "latency", seconds, interval),
        ("latency p95", "latency_p95", seconds, interval),
        ("failed", "errors", percent, points),
        ("answered by the cache", "hits", percent, points),
        ("mean score", "score", percent, points),
    ):
        sides = [_estimate(getattr(side, figure), write) for side in (found.routed, found.control)]
        table.add_row(name, *sides, _known(getattr(found, figure), differs))
    table.add_row("requests with a score", *(str(side.scored) for side in (found.routed, found.control)))
    console = Console()
    console.print(table)
    for sentence in [*sentences, *found.caveats]:
        console.print(sentence, highlight=False)
    if found.shadow_calls:
        console.print(
            f"Beside these, {found.shadow_calls} shadow calls cost {dollars(found.shadow_usd)}.", highlight=False
        )


def _estimate(of: "Estimate | None", write: Callable[[float], str]) -> str:
    return _known(of, lambda known: f"{write(known.value)} ({write(known.low)} to {write(known.high)})")


def _known(of: "Estimate | None", write: Callable[["Estimate"], str]) -> str:
    from llm_costopt.monitor.verdict import TOO_FEW

    return TOO_FEW if of is None else write(of)
