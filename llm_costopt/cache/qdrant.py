"""The index of a cache in Qdrant: on a server that several processes share, or in process to try it out."""

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from llm_costopt.cache.embed import Vector
from llm_costopt.errors import MissingExtraError


class QdrantIndex:
    """Search in Qdrant, with one collection for each length of vectors and the scope as a filter inside the query.

    A server approximates (HNSW) above its `full_scan_threshold`; the client's local mode is exact. A call is one
    request, and one more for each further length in use. No lock is held across requests to a server, where each is
    atomic, except to create a collection; local mode, which may not be read while it is written, is entered by one
    thread at a time.

    Args:
        client: a `qdrant_client.QdrantClient`, of a server no older than the client, or local (`":memory:"`, a path).
        collection: what the collections are called, before a dash and the length. Entries are known by their ids
            alone, so caches that do not share a store must not share a collection. What an earlier run has left there
            without its entries, as with a cache in memory, is never served and goes as lookups find it.

    Raises:
        MissingExtraError: the package `qdrant-client` is not installed.
    """

    def __init__(self, client: Any, *, collection: str = "llm-costopt") -> None:
        try:
            from qdrant_client import models
            from qdrant_client.http.exceptions import UnexpectedResponse
        except ModuleNotFoundError as missing:
            raise MissingExtraError("QdrantIndex", "qdrant") from missing
        self._models: Any = models
        self._already_there: Any = UnexpectedResponse
        self._client = client
        self._prefix = f"{collection}-"
        options = client.init_options
        self._local = options["path"] is not None or options["location"] == ":memory:"
        self._lock = threading.RLock()
        self._known: frozenset[int] = frozenset()

    def add(self, entry: int, scope: str, vector: Vector) -> None:
        """Add unit *vector* under the id *entry* (positive); an id that is there already stays as it is."""
        with self._alone():
            self._create(vector.size)
            others = self._known - {vector.size}
            if any(self._client.retrieve(self._name(n), ids=[entry], with_payload=False) for n in others):
                return
            point = self._models.PointStruct(id=entry, vector=vector.tolist(), payload={"scope": scope})
            insert = self._models.UpdateMode.INSERT_ONLY
            self._client.upsert(self._name(vector.size), points=[point], update_mode=insert)

    def remove(self, entry: int) -> None:
        """Remove the vector of *entry*, if there is one."""
        with self._alone():
            for dimensions in self._known:
                self._client.delete(self._name(dimensions), points_selector=[entry])

    def near(self, scope: str, vector: Vector, count: int) -> list[tuple[int, float]]:
        """List up to *count* nearest entries of *scope*, as id and cosine similarity, nearest first."""
        with self._alone():
            if not self._exists(vector.size):
                return []
            found = self._client.query_points(
                self._name(vector.size),
                query=vector.tolist(),
                query_filter=self._only(scope),
                limit=count,
                with_payload=False,
            )
        return [(point.id, point.score) for point in found.points]

    def size(self, scope: str, dimensions: int) -> int:
        """Count the entries of *scope* whose vectors have so many *dimensions*."""
        with self._alone():
            if not self._exists(dimensions):
                return 0
            return int(self._client.count(self._name(dimensions), count_filter=self._only(scope)).count)

    def clear(self) -> None:
        """Remove everything, other processes' entries too."""
        with self._alone():
            self._refresh()
            for dimensions in self._known:
                self._client.delete(self._name(dimensions), points_selector=self._models.Filter())

    def __len__(self) -> int:
        with self._alone():
            self._refresh()
            return sum(int(self._client.count(self._name(dimensions)).count) for dimensions in self._known)

    def _alone(self) -> AbstractContextManager[Any]:
        return self._lock if self._local else nullcontext()

    def _name(self, dimensions: int) -> str:
        return f"{self._prefix}{dimensions}"

    def _only(self, scope: str) -> Any:
        is_scope = self._models.FieldCondition(key="scope", match=self._models.MatchValue(value=scope))
        return self._models.Filter(must=[is_scope])

    def _exists(self, dimensions: int) -> bool:
        if dimensions not in self._known and self._client.collection_exists(self._name(dimensions)):
            self._known |= {dimensions}
        return dimensions in self._known

    def _refresh(self) -> None:
        names = [known.name for known in self._client.get_collections().collections]
        lengths = [name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix)]
        self._known |= {int(length) for length in lengths if length.isdecimal()}

    def _create(self, dimensions: int) -> None:
        with self._lock:
            if self._exists(dimensions):
                return
            params = self._models.VectorParams(size=dimensions, distance=self._models.Distance.DOT)
            try:
                self._client.create_collection(self._name(dimensions), vectors_config=params)
            except self._already_there:
                if not self._exists(dimensions):
                    raise
            if not self._local:  # local mode has no payload index, and warns
                keyword = self._models.KeywordIndexParams(type=self._models.KeywordIndexType.KEYWORD, is_tenant=True)
                self._client.create_payload_index(self._name(dimensions), "scope", field_schema=keyword)
            self._known |= {dimensions}
