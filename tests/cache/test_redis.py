"""The cache in Redis: what is shared, what is trusted, and what happens when Redis fails."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

from llm_costopt.cache import hashes
from llm_costopt.cache.breaker import Breaker
from llm_costopt.cache.scope import cache_scope
from llm_costopt.cache.semantic import SemanticCache
from llm_costopt.cache.store import Entry, Selection
from llm_costopt.types import Answer, Message, Question
from tests.cache.test_budget import replay, traffic
from tests.redis_server import RedisServer
from tests.tls_front import TLSFront

redis = pytest.importorskip("redis")
pytest.importorskip("redisvl")

from langchain_core.load import dumps  # noqa: E402
from langchain_core.messages import HumanMessage  # noqa: E402
from langchain_core.outputs import Generation  # noqa: E402

from langchain_costopt.cache import SemanticCache as LangChainCache  # noqa: E402
from llm_costopt.cache import redis as redis_store  # noqa: E402
from llm_costopt.cache.address import client  # noqa: E402
from llm_costopt.cache.redis import RedisStore  # noqa: E402

RICE, RICE_TOO, POETRY = "How do I cook rice?", "how can i cook the rice", "Which river is the longest?"

PROMPT = dumps([HumanMessage(RICE)])

GOOD = Answer(text="Like this.", finish="stop")

NOW = 1_000_000.0

SLOW = 30.0
"""A time limit that no busy machine exhausts, where the limit is not what is tested."""

BRIEF = 0.6
"""A time limit that a failing server exhausts soon."""


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


Make = Callable[..., SemanticCache]


@pytest.fixture
def clock() -> Clock:
    """Make a clock that stands still."""
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Iterator[Make]:
    """Make caches of one namespace, which are closed in the end."""
    made: list[SemanticCache] = []
    options: dict[str, Any] = {"clock": clock, "threshold": 0.8, "timeout": SLOW, "namespace": uuid.uuid4().hex}

    def make_one(server: RedisServer | str, **others: Any) -> SemanticCache:
        made.append(SemanticCache(**options | {"url": server if isinstance(server, str) else server.url} | others))
        return made[-1]

    yield make_one
    for cache in made:
        cache.close()


@pytest.fixture
def cache(make: Make, redis_server: RedisServer) -> SemanticCache:
    """Make a cache in the server that all tests share."""
    return make(redis_server)


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisStore]:
    """Make a store of a namespace of its own."""
    made = RedisStore(redis_server.url, namespace=uuid.uuid4().hex, embedder="e", timeout=SLOW, clock=lambda: NOW)
    yield made
    made.close()


@pytest.fixture
def raw(redis_server: RedisServer) -> Iterator[Any]:
    """Make a client that sees the server as it is."""
    with redis.Redis.from_url(redis_server.url, protocol=2) as made:
        yield made


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let the test move the clock of all circuit breakers."""
    made = Clock()
    monkeypatch.setattr(redis_store, "Breaker", partial(Breaker, clock=made))
    return made


def ask(text: str, model: str = "small") -> Question:
    """Ask *text*."""
    return Question(messages=(Message(role="human", text=text),), model=model, model_name=model)


def entry(exact: str, **fields: Any) -> Entry:
    """Make an entry of which only some fields matter."""
    defaults: dict[str, Any] = {
        "exact": exact, "scope": "s", "text": f"text {exact}", "payload": "p", "answer": "a",
        "says": 1, "stored_at": NOW, "expires_at": None, "used_at": NOW,
    }  # fmt: skip
    return Entry(**defaults | fields)


VECTOR = np.array([1.0, 0.0], dtype=np.float32)


def near(store: RedisStore) -> list[str]:
    """List the digests of what is near."""
    return [n.entry for n in store.near("asked", "s", VECTOR, 8, NOW).neighbours]


def keys_of(raw: Any, exact: str) -> list[bytes]:
    """List the keys that end in a digest."""
    return list(raw.scan_iter(match=f"*:{exact}", count=1000))


def served(cache: SemanticCache, text: str) -> str | None:
    """Ask as an adapter does, and say how the cache answered; None for a miss."""
    with cache.failsafe("lookup"):
        if hit := cache.find(ask(text)):
            return hit.kind
    return None


def save(cache: SemanticCache, text: str, payload: str = "payload") -> bool:
    """Store as an adapter does, and tell whether it was."""
    with cache.failsafe("update"):
        return cache.save(ask(text), GOOD, payload)
    return False


