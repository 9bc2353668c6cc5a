"""What a router would have done, on the command line: `llm-costopt router`."""

import json
import time
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from llm_costopt.monitor.cli import open_ledger
from llm_costopt.monitor.observing import WouldBe, would_be


def router(
    ledger: Annotated[Path, typer.Argument(help="The file that a `Ledger` keeps.")],
    hours: Annotated[float | None, typer.Option(min=0, help="How far to look back; all there is if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures for machines.")] = False,
) -> None:
    """Show what a router with mode="observe" would have asked, and what that would have cost."""
    with open_ledger(ledger) as opened:
        found = would_be(opened.records(None if hours is None else time.time() - hours * 3600))
    if not found:
        raise ValueError(f"{ledger}: no router observed anything; give it mode='observe', or set LLM_COSTOPT=observe")
    if as_json:
        print(json.dumps({"ways": [asdict(one) for one in found]}, default=float))
    else:
        _show(found)


def _show(found: list[WouldBe]) -> None:
    requests, paid = sum(one.requests for one in found), sum(one.paid for one in found)
    table = Table("would have been", "requests", "share", "paid", "with all drafts kept", "with all rejected")
    for one in found:
        does = "drafted by" if one.drafts else "answered by"
        amounts = (one.paid, one.kept, one.rejected)
        table.add_row(
            f"{does} {one.tier}", f"{one.requests:,}", f"{100 * one.requests / requests:.1f} %", *map(_usd, amounts)
        )
    kept, rejected = sum(one.kept for one in found), sum(one.rejected for one in found)
    table.add_row("in all", f"{requests:,}", "", *(_usd(Decimal(n)) for n in (paid, kept, rejected)), style="bold")
    console = Console()
    console.print(table)
    if paid:
        least, most = 100 * (1 - rejected / paid), 100 * (1 - kept / paid)
        console.print(
            f"Routing would have saved {least:.1f} to {most:.1f} %, by how many drafts are kept.", highlight=False
        )
    if unpriced := sum(one.unpriced for one in found):
        console.print(f"{unpriced} requests have no known price and are not in the amounts.", highlight=False)


def _usd(amount: Decimal) -> str:
    return f"${amount:,.4f}"
