"""Fit the weights that the verifier starts from, and write `llm_costopt/cache/verifier.json`.

    python benchmarks/fit_verifier.py STREAM.jsonl ... [--output FILE]

A line of a stream is `{"text": …, "same_as": …}` in order of arrival. Only give data that may ship: the shipped
file was fitted on halves of CLINC150 (CC BY 3.0) and BANKING77 (CC BY 4.0), and on the package's own request log.
Each stream is replayed in several orders with scopes that start empty, so that the evidence of few entries is learned too.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from llm_costopt.cache import verifier, verify
from llm_costopt.cache.embed import Vector, WordLlamaEmbedder, unit
from llm_costopt.cache.reading import sketch
from llm_costopt.demo.log import read_log

OUTPUT = Path(__file__).parent.parent / "llm_costopt" / "cache" / "verifier.json"

SCOPES = (30, 30, 30, 100, 100, 300, 1000, 10**9)
"""Requests after which a scope ends and an empty one begins, in turn."""

STRENGTH = 100.0
"""Precision of the shipped weights, in the units of the standardised evidence.

From one half to the other the weights of 33,000 examples transfer nearly without loss (68.9 % of the requests served at
1 % error, 69.6 % with weights of the same half), so that hundreds of labels should be needed to move them."""

Stream = Sequence[tuple[str, str]]


def streams(paths: Sequence[Path]) -> Iterator[Stream]:
    """Read the files, and the package's own log: one stream for each of its system prompts."""
    for path in paths:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        yield [(row["text"], row["same_as"]) for row in rows]
    scopes: dict[str, list[tuple[str, str]]] = {}
    for row in read_log():
        if len(row.messages) == 2 and not row.tools and not row.schema and row.same_as:
            scopes.setdefault(row.messages[0]["content"], []).append((row.messages[1]["content"], row.same_as))
    yield from scopes.values()


def examples(stream: Stream, seed: int) -> Iterator[tuple[verify.Evidence, bool]]:
    """Replay *stream* in a random order and describe the candidate of each request, with what was right."""
    embedder, rng = WordLlamaEmbedder(), np.random.default_rng(seed)
    rows = [(text, same_as, vector) for text, same_as in stream if (vector := unit(embedder.embed(text))) is not None]
    order = [rows[n] for n in rng.permutation(len(rows))]
    done = 0
    for size in SCOPES:
        scope, done = order[done : done + size], done + size
        stored: list[tuple[str, str]] = []
        vectors = np.empty((len(scope), rows[0][2].size), dtype=np.float32)
        for text, same_as, vector in scope:
            near = neighbours(stored, vectors[: len(stored)] @ vector)
            chosen = verify.candidate(text, near)
            if chosen is not None:
                right = stored[near[chosen].entry][1] == same_as
                yield verify.evidence(text, near, chosen, len(stored)), right
                if right and near[chosen].similarity > 0.7 and rng.random() < 0.6:
                    continue  # as if it had been served, and so not stored
            vectors[len(stored)] = vector
            stored.append((text, same_as))


def neighbours(stored: Sequence[tuple[str, str]], similar: Vector) -> list[verify.Neighbour]:
    """List the nearest of what is *stored*, given how *similar* each is."""
    best = np.argsort(-similar)[: verify.NEIGHBOURS]
    says = {same_as: n for n, same_as in enumerate(dict.fromkeys(stored[n][1] for n in best))}
    return [
        verify.Neighbour(int(n), float(similar[n]), stored[n][0], says[stored[n][1]], *sketch(stored[n][0]))
        for n in best
    ]


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    found = [e for stream in streams(options.streams) for seed in range(2) for e in examples(stream, seed)]
    x, y = np.array([e for e, _ in found]), [right for _, right in found]
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    mean[-1], scale[-1] = 0.0, 1.0
    labels = [(z, right, 1.0, 1.0) for z, right in zip((x - mean) / scale, y, strict=True)]
    start = np.zeros(len(mean))
    weights, _ = verifier.fit(start, np.eye(len(start)), labels)
    options.output.write_text(
        json.dumps(
            {
                "features": list(verify.FEATURES),
                "mean": mean.round(5).tolist(),
                "scale": scale.round(5).tolist(),
                "weights": weights.round(4).tolist(),
                "precision": (STRENGTH * np.eye(len(start))).tolist(),
                "examples": len(found),
            }
        )
        + "\n",
        encoding="utf-8",
    )
    for name, weight in zip(verify.FEATURES, weights, strict=True):
        print(f"{weight:7.2f}  {name}")
    print(f"{len(found)} examples, {100 * np.mean(y):.1f} % right")


if __name__ == "__main__":
    main()
