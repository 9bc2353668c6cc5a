"""The parts of a report: of each, what is asked, what is drawn, and the same numbers as a table."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from typing import Any

from llm_costopt.monitor import charts
from llm_costopt.monitor.ab import Comparison
from llm_costopt.monitor.advice import Goals, rate
from llm_costopt.monitor.charts import Drawing
from llm_costopt.monitor.figures import Figures, Latency, Route, Slice
from llm_costopt.monitor.intervals import Estimate
from llm_costopt.monitor.verdict import TOO_FEW, interval, points, verdict
from llm_costopt.monitor.wording import between, count, moment, money, plain, seconds, share
from llm_costopt.types import Saved

CAUSES = {
    "cache": "cache",
    "router": "router",
    "batch": "Batch API",
}
"""What people call the causes that we are."""

_UNITS = {3600: ("hour", "%-d %b %H:%M"), 86_400: ("day", "%-d %b"), 604_800: ("week", "%-d %b %Y")}

_TIERS = ("blue", "violet", "green", "red", "grey")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of the page."""

    title: str
    """What it is about."""
    said: tuple[str, ...]
    """What is to be seen, a sentence each."""
    drawing: Drawing | None = None
    """The chart, if there is enough to draw."""
    heads: tuple[str, ...] = ()
    """The heads of the table's columns; no table if empty."""
    rows: tuple[tuple[str, ...], ...] = ()
    """The table's rows."""


def sections(figures: Figures, found: Comparison | str, goals: Goals) -> list[Section]:
    """Lay out the whole report; *found* is the comparison of the arms, or why there is none."""
    return [
        _cost(figures),
        _causes(figures),
        _hit_rate(figures),
        _wrong_hits(figures, goals),
        _routing(figures),
        _quality(found, goals),
        _latency(figures),
        _endpoints(figures),
        _models(figures),
        _unpriced(figures),
    ]


def _cost(figures: Figures) -> Section:
    unit, pattern = _UNITS[figures.width]
    slices = list(_filled(figures))
    rows = [
        {
            "t": s.start * 1000,
            "cost": float(s.cost_usd),
            "baseline": float(s.baseline_usd),
            "tip": f"{moment(s.start, pattern)}: {money(s.cost_usd)} paid, {money(s.baseline_usd)} without us",
        }
        for s in slices
    ]
    drawing = charts.cost_over_time(rows, pattern=pattern, unit=unit) if len(slices) > 2 else _totals(figures)
    return Section(
        title="Cost, with and without",
        said=(
            (
                "Without us: what the same answers would have cost with no cache, all from the strongest model, and without the "
                f"Batch API, at the prices of the day. The first and the last {unit} may not be whole."
            ),
        ),
        drawing=drawing,
        heads=(f"{unit} from (UTC)", "requests", "paid", "saved", "without us"),
        rows=tuple(
            (moment(s.start, pattern), count(s.requests), *map(money, (s.cost_usd, s.saved.total, s.baseline_usd)))
            for s in slices
        ),
    )


def _totals(figures: Figures) -> Drawing:
    paid = figures.summary.cost_usd
    both = (("without us", paid + figures.summary.saved.total, "grey"), ("paid", paid, "blue"))
    return charts.bars(
        [_bar(name, name, amount, money(amount)) for name, amount, _ in both],
        unit="US dollars",
        names={name: colour for name, _, colour in both},
    )


def _causes(figures: Figures) -> Section:
    saved, paid = figures.summary.saved, figures.summary
    amounts = [(words, getattr(saved, cause)) for cause, words in CAUSES.items()]
    rows = [_bar(words, "saved" if amount >= 0 else "lost", amount, money(amount)) for words, amount in amounts]
    names = {"saved": "green"}
    if any(amount < 0 for _, amount in amounts):
        names["lost"] = "red"
    if saved.prompt_cache:
        names["without us too"] = "grey"
        rows.append(_bar("prompt cache", "without us too", saved.prompt_cache, money(saved.prompt_cache)))
    beside = (
        ("rejected drafts, in the router's figure", -paid.rejected_usd),
        ("shadow calls, in the router's figure", -paid.shadow_usd),
        ("the provider's prompt cache, which works without us too", saved.prompt_cache),
    )
    return Section(
        title="Saved, by cause",
        said=(
            (
                f"Of the router's figure, {money(paid.rejected_usd)} for rejected drafts and {money(paid.shadow_usd)} for shadow "
                "calls are already taken off."
            ),
        ),
        drawing=charts.bars(rows, unit="US dollars", names=names, room=110, step=50),
        heads=("cause", "US dollars"),
        rows=tuple((words, money(amount)) for words, amount in (*amounts, *beside)),
    )