def run_python(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run *code* in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# What is shared


def test_caches_share_what_one_of_them_stored(make: Make, redis_server: RedisServer) -> None:
    """What one cache stored another one finds, exactly and by meaning, and nothing else; each hit is counted."""
    first, second = make(redis_server), make(redis_server)
    assert served(first, RICE) is None
    assert save(first, RICE)

    assert [served(second, text) for text in (RICE, RICE_TOO, POETRY)] == ["exact", "semantic", None]
    stats = second.stats()
    assert (stats.hits_exact, stats.hits_semantic, stats.misses, stats.entries, stats.errors) == (1, 1, 1, 1, 0)


def test_another_process_shares_it(make: Make, redis_server: RedisServer) -> None:
    """What this process stored another one finds, and what that one stored, this one."""
    namespace = uuid.uuid4().hex
    cache = make(redis_server, namespace=namespace, clock=time.time)
    save(cache, RICE)
    code = (
        "import sys\n"
        "from llm_costopt.cache.semantic import SemanticCache\n"
        "from llm_costopt.types import Answer, Message, Question\n"
        "url, namespace, rice, poetry = sys.argv[1:]\n"
        "def ask(text): return Question(messages=(Message(role='human', text=text),), model='small', model_name='small')\n"
        "cache = SemanticCache(url=url, namespace=namespace, threshold=0.8, timeout=30)\n"
        "print(cache.find(ask(rice)).payload)\n"
        "cache.save(ask(poetry), Answer(text='x', finish='stop'), 'theirs')\n"
        "cache.close()"
    )
    done = run_python(code, redis_server.url, namespace, RICE_TOO, POETRY)

    assert done.stdout.strip() == "payload", done.stderr
    hit = cache.find(ask(POETRY))
    assert hit is not None
    assert hit.payload == "theirs"


def test_tenants_and_models_share_nothing(cache: SemanticCache) -> None:
    """Another tenant, epoch or model finds nothing, exactly or by meaning."""
    with cache_scope(tenant="acme", epoch="1"):
        save(cache, RICE)
        assert served(cache, RICE_TOO) == "semantic"
    for scope in ({"tenant": "acme"}, {"tenant": "other", "epoch": "1"}, {"tenant": "ACME", "epoch": "1"}):
        with cache_scope(**scope):
            assert (served(cache, RICE), served(cache, RICE_TOO)) == (None, None)
    with cache_scope(tenant="acme", epoch="1"):
        assert cache.find(ask(RICE, model="big")) is None


def test_an_exact_repeat_costs_no_round_trip(make: Make, redis_server: RedisServer) -> None:
    """What was stored or served within a minute is served again without a word to Redis, and after it with one."""
    first, second, clock = make(redis_server), make(redis_server), Clock()
    late = make(redis_server, clock=clock)
    save(first, RICE)
    assert [served(second, RICE), served(late, RICE)] == ["exact", "exact"]
    with redis.Redis.from_url(redis_server.url) as raw:
        raw.config_resetstat()
        assert {served(cache, RICE) for cache in (first, second, late) for _ in range(5)} == {"exact"}
        assert "cmdstat_hmget" not in raw.info("commandstats")
        clock.now += 61
        assert served(late, RICE) == "exact"
        assert raw.info("commandstats")["cmdstat_hmget"]["calls"] == 1


def test_a_deletion_is_seen_at_once_here_and_within_a_minute_elsewhere(
    make: Make, redis_server: RedisServer, clock: Clock
) -> None:
    """What one process deletes it does not serve again; another one that has it at hand does, for a minute at most."""
    here, there = make(redis_server), make(redis_server)
    save(here, RICE)
    save(here, POETRY)
    assert served(there, RICE) == served(there, POETRY) == "exact"
    assert here.invalidate(model="small", dry_run=True) == here.invalidate(model="small") == 2
    assert (served(here, RICE), served(here, POETRY)) == (None, None)
    save(here, RICE)
    here.clear()
    assert served(here, RICE) is None

    assert served(there, RICE) == "exact"
    clock.now += 60
    assert served(there, RICE) is None


def test_threads_may_share_a_cache(make: Make, redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Eight threads that store and ask at once fail in nothing, and each finds what it stored."""
    cache = make(redis_server)

    def work(n: int) -> list[str | None]:
        save(cache, f"{RICE} {n}", payload=f"{n}")
        return [served(cache, f"{RICE} {n}") for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(work, range(40)))

    assert ends == [["exact"] * 20] * 40
    assert (cache.stats().errors, cache.stats().entries, caplog.messages) == (0, 40, [])


def test_many_may_find_no_index_at_once(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Stores that make the same indexes at once all store and find, without a failure."""
    caplog.set_level(logging.DEBUG, logger="llm_costopt")
    options: dict[str, Any] = {"namespace": uuid.uuid4().hex, "embedder": "e", "timeout": SLOW}
    stores = [RedisStore(redis_server.url, **options) for _ in range(8)]
    start = threading.Barrier(8)

    def work(n: int) -> None:
        stores[n].count()  # connects
        start.wait()
        stores[n].put(entry(f"{n}"), VECTOR)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    assert [len(near(store)) for store in stores] == [8] * 8
    assert caplog.messages == []
    for store in stores:
        store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_connections_of_its_own(redis_server: RedisServer) -> None:
    """Parent and child ask at once after a fork, and neither reads a reply that was the other's."""
    code = (
        "import os, sys\n"
        "from llm_costopt.cache.semantic import SemanticCache\n"
        "from llm_costopt.types import Answer, Message, Question\n"
        "def ask(text): return Question(messages=(Message(role='human', text=text),), model='small')\n"
        "cache = SemanticCache(url=sys.argv[1], namespace=sys.argv[2], threshold=1.0, timeout=30)\n"
        "for n in range(100): cache.save(ask(f'question {n}'), Answer(text='x', finish='stop'), f'{n}')\n"
        "child = os.fork()\n"
        "seen = [cache.find(ask(f'question {n}')) for n in (range(100) if child else range(99, -1, -1))]\n"
        "right = [hit.payload for hit in seen] == [f'{n}' for n in (range(100) if child else range(99, -1, -1))]\n"
        "right = right and cache.stats().errors == 0\n"
        "cache.close()\n"
        "if not child: os._exit(0 if right else 1)\n"
        "print(right, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    done = run_python(code, redis_server.url, uuid.uuid4().hex)

    assert done.stdout.split() == ["True", "0"], done.stderr


# How long it is kept


def test_redis_deletes_what_has_expired(redis_server: RedisServer, raw: Any, clock: Clock) -> None:
    """A key lives for the entry's own time and the grace, whatever the clocks say; no use extends it."""
    options: dict[str, Any] = {"namespace": uuid.uuid4().hex, "embedder": "e", "timeout": SLOW, "clock": clock}
    store = RedisStore(redis_server.url, grace=50.0, **options)
    brief, forever = uuid.uuid4().hex, uuid.uuid4().hex
    store.put(entry(brief, expires_at=NOW + 100), VECTOR)
    store.put(entry(forever), VECTOR)
    [brief_key], [forever_key] = keys_of(raw, brief), keys_of(raw, forever)
    assert 140_000 < raw.pttl(brief_key) <= 150_000
    assert raw.pttl(forever_key) == -1
    raw.pexpire(brief_key, 90_000)
    clock.now += 61  # no longer at hand
    found = store.get(brief)
    assert found is not None
    store.touch(found, NOW + 10)
    assert set(near(store)) == {brief, forever}
    store.close()

    assert 80_000 < raw.pttl(brief_key) <= 90_000


def test_what_is_parted_is_forgotten_in_the_end(store: RedisStore, raw: Any) -> None:
    """What was parted from a request has a time to live as well."""
    asked = uuid.uuid4().hex
    store.part(asked, "x")
    [key] = keys_of(raw, asked)

    assert 89 * 86_400 < raw.ttl(key) <= 90 * 86_400


def test_the_expired_are_served_only_in_their_grace(
    make: Make, redis_server: RedisServer, raw: Any, clock: Clock
) -> None:
    """An expired answer is served from hand or from Redis only in its grace, while one request fetches it anew."""
    strict, lenient = (make(redis_server, ttl=100.0, stale_while_revalidate=s, rng=lambda: 0.0) for s in (0.0, 30.0))
    for cache, tenant in ((strict, "strict"), (lenient, "lenient")):
        with cache_scope(tenant=tenant):
            save(cache, RICE)
    with cache_scope(tenant="lenient"):
        hit = lenient.find(ask(RICE))
    assert hit is not None
    [key] = keys_of(raw, hit.id.partition("/")[0])
    assert 110_000 < raw.pttl(key) <= 130_000
    ends = []
    for now in (99.9, 100.0, 129.9, 130.0):
        clock.now = NOW + now
        for cache, tenant in ((strict, "strict"), (lenient, "lenient")):
            with cache_scope(tenant=tenant):
                ends.append([served(cache, text) for text in (RICE, RICE, RICE_TOO)])

    assert ends[:3] == [["exact", "exact", "semantic"], ["exact", "exact", "semantic"], [None] * 3]
    assert ends[3][1:] == ["exact", "semantic"]
    assert ends[4:] == [[None] * 3, ["exact", "exact", "semantic"], [None] * 3, [None] * 3]
    assert lenient.stats().stale >= 5


# What is trusted


WRONG: dict[str, bytes | None] = {
    "exact": b"another", "scope": b"\xff", "text": None, "stored": b"\xff\xfe", "answer": None, "says": b"1.5",
    "tags": b'{"a": 1}', "stored_at": b"soon", "expires_at": b"nan", "model": b"\xff",
}  # fmt: skip


@pytest.mark.parametrize("field", WRONG)
def test_a_field_that_is_not_ours_makes_a_miss(field: str, redis_server: RedisServer, raw: Any) -> None:
    """An entry with a field that is missing, damaged or another entry's is none."""
    options: dict[str, Any] = {"namespace": uuid.uuid4().hex, "embedder": "e", "timeout": SLOW}
    exact = uuid.uuid4().hex
    writer, reader = (RedisStore(redis_server.url, **options) for _ in range(2))
    writer.put(entry(exact, model="m", tags=("t",)), VECTOR)
    [key] = keys_of(raw, exact)
    value = WRONG[field]
    assert value != raw.hget(key, field)
    raw.hset(key, field, value) if value else raw.hdel(key, field)
    found = reader.get(exact)
    writer.close()
    reader.close()

    assert found is None


@pytest.mark.parametrize("field", ["scope", "text", "says", "expires_at"])
def test_what_is_near_is_checked(field: str, store: RedisStore, raw: Any) -> None:
    """A neighbour whose fields are gone or not ours is left out, and gives its place to the next."""
    good, bad = uuid.uuid4().hex, uuid.uuid4().hex
    store.put(entry(good), np.array([0.6, 0.8], dtype=np.float32))
    store.put(entry(bad), VECTOR)
    [key] = keys_of(raw, bad)
    for spoil in (partial(raw.hset, key, field, b"\xffrubbish"), partial(raw.hdel, key, field)):
        spoil()
        assert [n.entry for n in store.near("asked", "s", VECTOR, 2, NOW).neighbours] == [good]


def test_what_expired_while_it_was_found_is_left_out() -> None:
    """What Redis finds and has no fields for any more takes no place from what is still there."""
    with RedisServer("--enable-debug-command", "yes") as server:
        store = RedisStore(server.url, namespace="", embedder="e", timeout=SLOW)
        with redis.Redis.from_url(server.url) as raw:
            raw.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 0)
            for n in range(4):
                store.put(entry(f"{n}", expires_at=NOW + 0.01), VECTOR)
            store.put(entry("fresh"), np.array([0.6, 0.8], dtype=np.float32))
            while raw.pttl(keys_of(raw, "fresh")[0].replace(b"fresh", b"3")) > 0:
                pass
        found = store.near("asked", "s", VECTOR, 2, NOW + 1)
        store.close()

    assert [near.entry for near in found.neighbours] == ["fresh"]


def test_an_index_holds_vectors_of_one_embedder_and_length(redis_server: RedisServer, raw: Any) -> None:
    """Vectors of another embedder or length never come to an index, where they would fail or be compared."""
    namespace = uuid.uuid4().hex
    for embedder, length in (("e", 2), ("f", 2), ("f", 3)):
        store = RedisStore(redis_server.url, namespace=namespace, embedder=embedder, timeout=SLOW)
        for n in range(2):
            store.put(entry(f"{namespace}{embedder}{length}{n}"), np.eye(length, dtype=np.float32)[n])
        store.close()
    [key] = keys_of(raw, f"{namespace}e20")
    prefix = key.split(b"entry")[0] + b"near"
    infos = [raw.ft(name).info() for name in raw.execute_command("FT._LIST") if name.startswith(prefix)]

    assert [int(info["hash_indexing_failures"]) for info in infos] == [0, 0, 0]
    assert len({info["attributes"][2][1] for info in infos}) == 3


def test_keys_of_other_types_make_misses(redis_server: RedisServer, raw: Any) -> None:
    """Where somebody else's text, list or set lies under our name there is no entry, nothing near and no failure."""
    options: dict[str, Any] = {"namespace": uuid.uuid4().hex, "embedder": "e", "timeout": SLOW}
    writer, reader = (RedisStore(redis_server.url, **options) for _ in range(2))
    exact, asked = uuid.uuid4().hex, uuid.uuid4().hex
    writer.put(entry(exact), VECTOR)
    writer.part(asked, "x")
    writer.keep_learned("state")
    [key], [parted] = keys_of(raw, exact), keys_of(raw, asked)
    learned = key.split(b"entry")[0] + b"learned"
    for command, *arguments in (("SET", b"\xff"), ("LPUSH", b"1"), ("HSET", b"a", b"1")):
        raw.delete(parted, learned)
        raw.execute_command(command, parted, *arguments)
        raw.execute_command(command, learned, *arguments)
        assert reader.near(asked, "s", VECTOR, 8, NOW).neighbours == []
        raw.delete(key)
        raw.execute_command(command, key, *arguments)
        assert reader.get(exact) is None
        assert near(reader) == []
        assert reader.learned() in {None, "\ufffd"}
        writer.put(entry(exact), VECTOR)
        assert near(reader) == [exact]
    writer.close()
    reader.close()


@pytest.mark.parametrize("state", [b"\xff", b"[1]", b'{"features": 1', b"null", b'"x"'])
def test_rubbish_for_what_was_learned_begins_anew(
    state: bytes, redis_server: RedisServer, raw: Any, make: Make
) -> None:
    """A cache starts and serves though what was learned is no state, or that of another release."""
    cache = make(redis_server, threshold=None)
    save(cache, RICE)
    [hit] = [cache.find(ask(RICE))]
    assert hit is not None
    [key] = keys_of(raw, hit.id.partition("/")[0])
    raw.set(key.split(b"entry")[0] + b"learned", state)

    assert served(make(redis_server, threshold=None), RICE) == "exact"


def test_an_answer_under_another_s_key_is_not_served(make: Make, redis_server: RedisServer, raw: Any) -> None:
    """An entry of another scope or another request that was copied to the key of this one is not served."""
    cache = make(redis_server)
    with cache_scope(tenant="acme"):
        save(cache, RICE)
        theirs = cache.find(ask(RICE))
    save(cache, RICE)
    ours = cache.find(ask(RICE))
    assert theirs is not None
    assert ours is not None
    [source], [target] = (keys_of(raw, hit.id.partition("/")[0]) for hit in (theirs, ours))
    raw.copy(source, target, replace=True)
    assert served(make(redis_server), RICE) is None
    raw.hset(target, "exact", target.rsplit(b":", 1)[1])
    assert served(make(redis_server), RICE) is None


def test_lone_surrogates_survive(store: RedisStore) -> None:
    """Half a character, which a model may well emit, comes back as it was."""
    exact = uuid.uuid4().hex
    stored = store.put(entry(exact, text="\ud800", payload="\udfff", tags=("\ud800",), model="\ud800"), None)

    assert hashes.entry(exact, [_bytes(hashes.fields(stored).get(name)) for name in hashes.FIELDS]) == stored
    assert store.select(Selection(tags=frozenset(["\ud800"]), model="\ud800")) == [exact]


def _bytes(value: bytes | int | str | None) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else str(value).encode()


def test_clear_leaves_other_keys_alone(store: RedisStore, raw: Any) -> None:
    """`clear` deletes the entries of its namespace and what was parted in it, and no other key of the database."""
    exact, asked = uuid.uuid4().hex, uuid.uuid4().hex
    others = [f"{asked}-{n}" for n in range(3)]
    for other in others:
        raw.set(f"llmcostopt:{other}", 1)
    before = set(raw.scan_iter(count=1000))
    store.put(entry(exact), VECTOR)
    store.part(asked, exact)
    store.keep_learned("state")
    added = set(raw.scan_iter(count=1000)) - before
    assert len(added) == 3
    store.clear()

    assert set(raw.scan_iter(count=1000)) - before == {key for key in added if key.endswith(b"learned")}
    assert before <= set(raw.scan_iter(count=1000))
    [learned] = [key for key in added if key.endswith(b"learned")]
    assert not [
        index for index in raw.execute_command("FT._LIST") if index.startswith(learned.removesuffix(b"learned"))
    ]
    store.put(entry(exact), VECTOR)
    assert near(store) == [exact]


def test_more_than_ten_thousand_are_selected_and_cleared(store: RedisStore, raw: Any) -> None:
    """A selection is whole beyond the 10,000 results of one search."""
    exact = uuid.uuid4().hex
    store.put(entry(exact, tags=("t",)), None)
    [key] = keys_of(raw, exact)
    fields = raw.hgetall(key)
    with raw.pipeline(transaction=False) as pipe:
        for n in range(11_000):
            pipe.hset(key + b"-%d" % n, mapping=fields)
        pipe.execute()
    selected = store.select(Selection(tags=frozenset("t")))

    assert len(set(selected)) == len(selected) == store.count() == 11_001
    store.clear()
    assert store.count() == 0


# What happens when Redis fails


@pytest.mark.parametrize(
    "url",
    [
        "secret", "http://localhost", "redis://", "redis://:secret", "redis://:secret/1@host", "redis://user:secret@",
        "redis://u:1/secret@host:6379/0", "redis://u:secret@host/zero", "redis://u:secret@host:port/0",
        "redis://u:secret@[::1", "redis://u:secret@host?no_such_option=1", "redis://u:secret@host?db=secret",
        "unix://", "localhost:6379", b"redis://secret",
    ],
)  # fmt: skip
def test_a_malformed_url_says_how_to_mend_it(url: Any) -> None:
    """Each malformed address is refused with an example, and nothing of it is quoted."""
    with pytest.raises(ValueError, match="rediss://user:password@host:6379/0") as error:
        SemanticCache(url=url)

    assert "secret" not in "".join(traceback.format_exception_only(error.value))
    assert error.value.__suppress_context__


def test_options_that_exclude_each_other() -> None:
    """A file and a Redis at once, or no time at all, are refused."""
    with pytest.raises(ValueError, match="not both"):
        SemanticCache(url="redis://localhost", path="cache.db")
    with pytest.raises(ValueError, match="timeout is seconds above 0"):
        SemanticCache(url="redis://localhost", timeout=0)


def test_a_missing_package_names_the_install_line() -> None:
    """Without the extra, the option says what to install."""
    code = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "from llm_costopt import SemanticCache, MissingExtraError\n"
        "try: SemanticCache(url='redis://localhost')\n"
        "except MissingExtraError as error: print(error)"
    )
    for package in ("redis", "redisvl"):
        assert "pip install 'llm-costopt[redis]'" in run_python(code, package).stdout


def test_a_lookup_s_time_is_shared_among_its_round_trips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three round trips together wait no longer than the time limit, of which 50 ms are the default."""
    limits: list[float] = []

    def noted(url: str, seconds: float) -> Any:
        limits.append(seconds)
        return client(url, seconds)

    monkeypatch.setattr(redis_store, "client", noted)
    SemanticCache(url="redis://127.0.0.1:1", threshold=0.9).close()
    SemanticCache(url="redis://127.0.0.1:1", threshold=0.9, timeout=3).close()

    assert [limits[0], limits[2]] == [0.05 / 3, 1.0]


def test_the_url_cannot_lift_the_limits() -> None:
    """Each reply and each connection has the limit, and nothing is tried twice, whatever the address says."""
    made = client(
        "redis://u:pw@host:1/2?socket_timeout=9&socket_connect_timeout=9&decode_responses=yes&protocol=3", 0.01
    )
    options = made.connection_pool.connection_kwargs

    assert (options["socket_timeout"], options["socket_connect_timeout"], options["retry"].get_retries()) == (
        0.01,
        0.01,
        0,
    )
    assert (options["host"], options["port"], options["db"], options["password"]) == ("host", 1, 2, "pw")
    assert (options["decode_responses"], options["protocol"]) == (False, 2)
    assert client("rediss://host", 0.01).connection_pool.connection_class is redis.SSLConnection


def test_no_password_is_shown(caplog: pytest.LogCaptureFixture, make: Make) -> None:
    """A server that refuses the password makes misses, and the password stands in no log and no description."""
    caplog.set_level(logging.DEBUG)
    with RedisServer("--requirepass", "right", login=":hunter2") as server:
        cache = make(server, timeout=BRIEF)
        adapter = LangChainCache(url=server.url, timeout=BRIEF, threshold=0.8)
        ends = [served(cache, RICE), save(cache, RICE), adapter.lookup(PROMPT, "model")]
        with pytest.raises(redis.exceptions.AuthenticationError) as error:
            cache.clear()
        shown = [caplog.text, repr(cache), repr(adapter), str(error.value), str(cache.stats())]
        adapter.close()

    assert ends == [None, False, None]
    assert cache.stats().errors >= 2
    assert len(caplog.text) > 1000
    assert [text for text in shown if "hunter2" in text] == []


def test_a_user_of_the_keys_of_the_cache_alone(make: Make) -> None:
    """A user who may touch no other keys can do all that a cache does."""
    rules = ("--user", "alice", "on", ">pw", "~llmcostopt:*", "+@all", "--user", "default", "off")
    with RedisServer(*rules, login="alice:pw") as server:
        cache = make(server)
        assert save(cache, RICE)
        hit = cache.find(ask(RICE_TOO))
        assert hit is not None
        assert cache.feedback(hit.id, ok=False)
        assert served(cache, RICE_TOO) is None
        assert cache.invalidate(model="small") == 1
        save(cache, RICE)
        cache.clear()
        stats = cache.stats()

    assert (stats.entries, stats.errors) == (0, 0)


def test_tls_by_the_url(make: Make, redis_server: RedisServer, tmp_path: Path) -> None:
    """`rediss://` encrypts and checks the certificate: an authority that the URL names is trusted, an unknown one makes misses."""
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    with TLSFront(redis_server.port, authority) as front:
        url = f"rediss://127.0.0.1:{front.port}"
        trusting, wary = make(f"{url}?ssl_ca_certs={file}"), make(url)
        assert save(trusting, RICE)
        assert served(trusting, RICE_TOO) == "semantic"
        assert served(wary, RICE) is None
        stats = trusting.stats(), wary.stats()
        trusting.close()
        wary.close()

    assert [s.errors > 0 for s in stats] == [False, True]
    assert served(make(redis_server), RICE_TOO) == "semantic"


@pytest.fixture
def cluster() -> Iterator[tuple[RedisServer, RedisServer]]:
    """Run two nodes that know each other and have half of the slots each."""
    with ExitStack() as at_the_end:
        nodes, buses, clients = [], [], []
        for _ in range(2):
            with socket.socket() as free:  # the usual one is 10,000 above the port, where there may be none
                free.bind(("127.0.0.1", 0))
                buses.append(free.getsockname()[1])
            arguments = "--cluster-enabled", "yes", "--cluster-port", str(buses[-1])
            nodes.append(at_the_end.enter_context(RedisServer(*arguments)))
            clients.append(at_the_end.enter_context(redis.Redis.from_url(nodes[-1].url, protocol=2)))
        for client, first in zip(clients, (0, 8192), strict=True):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, first + 8191)
        clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, buses[1])
        give_up = time.monotonic() + SLOW
        while any(c.execute_command("CLUSTER INFO")["cluster_state"] != "ok" for c in clients):
            assert time.monotonic() < give_up
            time.sleep(0.05)
        yield nodes[0], nodes[1]


def test_a_cluster_of_two_nodes(make: Make, cluster: tuple[RedisServer, RedisServer]) -> None:
    """All keys of a namespace lie in one slot: the node that has it does all that a cache asks, the other makes misses."""
    at_home = []
    for namespace in map(str, range(6)):
        caches = [make(node, namespace=namespace) for node in cluster]
        stored = [save(cache, RICE) for cache in caches]
        home, away = caches if stored[0] else reversed(caches)
        hit = home.find(ask(RICE_TOO))
        assert hit is not None
        assert home.feedback(hit.id, ok=False)
        assert served(home, RICE_TOO) is None
        assert home.invalidate(model="small") == 1
        save(home, POETRY)
        home.clear()
        at_home.append(stored)

        assert (home.stats().entries, home.stats().errors) == (0, 0)
        assert served(away, RICE) is None
        assert away.stats().errors > 0

    assert sorted(set(map(tuple, at_home))) == [(False, True), (True, False)]


@pytest.mark.parametrize("threshold", [0.8, None])
def test_without_a_search_module_the_very_same_requests_hit(
    threshold: float | None, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A Redis that cannot search still serves exact repeats; the log says so a few times, and then no more."""
    with RedisServer(modules=False) as server:
        cache = make(server, threshold=threshold)
        assert save(cache, RICE)
        ends = [served(make(server), RICE)] + [served(cache, RICE_TOO) for _ in range(50)]
        assert save(cache, POETRY)
        errors = cache.stats().errors

    assert ends == ["exact"] + [None] * 50
    assert errors >= 50
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) <= 8


