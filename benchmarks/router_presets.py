"""What does each preset of the router cost, and how good are its answers, while nothing is learned?

    python benchmarks/router_presets.py [--data FILE ...] [--ratio 0.06] [--json]

The requests of the demo's log whose answers are marked right or wrong, and files as `router_quality.py` takes them, are sent
through the document's rules. Costs are relative to all-strong, a call of the cheap model costing *ratio* of a strong
one; rejected drafts are paid. Quality is the mean score of the accepted answers, beside that of both models alone.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from router_quality import read

from llm_costopt.demo.log import read_log
from llm_costopt.demo.outcomes import examples_of
from llm_costopt.presets import ROUTER
from llm_costopt.router.complexity import complexity
from llm_costopt.router.confidence import confidence
from llm_costopt.router.learned import LearnedRules
from llm_costopt.router.policy import ByRules, Situation
from llm_costopt.router.value import Example


def measure(examples: Sequence[Example], preset: str, ratio: float) -> dict[str, Any]:
    """Send all *examples* through the rules of *preset*."""
    options = ROUTER[preset]
    policy = ByRules(
        LearnedRules(tiers=2), complexity=complexity, confidence=confidence, threshold=options["threshold"]
    )
    ways: Counter[str] = Counter()
    quality = cost = 0.0
    for example in examples:
        situation = Situation(question=example.question, usable=(0, 1), cascade=options["cascade"])
        step = policy.start(situation)
        tier = step.tier
        cost += (ratio, 1.0)[tier]
        if not step.final and example.answer is not None:
            verdict = policy.judge(situation, step, example.answer)
            if verdict.then:
                tier, cost = 1, cost + 1.0
        ways["strong" if step.tier else "cheap" if step.final else "escalated" if tier else "draft kept"] += 1
        quality += example.scores[tier]
    n = len(examples)
    return {
        **{way: round(ways[way] / n, 3) for way in ("cheap", "draft kept", "escalated", "strong")},
        "cost": round(cost / n, 3),
        "quality": round(quality / n, 4),
    }


def main() -> None:
    """Print the figures of each preset on each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", type=Path, default=[])
    parser.add_argument("--ratio", type=float, default=0.06)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    files = {"demo": examples_of(read_log(None)), **{p.stem: read(p).examples for p in options.data}}
    found = {}
    for name, examples in files.items():
        both = [e for e in examples if {0, 1} <= e.scores.keys() and e.answer is not None]
        alone = {
            f"{tier} alone": round(sum(e.scores[n] for e in both) / len(both), 4)
            for n, tier in enumerate(("cheap", "strong"))
        }
        found[name] = {"n": len(both), **alone, "presets": {p: measure(both, p, options.ratio) for p in ROUTER}}
    if options.json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(name, {k: v for k, v in figures.items() if k != "presets"})
        for preset, one in figures["presets"].items():
            print(f"  {preset}: {one}")


if __name__ == "__main__":
    main()
