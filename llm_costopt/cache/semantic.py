"""The semantic cache: exact tier first, then meaning inside the scope, never an exception from `failsafe`."""

import asyncio
import json
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from llm_costopt.cache import ttl as freshness
from llm_costopt.cache.agree import agree, joined, known, number
from llm_costopt.cache.breaker import CircuitOpenError
from llm_costopt.cache.economy import Economy
from llm_costopt.cache.embed import Embedder, Vector, WordLlamaEmbedder, unit
from llm_costopt.cache.explain import Explanation, decision
from llm_costopt.cache.flight import Flights
from llm_costopt.cache.guards import GUARDS, Guard
from llm_costopt.cache.index import VectorIndex
from llm_costopt.cache.key import Key, exact_only, key_of
from llm_costopt.cache.local import LocalStore
from llm_costopt.cache.observe import Observation
from llm_costopt.cache.policies import Policies
from llm_costopt.cache.policy import score_of
from llm_costopt.cache.records import CacheStats, Hit, Tally
from llm_costopt.cache.refresh import Refreshes
from llm_costopt.cache.scope import Surroundings, surroundings
from llm_costopt.cache.settings import Chosen, OnScore, Settings, check, check_on_score, check_parts
from llm_costopt.cache.store import Entry, Nearby, Selection, Store
from llm_costopt.cache.ttl import is_creative, kind_of
from llm_costopt.cache.verify import FLOOR, NEIGHBOURS, Neighbour
from llm_costopt.errors import place_of
from llm_costopt.faults import fault
from llm_costopt.presets import Endpoints, Preset
from llm_costopt.recent import Recent
from llm_costopt.switch import Mode
from llm_costopt.types import Answer, CacheKind, Question

log = logging.getLogger(__name__)


NOTED = 60.0
"""Seconds for which figures are kept in memory before they are noted beside the entries."""

RECENT = 60.0
"""Seconds within which a second use of an entry is not noted: a read should rarely cost a write."""


