"""The semantic cache: exact tier first, then meaning inside the scope, never an exception from `failsafe`.

What a method does with one request stands in a file of its own: `lookup` (find), `admit` (save), `explain` and `correct`
(feedback, invalidate). They are functions of the `parts` of an open cache, which are all that it remembers.
"""

import asyncio
import atexit
import os
import random
import sqlite3
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from llm_costopt.cache import ttl as freshness
from llm_costopt.cache.admit import admit
from llm_costopt.cache.correct import feedback, invalidate
from llm_costopt.cache.embed import Embedder, Vector, WordLlamaEmbedder
from llm_costopt.cache.explain import Explanation, explain
from llm_costopt.cache.failsafe import failsafe
from llm_costopt.cache.guards import GUARDS, Guard
from llm_costopt.cache.index import VectorIndex
from llm_costopt.cache.lookup import (
    counted,
    key_for,
    may_wait,
    same_meaning,
    same_request,
    text_to_match,
)
from llm_costopt.cache.parts import Parts, open_parts
from llm_costopt.cache.records import CacheStats, Hit
from llm_costopt.cache.settings import Chosen, OnScore, check, check_on_score, check_parts
from llm_costopt.presets import Endpoints, Preset
from llm_costopt.switch import Mode
from llm_costopt.types import Answer, Question

NOTED = 60.0
"""Seconds for which figures are kept in memory before they are noted beside the entries."""

_made: "weakref.WeakSet[SemanticCache]" = weakref.WeakSet()


