"""How good is the router? APGR, cost of 95 % of the strong model's quality, learning curve, kept targets.

    python benchmarks/router_quality.py --data FILE ... [--json] [--peers]

A line of a file is `{"prompt", "group", "weak": {"score", "response"}, "strong": {"score"}}`, scores from 0 to 1;
without `response` only decisions before any call are measured. APGR is the area of (quality - weak) / (strong - weak)
over the share of strong calls: 0.5 is random. Ours is cross-fitted in 5 folds; rows that share a context (a `group` of
at most 20 rows on average, or the same text before the last " What is ") stay together. Costs are relative to
all-strong at the first point of the curve that keeps 95 %, for three price ratios of weak to strong; the cascade decides
on the other folds whether drafts pay. The learning curve is that of the cascade where there are answers, else of the
prompt. For `target_missed` a target of 95 % is calibrated on half of the contexts, 200 times, and counts as missed when
the fresh half keeps less. `--peers` adds other routers that can be imported; ours needs only this package.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _routers import INSTALL, Rank, length, peers
from numpy.typing import NDArray

from llm_costopt.router.calibrate import calibrate
from llm_costopt.router.complexity import complexity
from llm_costopt.router.confidence import confidence
from llm_costopt.router.value import Example, Value, cross_fitted
from llm_costopt.types import Answer, Message, Question

Array = NDArray[np.float64]

RATIOS = (0.01, 0.05, 0.2)
LABELS = (30, 60, 100, 200, 500, 800)
FOLDS = 5
RESAMPLES = 200
TARGET = 0.95


@dataclass(frozen=True)
class Data:
    """One file."""

    examples: list[Example]
    weak: Array
    strong: Array
    groups: NDArray[np.intp]

    @property
    def has_drafts(self) -> bool:
        """Tell whether each row has the weak model's answer."""
        return all(e.answer is not None for e in self.examples)


def read(path: Path) -> Data:
    """Read a file of JSON lines."""
    with path.open(encoding="utf-8") as lines:  # not `splitlines`, which also ends lines inside of a text
        rows = [json.loads(line) for line in lines if line.strip()]
    names = contexts(rows)
    examples = [
        Example(
            question=Question(messages=(Message(role="human", text=row["prompt"]),)),
            scores={0: float(row["weak"]["score"]), 1: float(row["strong"]["score"])},
            answer=None if row["weak"].get("response") is None else Answer(text=row["weak"]["response"]),
            group=name,
        )
        for row, name in zip(rows, names, strict=True)
    ]
    return Data(
        examples=examples,
        weak=np.array([e.scores[0] for e in examples]),
        strong=np.array([e.scores[1] for e in examples]),
        groups=np.unique(names, return_inverse=True)[1],
    )


