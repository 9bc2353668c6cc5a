"""Redis' search module: indexes over the entries of one namespace, and what is asked of them."""

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

from llm_costopt.cache import hashes
from llm_costopt.cache.embed import Vector
from llm_costopt.cache.store import Nearby, Selection
from llm_costopt.cache.verify import Neighbour
from llm_costopt.errors import MissingExtraError

try:
    from redis.exceptions import ResponseError
    from redisvl.exceptions import RedisVLError
    from redisvl.index import SearchIndex
    from redisvl.query import VectorQuery
    from redisvl.query.filter import FilterExpression, Num, Tag
except ModuleNotFoundError as missing:
    raise MissingExtraError("SemanticCache(url=…)", "redis") from missing

HNSW = {"m": 16, "ef_construction": 200, "ef_runtime": 128}
"""Of 100,000 questions, 88,000 in one scope, it finds the nearest at a cosine from 0.75 in 1,500 of 1,500 cases (with an
`ef_runtime` of 64 in 1,498). Redis itself passes to comparing all where a scope is a small part of the index."""

PATIENCE = 5.0
"""Seconds that what is no lookup may take for each reply."""

BUILDING = 30.0
"""Seconds that a deletion waits for an index to be built over what is stored: of 12,000 entries it took 3 s, and with both cores busy more than 5."""

PAGE = 1000
"""Keys that are listed or deleted at once."""

COUNTED = 10_000
"""Entries of a scope that are counted: 90,000 take Redis 8 ms, and are told from 10,000 by their logarithm alone."""

_COUNT = ("LIMIT", 0, COUNTED, "GROUPBY", 0, "REDUCE", "COUNT", 0, "DIALECT", 2)

_NO_INDEX = re.compile("no such index|unknown index name|index not found", re.IGNORECASE)
"""What releases of the search module say of an index that is not there."""


