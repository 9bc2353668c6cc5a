"""What to change next: plain rules, each with the numbers that it goes by and what it is expected to bring.

A rule that has too few numbers gives no advice and says what it lacks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from llm_costopt.monitor.ab import NOT_RANDOM, Comparison
from llm_costopt.monitor.figures import Endpoint, Figures, Route
from llm_costopt.monitor.intervals import ENOUGH, Estimate
from llm_costopt.monitor.intervals import share as share_of
from llm_costopt.monitor.ledger import Repeats
from llm_costopt.monitor.wording import between, count, money, plain, share

WORTHWHILE = 0.15
"""The hit rate below which a cache adds latency for little."""

_ENOUGH_REQUESTS = 200
"""Requests in each half of the time from which on an endpoint is judged: at a rate of 10 %, 15 % is then excluded."""

_MANY_REPEATS = 0.05
"""The share of paid requests that must be repetitions; where there are fewer, a cache changes little."""

_BATCH_DISCOUNT = 0.5
"""Of the providers that have a Batch API."""

_MONTH = 30 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Goals:
    """What the application wants of the cache and the router."""

    max_error: float = 0.01
    """The share of requests that the cache may answer wrongly."""
    target_quality: float = 0.95
    """The share of the control's quality that the router is to keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One change."""

    title: str
    """What to do."""
    because: str
    """The numbers that speak for it."""
    effect: str
    """What it is expected to bring, and how sure that is."""
    how: str
    """Where it is set."""
    usd: float | None
    """US dollars that it is expected to save in `per`; negative if it costs; None if nobody can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """A question that cannot be answered yet."""

    text: str
    """Which one, and what it lacks."""


Found = Iterator[Advice | Lacking]


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """What dollars are stated for."""

    factor: float
    """What an amount of the time seen is multiplied with."""
    words: str
    """`in 30 days at this rate`, or `in the time seen`, which is less than a day."""


def horizon(figures: Figures) -> Horizon:
    """Project to 30 days, if there is a day to project from."""
    if figures.seconds < 86_400:
        return Horizon(factor=1.0, words="in the time seen")
    return Horizon(factor=_MONTH / figures.seconds, words="in 30 days at this rate")


def advise(
    figures: Figures,
    *,
    comparison: Comparison | None = None,
    repeats: Repeats | None = None,
    goals: Goals | None = None,
) -> tuple[list[Advice], list[Lacking]]:
    """Give the changes that the numbers speak for, the most dollars first, and what cannot be told yet.

    Args:
        figures: what happened.
        comparison: of the routed requests with others; None if there is none.
        repeats: requests that were asked before; None if they are not counted.
        goals: what the application wants; `Goals()` if None.
    """
    goals, to = goals or Goals(), horizon(figures)
    found = list(
        chain(
            _cache_off(figures, to),
            _repeated(figures, repeats, to),
            _wrong_answers(figures, goals, to),
            _routing(figures, comparison, goals, to),
            _losing_drafts(figures, to),
            _batch(figures, to),
            _unpriced(figures, to),
        )
    )
    advice = [f for f in found if isinstance(f, Advice)]
    advice.sort(key=lambda a: float("inf") if a.usd is None else -a.usd)
    return advice, [f for f in found if isinstance(f, Lacking)]


def rate(part: int, whole: int) -> Estimate | None:
    """Estimate a share of cases; None if there are too few."""
    return share_of(np.repeat([1.0, 0.0], [part, whole - part]))


def _cache_off(figures: Figures, to: Horizon) -> Found:
    for endpoint in figures.endpoints:
        if not endpoint.hits:
            continue  # nothing tells a cache that never hit from none
        halves = (
            (endpoint.requests - endpoint.late_requests, endpoint.hits - endpoint.late_hits),
            (endpoint.late_requests, endpoint.late_hits),
        )
        seen = [rate(hits, requests) for requests, hits in halves if requests >= _ENOUGH_REQUESTS]
        if len(seen) == 2 and all(of is not None and of.high < WORTHWHILE for of in seen):
            yield _off(endpoint, to)


def _off(endpoint: Endpoint, to: Horizon) -> Advice:
    name, misses = plain(endpoint.name), endpoint.requests - endpoint.hits
    gives_up = float(endpoint.saved.cache) * to.factor
    of = rate(endpoint.hits, endpoint.requests)
    seen = between(of) if of else share(endpoint.hits / endpoint.requests)
    return Advice(
        title=f"Switch the cache off for {name}",
        because=f"Its hit rate is {seen} of {count(endpoint.requests)} requests, and below {share(WORTHWHILE)} in both "
        "halves of the time: the cache adds a lookup to nearly every request there.",
        effect=f"{count(misses * to.factor)} lookups in vain less; the {money(gives_up)} that its few hits save "
        f"{to.words} is given up.",
        how="a model with cache=False in LangChain, or without CachedLLM in LlamaIndex, for this endpoint",
        usd=-gives_up,
    )


def _repeated(figures: Figures, repeats: Repeats | None, to: Horizon) -> Found:
    summary = figures.summary
    hits = sum(summary.hits.values())
    missed = summary.requests - hits
    if repeats is None or not 0 < repeats.requests <= missed:
        return
    of = rate(repeats.requests, missed)
    if of is None or of.low < _MANY_REPEATS:
        return
    saves = float(repeats.cost_usd) * to.factor
    yield Advice(
        title="Keep answers for longer" if hits else "Put a cache before the models",
        because=f"{count(repeats.requests)} requests, {between(of)} of those that no cache answered, were to the letter what "
        f"was asked before, and were paid again: {money(repeats.cost_usd)}.",
        effect=f"Saves up to {money(saves)} {to.words}: all of it if every answer may be kept for ever, less with a shorter "
        "time to live, and nothing where each answer has to be a new one.",
        how="SemanticCache(ttl=…), longer where answers stay true"
        if hits
        else "set_llm_cache(SemanticCache()), CachedLLM(…)",
        usd=saves,
    )


def _wrong_answers(figures: Figures, goals: Goals, to: Horizon) -> Found:
    requests, hits = figures.summary.requests, figures.summary.hits
    if not sum(hits.values()):
        return
    each = float(figures.summary.saved.cache) / sum(hits.values()) * to.factor
    for judged in figures.judged:
        of = rate(judged.wrong, judged.judged)
        if of is None:
            continue
        part = hits[judged.cache] / requests
        wrong = Estimate(value=of.value * part, low=of.low * part, high=of.high * part)
        basis = (
            f"{judged.wrong} of {count(judged.judged)} scored {judged.cache} hits were wrong, so that wrong ones make "
            f"{between(wrong)} of all requests; {share(goals.max_error)} is allowed."
        )
        if wrong.low > goals.max_error:
            yield _stricter(judged.cache, basis, of, hits[judged.cache] * each, to)
        elif judged.cache == "semantic" and wrong.high < goals.max_error / 2:
            yield _laxer(basis, goals, requests * each / 100, to)
        elif wrong.high > goals.max_error:
            yield Lacking(text=f"Whether the cache keeps to its limit: {basis} Score more of its hits.")
    scored = {judged.cache: judged.judged for judged in figures.judged}
    for kind in ("exact", "semantic"):
        if hits[kind] and scored.get(kind, 0) < ENOUGH:
            yield Lacking(
                text=f"Whether {kind} hits are right: {scored.get(kind, 0)} of {count(hits[kind])} have a score and "
                f"{ENOUGH} are needed (Ledger.score)."
            )


def _stricter(kind: str, basis: str, of: Estimate, worth: float, to: Horizon) -> Advice:
    cost = of.value * worth
    effect = (
        f"The wrong hits look like a saving of {money(cost)} {to.words} ({money(of.low * worth)} to "
        f"{money(of.high * worth)}); at least that much is given up."
    )
    if kind == "exact":
        return Advice(
            title="Keep answers for a shorter time",
            because=f"{basis} The same request was asked before: its answer has become stale.",
            effect=effect,
            how="SemanticCache(ttl=…), shorter for what changes",
            usd=-cost,
        )
    return Advice(
        title="Make the cache stricter",
        because=basis,
        effect=effect,
        how="SemanticCache(max_error=…) below its present value, or a higher threshold",
        usd=-cost,
    )


def _laxer(basis: str, goals: Goals, point: float, to: Horizon) -> Advice:
    return Advice(
        title="Let the cache answer more",
        because=f"{basis} Even the upper end is less than half of that.",
        effect=f"Each further point of the hit rate saves {money(point)} {to.words}; how many points there are to gain "
        "is not known before it is tried.",
        how=f"SemanticCache(max_error=…) above its present value, by steps, watching this figure; the limit here is "
        f"{share(goals.max_error)}",
        usd=point,
    )


def _routing(figures: Figures, found: Comparison | None, goals: Goals, to: Horizon) -> Found:
    if found is None:
        return
    if found.quality is None:
        least = min(found.routed.scored, found.control.scored)
        yield Lacking(text=f"Whether routed answers are as good: one side has {least} scores and {ENOUGH} are needed.")
        return
    if NOT_RANDOM in found.caveats:
        yield Lacking(
            text="Whether to route more or less: no request was kept from the router by chance (control_share=)."
        )
        return
    strong, cheap = _means(figures)
    basis = (
        f"Routed answers keep {between(found.quality)} of the control's quality, over {count(found.routed.scored)} and "
        f"{count(found.control.scored)} scores; the target is {share(goals.target_quality)}."
    )
    if found.quality.low >= goals.target_quality:
        if strong and cheap and strong.usd > cheap.usd:
            yield _more(basis, strong, cheap, to)
        if found.cost is not None and found.cost.high < 1:
            yield from _smaller_control(figures, found, basis)
    elif found.quality.high < goals.target_quality and strong and cheap and strong.usd > cheap.usd:
        yield _less(basis, strong, cheap, to)
    else:
        yield Lacking(text=f"Whether to route more or less: {basis} The interval holds both: score more answers.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tier:
    name: str
    calls: int
    usd: float


def _means(figures: Figures) -> tuple[_Tier | None, _Tier | None]:
    """Give the dearest and the cheapest tier of answers without a draft before them, with what a call costs."""
    tiers: dict[str, list[Route]] = {}
    for route in figures.routes:
        if route.priced and not (route.rejected or route.escalated):
            tiers.setdefault(route.tier, []).append(route)
    known = [
        _Tier(
            name=name,
            calls=sum(r.calls for r in routes),
            usd=float(sum(r.cost_usd for r in routes)) / sum(r.priced for r in routes),
        )
        for name, routes in tiers.items()
    ]
    known.sort(key=lambda tier: tier.usd)
    return (known[-1], known[0]) if len(known) > 1 else (None, None)


def _more(basis: str, strong: _Tier, cheap: _Tier, to: Horizon) -> Advice:
    tenth = 0.1 * strong.calls * (strong.usd - cheap.usd) * to.factor
    return Advice(
        title=f"Send more to {plain(cheap.name)}",
        because=f"{basis} {count(strong.calls)} answers came from {plain(strong.name)} without a draft, at "
        f"{money(strong.usd)} each instead of {money(cheap.usd)}.",
        effect=f"Each tenth of them that goes to {plain(cheap.name)} saves up to {money(tenth)} {to.words}, if they are as "
        "long as the others; they are the harder ones, so watch the quality.",
        how="target_quality= of the router down to the target, or a higher start for complex requests (llm-costopt calibrate)",
        usd=tenth,
    )


def _less(basis: str, strong: _Tier, cheap: _Tier, to: Horizon) -> Advice:
    tenth = 0.1 * cheap.calls * (strong.usd - cheap.usd) * to.factor
    return Advice(
        title=f"Send less to {plain(cheap.name)}",
        because=f"{basis} Even the upper end is below it.",
        effect=f"Each tenth of the {count(cheap.calls)} answers of {plain(cheap.name)} that goes to {plain(strong.name)} "
        f"costs about {money(tenth)} {to.words}, if they are as long as the others.",
        how="target_quality= of the router, with scores (router.feedback or shadow_rate=), or a higher threshold of drafts",
        usd=-tenth,
    )


def _smaller_control(figures: Figures, found: Comparison, basis: str) -> Found:
    routed, control = found.routed.cost, found.control.cost
    part = found.control.requests / (found.control.requests + found.routed.requests)
    if part <= 0.05 or routed is None or control is None:
        return
    compared = figures.compared_seconds
    factor = _MONTH / compared if compared >= 86_400 else 1.0
    surplus = found.control.requests * (1 - 0.05 / part) * factor
    saves = surplus * (control.value - routed.value)
    widest = surplus * float(np.hypot(control.high - control.value, routed.value - routed.low))
    yield Advice(
        title="Shrink the control arm to 5 %",
        because=f"{share(part)} of the compared requests are kept from the router, at {money(control.value)} each instead of "
        f"{money(routed.value)}. {basis}",
        effect=f"Saves {money(saves)} {horizon(figures).words} (± {money(widest)}); later comparisons take longer to tell.",
        how="RouterChatModel(control_share=0.05)",
        usd=saves,
    )


def _losing_drafts(figures: Figures, to: Horizon) -> Found:
    for complexity in sorted({r.complexity for r in figures.routes}):
        routes = [r for r in figures.routes if r.complexity == complexity]
        drafts = sum(r.calls for r in routes if r.rejected)
        accepted = sum(r.calls for r in routes if not (r.rejected or r.escalated))
        saved = float(sum(r.saved_usd for r in routes))
        refused = rate(drafts, drafts + accepted)
        if not drafts or saved >= 0 or refused is None or drafts < ENOUGH:
            continue
        yield Advice(
            title=f"Ask for no drafts of {plain(complexity)} requests",
            because=f"{between(refused)} of {count(drafts + accepted)} drafts were rejected: they cost "
            f"{money(-saved)} more than the accepted ones saved.",
            effect=f"Saves {money(-saved * to.factor)} {to.words}, and the time of the drafts.",
            how="route these straight to the strong tier: target_quality= learns to, from scores",
            usd=-saved * to.factor,
        )


def _batch(figures: Figures, to: Horizon) -> Found:
    for endpoint in figures.endpoints:
        saves = _BATCH_DISCOUNT * float(endpoint.unbatched_usd) * to.factor
        if not saves or endpoint.name is None:
            continue
        why = _can_wait(endpoint)
        if why:
            yield Advice(
                title=f"Send {plain(endpoint.name)} through the Batch API",
                because=f"{why} {money(endpoint.unbatched_usd)} was paid at the full price.",
                effect=f"Saves {money(saves)} {to.words} at the usual discount of 50 %, if its answers may take up to a "
                "day, which no number here can tell.",
                how='use_batch_api(model, "jobs.db")',
                usd=saves,
            )


def _can_wait(endpoint: Endpoint) -> str | None:
    """Say what looks like work that may wait."""
    of = rate(endpoint.batched, endpoint.calls)
    if of is not None and 0.05 < of.value < 0.95:
        return f"{share(of.value)} of its {count(endpoint.calls)} calls already go there."
    if endpoint.busy is None:
        return None
    hour, days, part, calls = endpoint.busy
    of = rate(round(part * calls), calls)
    if of is None or of.low < 0.8 or days < 5:
        return None
    return (
        f"{between(of)} of its {count(calls)} calls come between {hour:02}:00 and {(hour + 2) % 24:02}:59 UTC, on "
        f"{days} days: it looks like a job that a clock starts."
    )


def _unpriced(figures: Figures, to: Horizon) -> Found:
    means = [float(r.cost_usd) / r.priced for r in figures.routes if r.priced and not r.rejected] or [
        float(figures.summary.cost_usd) / max(1, figures.summary.calls - figures.summary.unpriced)
    ]

    def effect(calls: int) -> str:
        low, high = (calls * end * to.factor for end in (min(means), max(means)))
        guess = (
            f": {money(low)} to {money(high)} {to.words} if it costs a call what the cheapest and the dearest of the other "
            "routes do."
        )
        return f"Saves nothing, but shows what is spent{guess if high else ', which nothing here tells.'}"

    untold = dict(figures.untold)
    for model, calls in figures.unpriced[:5]:
        if told := calls - untold.get(model, 0):
            yield Advice(
                title=f"Give a price for {plain(model)}",
                because=f"{count(told)} calls went to it and the price list does not know it: they are in no amount here.",
                effect=effect(told),
                how=f"Prices({{{plain(model)!r}: (input, output)}}), in US dollars per million tokens",
                usd=None,
            )
        if told < calls:
            yield Advice(
                title=f"Have {plain(model)} tell its tokens",
                because=f"{count(calls - told)} calls of it told none, as a stream does that is not asked to: they are in no "
                "amount here.",
                effect=effect(calls - told),
                how="stream_usage=True of ChatOpenAI, which asks for them by itself only without a base_url",
                usd=None,
            )
