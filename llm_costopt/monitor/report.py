"""The HTML report: one page that needs nothing else, for people who would rather look than read."""

import base64
import hashlib
import os
import tempfile
import time
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from llm_costopt.errors import MissingExtraError
from llm_costopt.monitor.ab import Comparison, compare
from llm_costopt.monitor.advice import Goals, advise, horizon
from llm_costopt.monitor.figures import Figures
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.sections import sections
from llm_costopt.monitor.wording import count, moment, money, plain, seconds, share

try:
    from jinja2 import Environment, StrictUndefined
except ModuleNotFoundError as missing:
    raise MissingExtraError("the report", "report") from missing


_TITLE = b"<title>What LLM calls cost"
"""How a page of ours is known."""


def write_report(
    ledger: Ledger, out: str | os.PathLike[str], *, name: str, hours: float | None = None, goals: Goals | None = None
) -> None:
    """Write the page on *ledger* to *out*, readable by its owner only; a page that was there stays until it is whole.

    Arguments as for `page`. Raises ValueError if it cannot be written, or *out* is a file that is no such page.
    """
    html, target = page(ledger, name=name, hours=hours, goals=goals), Path(out)
    try:
        if target.exists() and not target.is_dir() and not _is_page(target):
            raise ValueError(f"{target}: there is a file already that is no report; give the report another name")
        handle, half = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # made for its owner's eyes only
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(html)
            Path(half).replace(target)
        except BaseException:
            Path(half).unlink(missing_ok=True)
            raise
    except OSError as problem:
        raise ValueError(f"{target}: the report cannot be written: {problem.strerror}") from problem


def _is_page(path: Path) -> bool:
    """Tell whether a file, which may also be a device, is a page of ours or has nothing in it."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        begins = file.read(2000)
    return not begins or _TITLE in begins


def page(ledger: Ledger, *, name: str, hours: float | None = None, goals: Goals | None = None) -> str:
    """Make the page as HTML.

    Args:
        ledger: what it is about.
        name: what the page calls the ledger.
        hours: how far to look back; all there is if None.
        goals: what advice is measured by; `Goals()` if None.
    """
    figures = ledger.figures(hours)
    told = {
        "name": plain(name, 80),
        "source": _span_words(hours),
        "made": moment(time.time()),
        "version": version("llm-costopt"),
    }
    if figures is None:
        empty = "The ledger is empty." if hours is None else f"The ledger has no call that ended in {_last(hours)}."
        return _render(figures=None, empty=empty, **told)
    goals = goals or Goals()
    found = _compared(ledger, figures)
    comparison = None if isinstance(found, str) else found
    advice, lacking = advise(figures, comparison=comparison, repeats=ledger.repeats(hours), goals=goals)
    return _render(
        figures=figures,
        headline=_headline(figures),
        span=f"{moment(figures.first)} to {moment(figures.last)} UTC",
        tiles=_tiles(figures),
        warnings=_warnings(figures),
        sections=sections(figures, found, goals),
        advice=advice,
        lacking=lacking,
        per=horizon(figures).words.removesuffix(" at this rate"),
        **told,
    )


def _render(**told: Any) -> str:
    folder = files("llm_costopt.monitor")
    template, style = (folder.joinpath(f"report.{end}").read_text(encoding="utf-8") for end in ("html", "css"))
    # Nothing may be loaded or run, whatever a name holds; the hash lets in the one style sheet.
    known = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{known}'; img-src data:; base-uri 'none'; form-action 'none'"
    jinja = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.globals["money"] = money
    return jinja.from_string(template).render(policy=policy, style=style, **told)


def _compared(ledger: Ledger, figures: Figures) -> Comparison | str:
    try:
        return compare(ledger, hours=figures.compared_hours)
    except ValueError as problem:
        return str(problem)


def _headline(figures: Figures) -> str:
    summary, saved = figures.summary, figures.summary.saved.total
    requests = "1 request" if summary.requests == 1 else f"{count(summary.requests)} requests"
    paid = f"{requests} cost {'at least ' if summary.unpriced else ''}{money(summary.cost_usd)}"
    if saved > 0:
        return f"{paid}, {share(float(saved / (summary.cost_usd + saved)))} less than without us"
    return f"{paid}, and nothing was saved" if not saved else f"{paid}, {money(-saved)} more than without us"


def _tiles(figures: Figures) -> list[tuple[str, str, str]]:
    summary, saved = figures.summary, figures.summary.saved.total
    baseline = summary.cost_usd + saved
    each = summary.cost_per_request
    return [
        ("Paid", money(summary.cost_usd), f"{money(baseline)} without us"),
        ("Saved", money(saved), "by cache, router and Batch API"),
        ("Share saved", share(float(saved / baseline) if baseline else None), "of the cost without us"),
        ("Requests", count(summary.requests), f"{count(summary.calls)} calls, {count(summary.errors)} failed"),
        ("Hit rate", share(summary.hit_rate), f"{count(sum(summary.hits.values()))} answers from the cache"),
        ("Per request", "unknown" if each is None else money(each), f"{seconds(summary.mean_latency)} on the mean"),
    ]


def _warnings(figures: Figures) -> list[str]:
    if not figures.summary.unpriced:
        return []
    models = ", ".join(plain(model) for model, _ in figures.unpriced[:5])
    more = f" and {len(figures.unpriced) - 5} more" if len(figures.unpriced) > 5 else ""
    return [
        (
            f"{count(figures.summary.unpriced)} calls have no known cost and are in no amount here: {models}{more}. "
            "What was really paid is more."
        )
    ]


def _span_words(hours: float | None) -> str:
    return "all calls in the ledger" if hours is None else f"the calls of {_last(hours)}"


def _last(hours: float) -> str:
    return f"the last {hours:g} hours" if hours < 72 else f"the last {hours / 24:g} days"