def contexts(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Name what rows share. A beginning that more than 5 % of all rows have is a template, not a context."""
    named = Counter(str(row.get("group")) for row in rows)
    is_context = len(rows) <= 20 * len(named)
    begins = [row["prompt"].rpartition(" What is ")[0] or row["prompt"] for row in rows]
    shared = Counter(begins)
    return [
        str(row["group"]) if is_context else begin if shared[begin] <= max(20, len(rows) / 20) else row["prompt"]
        for row, begin in zip(rows, begins, strict=True)
    ]


def area(gain: Array, weak: Array, strong: Array) -> float:
    """Sum up what the strong model adds when it is asked in the order of *gain*; equals come in random order."""
    added = np.concatenate(([0.0], np.cumsum((strong - weak)[ranked(gain)])))
    return float(np.mean((added[1:] + added[:-1]) / 2))


def apgr(gain: Array, weak: Array, strong: Array) -> float | None:
    """Return the area relative to the whole gap; None if the strong model is not the better one."""
    gap = float(strong.sum() - weak.sum())
    return area(gain, weak, strong) / gap if gap > 0 else None


def ranked(gain: Array) -> NDArray[np.intp]:
    """Order by falling *gain*."""
    return np.lexsort((np.random.default_rng(0).random(len(gain)), -gain))


def interval(gain: Array, data: Data) -> list[float] | None:
    """Bootstrap the contexts: 95 %."""
    rng, members = np.random.default_rng(1), np.argsort(data.groups, kind="stable")
    parts = np.split(members, np.cumsum(np.bincount(data.groups))[:-1])
    found = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([parts[n] for n in rng.integers(0, len(parts), len(parts))])
        value = apgr(gain[chosen], data.weak[chosen], data.strong[chosen])
        if value is not None:
            found.append(value)
    if len(found) < RESAMPLES * 0.95:
        return None  # the two models are too close to tell which is the better one
    return [round(float(x), 3) for x in np.quantile(found, [0.025, 0.975])]


def cost(gain: Array, weak: Array, strong: Array, ratio: float, *, drafts: bool) -> float:
    """Find what 95 % of the strong quality costs."""
    quality = weak.sum() + np.concatenate(([0.0], np.cumsum((strong - weak)[ranked(gain)])))
    share = float(np.argmax(quality >= TARGET * strong.sum() - 1e-9)) / len(gain)
    return ratio + share if drafts else ratio + share * (1 - ratio)


def cost_of_cascade(before: Array, after: Array, data: Data, ratio: float) -> float:
    """Find the same for a cascade that drops the drafts, or the cheap model, where that is cheaper on the other folds."""
    fold = np.random.default_rng(2).permutation(data.groups.max() + 1)[data.groups] % FOLDS
    when, extra, rest = np.zeros(len(fold)), np.zeros(len(fold)), np.full(len(fold), ratio)
    for k in range(FOLDS):
        own, other = fold == k, fold != k
        if not own.any():
            continue
        w, s = data.weak[other], data.strong[other]
        costs = {
            "drafts": cost(after[other], w, s, ratio, drafts=True),
            "before": cost(before[other], w, s, ratio, drafts=False),
            "strong": 1.0,
        }
        mode = min(costs, key=lambda name: costs[name])
        gain = after[own] if mode == "drafts" else before[own]
        position = np.empty(own.sum())
        position[ranked(gain)] = np.arange(own.sum()) / own.sum()
        when[own] = -1 if mode == "strong" else position
        extra[own] = {"drafts": 1.0, "before": 1 - ratio, "strong": 1 - ratio}[mode]
    order = np.argsort(when, kind="stable")
    quality = data.weak.sum() + np.concatenate(([0.0], np.cumsum((data.strong - data.weak)[order])))
    paid = rest.sum() + np.concatenate(([0.0], np.cumsum(extra[order])))
    first = int(np.argmax(quality >= TARGET * data.strong.sum() - 1e-9))
    always = int((when < 0).sum())
    return float(paid[max(first, always)] / len(fold))


def curve(data: Data, *, drafts: bool) -> dict[str, float]:
    """Learn from ever more requests whose outcomes are known, and rank the rest."""
    found: dict[str, float] = {}
    gap = float(data.strong.sum() - data.weak.sum())
    for labels in LABELS:
        values = []
        for seed in range(2 if len(data.weak) < 1500 else 1):
            order = np.random.default_rng(seed).permutation(data.groups.max() + 1)[data.groups]
            if np.bincount(order % FOLDS).max() + labels > len(order) or gap <= 0:
                continue
            total = 0.0
            for k in range(FOLDS):
                test = np.flatnonzero(order % FOLDS == k)
                rest = np.flatnonzero(order % FOLDS != k)
                train = rest[np.argsort(order[rest], kind="stable")][:labels]
                total += area(gains(data, train, test, drafts=drafts), data.weak[test], data.strong[test])
            values.append(total / gap)
        if values:
            found[str(labels)] = round(float(np.mean(values)), 3)
    return found


def gains(data: Data, train: NDArray[np.intp], test: NDArray[np.intp], *, drafts: bool) -> Array:
    """Learn from some rows and estimate the gain of others."""
    value = Value()
    value.fit([data.examples[n] for n in train])
    found = []
    for n in test:
        e = data.examples[n]
        found.append((value.after(e.question, e.answer) if drafts and e.answer else value.before(e.question)).gain)
    return np.array(found)


def missed(right: Array, data: Data, *, drafts: bool) -> tuple[float, float]:
    """Calibrate on half of the contexts and look at the fresh half: share of misses, mean strong share."""
    quality, misses, shares = np.stack((data.weak, data.strong), axis=1), 0, []
    for seed in range(RESAMPLES):
        half = np.random.default_rng(seed).permutation(data.groups.max() + 1)[data.groups] % 2 == 0
        groups = [str(g) for g in data.groups[half]]
        point = calibrate(
            right[half], quality[half], (0.05, 1.0), drafts=drafts, target_quality=TARGET, groups=groups
        ).point
        strong = right[~half, 1] - right[~half, 0] > point.threshold
        kept = np.where(strong, data.strong[~half], data.weak[~half]).mean()
        misses += bool(kept < TARGET * data.strong[~half].mean())
        shares.append(strong.mean())
    return misses / RESAMPLES, float(np.mean(shares))


def rules(data: Data, *, drafts: bool) -> Array:
    """Rank by the document's rules: how hard, and for what is medium how doubtful the draft is."""
    levels = {"simple": 0.0, "medium": 1.0, "complex": 3.0}
    found = []
    for e in data.examples:
        level = levels[complexity(e.question)[0]]
        doubt = 1 - confidence(e.question, e.answer)[0] if drafts and e.answer and level == 1 else 0.0
        found.append(level + doubt)
    return np.array(found)


def milliseconds(data: Data) -> dict[str, float]:
    """Time decisions of a router that has learned, rules included: the median of the quietest of five runs."""
    runs = [_milliseconds(data) for _ in range(5)]
    return {name: min(run[name] for run in runs) for name in runs[0]}


def _milliseconds(data: Data) -> dict[str, float]:
    value = Value()
    value.fit(data.examples[:500])
    before, after = [], []
    for e in data.examples[:500]:
        question = Question(messages=e.question.messages)
        start = time.thread_time_ns()
        value.before(question)
        middle = time.thread_time_ns()
        before.append(middle - start)
        if e.answer:
            value.after(question, e.answer)
            after.append(time.thread_time_ns() - middle)
    timed = {"before": before, "after": after}
    return {name: round(float(np.median(found)) / 1e6, 3) for name, found in timed.items() if found}


def measure(path: Path, others: dict[str, tuple[Rank, bool]]) -> dict[str, Any]:
    """Measure one file."""
    data = read(path)
    before, after = cross_fitted(data.examples, folds=FOLDS)
    gain = before[:, 1] - before[:, 0]
    scored: dict[str, tuple[Array, bool]] = {"prompt": (gain, False), "rules": (rules(data, drafts=False), False)}
    if after is not None:
        scored |= {"cascade": (after[:, 1] - after[:, 0], True), "rules cascade": (rules(data, drafts=True), True)}
    scored["length"] = rank(data, length), False
    scored["random"] = np.random.default_rng(3).random(len(gain)), False
    scored["oracle"] = data.strong - data.weak, False
    for name, (score, drafts) in others.items():
        if after is not None or not drafts:
            scored[name] = rank(data, score), drafts
    policies = {name: figures(s, data, drafts=drafts) for name, (s, drafts) in scored.items()}
    if after is not None:
        switched = {str(r): round(cost_of_cascade(gain, scored["cascade"][0], data, r), 3) for r in RATIOS}
        policies["cascade"]["cost_at_95"] = switched
    best = before if after is None else after
    share_missed, strong_share = missed(best, data, drafts=after is not None)
    return {
        "n": len(data.examples),
        "contexts": int(data.groups.max()) + 1,
        "weak": round(float(data.weak.mean()), 4),
        "strong": round(float(data.strong.mean()), 4),
        "policies": policies,
        "learning_curve": curve(data, drafts=after is not None),
        "target_missed": share_missed,
        "target_strong_share": round(strong_share, 3),
        "milliseconds": milliseconds(data),
    }


def rank(data: Data, score: Rank) -> Array:
    """Score each row by a router that only ranks."""
    texts = [(e.question.messages[0].text, e.answer.text if e.answer else None) for e in data.examples]
    return np.array([score(prompt, draft) for prompt, draft in texts])


def figures(gain: Array, data: Data, *, drafts: bool) -> dict[str, Any]:
    """Give the figures of one policy."""
    value = apgr(gain, data.weak, data.strong)
    return {
        "apgr": None if value is None else round(value, 3),
        "interval": interval(gain, data),
        "cost_at_95": {str(r): round(cost(gain, data.weak, data.strong, r, drafts=drafts), 3) for r in RATIOS},
    }


def show(path: str, found: dict[str, Any]) -> None:
    """Print the figures of a file as a table."""
    print(f"{path}: n = {found['n']} in {found['contexts']} contexts, weak {found['weak']}, strong {found['strong']}")
    print(f"  {'policy':<26}{'APGR':>7} {'95 %':>16}" + "".join(f"{f'cost {r}':>11}" for r in RATIOS))
    for name, p in found["policies"].items():
        value, ends = p["apgr"], p["interval"]
        text = f"{'–' if value is None else value:>7} {'' if ends is None else str(ends):>16}"
        print(f"  {name:<26}{text}" + "".join(f"{c:>11}" for c in p["cost_at_95"].values()))
    for name in ("learning_curve", "target_missed", "target_strong_share", "milliseconds"):
        print(f"  {name}: {found[name]}")


def main() -> None:
    """Print the figures of each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peers", action="store_true", help=f"compare with other routers, after `{INSTALL}`")
    options = parser.parse_args()
    others, missing = peers() if options.peers else ({}, [])
    for name in missing:
        print(f"{name} is skipped; to compare with it: {INSTALL}", file=sys.stderr)
    found = {str(path): measure(path, others) for path in options.data}
    if options.json:
        print(json.dumps(found))
        return
    for path, figures_of_file in found.items():
        show(path, figures_of_file)


if __name__ == "__main__":
    main()
