"""What an open cache is made of; lookup, admission, explanation and correction are functions that are given it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_costopt.cache.breaker import Breaker
from llm_costopt.cache.economy import Economy
from llm_costopt.cache.embed import Embedder, Vector
from llm_costopt.cache.flight import Flights
from llm_costopt.cache.guards import Guard
from llm_costopt.cache.index import VectorIndex
from llm_costopt.cache.key import Key
from llm_costopt.cache.local import LocalStore
from llm_costopt.cache.observe import Observation
from llm_costopt.cache.policies import Policies
from llm_costopt.cache.records import Hit, Tally
from llm_costopt.cache.refresh import Refreshes
from llm_costopt.cache.scope import Surroundings
from llm_costopt.cache.settings import Chosen, OnScore
from llm_costopt.cache.store import Store
from llm_costopt.recent import Recent
from llm_costopt.types import Question

ON_THEIR_WAY = 64
"""Questions that are kept while their answers are on the way: one may hold megabytes of pictures, and its key is made again in no time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One open cache in one process. What is not said here stands at the arguments of `SemanticCache`."""

    pid: int
    """The process that opened it: a child of a fork opens its own, since another thread may have held a lock."""
    namespace: str
    chosen: Chosen
    embedder: Embedder
    embedding: Breaker
    """Leaves an embedder alone that keeps failing, maybe after long: it is asked by each lookup, and again for its answer."""
    max_words: int
    stale: float
    """Seconds in which an expired answer is still served while one request fetches it anew."""
    on_score: OnScore | None
    clock: Callable[[], float]
    rng: Callable[[], float]

    store: Store
    policies: Policies
    tally: Tally
    economy: Economy
    observation: Observation
    flights: Flights
    refreshes: Refreshes

    keys: Recent[int, tuple[Question, Surroundings, Key]]
    """Those of questions that missed, by their `id`; `save` needs them next."""
    vectors: Recent[str, Vector]
    """By the text that was embedded: what is stored after a miss was embedded by the lookup."""
    asked: Recent[str, float]
    """When a lookup by meaning missed, in seconds of the performance counter; by the digest of the request."""
    served: Recent[str, Hit]
    """The last hit of a question, by the digest of the request."""


def open_parts(
    index: VectorIndex | None,
    *,
    path: str | os.PathLike[str] | None,
    url: str | None,
    timeout: float,
    max_entries: int,
    namespace: str,
    embedder: Embedder,
    chosen: Chosen,
    guards: Sequence[Guard],
    stale: float,
    min_hit_rate: float | None,
    single_flight: float,
    max_words: int,
    on_score: OnScore | None,
    clock: Callable[[], float],
    rng: Callable[[], float],
) -> Parts:
    """Open a cache with the arguments of `SemanticCache`; it goes on from what its store has kept."""
    tally = Tally()
    store: Store
    if url is None:
        store = LocalStore(path, namespace=namespace, embedder=embedder.name, max_entries=max_entries, index=index)
    else:
        from llm_costopt.cache.redis import RedisStore  # needs an extra

        store = RedisStore(url, namespace=namespace, embedder=embedder.name, timeout=timeout, grace=stale, clock=clock)
    return Parts(
        pid=os.getpid(),
        namespace=namespace,
        chosen=chosen,
        embedder=embedder,
        embedding=Breaker("embedding questions"),
        max_words=max_words,
        stale=stale,
        on_score=on_score,
        clock=clock,
        rng=rng,
        store=store,
        policies=Policies(chosen, guards, store, tally, rng),
        tally=tally,
        economy=Economy(min_hit_rate),
        observation=Observation(tally),
        flights=Flights(single_flight),
        refreshes=Refreshes(),
        keys=Recent(ON_THEIR_WAY),
        vectors=Recent(),
        asked=Recent(),
        served=Recent(),
    )
