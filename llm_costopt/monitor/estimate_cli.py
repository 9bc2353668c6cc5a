"""What a month costs, on the command line: `llm-costopt estimate`."""

import json
import time
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from llm_costopt.monitor.estimate import DAYS, Estimate, Span, estimate
from llm_costopt.monitor.prices import Prices
from llm_costopt.monitor.wording import count, seconds


def estimate_(
    requests_per_day: Annotated[float | None, typer.Option(help="Requests a day.")] = None,
    input_tokens: Annotated[int | None, typer.Option(help="Tokens that a request reads.")] = None,
    output_tokens: Annotated[int | None, typer.Option(help="Tokens that its answer has.")] = None,
    strong: Annotated[
        str | None, typer.Option(help="The model that answers everything today: gpt-4o if not given.")
    ] = None,
    cheap: Annotated[str | None, typer.Option(help="The model for simple requests: gpt-4o-mini if not given.")] = None,
    prompt_cached: Annotated[
        str | None, typer.Option(help="Share of the input in the provider's prompt cache.")
    ] = None,
    cache_hits: Annotated[str | None, typer.Option(help="Share answered from store: 0.3, 30% or 20%..40%.")] = None,
    lookup_usd: Annotated[str | None, typer.Option(help="US dollars for a look-up, such as one embedding.")] = None,
    routed_cheap: Annotated[str | None, typer.Option(help="Share of the rest that the cheap model answers.")] = None,
    escalated: Annotated[str | None, typer.Option(help="Share of the rest whose cheap draft is rejected.")] = None,
    batched: Annotated[str | None, typer.Option(help="Share of the calls that can go by batch.")] = None,
    batch_discount: Annotated[str | None, typer.Option(help="What a batch takes off, if not as listed.")] = None,
    price: Annotated[
        list[str] | None, typer.Option(help="MODEL=INPUT/OUTPUT or /CACHED after that, in $ per million tokens.")
    ] = None,
    measured: Annotated[Path | None, typer.Option("--from", help="A ledger to take all of this from.")] = None,
    hours: Annotated[float | None, typer.Option(min=0, help="With --from, how far to look back.")] = None,
    document: Annotated[bool, typer.Option(help="Compute the example of the product's document.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures for machines.")] = False,
) -> None:
    """Say what a month costs, step by step: baseline, prompt cache, cache, router, batch."""
    given = {name: value for name, value in locals().items() if name in _OPTIONS and value is not None}
    if document:
        _document(as_json=as_json)
        return
    found: dict[str, Any] = {} if measured is None else _measured(measured, hours, strong)
    inputs = {**found.get("inputs", {}), **given}
    if missing := [f"--{name.replace('_', '-')}" for name in _NEEDED if not inputs.get(name) and name not in given]:
        raise ValueError(f"give {', '.join(missing)}, or a ledger with --from in which it can be read")
    result = estimate(**inputs, prices=Prices(_prices(price or [])))
    if as_json:
        print(json.dumps({"inputs": inputs, **asdict(result), **found.get("paid", {})}, default=float))
    else:
        _show(inputs, result, found.get("paid", {}))


_OPTIONS = (
    "requests_per_day", "input_tokens", "output_tokens", "strong", "cheap", "prompt_cached", "cache_hits", "lookup_usd",
    "routed_cheap", "escalated", "batched", "batch_discount",
)  # fmt: skip
_NEEDED = ("requests_per_day", "input_tokens", "output_tokens")


def _measured(path: Path, hours: float | None, strong: str | None) -> dict[str, Any]:
    from llm_costopt.monitor.cli import open_ledger
    from llm_costopt.monitor.measured import measured

    with open_ledger(path) as ledger:
        since = None if hours is None else time.time() - hours * 3600
        workload = measured(ledger, since=since, strong=strong)
    inputs = {name: value for name, value in asdict(workload).items() if name in _OPTIONS}
    about = {"requests": workload.requests, "days": workload.days, "unpriced": workload.unpriced}
    return {"inputs": inputs, "paid": {"measured": {**about, "month_usd": workload.month_usd}}}


def _prices(given: list[str]) -> dict[str, list[str]]:
    found = {}
    for one in given:
        model, _, amounts = one.rpartition("=")
        if not model:
            raise ValueError(f"--price is MODEL=INPUT/OUTPUT, such as gpt-4o=2.50/10.00, not {one!r}")
        found[model] = amounts.split("/")
    return found


def _show(inputs: dict[str, Any], result: Estimate, paid: dict[str, Any]) -> None:
    console = Console()
    for name, value in inputs.items():
        said = value
        if isinstance(value, Decimal | float):
            said = count(float(value)) if value >= 1000 else f"{value:.6g}"
        console.print(f"{name.replace('_', ' ')}: {said}", style="dim", highlight=False)
    table = Table("", "a month", "this step saves", "of the baseline", title=f"{DAYS} days")
    for step in result.steps:
        saves = (
            ("", "") if step.name == "baseline" else (_range(step.saved_usd, _usd), _range(step.saved_share, _percent))
        )
        table.add_row(step.name, _range(step.usd, _usd), *saves)
    table.add_row("in all", _range(result.usd, _usd), "", _range(result.saved_share, _percent), style="bold")
    console.print(table)
    for note in result.notes:
        console.print(note[0].upper() + note[1:] + ".", style="dim", highlight=False)
    if measured := paid.get("measured"):
        _compare(console, measured)


def _compare(console: Console, measured: dict[str, Any]) -> None:
    """Hold the estimate against the bill that it was made from."""
    month, unpriced, days = measured["month_usd"], measured["unpriced"], measured["days"]
    span = f"{days:.1f} days" if days >= 0.05 else seconds(86_400 * days)
    if month is not None:
        console.print(
            f"Paid for {measured['requests']} requests in {span}: {_usd(month)} a month at that pace,"
            " drafts, failures and shadow calls included.",
            highlight=False,
        )
    if unpriced:
        console.print(f"{unpriced} calls have no known price and are not in it.", highlight=False)


def _document(*, as_json: bool) -> None:
    from llm_costopt.monitor.example import lines

    if as_json:
        print(json.dumps({"lines": [asdict(line) for line in lines()]}))
        return
    table = Table("", "document", "computed", "why they differ", show_lines=True)
    for line in lines():
        table.add_row(line.what, line.document, line.computed, line.why)
    console = Console()
    console.print(
        "200,000 requests a day of 300 + 150 tokens; gpt-4o at $2.50/$10.00, gpt-4o-mini at $0.15/$0.60",
        highlight=False,
    )
    console.print(table)


def _range(span: Span, write: Any) -> str:
    low, high = write(span.low), write(span.high)
    return low if low == high else f"{low} to {high}"


def _usd(amount: Decimal) -> str:
    return f"{'-' if amount < 0 else ''}${abs(amount):,.2f}"


def _percent(share: Decimal) -> str:
    return f"{100 * share:.1f} %"
