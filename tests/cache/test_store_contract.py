"""What every store promises, in memory, in a file and in Redis."""

import itertools
import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_costopt.cache.embed import Vector
from llm_costopt.cache.local import LocalStore
from llm_costopt.cache.reading import sketch
from llm_costopt.cache.store import Entry, Nearby, Selection, Store

NOW = 1_000_000.0

HOSTILE = [
    "a",
    "A",
    "a,b",
    "a b",
    "a|b",
    "{a}",
    "}",
    "*",
    "",
    "Ä\u0301",
    "你好",
    "\x00\r\n",
    "'; DROP TABLE entries",
    "a" * 5000,
]
"""Names that differ, though a careless query or key would take some for the same."""

Make = Callable[..., Store]


@pytest.fixture(params=["memory", "file", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Make stores that share what they can share, by namespace and embedder."""
    made: list[Store] = []
    test = uuid.uuid4().hex

    def make_one(namespace: str = "", embedder: str = "e") -> Store:
        if request.param == "redis":
            pytest.importorskip("redisvl")
            from llm_costopt.cache.redis import RedisStore

            url = request.getfixturevalue("redis_server").url
            # A patience that no busy machine exhausts: what is tested is not the time limit.
            store: Store = RedisStore(url, namespace=test + namespace, embedder=embedder, timeout=30, clock=lambda: NOW)
        else:
            path = tmp_path / "cache.db" if request.param == "file" else None
            store = LocalStore(path, namespace=namespace, embedder=embedder, max_entries=10_000)
        made.append(store)
        return store

    yield make_one
    for store in made:
        store.close()


@pytest.fixture
def store(make: Make) -> Store:
    """Make one store."""
    return make()


def entry(exact: str = "x", **fields: Any) -> Entry:
    """Make an entry of which only some fields matter."""
    defaults: dict[str, Any] = {
        "exact": exact, "scope": "s", "text": f"text {exact}", "payload": f"payload {exact}", "answer": "answer",
        "says": 1, "stored_at": NOW, "expires_at": None, "used_at": NOW,
    }  # fmt: skip
    return Entry(**defaults | fields)


def at(degrees: float, length: int = 2) -> Vector:
    """Point into a direction."""
    vector = np.zeros(length, dtype=np.float32)
    vector[:2] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return vector


def near(store: Store, degrees: float = 0.0, **options: Any) -> Nearby:
    """Look around one direction."""
    defaults: dict[str, Any] = {"exact": "asked", "scope": "s", "vector": at(degrees), "count": 8, "since": NOW}
    return store.near(**defaults | options)


def texts(found: Nearby) -> list[str]:
    """List the questions that were found, nearest first."""
    return [neighbour.text for neighbour in found.neighbours]


def test_an_entry_comes_back_as_it_was(store: Store) -> None:
    """All fields survive, text of any kind included, by the digest and by the id."""
    text = "Grüße, 你好 \x00\r\n '; DROP TABLE entries"
    stored = store.put(
        entry(
            "x", scope=text, text=text, payload=json.dumps({"x": [1, None]}), answer=text, says=2**61, model=text,
            tags=(text, "b"), stored_at=NOW + 0.123456789, expires_at=NOW + 1e6 + 0.1, used_at=NOW + 0.123456789,
        ),
        at(0),
    )  # fmt: skip

    assert stored.id
    assert store.get("x") == store.by_id(stored.id) == stored
    assert store.get("y") is None


def test_what_is_not_given_comes_back_so(store: Store) -> None:
    """An entry may have no model, no tags, no end, no words and no vector."""
    stored = store.put(entry("x", text="", payload="", answer="", model=None, tags=(), expires_at=None), None)

    assert store.get("x") == stored
    assert texts(near(store)) == []
    assert store.count() == 1


def test_put_replaces(store: Store) -> None:
    """The same request stored again is one entry with the new answer alone, and keeps its id."""
    first = store.put(entry("x", model="m", tags=("t",), says=1, expires_at=NOW + 10), at(0))
    second = store.put(entry("x", payload="new", says=2, stored_at=NOW + 1, used_at=NOW + 1), at(0))

    assert second.id == first.id
    assert store.get("x") == second
    assert (second.payload, second.model, second.tags, second.expires_at) == ("new", None, (), None)
    assert store.select(Selection(tags=frozenset("t"))) == store.select(Selection(model="m")) == []
    assert store.count() == 1


def test_the_nearest_come_first(store: Store) -> None:
    """Neighbours come nearest first, with similarity, text and what they say, no more than asked for."""
    ids = {d: store.put(entry(f"{d}", says=d), at(d)).id for d in (50, 10, 90, 30, 70)}
    found = near(store, count=3)

    assert [(n.entry, n.text, n.says) for n in found.neighbours] == [(ids[d], f"text {d}", d) for d in (10, 30, 50)]
    assert [n.similarity for n in found.neighbours] == pytest.approx(np.cos(np.radians([10, 30, 50])), abs=1e-6)
    assert [(n.trigrams, n.words) for n in found.neighbours] == [sketch(n.text) for n in found.neighbours]
    assert found.entries == 5


def test_a_sketch_that_a_file_lacks_is_made_anew(tmp_path: Path) -> None:
    """What no release has sketched, or one with other rules has, is compared by the rules of this one."""
    with closing(LocalStore(tmp_path / "cache.db", namespace="", embedder="e", max_entries=10)) as store:
        store.put(entry("0"), at(0))
        store.put(entry("1"), at(1))
    with closing(sqlite3.connect(tmp_path / "cache.db", isolation_level=None)) as db:
        db.execute("UPDATE entries SET sketch = iif(exact = '0', x'', CAST(x'00' || substr(sketch, 2) AS BLOB))")
    with closing(LocalStore(tmp_path / "cache.db", namespace="", embedder="e", max_entries=10)) as store:
        assert [(n.trigrams, n.words) for n in near(store).neighbours] == [sketch("text 0"), sketch("text 1")]


def test_nothing_is_near_in_an_empty_store(store: Store) -> None:
    """A store without entries has no neighbours, selects nothing and counts none."""
    assert near(store) == Nearby(neighbours=[], entries=0)
    assert (store.get("x"), store.select(Selection()), store.count(), store.learned()) == (None, [], 0, None)


def test_scopes_share_nothing(store: Store) -> None:
    """An entry is near in its own scope alone, whatever characters the names of scopes hold."""
    for n, scope in enumerate(HOSTILE):
        store.put(entry(f"{n}", scope=scope), at(0))

    for n, scope in enumerate(HOSTILE):
        found = near(store, scope=scope)
        assert (texts(found), found.entries) == ([f"text {n}"], 1)
    assert texts(near(store, scope="a*")) == []


def test_namespaces_share_nothing(make: Make) -> None:
    """What one namespace stores and learns, no other one selects, counts, learns or clears."""
    stores = [make(namespace) for namespace in HOSTILE]
    for n, one in enumerate(stores):
        one.put(entry(f"{n}", scope=f"s{n}", tags=("t",)), at(0))
        one.keep_learned(f"{n}")
    stores[0].clear()

    assert [one.count() for one in stores] == [0] + [1] * (len(stores) - 1)
    assert [len(one.select(Selection(tags=frozenset("t")))) for one in stores] == [one.count() for one in stores]
    assert [one.learned() for one in stores] == [f"{n}" for n in range(len(stores))]


def test_another_embedder_s_vectors_are_not_searched(make: Make) -> None:
    """Vectors of two embedders are never compared, those of one embedder are; exact requests are shared."""
    first, second = make(embedder="e"), make(embedder="E")
    first.put(entry("x"), at(0))
    second.put(entry("y"), at(0))
    again = make(embedder="e")

    if again.get("x"):  # in memory nothing is shared
        assert (texts(near(again)), near(again).entries) == (["text x"], 1)
        assert again.get("y")
    assert (texts(near(first)), texts(near(second))) == (["text x"], ["text y"])


def test_vectors_of_other_lengths_are_not_compared(store: Store) -> None:
    """An embedder that was told to give another length begins anew, beside what is there."""
    for length in (2, 3, 256):
        store.put(entry(f"{length}"), at(0, length))

    for length in (2, 3, 256):
        found = near(store, vector=at(0, length))
        assert (texts(found), found.entries) == ([f"text {length}"], 1)
    assert near(store, vector=at(0, 4)) == Nearby(neighbours=[], entries=0)


def test_the_expired_do_not_hide_the_fresh(store: Store) -> None:
    """Entries that had expired at the time given are left out, however many are nearer."""
    for n in range(20):
        store.put(entry(f"old{n}", expires_at=NOW + 10), at(n))
    store.put(entry("fresh", expires_at=NOW + 11), at(60))
    store.put(entry("eternal"), at(70))

    assert len(near(store, since=NOW + 9.9).neighbours) == 8
    assert texts(near(store, since=NOW + 10)) == ["text fresh", "text eternal"]


def test_what_was_parted_is_left_out_for_that_request_alone(store: Store) -> None:
    """A parted entry gives its place to the next, for the request that it was parted from and no other."""
    ids = [store.put(entry(f"{n}"), at(n)).id for n in range(12)]
    for gone in ids[:4]:
        store.part("asked", gone)
        store.part("asked", gone)

    assert texts(near(store)) == [f"text {n}" for n in range(4, 12)]
    assert texts(near(store, exact="another")) == [f"text {n}" for n in range(8)]


def test_a_deleted_entry_is_gone(store: Store) -> None:
    """Neither its digest nor its id nor nearness finds a deleted entry; deleting it again does nothing."""
    gone, kept = store.put(entry("x"), at(0)).id, store.put(entry("y"), at(1)).id
    store.delete(gone)
    store.delete(gone)

    assert (store.get("x"), store.by_id(gone)) == (None, None)
    assert (texts(near(store)), near(store).entries, store.count()) == (["text y"], 1, 1)
    assert store.by_id(kept)


def test_selection_meets_all_that_is_given(store: Store) -> None:
    """Entries are selected by any of the tags, the model and the time, those that meet all of them."""
    ids: dict[str, Entry] = {}
    for asked, stored_at, mine in itertools.product(("m", "M", None), (NOW, NOW + 0.5), ((), ("t",), ("t", "u"))):
        made = entry(f"{asked} {stored_at} {mine}", model=asked, stored_at=stored_at, tags=mine)
        ids[store.put(made, None).id] = made

    for model, before, tags in itertools.product(
        ("m", "M", "n", None), (NOW, NOW + 0.25, NOW + 1, None), ((), ("t",), ("T",), ("t", "u"), ("u", "none"))
    ):
        expected = [
            name
            for name, made in ids.items()
            if (not tags or set(tags) & set(made.tags))
            and (model is None or made.model == model)
            and (before is None or made.stored_at < before)
        ]
        selected = store.select(Selection(tags=frozenset(tags), model=model, stored_before=before))
        assert sorted(selected) == sorted(expected), (model, before, tags)


def test_tags_of_any_characters(store: Store) -> None:
    """A tag or model finds its own entries alone, whatever characters it holds."""
    names = [name for name in HOSTILE if "\x00" not in name]  # which ends a text in SQLite's JSON
    ids = [store.put(entry(f"{n}", tags=(tag, "all"), model=tag), None).id for n, tag in enumerate(names)]

    for tag, own in zip(names, ids, strict=True):
        assert store.select(Selection(tags=frozenset([tag]))) == [own]
        assert store.select(Selection(model=tag)) == [own]
    assert set(store.select(Selection(tags=frozenset(["all"])))) == set(ids)


def test_clear_leaves_nothing_but_what_was_learned(store: Store) -> None:
    """After `clear` there are no entries, near or exact, and what is stored anew is there."""
    store.part("asked", store.put(entry("x"), at(0)).id)
    store.keep_learned("state")
    store.clear()

    assert (store.get("x"), texts(near(store)), near(store).entries, store.count()) == (None, [], 0, 0)
    assert store.learned() == "state"
    store.put(entry("x"), at(0))
    assert texts(near(store)) == ["text x"]


def test_what_was_learned_is_kept(make: Make) -> None:
    """The last state that was kept comes back, in any characters."""
    store = make()
    store.keep_learned("first")
    store.keep_learned('{"ü": 1}')

    assert store.learned() == '{"ü": 1}'


def test_a_use_may_be_noted(store: Store) -> None:
    """Noting that an entry was used leaves all else as it was."""
    stored = store.put(entry("x"), at(0))
    store.touch(stored, NOW + 100)
    found = store.get("x")

    assert found is not None
    assert found.used_at in {NOW, NOW + 100}
    assert (found.payload, found.stored_at) == (stored.payload, stored.stored_at)


def test_a_closed_store_is_of_no_use(store: Store) -> None:
    """After `close`, a lookup fails and says why, though it had just been stored."""
    store.put(entry("x"), at(0))
    store.close()

    with pytest.raises(ValueError, match="closed"):
        store.get("x")


def test_counts_of_all_processes_add_up(make: Make) -> None:
    """Whoever counts adds to what is there, by namespace; the time of the first count stays, and clearing changes nothing."""
    one, other = make("a"), make("b")
    assert one.counts() == {}

    one.add_counts({"misses": 2}, 1000.5)
    one.add_counts({"misses": 3, "would_exact": 1}, 2000.0)
    one.clear()

    assert one.counts() == {"since": 1000, "misses": 5, "would_exact": 1}
    assert other.counts() == {}
