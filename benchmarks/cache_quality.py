"""How often does the cache hit, and how often is a hit wrong? Streams and pairs, through the public API.

    python benchmarks/cache_quality.py [--stream FILE ...] [--pairs FILE ...] [--max-error 0.01 | --threshold 0.97 |
                                       --preset conservative] [--embedder MODULE:NAME] [--orders 5] [--free-text] [--json]

A line of a stream is `{"text": …, "same_as": …}` in order of arrival: a miss stores the right answer, as a model
would give it, and a hit is right when both requests have the same `same_as`. A line of a file of pairs is
`{"a": …, "b": …, "same": 0 or 1, "type": optional}`: `a` is stored and `b` is looked up, alone in its scope. Rates are shares of
all requests; intervals are Wilson's, at 95 %. Beside a stream stands the best plain threshold in hindsight.
With `--free-text` the answers are not the labels but sentences in several wordings (see `free_text.py`), or what a row
has as `answer`, so that the cache must judge which answers say the same; a hit is right by `same_as` all the same.
"""

import argparse
import importlib
import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from free_text import worded
from guards import wilson

from llm_costopt.cache import verifier, verify
from llm_costopt.cache.embed import Embedder, unit
from llm_costopt.cache.reading import sketch
from llm_costopt.cache.semantic import SemanticCache
from llm_costopt.presets import CACHE
from llm_costopt.types import Answer, Message, Question


def question(text: str, scope: str = "") -> Question:
    """Ask *text* under a system prompt that no other scope has."""
    return Question(messages=(Message(role="system", text=scope), Message(role="human", text=text)))


