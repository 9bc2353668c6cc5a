"""`cache_scope`: whose a call is, what its answer rests on, what it may be found by."""

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from typing import Any

import numpy as np
import pytest

from llm_costopt import Answer, Message, Question, SemanticCache, cache_scope
from llm_costopt.cache.embed import Vector
from llm_costopt.cache.key import key_of
from llm_costopt.cache.scope import surroundings

GOOD = Answer(text="Like this.")


def ask(text: str, system: str = "") -> Question:
    """Ask *text*."""
    return Question(messages=(Message(role="system", text=system), Message(role="human", text=text)))


class FlatEmbedder:
    """Finds all texts equal, so that nothing but the scope keeps them apart."""

    name = "flat"

    def embed(self, text: str) -> Vector:
        return np.ones(4, dtype=np.float32)


def make(**options: Any) -> SemanticCache:
    """Make a cache for which all questions of a scope are one."""
    return SemanticCache(**{"embedder": FlatEmbedder(), "threshold": 0.9, "guards": (), **options})


@pytest.mark.parametrize("named", ["tenant", "epoch"])
def test_tenants_and_epochs_share_nothing(named: str) -> None:
    """What one stored, exactly the same request of another does not find, nor does a call outside of any scope."""
    cache = make()
    with cache_scope(**{named: "one"}):
        cache.save(ask("Where is my order?"), GOOD, "one's")
        assert cache.find(ask("Where is my order?")) is not None
        assert cache.find(ask("Order: where?")) is not None
    with cache_scope(**{named: "two"}):
        assert cache.find(ask("Where is my order?")) is None
        assert cache.find(ask("Order: where?")) is None
    assert cache.find(ask("Where is my order?")) is None


def test_scopes_nest() -> None:
    """An inner block keeps what it does not name, adds its tags, and ends where it ends, by an error too."""
    with cache_scope(tenant="acme", kind="static", tags=["a"]):
        with cache_scope(epoch="2", kind="live", tags=["b", "a"]):
            inner = surroundings()
        with pytest.raises(KeyError), cache_scope(tenant="other"):
            raise KeyError
        outer = surroundings()

    assert (inner.tenant, inner.epoch, inner.kind, inner.tags) == ("acme", "2", "live", ("a", "b"))
    assert (outer.tenant, outer.epoch, outer.kind, outer.tags) == ("acme", "", "static", ("a",))
    assert surroundings().tenant == ""


async def test_tasks_and_threads_keep_their_own() -> None:
    """Two tasks in two scopes do not see each other's, and a thread that is given the context sees its caller's."""

    async def tenant(name: str) -> tuple[str, str]:
        with cache_scope(tenant=name):
            await asyncio.sleep(0)
            return surroundings().tenant, await asyncio.to_thread(lambda: surroundings().tenant)

    assert list(await asyncio.gather(tenant("one"), tenant("two"))) == [("one", "one"), ("two", "two")]
    with cache_scope(tenant="three"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(copy_context().run, lambda: surroundings().tenant).result() == "three"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tenant": 7}, TypeError, "tenant is a text"),
        ({"epoch": 7}, TypeError, "epoch is a text"),
        ({"kind": "news"}, ValueError, "static, summary, label, live"),
        ({"tags": "kb"}, TypeError, r"tags=\['kb'\]"),
        ({"tags": [7]}, TypeError, r"tags=\['kb'\]; got \[7\]"),
        ({"kind": ["live"]}, ValueError, "static, summary, label, live"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    """A number for a tenant, an unknown kind and a bare text for tags are told at once."""
    with pytest.raises(error, match=message), cache_scope(**options):
        pass


PARTS = [
    "",
    "a",
    "b",
    "ab",
    "a/b",
    '"',
    '","',
    "\\",
    "\\u0061",
    "a\x00",
    "\x00a",
    "[",
    '["a"',
    "A",
    "\u00e1",
    "a\u0301",
    "\ud800",
    " a",
    "a ",
    "*",
]


def test_hostile_names_never_meet() -> None:
    """A million requests whose namespace, tenant, epoch and system prompt try to run into each other: each has a scope of its own."""
    seen: dict[str, tuple[str, ...]] = {}
    met = []
    names = [*PARTS, *(one + other for one, other in itertools.product(PARTS, PARTS[:6]))]
    asked = ask("Where is my order?").messages[-1]
    for parts in itertools.islice(itertools.product(names, PARTS, names, names[:5]), 1_000_000):
        namespace, tenant, system, epoch = parts
        question = Question(messages=(Message(role="system", text=system), asked))
        scope = key_of(question, namespace=namespace, tenant=tenant, epoch=epoch).scope
        if seen.setdefault(scope, parts) != parts:
            met.append((seen[scope], parts))

    assert met == []


def test_lookups_of_hostile_names_find_their_own_only() -> None:
    """Each of some hundred identities stores one answer to a question that all ask: every lookup finds its own or none."""
    cache = make(max_entries=10_000)
    identities = list(itertools.product(PARTS, PARTS))
    with ExitStack() as failing:
        failing.callback(cache.close)
        for tenant, system in identities[::2]:
            with cache_scope(tenant=tenant):
                cache.save(ask("Where is my order?", system), GOOD, repr((tenant, system)))
        for n, (tenant, system) in enumerate(identities):
            with cache_scope(tenant=tenant):
                hits = [cache.find(ask(text, system)) for text in ("Where is my order?", "Where's the order?")]
            assert [hit and hit.payload for hit in hits] == [None if n % 2 else repr((tenant, system))] * 2
