"""What the Qdrant index does beyond the contract of every index: a shared server, a kept file, a missing package."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_costopt.cache.faiss import FaissIndex
from llm_costopt.cache.qdrant import QdrantIndex
from llm_costopt.cache.semantic import SemanticCache
from llm_costopt.errors import MissingExtraError
from llm_costopt.types import Answer
from tests.cache.test_budget import ask

qdrant_client = pytest.importorskip("qdrant_client")
exceptions = pytest.importorskip("qdrant_client.http.exceptions")

EAST = np.array([1.0, 0.0], dtype=np.float32)
NORTH = np.array([0.0, 1.0], dtype=np.float32)
UP = np.array([0.0, 0.0, 1.0], dtype=np.float32)


class Server:
    """A server as the client shows it: local mode behind it, and what is asked of it on record."""

    def __init__(self) -> None:
        self.init_options: dict[str, Any] = {"location": None, "path": None}
        self.local: Any = qdrant_client.QdrantClient(":memory:")
        self.asked: list[tuple[str, Any]] = []
        self.fails: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.asked.append((name, kwargs))
            if name == "create_payload_index":
                return None  # local mode has none
            if name == "create_collection" and self.fails:
                raise self.fails
            return getattr(self.local, name)(*args, **kwargs)

        return call

    def names(self) -> list[str]:
        """List what was asked."""
        return [name for name, _ in self.asked]


def refused() -> Exception:
    """Make what the client raises if a collection is there already."""
    error: Exception = exceptions.UnexpectedResponse(409, "Conflict", b"", {})
    return error


def test_the_scope_is_an_indexed_filter_inside_the_query() -> None:
    """A server is told once to index the scope, and asked with the scope as a condition of the search."""
    server = Server()
    index = QdrantIndex(server)
    index.add(1, "one", EAST)
    index.add(2, "two", NORTH)

    assert index.near("one", NORTH, 1) == [(1, 0.0)]
    made = [kwargs["field_schema"] for name, kwargs in server.asked if name == "create_payload_index"]
    assert [schema.is_tenant for schema in made] == [True]
    (query,) = [kwargs["query_filter"] for name, kwargs in server.asked if name == "query_points"]
    assert [(c.key, c.match.value) for c in query.must] == [("scope", "one")]


def test_a_further_entry_costs_a_server_one_request() -> None:
    """Adding, searching, counting and removing are one request each once the collection is known."""
    server = Server()
    index = QdrantIndex(server)
    index.add(1, "one", EAST)
    server.asked.clear()
    index.add(2, "one", NORTH)
    index.near("one", EAST, 1)
    index.size("one", 2)
    index.remove(2)

    assert server.names() == ["upsert", "query_points", "count", "delete"]


def test_processes_share_a_collection() -> None:
    """What one adds another finds, counts and clears, though it made no collection itself."""
    server = Server()
    one, other = QdrantIndex(server), QdrantIndex(server)
    one.add(1, "one", EAST)
    one.add(2, "one", UP)

    assert other.near("one", EAST, 1) == [(1, 1.0)]
    assert (other.size("one", 3), len(other)) == (1, 2)
    other.clear()
    assert len(one) == 0


def test_collections_of_other_names_are_left_alone() -> None:
    """A cache neither sees nor clears a collection of another name, even one that begins the same."""
    server = Server()
    one, other = QdrantIndex(server, collection="a"), QdrantIndex(server, collection="a-b")
    one.add(1, "one", EAST)
    other.add(1, "one", NORTH)
    one.clear()

    assert (len(one), len(other)) == (0, 1)


def test_a_collection_that_another_process_has_just_made_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Creating a collection that is there by then is no error."""
    server = Server()
    server.fails = refused()
    index, exists = QdrantIndex(server), iter([False, True])
    QdrantIndex(server.local).add(1, "one", EAST)
    monkeypatch.setattr(server, "collection_exists", lambda _: next(exists), raising=False)
    index.add(2, "one", NORTH)

    assert index.near("one", NORTH, 1) == [(2, 1.0)]


def test_a_collection_that_cannot_be_made_is_an_error() -> None:
    """Any other refusal of a server is raised as it is."""
    server = Server()
    server.fails = refused()

    with pytest.raises(exceptions.UnexpectedResponse, match="Conflict"):
        QdrantIndex(server).add(1, "one", EAST)


def test_a_local_file_is_kept(tmp_path: Path) -> None:
    """Local mode with a path finds after a restart what was added before."""
    client = qdrant_client.QdrantClient(path=str(tmp_path))
    QdrantIndex(client).add(1, "one", EAST)
    client.close()
    client = qdrant_client.QdrantClient(path=str(tmp_path))

    assert QdrantIndex(client).near("one", EAST, 1) == [(1, 1.0)]
    client.close()


@pytest.mark.parametrize(("module", "extra"), [("qdrant_client", "qdrant"), ("faiss", "faiss")])
def test_a_missing_package_names_the_install_line(module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its package, making an index says what to install."""
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(MissingExtraError, match=rf"pip install 'llm-costopt\[{extra}\]'"):
        FaissIndex() if extra == "faiss" else QdrantIndex(Server())


def test_a_collection_that_outlived_its_entries_answers_no_other_question() -> None:
    """What an earlier run has left in a collection is not found under the ids of new entries, and goes when it is found."""
    client = qdrant_client.QdrantClient(":memory:")
    index, old, new = QdrantIndex(client), ask("How do I cook rice?"), ask("Which river is the longest?")
    with closing(SemanticCache(threshold=0.95, guards=(), index=index)) as earlier:
        earlier.save(old, Answer(text="Boil it."), "rice")
    with closing(SemanticCache(threshold=0.95, guards=(), index=QdrantIndex(client))) as later:
        later.save(new, Answer(text="The Nile."), "river")
        answers = [later.find(ask(text)) for text in ("how can i cook the rice", "which river is longest")]

    assert [hit and hit.payload for hit in answers] == [None, "river"]
    assert len(index) == 1