def test_a_full_redis_still_serves(own_redis: RedisServer, make: Make, ticks: Clock) -> None:
    """When there is no room, nothing more is stored and what is there is served; once there is, all is well again."""
    cache = make(own_redis)
    save(cache, RICE)
    with redis.Redis.from_url(own_redis.url) as raw:
        raw.config_set("maxmemory", 1)
        full = [save(cache, POETRY) for _ in range(5)] + [served(make(own_redis), RICE), served(cache, RICE_TOO)]
        raw.config_set("maxmemory", 0)
    ticks.now += 6

    assert full == [False] * 5 + ["exact", "semantic"]
    assert save(cache, POETRY)
    assert served(make(own_redis), POETRY) == "exact"


def test_a_frozen_redis_holds_nobody_up(own_redis: RedisServer, make: Make, ticks: Clock) -> None:
    """Amid a run the server stops: lookups miss and updates do nothing, none hangs; thawed, it serves again."""
    cache = make(own_redis, timeout=BRIEF)
    assert save(cache, RICE)
    assert served(cache, RICE_TOO) == "semantic"
    own_redis.freeze()
    begun = time.monotonic()
    assert served(cache, RICE_TOO) is None
    assert time.monotonic() - begun < 2
    frozen = [served(cache, f"{RICE_TOO} {n}") for n in range(100)] + [save(cache, POETRY)]
    assert not any(frozen)
    assert served(cache, RICE) == "exact"  # it is at hand
    own_redis.thaw()
    ticks.now += 6

    assert served(cache, RICE_TOO) == "semantic"
    assert save(cache, POETRY)
    assert served(make(own_redis), POETRY) == "exact"


