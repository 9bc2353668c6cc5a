"""The command line: `llm-costopt demo`, `llm-costopt calibrate`, `llm-costopt ab`, `llm-costopt batch`."""

import json
import math
import os
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from llm_costopt.batch.cli import Booking
from llm_costopt.batch.cli import app as batch
from llm_costopt.cache.cli import cache
from llm_costopt.demo.log import LoggedRequest, read_log
from llm_costopt.demo.result import Result
from llm_costopt.demo.run import Models
from llm_costopt.errors import CostOptError, MissingExtraError
from llm_costopt.monitor.cli import ab
from llm_costopt.monitor.estimate_cli import estimate_
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.observing_cli import router
from llm_costopt.monitor.prices import Prices
from llm_costopt.monitor.report_cli import report, top
from llm_costopt.monitor.rules_cli import dashboard, rules

if TYPE_CHECKING:
    from llm_costopt.router.calibrate import Calibration

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(batch, name="batch")


class Host(StrEnum):
    """The frameworks that the demo runs in."""

    langchain = "langchain"
    llamaindex = "llamaindex"


class Level(StrEnum):
    """How far to go."""

    conservative = "conservative"
    balanced = "balanced"
    aggressive = "aggressive"


app.command()(ab)
app.command()(rules)
app.command()(dashboard)
app.command("estimate")(estimate_)
app.command()(report)
app.command()(top)
app.command()(cache)
app.command()(router)


@app.callback()
def _about(context: typer.Context) -> None:
    """Cut what an application pays for LLM inference."""
    context.obj = _booking  # features do not know each other: `batch --ledger` finds the monitor here


@app.command()
def demo(
    requests: Annotated[Path | None, typer.Option(help="A log of your own instead of the one that ships.")] = None,
    preset: Annotated[Level, typer.Option(help="How far cache and router go.")] = Level.balanced,
    max_error: Annotated[float | None, typer.Option(help="Share that the cache may answer wrongly.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Least similarity of a hit, instead of --max-error.")] = None,
    live: Annotated[bool, typer.Option(help="Ask the real models; needs OPENAI_API_KEY, costs money.")] = False,
    cheap: Annotated[str, typer.Option(help="The cheap model.")] = "gpt-4o-mini",
    strong: Annotated[str, typer.Option(help="The strong model.")] = "gpt-4o",
    host: Annotated[Host, typer.Option(help="The framework that the requests go through.")] = Host.langchain,
    ledger: Annotated[Path | None, typer.Option(help="A new file for the second run's calls, for `report`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures for machines.")] = False,
) -> None:
    """Replay a request log through a framework's own models, first all-strong, then with cache and router."""
    rows = read_log(requests)
    if live and not os.environ.get("OPENAI_API_KEY"):
        raise ValueError("--live asks real models: set OPENAI_API_KEY (and OPENAI_BASE_URL for another provider)")
    if cheap == strong:
        raise ValueError(f"--cheap and --strong are two models, not twice {cheap!r}")
    if ledger is not None and ledger.exists():
        raise ValueError(f"--ledger {ledger}: there is such a file already; give the demo one of its own")
    if ledger is not None:
        _check_folder("--ledger", ledger)
    with _bar(2 * len(rows)) as tick:
        result = _replay_of(host)(
            rows,
            models=Models(cheap=cheap, strong=strong),
            preset=preset.value,
            max_error=max_error,
            threshold=threshold,
            live=live,
            tick=tick,
        )
    if ledger is not None:
        _keep(result, ledger)
    figures = result.to_dict()
    if as_json:
        print(json.dumps(figures))
    else:
        _show(figures, rows, live=live, shipped=requests is None, cheap=cheap, strong=strong)


def _keep(result: Result, path: Path) -> None:
    """Keep the calls of the second run, and whether their answers were right as scores."""
    with Ledger(path) as ledger:
        for served in result.after:
            for record in served.records:
                ledger.append(record)
            if served.right is not None and served.records:
                ledger.score(served.records[-1].id, float(served.right), source="demo")


@app.command()
def calibrate(
    log: Annotated[Path, typer.Argument(help="A request log whose answers say whether they are right.")],
    target_quality: Annotated[float, typer.Option(help="Share of the strong model's quality to keep.")] = 0.95,
    max_strong_share: Annotated[float | None, typer.Option(help="Largest share of strong calls.")] = None,
    price_ratio: Annotated[float, typer.Option(help="Price of the cheap model, the strong one's being 1.")] = 0.06,
    out: Annotated[Path, typer.Option(help="Where the learned rules are written.")] = Path("router.json"),
    as_json: Annotated[bool, typer.Option("--json", help="Print figures for machines.")] = False,
) -> None:
    """Learn a router's rules from judged answers, and set them to a target that holds with 95 % confidence."""
    from llm_costopt.demo.outcomes import examples_of
    from llm_costopt.router.learned import learn_rules

    if not 0 < price_ratio < 1:
        raise ValueError(
            f"--price-ratio is the cheap model's price over the strong one's, such as 0.06, not {price_ratio}"
        )
    _check_folder("--out", out)
    rules, found = learn_rules(
        examples_of(read_log(log)),
        prices=[price_ratio, 1.0],
        target_quality=target_quality,
        max_strong_share=max_strong_share,
    )
    rules.save(out)
    if as_json:
        point = asdict(found.point)
        if not math.isfinite(point["threshold"]):  # JSON has no word for it; the share says at which end this is
            point["threshold"] = None
        print(json.dumps({"outcomes": found.outcomes, "drafts": found.drafts, **point, "out": str(out)}))
    else:
        _show_calibration(found, out)


