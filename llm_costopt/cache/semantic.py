"""The semantic cache: exact tier first, then meaning inside the scope, never an exception from `failsafe`."""

import json
import logging
import os
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from llm_costopt.cache.agree import agree
from llm_costopt.cache.embed import Embedder, Vector, WordLlamaEmbedder, unit
from llm_costopt.cache.guards import GUARDS, Guard
from llm_costopt.cache.index import Index
from llm_costopt.cache.key import Key, key_of
from llm_costopt.cache.policy import Budget, Threshold
from llm_costopt.cache.records import CacheStats, Hit
from llm_costopt.cache.sqlite import Entry, SQLiteStore
from llm_costopt.cache.verify import FLOOR, NEIGHBOURS, Neighbour
from llm_costopt.faults import fault
from llm_costopt.types import Answer, CacheKind, Question

log = logging.getLogger(__name__)

FreshFor: TypeAlias = Callable[[Question, Answer], float | None]
"""Decides for how many seconds an answer stays fresh: None for ever, 0 not to store it."""

DAY = 24 * 3600.0

RECENT = 60.0
"""Seconds within which a second use of an entry is not noted: a read should rarely cost a write."""

SHADOW_RATE = 0.045
"""At 60 % hits, under 3 % of the requests."""

REMEMBERED = 1024
"""How many vectors of recent misses are kept, so that storing the answer embeds nothing again."""