def test_a_killed_redis_comes_back_empty(own_redis: RedisServer, make: Make, ticks: Clock) -> None:
    """Amid a run the server dies: lookups miss; started again, empty, its indexes are made anew by themselves."""
    cache, other = make(own_redis), make(own_redis)
    assert save(cache, RICE)
    assert served(other, RICE_TOO) == "semantic"
    own_redis.kill()
    assert [served(other, RICE_TOO) for _ in range(10)] == [None] * 10
    assert not save(cache, POETRY)
    assert cache.stats().entries is None
    own_redis.start()
    ticks.now += 6
    assert (served(other, RICE_TOO), served(other, POETRY)) == (None, None)
    assert save(other, POETRY)
    assert save(cache, RICE)

    assert (served(other, RICE_TOO), served(cache, POETRY)) == ("semantic", "exact")
    assert cache.stats().entries == 2


def test_a_redis_that_is_not_there_yet(own_redis: RedisServer, make: Make, ticks: Clock) -> None:
    """A cache that is made before its Redis misses until there is one, and then serves."""
    own_redis.kill()
    cache = make(own_redis, threshold=None)
    assert [served(cache, RICE), save(cache, RICE)] == [None, False]
    own_redis.start()
    ticks.now += 6

    assert save(cache, RICE)
    assert served(make(own_redis), RICE) == "exact"