class SemanticCache:
    """Answer the same question in other words from store, and a different one never.

    It is for LlamaIndex's `CachedLLM` and `RouterLLM`, or for a program without a host; LangChain takes
    `langchain_costopt.SemanticCache`, which has the same arguments.

    Args:
        preset: how far to go: `conservative`, `balanced` or `aggressive`, see `llm_costopt.presets.CACHE`; what else is
            given wins.
        mode: `observe`: every lookup misses, and what would have been served is held against what the model says;
            `off`: nothing is looked up and nothing stored.
        endpoints: what holds inside `with endpoint(name):` instead: a preset, a mode, or a mapping of `preset`, `mode`,
            `max_error`, `threshold`, `shadow_rate` and `ttl`.
        max_error: the share of requests that may be answered wrongly; evidence decides about each hit, and the cache
            learns from the answers that arrive after misses. That of the preset if not given.
        threshold: the plain rule instead of *max_error*: least cosine similarity of a semantic hit, in (0, 1].
        shadow_rate: with *max_error*, the share of would-be hits that go to the model all the same, to be checked.
            That of the preset if not given: 0.04, which at 60 % hits is under 3 % of the requests.
        ttl: seconds that an answer is served after it was stored (a hit does not extend it), None for ever, a mapping
            of seconds by kind, or a function of question and answer; `ttl.KINDS` if not given.
        stale_while_revalidate: seconds after that in which the old answer is served while one request fetches it anew.
        min_hit_rate: where a smaller share of the lookups by meaning hit, they are left off for a while; 0: never;
            None: where they take more time than their hits save.
        single_flight: seconds that a request waits for the same request of another caller; 0: not at all.
        path: a file that keeps entries across restarts and processes; in memory if not given.
        url: a Redis that keeps them for any number of machines, such as `redis://localhost:6379/0`, instead of *path*.
        timeout: seconds that the three replies of a lookup from that Redis may take, a third each; what takes longer is a
            miss. A new connection may take as much again.
        max_entries: above this, expired and then least recently used entries go, of all namespaces of the file; with
            *url* it is Redis that makes room, by its own `maxmemory-policy`.
        max_words: a longer question only ever hits exactly.
        namespace: caches of different namespaces share nothing, even in one file.
        embedder: turns a question into a vector; the bundled one if not given.
        index: finds what is near, such as a `FaissIndex` or a `QdrantIndex` of this cache's own; in process if not given.
        guards: with *threshold*, may refuse a candidate; all of `guards.GUARDS` if not given.
        on_score: is told how good answers from the cache are, as `alerts.score` and `metrics.score` of the monitor expect it:
            `(hit, score, about="cache")` with a score from 0 to 1, for each would-be hit that was compared (*hit* is empty,
            for none was served) and for each `feedback`. Where it fails, that is only counted.
        clock: seconds since the epoch.
        rng: numbers in [0, 1), for the jitter of the times and the choice of what is checked.

    Raises:
        ValueError: an argument is out of its range, the file cannot be opened, or *url* is malformed. A Redis that
            does not answer is none: lookups miss until it does.
        TypeError: *on_score* cannot be called like that.
        MissingExtraError: *url* is given, and its packages are not installed.
    """

    def __init__(
        self,
        *,
        preset: Preset = "balanced",
        mode: Mode = "on",
        endpoints: Endpoints | None = None,
        max_error: float | None = None,
        threshold: float | None = None,
        shadow_rate: float | None = None,
        ttl: freshness.TTL = freshness.KINDS,
        stale_while_revalidate: float = 0.0,
        min_hit_rate: float | None = 0.15,
        single_flight: float = 30.0,
        path: str | os.PathLike[str] | None = None,
        url: str | None = None,
        timeout: float = 0.05,
        max_entries: int = 100_000,
        max_words: int = 50,
        namespace: str = "",
        embedder: Embedder | None = None,
        index: VectorIndex | None = None,
        guards: Sequence[Guard] = GUARDS,
        on_score: OnScore | None = None,
        clock: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
    ) -> None:
        seconds: tuple[Callable[[Any], bool], str] = (lambda given: given >= 0, "at least 0 seconds")
        check("stale_while_revalidate", stale_while_revalidate, *seconds, 60)
        is_rate = "a share of the lookups from 0 to below 1"
        check("min_hit_rate", min_hit_rate, lambda given: given is None or 0 <= given < 1, is_rate, 0.15)
        check("single_flight", single_flight, *seconds, 30)
        check("timeout", timeout, lambda given: given > 0, "seconds above 0", 0.05)
        if path is not None and url is not None:
            raise ValueError("give path= for a file or url= for Redis, not both")
        if index is not None and url is not None:
            raise ValueError("give url= for Redis, which searches by itself, or index=, not both")
        check("max_entries", max_entries, lambda given: given >= 1, "at least 1", 100_000)
        check("max_words", max_words, lambda given: given >= 0, "at least 0 (exact hits only)", 50)
        check("namespace", namespace, lambda given: isinstance(given, str), "a text", "'acme'")
        check_parts(embedder=embedder, index=index, guards=guards, clock=clock, rng=rng)
        given = {"mode": mode, "max_error": max_error, "threshold": threshold, "shadow_rate": shadow_rate}
        self._embedder = embedder or WordLlamaEmbedder()
        self._open = partial(
            open_parts,
            path=path,
            url=url,
            timeout=timeout,
            max_entries=max_entries,
            namespace=namespace,
            embedder=self._embedder,
            chosen=Chosen(preset, {} if endpoints is None else endpoints, given, ttl),
            guards=tuple(guards),
            stale=stale_while_revalidate,
            min_hit_rate=min_hit_rate,
            single_flight=single_flight,
            max_words=max_words,
            on_score=check_on_score(on_score),
            clock=clock,
            rng=rng,
        )
        self._parts = self._open(index)
        _made.add(self)

    @property
    def embedder(self) -> Embedder:
        """Return what turns questions into vectors: a host's own may know how to do that without blocking."""
        return self._embedder

    def find(self, question: Question) -> Hit | None:
        """Look for an answer to *question*, waiting for the same request of another thread if there is one.

        Raises whatever the store or the embedder raises: call it in `failsafe`.
        """
        parts = self._opened()
        key, now = key_for(parts, question), parts.chosen.now()
        if now.mode == "off":
            return None
        try:
            hit = same_request(parts, key) or same_meaning(parts, question, key, now, began=time.perf_counter())
            if hit is None and may_wait(key, now) and parts.flights.wait(key.exact):
                hit = same_request(parts, key)
        except Exception:  # or a cache that is down would seem to hit whenever it is asked
            parts.tally.count("misses")
            raise
        return counted(parts, question, key, hit, now)

    async def afind(self, question: Question, embed: Callable[[str], Awaitable[Vector]] | None = None) -> Hit | None:
        """Do as `find` does without holding up the event loop; *embed* is the host's own way to embed."""
        parts = self._opened()
        key, now = key_for(parts, question), parts.chosen.now()
        if now.mode == "off":
            return None
        vector, began = None, time.perf_counter()
        try:
            hit = await asyncio.to_thread(same_request, parts, key)
            if hit is None and embed is not None and not parts.economy.is_off(key.endpoint):
                text = text_to_match(parts, question, key)
                if text is not None:
                    with parts.embedding.watch():
                        vector = await embed(text)
            if hit is None:
                hit = await asyncio.to_thread(same_meaning, parts, question, key, now, began=began, vector=vector)
            if hit is None and may_wait(key, now) and await parts.flights.await_(key.exact):
                hit = await asyncio.to_thread(same_request, parts, key)
        except Exception:  # as above
            parts.tally.count("misses")
            raise
        return counted(parts, question, key, hit, now)

    def save(self, question: Question, answer: Answer, payload: str) -> bool:
        """Store *payload* as the answer to *question* if it is fit to be served; tell whether it was.

        Raises whatever the store or the embedder raises: call it in `failsafe`.
        """
        parts = self._opened()
        key = key_for(parts, question)
        parts.keys.pop(id(question))
        try:
            return parts.chosen.now().mode != "off" and admit(parts, question, key, answer, payload)
        finally:
            parts.flights.land(key.exact)
            if (now := parts.clock()) - parts.tally.noted_at >= NOTED:
                with self.failsafe("bookkeeping"):
                    _note(parts, now)

    def leave(self, question: Question | None = None) -> None:
        """Let those go on that wait for *question*, which has failed; for any of this thread or task if it is not given."""
        parts = self._parts
        if question is None:
            parts.flights.leave()
        else:
            parts.flights.land(key_for(parts, question).exact)

    def explain(self, question: Question) -> Explanation:
        """Say what `find` would do with *question*, and why; nothing is counted, learned or served.

        Raises whatever the store or the embedder raises.
        """
        return explain(self._opened(), question)

    def feedback(self, about: str | Question, *, ok: bool) -> bool:
        """Learn that a hit was right or wrong; what was wrong is not served to that question again.

        Neither is what says the same and is stored near it.

        Args:
            about: the `Hit.id`, or the question that was asked last in these words.
            ok: whether the answer served.

        Returns:
            Whether the hit is known; False for one that was never served here or is long gone.
        """
        return feedback(self._opened(), about, ok=ok)

    def invalidate(
        self,
        *,
        tags: Sequence[str] = (),
        model: str | None = None,
        older_than: float | None = None,
        dry_run: bool = False,
    ) -> int:
        """Delete the entries of this namespace that meet all that is given, and count them.

        Args:
            tags: entries stored in a `cache_scope` with any of these tags.
            model: entries that the model of this name answered.
            older_than: entries stored more than so many seconds ago.
            dry_run: only count.

        Raises:
            ValueError: nothing is given (`clear` deletes everything), or *older_than* is no number of seconds.
            TypeError: *tags* is one text.
        """
        return invalidate(self._opened(), tags=tags, model=model, older_than=older_than, dry_run=dry_run)

    def clear(self) -> None:
        """Delete all entries of this namespace."""
        self._opened().store.clear()

    def stats(self) -> CacheStats:
        """Report what the cache did since it was made, in this process."""
        parts, entries = self._opened(), None
        with self.failsafe("count"):
            entries = parts.store.count()
        return parts.tally.stats(entries=entries, off=parts.economy.off(), waited=parts.flights.waited)

    def close(self) -> None:
        """Close the store; later lookups miss."""
        _made.discard(self)
        self._note_last()
        self._parts.store.close()

    def _note_last(self) -> None:
        """Note what was counted since the last minute began; what a fork has not used since is its parent's."""
        if self._parts.pid == os.getpid():
            with self.failsafe("bookkeeping"):
                _note(self._parts, self._parts.clock())

    def failsafe(self, doing: str) -> AbstractContextManager[None]:
        """Turn any failure inside the block into a logged and counted one: a cache never breaks a call."""
        return failsafe(doing, lambda what: self._parts.tally.count(what))  # noqa: PLW0108 - a fork brings others

    def _opened(self) -> Parts:
        # Another thread may have held a lock or been amid a change of the index, so that the child begins with its own.
        if os.getpid() != self._parts.pid:
            self._parts = self._open(None)
        return self._parts


def _note(parts: Parts, now: float) -> None:
    """Add to the figures that `llm-costopt cache` prints."""
    if counts := parts.tally.unnoted(now):
        try:
            parts.store.add_counts(counts, now)
        except sqlite3.Error:  # undone; of a Redis that does not reply in time nobody knows whether it has added them
            parts.tally.not_noted(counts)
            raise


def _at_exit() -> None:
    # A script may end within the minute, and few close their cache.
    for cache in list(_made):
        cache._note_last()  # noqa: SLF001 - the other half of the class


atexit.register(_at_exit)