class SemanticCache:
    """Answer the same question in other words from store, and a different one never.

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
        self._chosen = Chosen(preset, {} if endpoints is None else endpoints, given, ttl)
        self._stale = stale_while_revalidate
        self._min_hit_rate = min_hit_rate
        self._single_flight = single_flight
        self._path = path
        self._url = url
        self._timeout = timeout
        self._max_entries = max_entries
        self._max_words = max_words
        self._namespace = namespace
        self._embedder = embedder or WordLlamaEmbedder()
        self._guards = tuple(guards)
        self._on_score = check_on_score(on_score)
        self._clock = clock
        self._rng = rng
        self._open(index)

    def _open(self, index: VectorIndex | None = None) -> None:
        self._tally = Tally()
        self._store = self._open_store(index)
        self._vectors: Recent[str, Vector] = Recent()
        self._served: Recent[str, Hit] = Recent()
        self._asked: Recent[str, float] = Recent()
        self._keys: Recent[int, tuple[Question, Surroundings, Key]] = Recent()
        self._flights = Flights(self._single_flight)
        self._refreshes = Refreshes()
        self._observation = Observation(self._tally)
        self._noted_at = float("-inf")
        self._economy = Economy(self._min_hit_rate)
        self._policies = self._make_policies()
        self._pid = os.getpid()  # last: until here a second thread must not take this cache for open

    def _open_store(self, index: VectorIndex | None) -> Store:
        namespace, embedder = self._namespace, self._embedder.name
        if self._url is None:
            return LocalStore(
                self._path, namespace=namespace, embedder=embedder, max_entries=self._max_entries, index=index
            )
        from llm_costopt.cache.redis import RedisStore  # needs an extra

        return RedisStore(
            self._url,
            namespace=namespace,
            embedder=embedder,
            timeout=self._timeout,
            grace=self._stale,
            clock=self._clock,
        )

    def _make_policies(self) -> Policies:
        self._knows_learned = False
        with self.failsafe("start"):  # a shared store may be away, or hold what others wrote
            kept = None if self._chosen.usual.threshold is not None else self._store.learned()
            self._knows_learned = True
            return Policies(self._chosen, self._guards, kept and json.loads(kept), self._rng)
        return Policies(self._chosen, self._guards, None, self._rng)

    def _note(self, now: float) -> None:
        """Add to the figures that `llm-costopt cache` prints."""
        self._noted_at = now
        if counts := self._tally.unnoted():
            self._store.add_counts(counts, now)

    def _keep_learned(self, state: Mapping[str, Any] | None) -> None:
        if state is None:
            return
        if self._knows_learned:
            self._store.keep_learned(json.dumps(state))
        else:  # the store was away: what it has kept is worth more than what this process learned meanwhile
            self._policies = self._make_policies()

    @property
    def embedder(self) -> Embedder:
        """Return what turns questions into vectors: a host's own may know how to do that without blocking."""
        return self._embedder

    def find(self, question: Question) -> Hit | None:
        """Look for an answer to *question*, waiting for the same request of another thread if there is one.

        Raises whatever the store or the embedder raises: call it in `failsafe`.
        """
        key, now = self._key(question), self._chosen.now()
        if now.mode == "off":
            return None
        hit = self._exact(key) or self._semantic(question, key, None, time.perf_counter(), now)
        if hit is None and self._may_wait(key, now) and self._flights.wait(key.exact):
            hit = self._exact(key)
        return self._counted(question, key, hit, now)

    async def afind(self, question: Question, embed: Callable[[str], Awaitable[Vector]] | None = None) -> Hit | None:
        """Do as `find` does without holding up the event loop; *embed* is the host's own way to embed."""
        key, now = self._key(question), self._chosen.now()
        if now.mode == "off":
            return None
        vector, began = None, time.perf_counter()
        hit = await asyncio.to_thread(self._exact, key)
        if hit is None and embed is not None and not self._economy.is_off(key.endpoint):
            text = self._text_to_match(question, key)
            vector = None if text is None else await embed(text)
        if hit is None:
            hit = await asyncio.to_thread(self._semantic, question, key, vector, began, now)
        if hit is None and self._may_wait(key, now) and await self._flights.await_(key.exact):
            hit = await asyncio.to_thread(self._exact, key)
        return self._counted(question, key, hit, now)

    def save(self, question: Question, answer: Answer, payload: str) -> bool:
        """Store *payload* as the answer to *question* if it is fit to be served; tell whether it was.

        Raises whatever the store or the embedder raises: call it in `failsafe`.
        """
        key = self._key(question)
        try:
            return self._chosen.now().mode != "off" and self._save(question, key, answer, payload)
        finally:
            self._flights.land(key.exact)
            if (now := self._clock()) - self._noted_at >= NOTED:
                with self.failsafe("bookkeeping"):
                    self._note(now)

    def leave(self) -> None:
        """Let those go on that wait for a request of this thread, which has failed."""
        self._flights.leave()

    def explain(self, question: Question) -> Explanation:
        """Say what `find` would do with *question*, and why; nothing is counted, learned or served.

        Raises whatever the store or the embedder raises.
        """
        key, mode = self._key(question), self._chosen.now().mode
        kind = self._kind(key)
        if mode == "off":
            return Explanation(text=key.text, kind=kind, decision="a miss: the cache is switched off", judgement=None)
        entry = self._store.get(key.exact)
        judgement = None
        if entry is not None and (entry.expires_at is None or self._clock() < entry.expires_at):
            says = "an exact hit: this very request is stored"
        elif reason := exact_only(question, key.text, self._max_words):
            says = f"a miss: only the very same request may hit ({reason})"
        elif kind == "creative":
            says = "a miss: creative work is not cached"
        elif self._economy.is_off(key.endpoint):
            says = "a miss: matching by meaning hits too rarely here and is left off for a while"
        elif (vector := self._vector(key.text, None)) is None:
            says = "a miss: the words have no meaning that could be compared"
        else:
            around = self._near(key, vector)
            judgement = self._policies.here().judge(key.text, around.neighbours, around.entries)
            says = decision(judgement)
        if mode == "observe":
            says = f"a miss, since the cache merely observes; else {says}"
        return Explanation(text=key.text, kind=kind, decision=says, judgement=judgement)

    def feedback(self, about: str | Question, *, ok: bool) -> bool:
        """Learn that a hit was right or wrong; what was wrong is not served to that question again.

        Neither is what says the same and is stored near it.

        Args:
            about: the `Hit.id`, or the question that was asked last in these words.
            ok: whether the answer served.

        Returns:
            Whether the hit is known; False for one that was never served here or is long gone.
        """
        self._after_fork()
        if isinstance(about, Question):
            known = self._served.get(self._key(about).exact)
            about = known.id if known else ""
        exact, _, entry = about.partition("/")
        found = self._store.by_id(entry) if entry else None
        if found is None:
            return False
        self._scored(about, float(ok))
        self._keep_learned(self._policies.usual.judged(exact, right=ok))
        if not ok:
            self._part(exact, found)
        return True

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
        if isinstance(tags, str):
            raise TypeError(f"tags is a list of texts, such as tags=[{tags!r}]; got {tags!r}")
        if not tags and model is None and older_than is None:
            raise ValueError("say what to delete: tags=, model= or older_than=; clear() deletes everything")
        check("older_than", older_than, lambda given: given is None or given >= 0, "a number of seconds", 3600)
        self._after_fork()
        before = None if older_than is None else self._clock() - older_than
        chosen = self._store.select(Selection(tags=frozenset(tags), model=model, stored_before=before))
        if not dry_run:
            for entry in chosen:
                self._store.delete(entry)
        return len(chosen)

    def clear(self) -> None:
        """Delete all entries of this namespace."""
        self._after_fork()
        self._store.clear()

    def stats(self) -> CacheStats:
        """Report what the cache did since it was made, in this process."""
        self._after_fork()
        entries = None
        with self.failsafe("count"):
            entries = self._store.count()
        return self._tally.stats(entries=entries, off=self._economy.off(), waited=self._flights.waited)

    def close(self) -> None:
        """Close the store; later lookups miss."""
        with self.failsafe("bookkeeping"):
            self._note(self._clock())
        self._store.close()

    @contextmanager
    def failsafe(self, doing: str) -> Iterator[None]:
        """Turn any failure inside the block into a logged and counted one: a cache never breaks a call."""
        try:
            yield
        except CircuitOpenError:
            self._tally.count("errors")
            log.debug("cache %s left off", doing)  # the breaker has warned, once for all of them
        except Exception as problem:  # noqa: BLE001 - whatever fails here must not fail the call
            self._tally.count("errors")
            # The type alone: a message may quote what was asked.
            log.warning("cache %s failed (%s), the call goes on without it", doing, type(problem).__name__)
            log.debug("the failure came from\n%s", place_of(problem))

    def _compared(self, right: bool, seen: float) -> None:
        self._tally.compared(right, seen)
        self._scored("", score_of(right, seen))

    def _scored(self, hit: str, score: float) -> None:
        if self._on_score is not None:
            with self.failsafe("score"):
                self._on_score(hit, score, about="cache")

    def _part(self, exact: str, wrong: Entry) -> None:
        """See that the request *exact* is not served from *wrong* again, nor from what says the same near it."""
        if wrong.exact == exact:
            self._store.delete(wrong.id)
        else:
            self._store.part(exact, wrong.id)
        with self.failsafe("comparison"):  # what was complained about is parted, whatever happens to the others
            vector = self._vector(wrong.text, None)
            while vector is not None:  # each time without those of the time before
                near = self._store.near(exact, wrong.scope, vector, NEIGHBOURS, self._clock() - self._stale)
                same = [one.entry for one in near.neighbours if self._agrees(wrong.says, wrong.answer, one)]
                if not same:
                    return
                for entry in same:
                    self._store.part(exact, entry)

    def _after_fork(self) -> None:
        # Another thread may have held a lock or been amid a change of the index, so that the child begins with its own.
        if os.getpid() != self._pid:
            self._open()

    def _key(self, question: Question) -> Key:
        self._after_fork()
        around = surroundings()
        # A host hands over the same object for the same request; holding it keeps its id from being given again.
        known = self._keys.get(id(question))
        if known is not None and known[0] is question and known[1] == around:
            return known[2]
        return key_of(question, namespace=self._namespace, tenant=around.tenant, epoch=around.epoch)

    def _counted(self, question: Question, key: Key, hit: Hit | None, now: Settings) -> Hit | None:
        if hit and now.mode == "observe":
            self._observation.would(key.exact, hit.kind)
            hit = None
        if hit:
            self._served.put(key.exact, hit)
        else:
            self._keys.put(id(question), (question, surroundings(), key))
        self._tally.count("misses" if hit is None else f"hits_{hit.kind}")
        if hit and hit.stale:
            self._tally.count("stale")
        return hit

    def _exact(self, key: Key) -> Hit | None:
        entry = self._store.get(key.exact)
        if entry is None or entry.scope != key.scope:  # a shared store may hold what others wrote
            return None
        return self._serve(key, entry, "exact", 1.0)

    def _text_to_match(self, question: Question, key: Key) -> str | None:
        """Return the words to embed, or None if only an exact hit is possible."""
        kind = surroundings().kind
        creative = is_creative(key.text) if kind is None else kind == "creative"
        return None if creative or exact_only(question, key.text, self._max_words) else key.text

    def _may_wait(self, key: Key, now: Settings) -> bool:
        """Tell whether waiting for the answer of another caller can be of any use."""
        return now.mode == "on" and (callable(now.ttl) or freshness.seconds_of(now.ttl, self._kind(key)) != 0)

    def _kind(self, key: Key) -> str:
        return surroundings().kind or kind_of(key.text)

    def _semantic(
        self, question: Question, key: Key, vector: Vector | None, began: float, settings: Settings
    ) -> Hit | None:
        text = self._text_to_match(question, key)
        if text is None or not self._economy.pays(key.endpoint):
            return None
        vector = self._vector(text, vector)
        hit = None if vector is None else self._nearest(key, vector, observed=settings.mode == "observe")
        now = time.perf_counter()
        self._economy.note(key.endpoint, hit=hit is not None, seconds=now - began)
        if hit is None:
            self._asked.put(key.exact, now)
        return hit

    def _nearest(self, key: Key, vector: Vector, *, observed: bool) -> Hit | None:
        around, policy = self._near(key, vector), self._policies.here()
        choice = policy.choose(
            key.exact, key.text, around.neighbours, around.entries, self._tally.refused, observed=observed
        )
        if choice is None:
            return None
        if observed:
            self._observation.chose(key.exact, choice)
        entry = self._store.by_id(choice.neighbour.entry)
        if entry is None or entry.scope != key.scope:  # gone since it was indexed
            return None
        if entry.exact == key.exact:  # expired, or it had been found; this request fetches it anew
            return None
        return self._serve(key, entry, "semantic", choice.neighbour.similarity, choice.sure)

    def _near(self, key: Key, vector: Vector) -> Nearby:
        return self._store.near(key.exact, key.scope, vector, NEIGHBOURS, self._clock() - self._stale)

    def _serve(
        self, key: Key, entry: Entry, kind: CacheKind, similarity: float, sure: float | None = None
    ) -> Hit | None:
        now = self._clock()
        late = -1.0 if entry.expires_at is None else now - entry.expires_at
        if late >= 0 and (late >= self._stale or self._refreshes.claim(entry.id, key.exact, now)):
            return None
        if now - entry.used_at > RECENT:
            with self.failsafe("bookkeeping"):  # an answer in hand is served even if the file cannot be written
                self._store.touch(entry, now)
        return Hit(
            id=f"{key.exact}/{entry.id}",
            payload=entry.payload,
            kind=kind,
            similarity=similarity,
            sure=sure,
            age=now - entry.stored_at,
            stale=late >= 0,
        )

    def _save(self, question: Question, key: Key, answer: Answer, payload: str) -> bool:
        now, kind = self._clock(), self._kind(key)
        if asked := self._asked.pop(key.exact):
            self._economy.answered(key.endpoint, time.perf_counter() - asked)
        problem = fault(answer)
        ttl = self._chosen.now().ttl
        seconds = None if problem else freshness.fresh_for(ttl, question, answer, kind, self._rng)
        unwanted = seconds is not None and not seconds > 0
        if problem := problem or ("creative" if unwanted and kind == "creative" else "ttl" if unwanted else None):
            self._tally.not_stored(problem)
            return False
        text = None if self._economy.is_off(key.endpoint) else self._text_to_match(question, key)
        vector = None if text is None else self._vector(text, None)
        says = self._says(key, vector, answer.text)
        self._keep_learned(self._policies.usual.answered(key.exact, says, self._compared))
        if self._observation.answered(key.exact, says, partial(self._observed, key)):
            self._tally.not_stored("observed")  # a hit would have stored nothing
            return False
        entry = Entry(
            exact=key.exact,
            scope=key.scope,
            text=key.text,
            payload=payload,
            answer=answer.text,
            says=says,
            model=question.model_name or answer.model,
            tags=surroundings().tags,
            stored_at=now,
            expires_at=None if seconds is None else now + seconds,
            used_at=now,
        )
        stored = self._store.put(entry, vector)
        if (old := self._refreshes.done(key.exact)) not in {None, stored.id}:
            self._store.delete(old)  # expired, asked in other words; the new answer takes its place
        self._tally.count("stored")
        return True

    def _observed(self, key: Key, right: bool, seen: float) -> None:
        self._scored("", score_of(right, seen))
        self._keep_learned(self._policies.usual.judged(key.exact, right=right, seen=seen))

    def _says(self, key: Key, vector: Vector | None, answer: str) -> int:
        """Make a number of the words of *answer*, or of what the neighbours have that say the same."""
        own = number(answer)
        learns = self._chosen.usual.threshold is None or self._observation.waits(key.exact)
        if vector is None or not learns:
            return own
        with self.failsafe("comparison"):  # an answer may be stored though nothing can be searched
            near = [one for one in self._near(key, vector).neighbours if one.similarity >= FLOOR]
            return joined(own, [one.says for one in near if self._agrees(own, answer, one)])
        return own

    def _agrees(self, own: int, answer: str, near: Neighbour) -> bool:
        if (same := known(own, near.says)) is not None:
            return same
        stored = self._store.by_id(near.entry)
        return stored is not None and agree(answer, stored.answer)

    def _vector(self, text: str, given: Vector | None) -> Vector | None:
        if given is None and (known := self._vectors.get(text)) is not None:
            return known
        vector = unit(self._embedder.embed(text) if given is None else given)
        if vector is not None:
            self._vectors.put(text, vector)
        return vector
