"""How long do a summary, an append and a list of requests take, at which number of records in the ledger?

    python benchmarks/ledger.py [--sizes 10000 100000 1000000] [--days 30] [--models 3] [--json]

The ledger is a file, filled with calls spread evenly over the days and models: two tags of ten, a fifth hits, and
one in seven an escalation whose draft was rejected. Times are medians of 9 (of 1 for a list of all requests), of
2,000 appends the median and the 95th percentile; `open` is a new connection with its first summary.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from llm_costopt.monitor.ledger import Ledger
from llm_costopt.types import CallRecord, Saved, Usage


def records(count: int, *, days: float, models: int, now: float) -> Iterator[CallRecord]:
    """Make *count* records, the oldest first."""
    rng, draft = random.Random(7), None
    for number in range(count):
        hit = draft is None and rng.random() < 0.2
        cost = Decimal(0 if hit else rng.randint(1, 10**9)).scaleb(-11)
        record = CallRecord(
            id=str(uuid.UUID(int=rng.getrandbits(128))),
            at=now - 86_400 * days * (1 - number / count),
            model=f"model-{rng.randrange(models)}",
            provider="openai",
            usage=Usage(input_tokens=rng.randint(1, 2000), output_tokens=rng.randint(1, 500)),
            cost=cost,
            saved=Saved(cache=cost) if hit else Saved(router=cost),
            latency=rng.random(),
            cache="exact" if hit else None,
            complexity="medium",
            replaces=draft,
            tags=(f"team-{rng.randrange(10)}", f"feature-{rng.randrange(10)}"),
            arm="routed",
        )
        yield record
        draft = record.id if not hit and draft is None and rng.random() < 0.2 else None


def median_ms(act: Callable[[], Any], repeats: int = 9) -> float:
    """Measure *act*."""
    return round(statistics.median(seconds(act) for _ in range(repeats)) * 1000, 2)


def seconds(act: Callable[[], Any]) -> float:
    """Measure *act* once."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def opened(path: Path) -> None:
    """Open the file anew and sum it up."""
    with Ledger(path) as ledger:
        ledger.summary(None)


def measure(path: Path, size: int, *, days: float, models: int) -> dict[str, Any]:
    """Fill a ledger and measure it."""
    now = time.time()
    made = list(records(size + 2000, days=days, models=models, now=now))
    with Ledger(path, clock=lambda: now) as ledger:
        filled = seconds(lambda: [ledger.append(record) for record in made[:size]])
        appends = sorted(seconds(lambda record=record: ledger.append(record)) for record in made[size:])
        row = {
            "records": size,
            "days": days,
            "models": models,
            "megabytes": round(sum(f.stat().st_size for f in path.parent.glob(f"{path.name}*")) / 1e6, 1),
            "fill_s": round(filled, 1),
            "append_us": round(statistics.median(appends) * 1e6),
            "append_p95_us": round(appends[int(0.95 * len(appends))] * 1e6),
            "summary_all_ms": median_ms(lambda: ledger.summary(None)),
            "summary_day_ms": median_ms(lambda: ledger.summary(24)),
            "summary_7_days_ms": median_ms(lambda: ledger.summary(7 * 24 - 0.5)),
            "requests_day_ms": median_ms(lambda: ledger.requests(24)),
            "requests_all_ms": median_ms(lambda: ledger.requests(None), 1),
        }
    return row | {"open_ms": median_ms(lambda: opened(path))}


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--days", type=float, default=30)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            row = measure(Path(folder) / "ledger.db", size, days=args.days, models=args.models)
        print(json.dumps(row) if args.json else "  ".join(f"{k} {v}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