def test_what_was_kept_outlives_a_start_without_redis(own_redis: RedisServer, make: Make, ticks: Clock) -> None:
    """A cache that could not read what was learned does not write over it, but goes on from it and learns further."""
    options: dict[str, Any] = {"threshold": None, "namespace": "", "rng": lambda: 0.99}
    opened = partial(RedisStore, own_redis.url, namespace="", embedder="e", timeout=SLOW, clock=lambda: NOW)
    requests = traffic(400)

    def kept() -> str | None:
        with closing(opened()) as store:
            return store.learned()

    usual, first = make(own_redis, **options), 0
    while kept() is None:
        replay(usual, requests[first : first + 1])
        first += 1
    own_redis.kill()
    late = make(own_redis, **options)
    own_redis.start()
    ticks.now += 6
    with closing(opened()) as store:
        store.keep_learned("null")  # what another process has learned: nothing that would be learned here

    replay(late, requests[:first])
    assert kept() == "null"
    replay(late, requests[first:])
    assert kept() not in {None, "null"}


def test_flushing_or_dropping_an_index_in_the_middle(own_redis: RedisServer, make: Make) -> None:
    """After FLUSHALL, and after indexes were dropped, the next answer makes them anew, and nothing fails."""
    cache = make(own_redis)
    with redis.Redis.from_url(own_redis.url) as raw:
        for lose in (
            raw.flushall,
            lambda: [raw.execute_command("FT.DROPINDEX", i) for i in raw.execute_command("FT._LIST")],
        ):
            save(cache, RICE)
            assert served(cache, RICE_TOO) == "semantic"
            lose()
            assert served(cache, RICE_TOO) is None
            save(cache, POETRY)
            save(cache, RICE)
            assert served(cache, RICE_TOO) == "semantic"

    assert (cache.stats().errors, cache.stats().entries) == (0, 2)