def _hit_rate(figures: Figures) -> Section:
    unit, pattern = _UNITS[figures.width]
    found = [(s, rate(s.exact + s.semantic, s.requests)) for s in _filled(figures)]
    rows = [
        {
            "t": s.start * 1000,
            "value": of and of.value,
            "low": of and of.low,
            "high": of and of.high,
            "tip": f"{moment(s.start, pattern)}: {'too few requests' if of is None else between(of)}",
        }
        for s, of in found
    ]
    hits, requests = sum(figures.summary.hits.values()), figures.summary.requests
    said = f"The cache answered {count(hits)} of {count(requests)} requests, {share(figures.summary.hit_rate)}."
    enough = sum(of is not None for _, of in found) > 2
    return Section(
        title="Hit rate",
        said=(
            said,
            *([] if enough else [f"Over time: {TOO_FEW}, with 30 requests in three {unit}s or more there is a chart."]),
        ),
        drawing=charts.rate_over_time(rows, pattern=pattern, title="share of the requests") if enough else None,
        heads=(f"{unit} from (UTC)", "requests", "exact hits", "semantic hits", "hit rate, 95 % interval"),
        rows=tuple(
            (
                moment(s.start, pattern),
                *map(count, (s.requests, s.exact, s.semantic)),
                TOO_FEW if of is None else between(of),
            )
            for s, of in found
        ),
    )


def _wrong_hits(figures: Figures, goals: Goals) -> Section:
    rows, table = [], []
    for judged in figures.judged:
        of, hits = rate(judged.wrong, judged.judged), figures.summary.hits[judged.cache]
        told = TOO_FEW if of is None else between(of)
        table.append((judged.cache, count(hits), count(judged.judged), count(judged.wrong), told))
        if of is not None:
            part = hits / max(1, figures.summary.requests)
            ends = {"value": of.value * part, "low": of.low * part, "high": of.high * part}
            tip = f"{judged.cache}: {between(Estimate(**ends))} of all requests"
            rows.append({"name": judged.cache, **ends, "tip": tip})
    judged_in_all = sum(judged.judged for judged in figures.judged)
    lacking = f"{count(judged_in_all)} hits have a score: {TOO_FEW}. Give scores with Ledger.score."
    return Section(
        title="Wrong hits, measured",
        said=(
            f"Scored below a half, of {count(judged_in_all)} hits that somebody scored; as a share of all requests. "
            f"Dashed: {share(goals.max_error)}, the limit."
            if rows
            else lacking,
        ),
        drawing=charts.intervals(rows, unit="share of all requests", style=".1%", mark_at=goals.max_error)
        if rows
        else None,
        heads=("found as", "hits", "scored", "wrong", "wrong of the scored, 95 % interval"),
        rows=tuple(table),
    )


def _routing(figures: Figures) -> Section:
    answers = [r for r in figures.routes if not r.rejected]
    if not answers:
        return Section(title="Routing", said=("No router decided a request in this time.",))
    tiers = _by_price(answers)
    names = {tier: _TIERS[min(n, len(_TIERS) - 1)] for n, tier in enumerate(tiers)}
    after = "after a rejected draft"
    parts = {**names, **({after: "amber"} if any(r.escalated for r in answers) else {})}
    known = [c for c in ("simple", "medium", "complex") if any(r.complexity == c for r in answers)]
    others = sorted({plain(r.complexity) for r in answers} - set(known))
    rows, table = [], []
    for name in ["all", *known, *others]:
        ways = Counter[str]()
        for r in answers:
            if name in ("all", plain(r.complexity)):
                ways[after if r.escalated else plain(r.tier)] += r.calls
        total = sum(ways.values())
        for order, part in enumerate(parts):
            if ways[part]:
                label = f"{name}, {part}: {share(ways[part] / total)} of {count(total)}"
                rows.append({"name": name, "part": part, "value": ways[part] / total, "order": order, "tip": label})
                table.append((name, part, count(ways[part]), share(ways[part] / total)))
    return Section(
        title="Who answered",
        said=(
            (
                "Requests that a router decided, by how hard it held them to be; "
                f"{share(figures.summary.escalation_rate or 0)} were asked again of a dearer model."
            ),
        ),
        drawing=charts.shares(rows, names=parts),
        heads=("complexity", "answered by", "requests", "share"),
        rows=tuple(table),
    )


