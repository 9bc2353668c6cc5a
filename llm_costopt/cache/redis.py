"""The store of a fleet: entries in Redis, found by nearness through its search module.

Keys, all of one namespace in one slot of a cluster by the hash tag in braces (transactions and searches stay on one
shard; a plain client does not follow redirections, so that a cluster needs an endpoint that routes, as the managed
ones have):

    llmcostopt:VERSION:{NAMESPACE}:entry:EXACT          hash, one entry; its id is EXACT
    llmcostopt:VERSION:{NAMESPACE}:parted:EXACT         set of the ids that do not answer EXACT
    llmcostopt:VERSION:{NAMESPACE}:learned              string
    llmcostopt:VERSION:{NAMESPACE}:facts                search index: tags, model, time
    llmcostopt:VERSION:{NAMESPACE}:near:LENGTH:EMBEDDER search index: vectors of one embedder and length
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from llm_costopt.cache import hashes
from llm_costopt.cache.address import client
from llm_costopt.cache.breaker import Breaker, CircuitOpenError
from llm_costopt.cache.embed import Vector
from llm_costopt.cache.front import Front
from llm_costopt.cache.search import PAGE, PATIENCE, Search, is_other_type
from llm_costopt.cache.store import Entry, Nearby, Selection
from llm_costopt.errors import MissingExtraError

try:
    from redis.exceptions import RedisError
    from redisvl.exceptions import RedisVLError
except ModuleNotFoundError as missing:
    raise MissingExtraError("SemanticCache(url=…)", "redis") from missing

log = logging.getLogger(__name__)

VERSION = 1
"""Of what is stored; releases of different versions share nothing."""

ROUND_TRIPS = 3
"""Of a lookup: the same request, the nearest ones, the one that is served."""

PARTED = 90 * 86_400
"""Seconds after which it is forgotten that an entry does not answer a request; entries last days."""


class RedisStore:
    """Keep the entries of a namespace in the Redis at *url*, which any number of processes may share.

    It connects when it is first used, and makes its indexes when they are missing. What comes back is checked; what
    is not an entry of ours counts as none. A kind of command that keeps failing (reading, writing, searching) is left
    off for a while: a full Redis still serves, one without a search module still serves the very same requests.
    Entries that were read or stored within a minute are at hand without Redis.

    Args:
        url: such as `redis://localhost:6379/0`, `rediss://user:password@host:6379/0` or `unix:///path`.
        namespace: only entries of this one are seen.
        embedder: name of what made the vectors; others are not searched.
        timeout: seconds that the `ROUND_TRIPS` of a lookup may wait for Redis together.
        grace: seconds for which an entry is kept after it has expired. Redis deletes it then, whoever used it.
        clock: seconds since the epoch.

    Raises:
        ValueError: *url* is malformed.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str,
        embedder: str,
        timeout: float = 0.05,
        grace: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._quick = client(url, timeout / ROUND_TRIPS)
        self._patient = client(url, PATIENCE)
        self._prefix = f"llmcostopt:{VERSION}:{{{hashes.digest(namespace)}}}"
        self._search = Search(self._quick, self._patient, prefix=self._prefix, embedder=embedder)
        self._grace = grace
        self._front = Front(clock)
        self._reading = Breaker("reading from Redis")
        self._writing = Breaker("writing to Redis")
        self._searching = Breaker("searching in Redis")
        self._closed = False

    def get(self, exact: str) -> Entry | None:
        """Look up an entry by the digest of its whole request, at hand first."""
        self._check_open()
        if found := self._front.get(exact):
            return found
        changes = self._front.changes
        values = self._read("HMGET", self._key(exact), *hashes.FIELDS)
        found = None if values is None else hashes.entry(exact, values)
        if found:
            self._front.keep(found, changes)
        return found

    def by_id(self, entry: str) -> Entry | None:
        """Look up an entry by its id."""
        return self.get(entry)

    def near(self, exact: str, scope: str, vector: Vector, count: int, since: float) -> Nearby:
        """Find up to *count* entries of *scope* next to unit *vector* that had not expired at *since*."""
        self._check_open()
        with self._searching.watch():
            return self._search.near(scope, vector, count, since, self._parted(exact))

    def put(self, entry: Entry, vector: Vector | None) -> Entry:
        """Store *entry*; if it cannot be indexed, only the very same request will find it."""
        self._check_open()
        stored = entry._replace(id=entry.exact)
        values = hashes.fields(stored)
        if vector is not None:
            values |= self._search.fields(entry.scope, vector)
        self._index(None if vector is None else vector.size)
        with self._changing(entry.exact), self._writing.watch(), self._quick.pipeline(transaction=True) as pipe:
            key = self._key(entry.exact)
            pipe.delete(key)  # with fields that the new one may lack
            pipe.hset(key, mapping=values)
            if entry.expires_at is not None:
                # By the seconds left, not by the hour: the clocks of this machine and of Redis' may differ.
                left = entry.expires_at + self._grace - entry.stored_at
                pipe.pexpire(key, int(min(left, 1e9) * 1000))
            pipe.execute()
        self._front.keep(stored, self._front.changes)
        return stored

    def touch(self, entry: Entry, now: float) -> None:
        """Do nothing: Redis notes itself what is used, and evicts by that if it is told to."""

    def part(self, exact: str, entry: str) -> None:
        """Remember for `PARTED` seconds that the entry with this id does not answer the request *exact*."""
        self._check_open()
        with self._writing.watch(), self._quick.pipeline(transaction=True) as pipe:
            pipe.sadd(self._parted(exact), entry)
            pipe.expire(self._parted(exact), PARTED)
            pipe.execute()

    def delete(self, entry: str) -> None:
        """Delete the entry with this id, if there is one."""
        self._check_open()
        with self._changing(entry):
            self._patient.delete(self._key(entry))

    def select(self, which: Selection) -> list[str]:
        """List the ids of the entries of this namespace that *which* means."""
        self._check_open()
        return list(self._search.select(which))

    def clear(self) -> None:
        """Delete all entries of this namespace, and what was parted; it reads the names of all keys of the database."""
        self._check_open()
        self._front.clear()
        self._search.drop()
        ours = (self._key("").encode(), self._parted("").encode())
        keys: list[bytes] = []
        for key in self._patient.scan_iter(match=f"{self._prefix}:*", count=PAGE):
            keys += [key] if key.startswith(ours) else []
            if len(keys) == PAGE:
                self._patient.unlink(*keys)
                keys = []
        if keys:
            self._patient.unlink(*keys)
        self._front.clear()  # as in `_changing`

    def count(self) -> int:
        """Count the entries of this namespace."""
        self._check_open()
        with self._searching.watch():
            return self._search.count()

    def learned(self) -> str | None:
        """Return what `keep_learned` kept in this namespace."""
        self._check_open()
        state = self._read("GET", f"{self._prefix}:learned")
        return None if state is None else state.decode("utf-8", "replace")

    def keep_learned(self, state: str) -> None:
        """Keep what was learned beside the entries."""
        self._check_open()
        with self._writing.watch():
            self._quick.set(f"{self._prefix}:learned", state)

    def add_counts(self, counts: Mapping[str, int], now: float) -> None:
        """Add *counts* to those that are kept beside the entries."""
        self._check_open()
        with self._writing.watch(), self._quick.pipeline(transaction=True) as pipe:
            pipe.hsetnx(f"{self._prefix}:counts", "since", int(now))
            for name, n in counts.items():
                pipe.hincrby(f"{self._prefix}:counts", name, n)
            pipe.execute()

    def counts(self) -> dict[str, int]:
        """Return what `add_counts` has added up."""
        self._check_open()
        return {name.decode(): int(n) for name, n in (self._read("HGETALL", f"{self._prefix}:counts") or {}).items()}

    def close(self) -> None:
        """Close the connections; what was stored stays."""
        self._closed = True
        self._front.clear()
        self._quick.close()
        self._patient.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the cache is closed: make another one for the same url")

    @contextmanager
    def _changing(self, exact: str) -> Iterator[None]:
        self._front.forget(exact)
        try:
            yield
        finally:
            self._front.forget(exact)  # another thread may have read it before it changed

    def _key(self, exact: str) -> str:
        return f"{self._prefix}:entry:{exact}"

    def _parted(self, exact: str) -> str:
        return f"{self._prefix}:parted:{exact}"

    def _read(self, command: str, key: str, *arguments: str) -> Any:
        """Read from *key*; None if somebody else has made it, of another type."""
        with self._reading.watch(), self._quick.pipeline(transaction=False) as pipe:
            pipe.execute_command(command, key, *arguments)
            [reply] = pipe.execute(raise_on_error=False)
            return None if is_other_type(reply) else reply

    def _index(self, length: int | None) -> None:
        if not self._search.lacks(length):
            return
        with suppress(CircuitOpenError):
            try:
                with self._searching.watch():
                    self._search.make(length)
            except (RedisError, RedisVLError):  # lookups will say so, and the very same requests are found without it
                log.debug("no index", exc_info=True)