def test_what_was_stored_before_its_index_is_selected(own_redis: RedisServer, make: Make) -> None:
    """An index that was dropped is made anew, over all entries, before anything is selected."""
    cache = make(own_redis)
    for n in range(300):
        save(cache, f"{RICE} {n}")
    with redis.Redis.from_url(own_redis.url) as raw:
        for index in raw.execute_command("FT._LIST"):
            raw.execute_command("FT.DROPINDEX", index)

    assert cache.invalidate(model="small") == 300


def test_entries_may_be_invalidated_while_others_clear(make: Make, redis_server: RedisServer) -> None:
    """Nothing is left to invalidate where another process has just dropped the index with all entries."""
    cache, other = make(redis_server), make(redis_server)

    def clear() -> None:
        for _ in range(200):
            other.clear()

    with ThreadPoolExecutor(1) as pool:
        clearing = pool.submit(clear)
        while not clearing.done():
            cache.invalidate(model="small")

    assert clearing.exception() is None


def test_an_open_breaker_asks_nobody(make: Make, ticks: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A server that never answers is asked five times, and then once per cool-down, however many lookups there are."""
    asked: list[socket.socket] = []

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        cache = make(f"redis://127.0.0.1:{listener.getsockname()[1]}", timeout=0.3)

        def connections() -> int:
            try:
                while True:
                    asked.append(listener.accept()[0])
            except BlockingIOError:
                return len(asked)

        counts = []
        for wait in (0, 0, 0.9, 0.1, 0.9, 0.1):
            ticks.now += wait
            ends = [served(cache, RICE_TOO) for _ in range(20)]
            assert ends == [None] * 20
            counts.append(connections())
        for connection in asked:
            connection.close()

    assert counts == [5, 5, 5, 6, 6, 7]
    # Four failures, and what the fifth led to.
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 5
    assert cache.stats().errors >= 120


async def test_langchain_waits_for_no_frozen_redis(own_redis: RedisServer) -> None:
    """Through LangChain's methods, too, a frozen server makes misses and nothing else, in threads and in the loop."""
    cache = LangChainCache(url=own_redis.url, timeout=BRIEF, threshold=0.8)
    answer = [Generation(text="Like this.")]
    cache.update(PROMPT, "model", answer)
    hit = await cache.alookup(PROMPT, "model")
    assert hit is not None
    assert hit[0].text == "Like this."
    own_redis.freeze()
    other = PROMPT.replace("rice", "wheat")
    ends = [cache.lookup(other, "model"), await cache.alookup(other, "model")]
    cache.update(other, "model", answer)
    await cache.aupdate(other, "model", answer)
    own_redis.thaw()
    errors = cache.stats().errors
    cache.close()

    assert ends == [None, None]
    assert errors >= 3


def test_a_deletion_overtakes_a_lookup(store: RedisStore) -> None:
    """Threads that read while one deletes never bring back what was deleted."""
    exact = uuid.uuid4().hex
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            store.get(exact)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    back = []
    for _ in range(50):
        store.put(entry(exact), None)
        store.delete(exact)
        back.append(store.get(exact))
    stop.set()
    for reader in readers:
        reader.join()

    assert back == [None] * 50