def _check_folder(option: str, file: Path) -> None:
    """Refuse before the work is done what could not be written after it."""
    if file.is_dir() or not os.access(file.absolute().parent, os.W_OK):
        raise ValueError(f"{option} {file}: give a file in a folder that exists and may be written")


def _show_calibration(found: "Calibration", out: Path) -> None:
    table = Table("strong calls", "quality kept", "at least", "at most", "cost", "")
    points = [found.curve[n] for n in sorted({round(k * (len(found.curve) - 1) / 10) for k in range(11)})]
    for point in sorted([*points, found.point], key=lambda p: -p.strong_share):
        chosen = ("← drafts are judged" if found.drafts else "← chosen before any call") if point is found.point else ""
        figures = (point.strong_share, point.quality, point.low, point.high, point.cost)
        table.add_row(*map(_percent, figures), chosen)
    console = Console()
    console.print(
        f"{found.outcomes} outcomes; quality and cost are shares of all-strong, “at least” and “at most” with 95 % confidence each"
    )
    console.print(table)
    console.print(found.explanation)
    console.print(f"written to {out}: give `LearnedRules.load({str(out)!r})` to the router", highlight=False)


def _replay_of(host: Host) -> Callable[..., Result]:
    random.seed(0)  # which hits the cache checks: two runs shall print the same
    try:
        found: Callable[..., Result] = import_module(f"{host.value}_costopt.demo").replay
    except ModuleNotFoundError as missing:
        raise MissingExtraError("the demo", host.value) from missing
    return found


@contextmanager
def _booking(path: Path) -> Iterator[Booking]:
    ledger = Ledger(path)
    try:
        yield Booking(append=ledger.append, prices=Prices())
    finally:
        ledger.close()


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], object]]:
    bar = Progress(
        TextColumn("replaying"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("replay", total=total)
        yield lambda: bar.advance(task)


def _show(
    figures: dict[str, Any], rows: list[LoggedRequest], *, live: bool, shipped: bool, cheap: str, strong: str
) -> None:
    before, after, saved = figures["before"], figures["after"], figures["saved"]
    table = Table()
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    known = before["cost_usd"] and after["cost_usd"] is not None
    change = f" ({100 * (after['cost_usd'] / before['cost_usd'] - 1):+.1f} %)" if known else ""
    table.add_row("cost", _money(before["cost_usd"]), f"{_money(after['cost_usd'])}{change}")
    table.add_row("saved by the cache", "", _money(saved["cache"]))
    table.add_row("saved by the router", "", _money(saved["router"]))
    table.add_row("hit rate", "", _percent(after["hit_rate"]))
    table.add_row("wrong hits", "", "unknown" if after["wrong_hits"] is None else str(after["wrong_hits"]))
    for model, part in after["models"].items():
        table.add_row(f"answered by {model}", "", _percent(part))
    table.add_row("escalations", "", str(after["escalations"]))
    if before["failed"] or after["failed"]:
        table.add_row("requests that failed", str(before["failed"]), str(after["failed"]))
    table.add_row("right answers", _percent(before["right"]), _percent(after["right"]))
    for name in ("p50", "p95"):
        table.add_row(
            f"latency {name}", f"{before[f'latency_{name}_ms']:.0f} ms", f"{after[f'latency_{name}_ms']:.0f} ms"
        )
    console = Console()
    console.print(f"{figures['requests']} requests: {strong} alone, then with cache and router over {cheap}")
    console.print(table)
    console.print(_fine_print(rows, live=live, shipped=shipped), style="dim", highlight=False)


def _fine_print(rows: list[LoggedRequest], *, live: bool, shipped: bool) -> str:
    if live:
        return "Answers of the real models; whether they are right is not known here."
    if not all(row.has_answers for row in rows):
        return (
            "This log holds requests only: every answer is a stand-in of 150 output tokens, so costs are those of"
            " stand-ins, escalations and right answers mean nothing, and latency is this machine's alone."
        )
    written = "" if not shipped else " They were written for it by hand, and are not what the named models said."
    return (
        "Answers, token counts and model times are recorded in the log and played back by a server on 127.0.0.1; no"
        f" model was called.{written} Latency is the recorded model time plus the time measured here. Prices are list"
        " prices of the bundled price list."
    )


def _money(value: float | None) -> str:
    return "unknown" if value is None else f"{'-' if value < 0 else ''}${abs(value):.4f}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"


def main() -> None:
    """Run the command line; what the user can mend is one sentence on stderr and exit code 1."""
    try:
        app()
    except (CostOptError, ValueError, OSError) as problem:
        print(f"llm-costopt: {problem}", file=sys.stderr)
        sys.exit(1)
    except sqlite3.Error as problem:  # a file that opens may still be damaged further on
        print(f"llm-costopt: the file cannot be read or written: {problem}", file=sys.stderr)
        sys.exit(1)