def _by_price(answers: Sequence[Route]) -> list[str]:
    costs, calls = defaultdict[str, Decimal](Decimal), Counter[str]()
    for r in answers:
        if not r.escalated:
            costs[plain(r.tier)] += r.cost_usd
            calls[plain(r.tier)] += r.priced
    return sorted(costs, key=lambda tier: costs[tier] / max(1, calls[tier]))


def _quality(found: Comparison | str, goals: Goals) -> Section:
    title = "Routed against control"
    if isinstance(found, str):
        return Section(title=title, said=(f"Nothing to compare: {found}.",))
    sides = (found.routed, found.control)
    rows = [
        {
            "name": plain(side.name, 20),
            "value": side.score.value,
            "low": side.score.low,
            "high": side.score.high,
            "tip": f"{plain(side.name)}: mean score {between(side.score)} over {count(side.scored)} answers",
        }
        for side in sides
        if side.score is not None
    ]
    return Section(
        title=title,
        said=(*verdict(found, target_quality=goals.target_quality), *found.caveats),
        drawing=charts.intervals(rows, unit="mean score, with 95 % intervals", style=".1%") if rows else None,
        heads=("", plain(found.routed.name), plain(found.control.name), "difference"),
        rows=(
            ("requests", *(count(side.requests) for side in sides), ""),
            ("scored", *(count(side.scored) for side in sides), ""),
            ("mean score", *(_or_few(side.score, share) for side in sides), _differs(found.score, points)),
            ("cost per request", *(_or_few(side.cost, money) for side in sides), _differs(found.cost, interval)),
            ("mean latency", *(_or_few(side.latency, seconds) for side in sides), _differs(found.latency, interval)),
            (
                "latency p95",
                *(_or_few(side.latency_p95, seconds) for side in sides),
                _differs(found.latency_p95, interval),
            ),
            ("failed", *(_or_few(side.errors, share) for side in sides), _differs(found.errors, points)),
        ),
    )


def _or_few(of: Estimate | None, write: Callable[[float], str]) -> str:
    return TOO_FEW if of is None else f"{write(of.value)} ({write(of.low)} to {write(of.high)})"


def _differs(of: Estimate | None, write: Callable[[Estimate], str]) -> str:
    return TOO_FEW if of is None else write(of)


def _latency(figures: Figures) -> Section:
    kinds = {"calls": [w for w in figures.latencies if not w.hit], "hits": [w for w in figures.latencies if w.hit]}
    if not figures.latencies:
        return Section(title="Latency", said=("No call says how long it took.",))
    said, rows, table = [], [], []
    for kind, waits in kinds.items():
        if not waits:
            continue
        total = sum(w.calls for w in waits)
        median, p95 = quantile(waits, 0.5), quantile(waits, 0.95)
        said.append(f"{kind.capitalize()}: median {seconds(median)}, 95 % within {seconds(p95)}.")
        table.append((kind, count(total), *map(seconds, (median, p95, waits[-1].seconds))))
        for low, high, calls in _bins(waits):
            tip = f"{kind}, {seconds(low)} to {seconds(high)}: {share(calls / total)}"
            rows.append({"part": kind, "low": low, "high": high, "value": calls / total, "tip": tip})
    return Section(
        title="Latency",
        said=(*said, "Without the Batch API, shadow calls and failures."),
        drawing=charts.histogram(rows, names={"calls": "blue", "hits": "green"}),
        heads=("", "number", "median", "95 % within", "longest"),
        rows=tuple(table),
    )


def quantile(waits: Sequence[Latency], part: float) -> float:
    """Find within how many seconds *part* of the calls ended; *waits* are sorted."""
    total = sum(w.calls for w in waits)
    return next(
        w.seconds for w, so_far in zip(waits, accumulate(w.calls for w in waits), strict=True) if so_far >= part * total
    )


