"""How fast, how faithful and how big is the index of the cache, at which number of entries in one scope?

    python benchmarks/index.py [--texts FILE.jsonl ...] [--sizes 1000 10000 100000] [--queries 300] [--json]

A text is what stands under "text", "a" or "b" in a line of a file; without files they are made up from words. A tenth
(at most 5,000) is held out to be asked. If there are fewer texts than entries, more are made of the rest: by joining
halves of two, or by changing up to three words. Each row of the table is measured in a process of its own. Times are
medians, with one thread of BLAS, `cpu` is the mean time on the processor, which other load on the machine lengthens
less; recall is the share of the 8 true neighbours at that cosine or above that were found.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COUNT = 8
FINE = 1e-4
"""What two similarities of the same vectors may differ by: the sketched index keeps 16 bits a number."""
SIZES = (1000, 10_000, 100_000, 1_000_000)
KINDS = ("exact", "sketch", "default", "faiss flat", "faiss hnsw")
WORDS = (
    "how what why when can do does is the a my your order card account refund cancel change find pay send help".split()
)


def texts_of(files: list[Path]) -> list[str]:
    """List the distinct texts of *files*, in random order."""
    rows = [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    found = sorted({" ".join(str(row[key]).split()) for row in rows for key in ("text", "a", "b") if row.get(key)})
    rng = random.Random(5)
    if not found:
        words = [*WORDS, *(f"thing{n}" for n in range(3000))]
        found = sorted({" ".join(rng.choices(words, k=rng.randint(4, 12))) for _ in range(20_000)})
    rng.shuffle(found)
    return found


def more_like(texts: list[str], count: int) -> list[str]:
    """Return *count* distinct texts: those given, then recombined ones."""
    rng, words = random.Random(6), [word for text in texts for word in text.split()]
    made = dict.fromkeys(texts[:count])
    while len(made) < count:
        one, other = rng.choice(texts).split(), rng.choice(texts).split()
        if rng.random() < 0.5:
            one = one[: len(one) // 2] + other[len(other) // 2 :]
        else:
            for _ in range(rng.randint(1, 3)):
                one[rng.randrange(len(one))] = rng.choice(words)
        made.setdefault(" ".join(one) or "?")
    return list(made)


def embed(texts: list[str]) -> Any:
    """Embed as the cache does, but many at a time; texts without a meaning are left out."""
    import numpy as np

    from llm_costopt.cache.embed import _model

    folded = [" ".join(text.casefold().split()).rstrip("?!. ") for text in texts]
    vectors = np.concatenate([_model().embed(folded[n : n + 5000]) for n in range(0, len(folded), 5000)])
    length = np.linalg.norm(vectors, axis=1)
    return (vectors[length > 0] / length[length > 0, None]).astype(np.float32)


def make_index(kind: str) -> Any:
    """Make an empty index."""
    from llm_costopt.cache.faiss import FaissIndex
    from llm_costopt.cache.index import MemoryIndex

    if kind == "faiss flat":
        return FaissIndex()
    below = {"exact": sys.maxsize, "sketch": 0}.get(kind)
    return MemoryIndex() if below is None else MemoryIndex(exact_below=below)


class Hnsw:
    """One HNSW graph with the parameters that others take: nothing can be removed, so it is here to compare only."""

    def __init__(self, dimensions: int) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self._graph = faiss.IndexHNSWFlat(dimensions, 32, faiss.METRIC_INNER_PRODUCT)
        self._graph.hnsw.efConstruction, self._graph.hnsw.efSearch = 80, 64

    def add(self, entry: int, scope: str, vector: Any) -> None:  # noqa: ARG002
        """Add a vector; ids count from 1."""
        self._graph.add(vector[None])

    def near(self, scope: str, vector: Any, count: int) -> list[tuple[int, float]]:  # noqa: ARG002
        """List the nearest."""
        similarity, ids = self._graph.search(vector[None], count)
        return [(int(n) + 1, float(s)) for n, s in zip(ids[0], similarity[0], strict=True)]


def resident() -> int:
    """Return the bytes of memory that this process holds, without the files that it has mapped (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def timed(call: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> tuple[list[Any], list[float], float]:
    """Call once for each of *arguments*; return what came out, the milliseconds of each and those of the processor."""
    results, took, cpu = [], [], time.thread_time()
    for argument in arguments:
        start = time.perf_counter()
        results.append(call(*argument))
        took.append(1000 * (time.perf_counter() - start))
    return results, took, 1000 * (time.thread_time() - cpu)


def measure(kind: str, size: int, folder: Path, scopes: int) -> dict[str, Any]:
    """Fill one index with *size* entries in so many *scopes* and search it."""
    import numpy as np

    # Mapped, so that the vectors do not count as memory of the index until they are in it.
    entries, asked = np.load(folder / "entries.npy", mmap_mode="r"), np.load(folder / "asked.npy")
    index = Hnsw(entries.shape[1]) if kind == "faiss hnsw" else make_index(kind)
    index.near("scope 0", asked[0], COUNT)
    spent, cpu, held = np.zeros(size), 0.0, resident()
    for start in range(0, size, 1000):
        block = np.array(entries[start : min(start + 1000, size)])
        named = [(start + n + 1, f"scope {(start + n) % scopes}", vector) for n, vector in enumerate(block)]
        _, spent[start : start + len(block)], more = timed(index.add, named)
        cpu += more
    held = resident() - held
    questions = [(f"scope {n % scopes}", vector, COUNT) for n, vector in enumerate(asked)]
    timed(index.near, questions[:20])
    found, took, search_cpu = timed(index.near, questions)
    row = {
        "kind": kind, "entries": size, "scopes": scopes, "queries": len(asked), "search_ms": statistics.median(took),
        "search_ms_p10": statistics.quantiles(took, n=10)[0], "search_ms_p90": statistics.quantiles(took, n=10)[-1],
        "search_cpu_ms": search_cpu / len(asked), "add_us": 1000 * float(np.median(spent)),
        "add_cpu_us": 1000 * cpu / size, "add_ms_worst": float(spent.max()), "bytes": held / size,
    }  # fmt: skip
    return row if scopes > 1 else {**row, **fidelity([[s for _, s in f] for f in found], folder, size)}


def fidelity(found: list[list[float]], folder: Path, size: int) -> dict[str, Any]:
    """Compare with the true similarities, rank by rank: which of several equal vectors was found makes no difference."""
    import numpy as np

    truth = np.load(folder / f"truth-{size}.npy")
    # One that was missed moves all that are behind it up, so each true one looks for its own among those found.
    hits = np.array([_matched(want, got) for want, got in zip(truth, found, strict=True)])
    figures: dict[str, Any] = {"top1": float(hits[:, 0].mean()), "top8": float(hits.mean())}
    for floor in (0.75, 0.6, 0.5, 0.3):
        above = truth >= floor
        figures |= {
            f"recall_{floor}": float(hits[above].mean()) if above.any() else None,
            f"n_{floor}": int(above.sum()),
        }
    return figures


def _matched(want: Any, got: list[float]) -> list[bool]:
    left, hits = sorted(got), []
    for similarity in want:
        match = min(left, key=lambda g: abs(g - similarity), default=None)
        hits.append(match is not None and abs(match - similarity) < FINE)
        if match is not None and hits[-1]:
            left.remove(match)
    return hits


def write_truth(size: int, folder: Path) -> None:
    """Write down how near the nearest of the first *size* entries are to all that is asked."""
    import numpy as np

    entries, asked = np.load(folder / "entries.npy", mmap_mode="r"), np.load(folder / "asked.npy")
    best = np.empty((len(asked), 0), dtype=np.float32)
    for start in range(0, size, 20_000):
        product = asked @ entries[start : min(start + 20_000, size)].T
        best = -np.sort(-np.concatenate([best, product], axis=1), axis=1)[:, :COUNT]
    np.save(folder / f"truth-{size}.npy", best)


def run(kind: str, size: int, folder: Path, scopes: int = 1) -> dict[str, Any] | None:
    """Measure in a process of its own; None if a package is missing."""
    code = (
        f"import sys, json, pathlib; sys.path.insert(0, {str(Path(__file__).parent)!r}); import index\n"
        f"print(json.dumps(index.measure({kind!r}, {size}, pathlib.Path({str(folder)!r}), {scopes})))"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    if "ModuleNotFoundError" in out.stderr or "MissingExtraError" in out.stderr:
        return None
    if out.returncode:
        raise SystemExit(out.stderr)
    result: dict[str, Any] = json.loads(out.stdout)
    return result


def prepare(files: list[Path], most: int, queries: int, folder: Path) -> None:
    """Write the vectors to add and to ask."""
    import numpy as np

    texts = texts_of(files)
    held_out = min(len(texts) // 10, 5000)
    np.save(folder / "asked.npy", embed(texts[:held_out])[:queries])
    # A few more, for those that have no meaning.
    np.save(folder / "entries.npy", embed(more_like(texts[held_out:], most + most // 100 + 10))[:most])


COLUMNS = (
    "kind", "entries", "scopes", "search_ms", "search_ms_p10", "search_ms_p90", "search_cpu_ms", "add_us", "add_cpu_us",
    "add_ms_worst", "bytes",
    "top1", "top8", "recall_0.75", "recall_0.6", "recall_0.5", "recall_0.3",
)  # fmt: skip


def cell(row: dict[str, Any], column: str) -> str:
    """Format one figure."""
    value = row.get(column)
    if isinstance(value, float):
        text = (
            f"{value:.4f}"
            if column.startswith(("top", "recall"))
            else f"{value:.3f}"
            if value < 100
            else f"{value:.0f}"
        )
    else:
        text = "-" if value is None else str(value)
    return text.rjust(max(10, len(column)))


def main() -> None:
    """Print one row for each kind and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", nargs="*", type=Path, default=[])
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), []
        prepare(options.texts, max(options.sizes), options.queries, folder)
        for size in options.sizes:
            write_truth(size, folder)
            rows += [row for kind in options.kinds if (row := run(kind, size, folder))]
        rows += [row for row in [run("default", min(100_000, max(options.sizes)), folder, scopes=100_000)] if row]
    if options.json:
        json.dump({"load": os.getloadavg(), "rows": rows}, sys.stdout)
        print()
        return
    print(*(column.rjust(max(10, len(column))) for column in COLUMNS))
    for row in rows:
        print(*(cell(row, column) for column in COLUMNS))


if __name__ == "__main__":
    main()
