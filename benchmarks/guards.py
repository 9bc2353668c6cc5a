"""What do the guards give up and what do they prevent, on labelled pairs of questions?

    python benchmarks/guards.py PAIRS.jsonl ... [--threshold 0.95] [--json]

A line of a file is `{"a": …, "b": …, "same": 0 or 1}`: one answer serves both, or not. A plain hit is a
cosine of at least the threshold with the bundled embedder; a guarded hit is one that no guard refuses.
Intervals are Wilson's, at 95 %.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from llm_costopt.cache.embed import WordLlamaEmbedder, unit
from llm_costopt.cache.guards import GUARDS, Candidate, refusal


def wilson(hits: int, n: int) -> list[float] | None:
    """Return the 95 % interval of a share."""
    if not n:
        return None
    z, p = 1.96, hits / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [round((middle + sign * half) / (1 + z * z / n), 4) for sign in (-1, 1)]


def share(hits: int, n: int) -> dict[str, Any]:
    """Describe a share with its interval."""
    return {"share": round(hits / n, 4) if n else None, "n": n, "interval": wilson(hits, n)}


def measure(path: Path, threshold: float) -> dict[str, Any]:
    """Count hits over the pairs of one file."""
    embedder = WordLlamaEmbedder()
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    plain: list[bool] = []
    guarded: list[bool] = []
    for row in rows:
        a, b = (unit(embedder.embed(row[side])) for side in ("a", "b"))
        similarity = 0.0 if a is None or b is None else float(a @ b)
        if similarity >= threshold:
            plain.append(bool(row["same"]))
            if not refusal(Candidate(asked=row["b"], stored=row["a"], similarity=similarity), GUARDS):
                guarded.append(bool(row["same"]))
    same = sum(bool(row["same"]) for row in rows)
    return {
        name: {
            "hits": len(hits),
            "precision": share(sum(hits), len(hits)),
            "recall": share(sum(hits), same),
            "wrong_hit_rate": share(len(hits) - sum(hits), len(rows) - same),
        }
        for name, hits in (("plain", plain), ("guarded", guarded))
    }


def main() -> None:
    """Print the figures of each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--threshold", type=float, default=0.95)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {str(path): measure(path, options.threshold) for path in options.files}
    if options.json:
        json.dump({"threshold": options.threshold, "pairs": found}, sys.stdout)
        print()
        return
    for path, runs in found.items():
        print(f"{path}, cosine >= {options.threshold}")
        for name, run in runs.items():
            print(f"  {name}: {run['hits']} hits")
            for figure in ("precision", "recall", "wrong_hit_rate"):
                print(f"    {figure}: {run[figure]['share']} of {run[figure]['n']}, 95 % in {run[figure]['interval']}")


if __name__ == "__main__":
    main()