def _bins(waits: Iterable[Latency]) -> Iterator[tuple[float, float, int]]:
    """Put together what falls into the same eighth of a power of ten."""
    bins = Counter[int]()
    for wait in waits:
        bins[math.floor(8 * math.log10(wait.seconds))] += wait.calls
    for n, calls in sorted(bins.items()):
        yield 10 ** (n / 8), 10 ** ((n + 1) / 8), calls


def _endpoints(figures: Figures) -> Section:
    dearest = figures.endpoints[:10]
    rows: list[dict[str, Any]] = []
    for n, endpoint in enumerate(dearest):
        name, saved = plain(endpoint.name, 26), endpoint.saved.total
        name = name if all(r["name"] != name for r in rows) else f"{name} ({n})"
        tip = f"{name}: {money(endpoint.cost_usd)} paid, {money(saved)} saved"
        rows.append(_bar(name, "paid", endpoint.cost_usd, "", tip=tip))
        end = endpoint.cost_usd + max(Decimal(0), saved)
        rows.append(
            {**_bar(name, "saved", max(Decimal(0), saved), money(endpoint.cost_usd), tip=tip), "total": float(end)}
        )
    return Section(
        title="The dearest endpoints",
        said=("What was paid, and what was saved beside it; the ten on which the most was spent.",),
        drawing=charts.bars(rows, unit="US dollars; the figure: paid", names={"paid": "blue", "saved": "green"}),
        heads=("endpoint", "requests", "hit rate", "paid", "saved", "failed calls", "unpriced calls"),
        rows=tuple(
            (
                plain(e.name, 80),
                count(e.requests),
                share(e.hits / e.requests if e.requests else None),
                money(e.cost_usd),
                money(e.saved.total),
                count(e.errors),
                count(e.unpriced),
            )
            for e in dearest
        ),
    )


def _models(figures: Figures) -> Section:
    by_model = list(figures.summary.cost_by_model.items())
    top, rest = by_model[:8], by_model[8:]
    amounts = [(plain(name, 26), usd) for name, usd in top]
    amounts += [(f"{len(rest)} others", sum((usd for _, usd in rest), Decimal(0)))] if rest else []
    total = sum((usd for _, usd in by_model), Decimal(0))
    rows = [_bar(name, "paid", usd, money(usd)) for name, usd in amounts]
    return Section(
        title="Paid, by model",
        said=("Real calls, drafts and shadow calls included.",),
        drawing=charts.bars(rows, unit="US dollars", names={"paid": "blue"}, room=130) if rows else None,
        heads=("model", "paid", "share"),
        rows=tuple(
            (plain(name, 80), money(usd), share(float(usd / total) if total else None)) for name, usd in by_model[:50]
        ),
    )


def _unpriced(figures: Figures) -> Section:
    if not figures.unpriced:
        return Section(title="Not priced", said=("Every call that succeeded has a price.",))
    calls, untold = figures.summary.unpriced, dict(figures.untold)
    return Section(
        title="Not priced",
        said=(
            (
                f"{count(calls)} of {count(figures.summary.calls)} calls succeeded at an unknown cost. No amount on this page "
                "holds them: what was really paid is more. Give their prices with Prices({…}); where no tokens were told, no "
                "price helps."
            ),
        ),
        heads=("model", "calls of unknown cost", "of which told no tokens"),
        rows=tuple((plain(model, 80), count(n), count(untold.get(model, 0))) for model, n in figures.unpriced),
    )


def _bar(name: str, part: str, amount: Decimal, label: str, *, tip: str | None = None) -> dict[str, Any]:
    value = float(amount)
    return {
        "name": name,
        "part": part,
        "value": value,
        "label": label,
        "total": max(0.0, value),
        "tip": tip or f"{name}: {money(amount)}",
    }


def _filled(figures: Figures) -> Iterator[Slice]:
    """Give the slices, and empty ones where nobody called."""
    by_start = {s.start: s for s in figures.slices}
    first, last = figures.slices[0].start, figures.slices[-1].start
    for start in range(first, last + 1, figures.width):
        yield by_start.get(start) or Slice(
            start=start, requests=0, exact=0, semantic=0, routed=0, escalated=0, cost_usd=Decimal(0), saved=Saved()
        )