class SemanticCache:
    """Answer the same question in other words from store, and a different one never.

    Args:
        threshold: least cosine similarity of a semantic hit, in (0, 1]; 1 leaves exact and all but identical ones.
        max_error: the share of requests that may be answered wrongly, such as 0.01; then evidence decides instead of
            *threshold* and *guards*, and the cache learns from the answers that arrive after misses.
        shadow_rate: with *max_error*, the share of would-be hits that go to the model all the same, to be checked.
        ttl: seconds that an answer is served after it was stored (a hit does not extend it), None for ever, or a
            function of question and answer; one day if not given.
        path: a file that keeps entries across restarts and processes; in memory if not given.
        max_entries: above this, expired and then least recently used entries go, of all namespaces of the file.
        max_words: a longer question only ever hits exactly.
        namespace: caches of different namespaces share nothing, even in one file.
        embedder: turns a question into a vector; the bundled one if not given.
        guards: may refuse a candidate; all of `guards.GUARDS` if not given.
        clock: seconds since the epoch.

    Raises:
        ValueError: an argument is out of its range, or the file cannot be opened.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.95,
        max_error: float | None = None,
        shadow_rate: float = SHADOW_RATE,
        ttl: float | FreshFor | None = DAY,
        path: str | os.PathLike[str] | None = None,
        max_entries: int = 100_000,
        max_words: int = 50,
        namespace: str = "",
        embedder: Embedder | None = None,
        guards: Sequence[Guard] = GUARDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is a cosine similarity above 0 and up to 1, such as 0.95; got {threshold!r}")
        if max_error is not None and not 0 < max_error < 0.5:
            raise ValueError(
                f"max_error is a share of the requests above 0 and below 0.5, such as 0.01; got {max_error!r}"
            )
        if not 0 < shadow_rate <= 1:
            raise ValueError(
                f"shadow_rate is a share of the hits above 0 and up to 1, such as 0.05; got {shadow_rate!r}"
            )
        if isinstance(ttl, int | float) and not ttl > 0:
            raise ValueError(f"ttl is a number of seconds above 0, or None for ever; got {ttl!r}")
        if max_entries < 1:
            raise ValueError(f"max_entries is at least 1; got {max_entries!r}")
        if max_words < 0:
            raise ValueError(f"max_words is at least 0 (exact hits only); got {max_words!r}")
        self._threshold = threshold
        self._max_error = max_error
        self._shadow_rate = shadow_rate
        self._ttl = ttl
        self._path = path
        self._max_entries = max_entries
        self._max_words = max_words
        self._namespace = namespace
        self._embedder = embedder or WordLlamaEmbedder()
        self._guards = tuple(guards)
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._not_stored: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._open()

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._store = SQLiteStore(self._path, namespace=self._namespace)
        self._index = Index()
        self._indexed = 0
        self._room = self._max_entries - len(self._store)
        self._vectors: OrderedDict[str, Vector] = OrderedDict()
        self._facts: dict[int, tuple[str, int, float | None]] = {}
        self._policy = self._make_policy()
        self._pid = os.getpid()  # last: until here a second thread must not take this cache for open

    def _make_policy(self) -> Budget | Threshold:
        if self._max_error is None:
            return Threshold(self._threshold, self._guards)
        state = self._store.learned()
        return Budget(self._max_error, self._shadow_rate, state and json.loads(state))

    def find(self, question: Question, vector: Vector | None = None) -> Hit | None:
        """Look for an answer to *question*; *vector* saves the embedding if the host has made it.

        Raises whatever the store or the embedder raises: call it in `failsafe`.
        """
        key = self._key(question)
        hit = self._exact(key) or self._semantic(key, vector)
        self._count("misses" if hit is None else f"hits_{hit.kind}")
        return hit

    def find_exact(self, question: Question) -> Hit | None:
        """Look for an answer to the very same request, embedding nothing; a miss is not counted."""
        hit = self._exact(self._key(question))
        if hit:
            self._count("hits_exact")
        return hit

    def text_to_embed(self, question: Question) -> str | None:
        """Return the words that `find` would embed, or None if only an exact hit is possible."""
        key = self._key(question)
        return None if key.exact_only else key.text

    def save(self, question: Question, answer: Answer, payload: str, vector: Vector | None = None) -> bool:
        """Store *payload* as the answer to *question* if it is fit to be served; tell whether it was.

        Raises whatever the store or the embedder raises: call it in `failsafe`.
        """
        now = self._clock()
        fresh_for = self._ttl(question, answer) if callable(self._ttl) else self._ttl
        stale = fresh_for is not None and not fresh_for > 0
        if problem := fault(answer) or ("ttl" if stale else None):
            self._count(problem, self._not_stored)
            return False
        key = self._key(question)
        vector = None if key.exact_only else self._vector(key.text, vector)
        says = self._says(key, vector, answer.text)
        if state := self._policy.answered(key.exact, says):
            self._store.keep_learned(json.dumps(state))
        expires_at = None if fresh_for is None else now + fresh_for
        entry = self._store.put(
            exact=key.exact,
            scope=key.scope,
            text=key.text,
            payload=payload,
            answer=answer.text,
            says=says,
            stored_at=now,
            expires_at=expires_at,
            vector=vector,
            embedder=None if vector is None else self._embedder.name,
        )
        if vector is not None:
            self._facts[entry] = (key.text, says, expires_at)
            self._index.add(entry, key.scope, vector)
        self._count("stored")
        self._make_room(now)
        return True

    def clear(self) -> None:
        """Delete all entries of this namespace."""
        self._after_fork()
        self._store.clear()
        with self._lock:
            self._index, self._indexed, self._facts = Index(), 0, {}

    def stats(self) -> CacheStats:
        """Report what the cache did since it was made, in this process."""
        self._after_fork()
        entries = None
        with self.failsafe("count"):
            entries = self._store.count()
        with self._lock:
            counts = dict(self._counts)
            return CacheStats(
                hits_exact=counts.get("hits_exact", 0),
                hits_semantic=counts.get("hits_semantic", 0),
                misses=counts.get("misses", 0),
                stored=counts.get("stored", 0),
                errors=counts.get("errors", 0),
                not_stored=dict(self._not_stored),
                refused=dict(self._refused),
                entries=entries,
            )

    def close(self) -> None:
        """Close the store; later lookups miss."""
        self._store.close()

    @contextmanager
    def failsafe(self, doing: str) -> Iterator[None]:
        """Turn any failure inside the block into a logged and counted one: a cache never breaks a call."""
        try:
            yield
        except Exception as problem:
            self._count("errors")
            # The type alone: a message may quote what was asked.
            log.warning("cache %s failed (%s), the call goes on without it", doing, type(problem).__name__)
            log.debug("the failure", exc_info=True)

    def _after_fork(self) -> None:
        if os.getpid() != self._pid:  # another thread may have held a lock or been amid a change of the index
            self._open()

    def _key(self, question: Question) -> Key:
        self._after_fork()
        return key_of(question, namespace=self._namespace, max_words=self._max_words)

    def _exact(self, key: Key) -> Hit | None:
        entry = self._store.get(key.exact)
        return None if entry is None else self._serve(entry, "exact", 1.0)

    def _semantic(self, key: Key, vector: Vector | None) -> Hit | None:
        if key.exact_only or (vector := self._vector(key.text, vector)) is None:
            return None
        self._catch_up()
        near = self._near(key.scope, vector)
        entries = self._index.size(key.scope, vector.size)
        choice = self._policy.choose(key.exact, key.text, near, entries, self._refuse)
        if choice is None:
            return None
        entry = self._store.by_id(choice.neighbour.entry)
        if entry is None or entry.scope != key.scope:  # gone since it was indexed
            self._forget(choice.neighbour.entry)
            return None
        return self._serve(entry, "semantic", choice.neighbour.similarity, choice.sure)

    def _near(self, scope: str, vector: Vector) -> list[Neighbour]:
        now = self._clock()
        near = []
        for entry, similarity in self._index.near(scope, vector, NEIGHBOURS):
            text, says, expires_at = self._facts.get(entry, ("", 0, now))
            if expires_at is None or now < expires_at:
                near.append(Neighbour(entry=entry, similarity=similarity, text=text, says=says))
            else:  # what has expired must not stand before what is fresh; stored anew, it is indexed anew
                self._forget(entry)
        return near

    def _says(self, key: Key, vector: Vector | None, answer: str) -> int:
        """Find the number of the neighbours that say the same as *answer*, or make a new one."""
        if self._max_error is not None and vector is not None:
            said: set[int] = set()
            for near in self._near(key.scope, vector):
                if near.similarity >= FLOOR and near.says not in said:
                    said.add(near.says)
                    stored = self._store.by_id(near.entry)
                    if stored and agree(answer, stored.answer):
                        return near.says
        return secrets.randbits(62)  # nobody has to be asked for a number that is free

    def _refuse(self, reason: str) -> None:
        self._count(reason, self._refused)

    def _forget(self, entry: int) -> None:
        self._index.remove(entry)
        self._facts.pop(entry, None)

    def _serve(self, entry: Entry, kind: CacheKind, similarity: float, sure: float | None = None) -> Hit | None:
        now = self._clock()
        if entry.expires_at is not None and now >= entry.expires_at:
            return None
        if now - entry.used_at > RECENT:
            with self.failsafe("bookkeeping"):  # an answer in hand is served even if the file cannot be written
                self._store.touch(entry.id, now)
        age = now - entry.stored_at
        return Hit(payload=entry.payload, kind=kind, similarity=similarity, sure=sure, age=age, entry=entry.id)

    def _vector(self, text: str, given: Vector | None) -> Vector | None:
        with self._lock:
            known = self._vectors.get(text)
        if given is None and known is not None:
            return known
        vector = unit(self._embedder.embed(text) if given is None else given)
        if vector is not None:
            with self._lock:
                self._vectors[text] = vector
                if len(self._vectors) > REMEMBERED:
                    self._vectors.popitem(last=False)
        return vector

    def _catch_up(self) -> None:
        """Index what other processes have stored, and on the first lookup all that the file holds."""
        if not self._store.changed():
            return
        latest = self._indexed
        for entry, scope, text, says, expires_at, vector in self._store.vectors(self._embedder.name, latest):
            self._facts[entry] = (text, says, expires_at)
            self._index.add(entry, scope, vector)
            latest = entry
        with self._lock:
            self._indexed = max(self._indexed, latest)

    def _make_room(self, now: float) -> None:
        with self._lock:
            self._room -= 1
            if self._room >= 0:
                return
        if len(self._store) > self._max_entries:
            # A twentieth at a time, or each further entry would pay for a sweep.
            for entry in self._store.shrink(self._max_entries - self._max_entries // 20, now):
                self._forget(entry)
        with self._lock:
            self._room = self._max_entries - len(self._store)

    def _count(self, what: str, counts: Counter[str] | None = None) -> None:
        with self._lock:
            (self._counts if counts is None else counts)[what] += 1