class Search:
    """Find the hashes below *prefix* by vector, or by tags, model and time.

    Args:
        quick: a client whose time limit is that of a lookup.
        patient: one that waits for `PATIENCE` seconds.
        prefix: what the keys of the namespace begin with.
        embedder: name of what made the vectors; others are not searched.
    """

    def __init__(self, quick: Any, patient: Any, *, prefix: str, embedder: str) -> None:
        self._quick = quick
        self._patient = patient
        self._prefix = prefix
        self._entries = f"{prefix}:entry:"
        self._facts = f"{prefix}:facts"
        self._embedder = hashes.digest(embedder)
        self._made: set[str] = set()

    def fields(self, scope: str, vector: Vector) -> dict[str, bytes | int | str]:
        """Give the fields by which an entry of *scope* is found by *vector*."""
        return {"place": self._place(scope, vector), self._field(vector.size): vector.tobytes()}

    def lacks(self, length: int | None) -> bool:
        """Tell whether an index may be missing that an entry with a vector of this *length* belongs to."""
        return not {self._facts, *([] if length is None else [self._vectors(length)])} <= self._made

    def make(self, length: int | None) -> None:
        """Make the indexes that an entry with a vector of this *length* belongs to, unless they are there."""
        self._make_facts(self._quick)
        if length is not None:
            vector = {"algorithm": "hnsw", "datatype": "float32", "distance_metric": "cosine", "dims": length} | HNSW
            self._make(
                self._quick,
                self._vectors(length),
                {"name": "place", "type": "tag"},
                {"name": "expires_at", "type": "numeric"},
                {"name": self._field(length), "type": "vector", "attrs": vector},
            )

    def near(self, scope: str, vector: Vector, count: int, since: float, parted: str) -> Nearby:
        """Find up to *count* entries of *scope* that had not expired at *since*, without those in the set *parted*."""
        found = self._near(scope, vector, count, since, parted)
        if found.spoilt:  # rare: only a complaint parts, and Redis deletes what has expired
            found = self._near(scope, vector, count + len(found.parted), since, parted, fresh=True)
        return Nearby(neighbours=list(found.neighbours[:count]), entries=found.entries)

    def count(self) -> int:
        """Count the entries."""
        with self._quick.pipeline(transaction=False) as pipe:
            pipe.execute_command("FT.INFO", self._facts)
            [info] = pipe.execute(raise_on_error=False)
        return 0 if self._is_missing(info) else int(_pairs(info)[b"num_docs"])

    def select(self, which: Selection) -> Iterator[str]:
        """Iterate over the ids of the entries that *which* means."""
        self._make_facts(self._patient)
        try:
            self._wait_for_facts()
            yield from self._selected(which)
        except ResponseError as problem:
            self._is_missing(problem)  # or raises; whoever drops it deletes all entries as well

    def drop(self) -> None:
        """Drop all indexes of the namespace: with one of 30,000 vectors, each deletion keeps Redis busy for 0.3 ms."""
        self._made.clear()
        with suppress(ResponseError):  # no search module, or another process was faster
            for name in self._patient.execute_command("FT._LIST"):
                if name.startswith(f"{self._prefix}:".encode()):
                    self._patient.execute_command("FT.DROPINDEX", name)

    def _selected(self, which: Selection) -> Iterator[str]:
        rows, cursor = self._patient.execute_command(
            "FT.AGGREGATE", self._facts, str(_meant(which)), "LOAD", 1, "@__key", "TIMEOUT", int(PATIENCE * 1000),
            "WITHCURSOR", "COUNT", PAGE, "DIALECT", 2,
        )  # fmt: skip
        while True:
            for row in rows[1:]:
                if row:  # or it has expired since
                    yield self._id(row[1])
            if not cursor:
                return
            rows, cursor = self._patient.execute_command("FT.CURSOR", "READ", self._facts, cursor, "COUNT", PAGE)

    def _vectors(self, length: int) -> str:
        return f"{self._prefix}:near:{length}:{self._embedder}"

    def _field(self, length: int) -> str:
        return f"vector_{length}_{self._embedder}"

    def _place(self, scope: str, vector: Vector) -> str:
        """Name what *vector* may be compared with: vectors of the same scope, embedder and length."""
        return hashes.digest(scope, self._embedder, str(vector.size))

    def _id(self, key: bytes) -> str:
        return key.decode("utf-8", "replace").removeprefix(self._entries)

    def _near(
        self, scope: str, vector: Vector, count: int, since: float, parted: str, *, fresh: bool = False
    ) -> "_Found":
        """Ask in one round trip for the nearest entries, the size of the scope and what is parted.

        To ask for the *fresh* ones alone takes Redis 3.5 times as long in a scope of 44,000 entries.
        """
        name, here = self._vectors(vector.size), Tag("place") == self._place(scope, vector)
        nearest = VectorQuery(
            vector.tobytes(),
            self._field(vector.size),
            num_results=count,
            return_fields=list(hashes.NEAR_FIELDS),
            filter_expression=here & (Num("expires_at") > since) if fresh else here,
            ef_runtime=HNSW["ef_runtime"],
        )
        with self._quick.pipeline(transaction=False) as pipe:
            pipe.execute_command("FT.SEARCH", name, *_arguments(nearest))
            pipe.execute_command("FT.AGGREGATE", name, str(here), *_COUNT)
            pipe.smembers(parted)
            found, size, apart = pipe.execute(raise_on_error=False)
        if self._is_missing(found) or self._is_missing(size) or is_other_type(apart):
            return _NOTHING  # what is parted is not known if somebody else has taken the key for it
        entries = int(size[1][1]) if size[1:] else 0
        return self._read(found, scope, since, frozenset(map(self._id, apart)), entries)

    def _read(self, reply: Any, scope: str, since: float, parted: frozenset[str], entries: int) -> "_Found":
        neighbours, spoilt = [], False
        for key, values in zip(reply[1::2], reply[2::2], strict=True):
            named = _pairs(values or ())
            fields = [named.get(name.encode()) for name in ("vector_distance", *hashes.NEAR_FIELDS)]
            near = hashes.neighbour(self._id(key), scope, since, fields)
            if near is None or near.entry in parted:
                spoilt = True
            else:
                neighbours.append(near)
        neighbours.sort(key=lambda near: -near.similarity)
        return _Found(neighbours=neighbours, entries=entries, parted=parted, spoilt=spoilt)

    def _is_missing(self, reply: Any) -> bool:
        """Tell whether *reply* is that the index is not there, so that it will be made; raise any other error."""
        if not isinstance(reply, Exception):
            return False
        if not _NO_INDEX.search(str(reply)):
            raise reply
        self._made.clear()  # whatever took it may have taken the others
        return True

    def _make_facts(self, redis: Any) -> None:
        time_stored = {"name": "stored_at", "type": "numeric"}
        self._make(redis, self._facts, {"name": "tag", "type": "tag"}, {"name": "asked", "type": "tag"}, time_stored)

    def _make(self, redis: Any, name: str, *fields: Mapping[str, Any]) -> None:
        schema = {"index": {"name": name, "prefix": self._entries, "storage_type": "hash"}, "fields": list(fields)}
        try:
            SearchIndex.from_dict(schema, redis_client=redis, validate_on_load=False).create(overwrite=False)
        except RedisVLError as problem:
            if "already exists" not in str(problem):  # another process was faster
                raise
        self._made.add(name)

    def _wait_for_facts(self) -> None:
        """Wait for an index that has just been made over entries that were there before."""
        give_up = time.monotonic() + BUILDING
        while float(_pairs(self._patient.execute_command("FT.INFO", self._facts))[b"indexing"]):
            if time.monotonic() > give_up:
                raise TimeoutError("Redis is still indexing the entries: try again later")
            time.sleep(0.01)


def is_other_type(reply: object) -> bool:
    """Tell whether *reply* is that a key is of another type, so that it is not ours; raise any other error."""
    if not isinstance(reply, Exception):
        return False
    if not isinstance(reply, ResponseError) or "WRONGTYPE" not in str(reply):
        raise reply
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    neighbours: Sequence[Neighbour]
    entries: int
    parted: Collection[str]
    spoilt: bool
    """Whether places among the nearest were taken by what is no neighbour."""


_NOTHING = _Found(neighbours=(), entries=0, parted=(), spoilt=False)


def _pairs(reply: Sequence[Any]) -> dict[bytes, Any]:
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _meant(which: Selection) -> FilterExpression:
    parts = []
    if which.tags:
        parts.append(Tag("tag") == [hashes.digest(tag) for tag in sorted(which.tags)])
    if which.model is not None:
        parts.append(Tag("asked") == hashes.digest(which.model))
    if which.stored_before is not None:
        parts.append(Num("stored_at") < which.stored_before)
    return reduce(and_, parts, FilterExpression("*"))


def _arguments(query: VectorQuery) -> list[Any]:
    """Give the arguments of FT.SEARCH for a pipeline; redisvl's own `query` is a round trip of its own."""
    named = [part for pair in query.params.items() for part in pair]
    return [*query.get_args(), "PARAMS", len(named), *named]