def rows(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def replay(stream: Sequence[dict[str, Any]], options: dict[str, Any]) -> tuple[int, int, int]:
    """Replay a stream; count hits, wrong hits and requests that were only checked."""
    cache = SemanticCache(**options, ttl=None)
    hits = wrong = 0
    for row in stream:
        asked = question(row["text"])
        if hit := cache.find(asked):
            hits += 1
            wrong += hit.payload != row["same_as"]
        else:
            cache.save(asked, Answer(text=row.get("answer", row["same_as"])), row["same_as"])
    return hits, wrong, cache.stats().refused.get("shadow", 0)


def measure_stream(path: Path, options: dict[str, Any], orders: int, free_text: bool) -> dict[str, Any]:
    """Replay a stream in the order of the file and in random ones."""
    stream = worded(rows(path)) if free_text else rows(path)
    runs = []
    for seed in range(orders):
        order = list(stream)
        if seed:
            random.Random(seed).shuffle(order)
        runs.append([n / len(stream) for n in replay(order, options)])
        print(f"{path.name}, order {seed}: hits, wrong, shadow = {[round(r, 4) for r in runs[-1]]}", file=sys.stderr)
    hit, wrong, shadow = np.mean(runs, axis=0)
    curve = plain_curve(stream, options["embedder"])
    max_error = options.get("max_error") or CACHE[options.get("preset", "balanced")]["max_error"]
    return {
        "n": len(stream),
        "orders": orders,
        "hit_rate": round(float(hit), 4),
        "error_rate": round(float(wrong), 4),
        "error_rate_max": round(max(r[1] for r in runs), 4),
        "error_interval": wilson(round(float(wrong) * len(stream)), len(stream)),
        "shadow_rate": round(float(shadow), 4),
        "plain_best_hit_rate": max((h for _, h, e in curve if e <= max_error), default=0.0),
        "plain_curve": [{"threshold": t, "hit_rate": h, "error_rate": e} for t, h, e in curve],
    }


def plain_curve(stream: Sequence[dict[str, Any]], embedder: Embedder) -> list[tuple[float, float, float]]:
    """Replay with plain thresholds: the nearest stored question is served at or above it, whatever else differs."""
    vectors = np.array([embedder.embed(row["text"]) for row in stream], dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    found = []
    for threshold in (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95):
        stored: list[int] = []
        hits = wrong = 0
        space = np.empty_like(vectors)
        for n, row in enumerate(stream):
            similar = space[: len(stored)] @ vectors[n]
            if stored and similar.max() >= threshold:
                hits += 1
                wrong += stream[stored[int(similar.argmax())]]["same_as"] != row["same_as"]
            else:
                space[len(stored)] = vectors[n]
                stored.append(n)
        found.append((threshold, round(hits / len(stream), 4), round(wrong / len(stream), 4)))
    return found


def measure_pairs(path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Look up each pair alone in its scope, and rank all by what the verifier makes of them."""
    pairs = rows(path)
    unchecked = {} if "threshold" in options else {"shadow_rate": 1e-9}
    cache = SemanticCache(**options, **unchecked, ttl=None)
    by_type: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    results, ranked = [], []
    for n, row in enumerate(pairs):
        scope = str(n)
        cache.save(question(row["a"], scope), Answer(text="stored"), "stored")
        hit = cache.find(question(row["b"], scope)) is not None
        results.append((hit, bool(row["same"])))
        by_type[row.get("type", "all")].append(results[-1])
        ranked.append((sure(row["a"], row["b"], cache.embedder), bool(row["same"])))
    return {
        **shares(results),
        "recall_at_precision": recall(ranked),
        "by_type": {t: shares(r) for t, r in by_type.items()},
    }


def shares(results: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    """Count hits among the same and among the different."""
    same, different = ([hit for hit, s in results if s is kind] for kind in (True, False))
    return {
        "n": len(results),
        "hit_recall": round(sum(same) / len(same), 4) if same else None,
        "wrong_hit_rate": round(sum(different) / len(different), 4) if different else None,
        "wrong_hit_interval": wilson(sum(different), len(different)),
    }


def sure(stored: str, asked: str, embedder: Embedder) -> float:
    """Ask the verifier about one pair."""
    a, b = unit(embedder.embed(stored)), unit(embedder.embed(asked))
    similarity = 0.0 if a is None or b is None else float(a @ b)
    near = [verify.Neighbour("1", similarity, stored, 1, *sketch(stored))]
    chosen = verify.candidate(asked, near)
    return 0.0 if chosen is None else SHIPPED.sure(verify.evidence(asked, near, chosen, 1))


SHIPPED = verifier.Verifier()


def recall(ranked: Iterable[tuple[float, bool]]) -> dict[str, float]:
    """Find the largest share of the same pairs that some bar admits at each precision."""
    order = sorted(ranked, key=lambda r: -r[0])
    same = sum(s for _, s in order)
    right = np.cumsum([s for _, s in order])
    precision = right / np.arange(1, len(order) + 1)
    # A bar cannot fall between equals.
    ends = [n for n in range(len(order)) if n + 1 == len(order) or order[n][0] != order[n + 1][0]]
    return {
        str(p): round(max((int(right[n]) for n in ends if precision[n] >= p), default=0) / max(1, same), 4)
        for p in (0.9, 0.95, 0.97)
    }


def named(place: str) -> Embedder:
    """Make the embedder of a class or function, said as `package.module:Name`."""
    module, _, name = place.partition(":")
    embedder: Embedder = getattr(importlib.import_module(module), name)()
    return embedder


def main() -> None:
    """Print the figures of each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stream", nargs="*", type=Path, default=[])
    parser.add_argument("--pairs", nargs="*", type=Path, default=[])
    parser.add_argument("--max-error", type=float, default=0.01)
    parser.add_argument("--orders", type=int, default=5)
    parser.add_argument("--free-text", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--preset", choices=list(CACHE))
    parser.add_argument(
        "--embedder", type=named, default="llm_costopt.cache.embed:WordLlamaEmbedder", metavar="MODULE:NAME"
    )
    options = parser.parse_args()
    said: dict[str, Any] = {"max_error": options.max_error}
    if options.preset:
        said = {"preset": options.preset}
    if options.threshold:
        said = {"threshold": options.threshold, "min_hit_rate": 0}  # or so rare hits would switch it off
    whole = {**said, "embedder": options.embedder}
    found = {
        **said,
        "embedder": options.embedder.name,
        "streams": {str(p): measure_stream(p, whole, options.orders, options.free_text) for p in options.stream},
        "pairs": {str(p): measure_pairs(p, whole) for p in options.pairs},
    }
    if options.json:
        print(json.dumps(found))
        return
    for kind in ("streams", "pairs"):
        for path, figures in found[kind].items():
            print(path)
            for name, value in figures.items():
                print(f"  {name}: {value}")


if __name__ == "__main__":
    main()
