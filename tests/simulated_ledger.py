"""Thirty days of an application that does not exist: simulated calls, for looking at reports.

`python -m tests.simulated_ledger simulated.db` writes a file. Traffic, prices, latencies and scores are made up.
"""

import hashlib
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from llm_costopt.monitor.ledger import Ledger
from llm_costopt.types import Arm, CacheKind, CallRecord, Saved, Usage

END = datetime(2026, 11, 24, tzinfo=UTC).timestamp()

_RATES = {"gpt-4o": ("0.0000025", "0.00001"), "gpt-4o-mini": ("0.00000015", "0.0000006")}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Endpoint:
    name: str
    weight: int
    tokens: tuple[int, int]
    hit: float
    mix: tuple[int, int, int]
    nightly: bool = False
    batch: float = 0.0


_ENDPOINTS = (
    _Endpoint(name="POST /support", weight=38, tokens=(420, 160), hit=0.58, mix=(75, 17, 8)),
    _Endpoint(name="GET /search", weight=22, tokens=(300, 120), hit=0.37, mix=(60, 25, 15)),
    _Endpoint(name="POST /code", weight=12, tokens=(900, 420), hit=0.19, mix=(20, 30, 50)),
    _Endpoint(name="POST /extract", weight=12, tokens=(1100, 180), hit=0.0, mix=(55, 30, 15), batch=0.35),
    _Endpoint(name="POST /slogans", weight=8, tokens=(200, 240), hit=0.05, mix=(40, 40, 20)),
    _Endpoint(name="nightly-digest", weight=8, tokens=(2600, 380), hit=0.0, mix=(10, 60, 30), nightly=True),
)


def simulate(ledger: Ledger, *, days: int = 30, per_day: int = 200, seed: int = 7, end: float = END) -> None:
    """Append what *per_day* requests a day might have left behind, and scores of a fifth of the answers."""
    rng = random.Random(seed)
    for n in range(days * per_day):
        day = n // per_day
        called = rng.choices(_ENDPOINTS, [e.weight for e in _ENDPOINTS])[0]
        at = end - 86_400 * (days - day) + 3600 * _hour(rng, nightly=called.nightly)
        records = list(_request(rng, called, f"{seed}-{n}", at, grown=min(1.0, 0.35 + day / 14), routed=day >= 4))
        for record in records:
            ledger.append(record)
        if rng.random() < 0.2 and not records[-1].error:
            ledger.score(records[-1].id, float(rng.random() < _quality(records[-1])))


def _request(
    rng: random.Random, called: _Endpoint, name: str, at: float, *, grown: float, routed: bool
) -> Iterator[CallRecord]:
    usage = Usage(
        input_tokens=round(called.tokens[0] * rng.lognormvariate(0, 0.5)),
        output_tokens=round(called.tokens[1] * rng.lognormvariate(0, 0.6)),
    )
    arm: Arm | None = None if not routed else ("control" if rng.random() < 0.15 else "routed")
    asked = min(int(rng.paretovariate(0.08)), 10**9)
    own: dict[str, Any] = {
        "request": hashlib.blake2b(f"{called.name}{asked}".encode()).hexdigest()[:32],
        "at": at,
        "usage": usage,
        "endpoint": called.name,
        "arm": arm,
        "provider": "openai",
    }
    if rng.random() < called.hit * grown:
        kind: CacheKind = "exact" if rng.random() < 0.45 else "semantic"
        latency = rng.lognormvariate(-7.6 if kind == "exact" else -6.6, 0.4)
        saved = Saved(cache=_price("gpt-4o", usage))
        yield CallRecord(id=name, model="gpt-4o", cost=Decimal(0), saved=saved, latency=latency, cache=kind, **own)
        return
    if called.batch and rng.random() < called.batch:
        full = _price("gpt-4o", usage)
        yield CallRecord(id=name, model="gpt-4o", cost=full / 2, saved=Saved(batch=full / 2), batch=True, **own)
        return
    if called.batch and rng.random() < 0.04:
        yield CallRecord(id=name, model="in-house-7b", cost=None, latency=rng.lognormvariate(-0.5, 0.4), **own)
        return
    if arm != "routed":
        yield _call(rng, name, "gpt-4o", usage, own)
        return
    yield from _routed(rng, called, name, usage, own)


def _routed(
    rng: random.Random, called: _Endpoint, name: str, usage: Usage, own: dict[str, Any]
) -> Iterator[CallRecord]:
    complexity = rng.choices(("simple", "medium", "complex"), called.mix)[0]
    told = {**own, "complexity": complexity}
    if complexity == "complex":
        yield _call(rng, name, "gpt-4o", usage, {**told, "tier": "strong"})
        return
    escalated = complexity == "medium" and rng.random() < (0.8 if called.name == "POST /code" else 0.22)
    yield _call(rng, f"{name}-draft" if escalated else name, "gpt-4o-mini", usage, {**told, "tier": "cheap"})
    if escalated:
        draft = {**told, "tier": "strong", "replaces": f"{name}-draft"}
        yield _call(rng, name, "gpt-4o", usage, draft)
    if rng.random() < 0.02:
        yield _call(rng, f"{name}-shadow", "gpt-4o", usage, {**told, "tier": "strong", "shadow": True})


def _call(rng: random.Random, name: str, model: str, usage: Usage, told: dict[str, Any]) -> CallRecord:
    cost, strong = _price(model, usage), _price("gpt-4o", usage)
    latency = rng.lognormvariate(0.25 if model == "gpt-4o" else -0.45, 0.45)
    failed = rng.random() < 0.004
    return CallRecord(
        id=name,
        model=model,
        cost=None if failed else cost,
        saved=None if failed else Saved(router=strong - cost),
        error="APITimeoutError" if failed else None,
        latency=latency,
        **told,
    )


def _price(model: str, usage: Usage) -> Decimal:
    read, written = map(Decimal, _RATES[model])
    return read * usage.input_tokens + written * usage.output_tokens


def _quality(record: CallRecord) -> float:
    if record.cache:
        return 0.995 if record.cache == "exact" else 0.975
    return 0.955 if record.model == "gpt-4o" else 0.94


def _hour(rng: random.Random, *, nightly: bool) -> float:
    return rng.uniform(1.0, 3.5) if nightly else rng.triangular(0, 24, 14)


if __name__ == "__main__":
    with Ledger(sys.argv[1]) as opened:
        simulate(opened, per_day=int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
