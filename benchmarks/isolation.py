"""Does an answer ever cross from one tenant to another? Very many lookups under names that try to run into each other.

    python benchmarks/isolation.py [--lookups 1000000] [--json]

Namespaces, tenants, epochs and system prompts are made of quotes, brackets, separators, escapes, NUL, lone surrogates,
equal looking letters and each other's beginnings and ends. All vectors are the same, so that nothing but the scope keeps
two identities apart. Half of the identities store an answer; each lookup, exact and by meaning in turn, must find its own
or nothing.
"""

import argparse
import itertools
import json
import random
import time

import numpy as np

from llm_costopt import Answer, Message, Question, SemanticCache, cache_scope
from llm_costopt.cache.embed import Vector

PARTS = ["", "a", "b", "ab", "a/b", '"', '","', "\\", "\\u0061", "a\x00", "\x00a", "[", '["a"', "A", "\u00e1", "a\u0301", "\ud800", " a", "a ", "*"]  # fmt: skip
NAMES = [*PARTS, *dict.fromkeys(one + other for one, other in itertools.product(PARTS, PARTS))]
TEXTS = ("Where is my order?", "Where's the order?")


class FlatEmbedder:
    """Finds all texts equal."""

    name = "flat"

    def embed(self, text: str) -> Vector:
        """Embed any text as the same vector."""
        del text
        return np.ones(4, dtype=np.float32)


def asked(text: str, system: str) -> Question:
    """Ask *text* under a system prompt."""
    return Question(messages=(Message(role="system", text=system), Message(role="human", text=text)))


def run(lookups: int) -> dict[str, float]:
    """Store as every other identity, then look up as all of them."""
    rng = random.Random(1)
    cache = SemanticCache(embedder=FlatEmbedder(), threshold=0.9, guards=(), max_entries=10**6, min_hit_rate=0)
    identities = list(dict.fromkeys((rng.choice(NAMES), rng.choice(PARTS), rng.choice(NAMES)) for _ in range(20_000)))
    for tenant, epoch, system in identities[::2]:
        with cache_scope(tenant=tenant, epoch=epoch):
            cache.save(asked(TEXTS[0], system), Answer(text="Here."), repr((tenant, epoch, system)))
    began, crossed, found = time.perf_counter(), 0, 0
    for n in range(lookups):
        place = rng.randrange(len(identities))
        tenant, epoch, system = identities[place]
        with cache_scope(tenant=tenant, epoch=epoch):
            hit = cache.find(asked(TEXTS[n % 2], system))
        expected = None if place % 2 else repr(identities[place])
        found += hit is not None
        crossed += (hit and hit.payload) != expected
    return {
        "lookups": lookups,
        "identities": len(identities),
        "found": found,
        "crossed_or_lost": crossed,
        "seconds": round(time.perf_counter() - began, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lookups", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = run(options.lookups)
    print(json.dumps(result) if options.json else "\n".join(f"{name}: {value}" for name, value in result.items()))
