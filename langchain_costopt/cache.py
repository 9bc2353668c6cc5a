"""The semantic cache as a LangChain `BaseCache`: `set_llm_cache(SemanticCache())`."""

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.embeddings import Embeddings

from langchain_costopt._convert import answer_of, question_of_prompt
from langchain_costopt._stored import dump, load
from llm_costopt.cache import semantic
from llm_costopt.cache.embed import Embedder, Vector
from llm_costopt.cache.guards import GUARDS, Guard
from llm_costopt.cache.records import CacheStats, Hit
from llm_costopt.faults import fault
from llm_costopt.types import Question

log = logging.getLogger(__name__)


class SemanticCache(BaseCache):
    """Answer the same question in other words from store, and a different one never.

    Only the last human turn is compared by meaning; system prompt, earlier turns, model and its
    parameters must be the same. With tools, a schema, images or files only the very same request hits.

    Args:
        threshold: least cosine similarity of a semantic hit, in (0, 1].
        max_error: the share of requests that may be answered wrongly, such as 0.01; then evidence decides instead of
            *threshold* and *guards*, and the cache learns from the answers that arrive after misses.
        shadow_rate: with *max_error*, the share of would-be hits that go to the model all the same, to be checked.
        ttl: seconds that an answer is served after it was stored, None for ever, or a function of question and answer.
        path: a file that keeps entries across restarts and processes; in memory if not given.
        max_entries: above this, expired and then least recently used entries go.
        max_words: a longer question only ever hits exactly.
        namespace: caches of different namespaces share nothing, even in one file.
        embedder: a LangChain `Embeddings` or the core's `Embedder`; the bundled one if not given.
        guards: may refuse a candidate; all of `llm_costopt.cache.guards.GUARDS` if not given.

    Raises:
        ValueError: an argument is out of its range, or the file cannot be opened.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.95,
        max_error: float | None = None,
        shadow_rate: float = semantic.SHADOW_RATE,
        ttl: float | semantic.FreshFor | None = semantic.DAY,
        path: str | os.PathLike[str] | None = None,
        max_entries: int = 100_000,
        max_words: int = 50,
        namespace: str = "",
        embedder: Embeddings | Embedder | None = None,
        guards: Sequence[Guard] = GUARDS,
    ) -> None:
        self._remote = embedder if isinstance(embedder, Embeddings) else None
        self._warned = False
        self._cache = semantic.SemanticCache(
            threshold=threshold,
            max_error=max_error,
            shadow_rate=shadow_rate,
            ttl=ttl,
            path=path,
            max_entries=max_entries,
            max_words=max_words,
            namespace=namespace,
            embedder=_LangChainEmbedder(embedder) if isinstance(embedder, Embeddings) else embedder,
            guards=guards,
        )

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """Find a stored answer; None if there is none or anything fails."""
        with self._cache.failsafe("lookup"):
            if question := self._question(prompt, llm_string):
                return _loaded(self._cache.find(question))
        return None

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Store an answer that is fit to be served; a failure is logged and counted."""
        with self._cache.failsafe("update"):
            if question := self._question(prompt, llm_string):
                answers = [answer_of(g) for g in return_val]
                worst = next((a for a in answers if fault(a)), answers[0])
                self._cache.save(question, worst, dump(return_val, keep_blocks="output_version" in llm_string))

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """Find a stored answer; with a LangChain `Embeddings`, embed with its async method."""
        if self._remote is None:
            return await asyncio.to_thread(self.lookup, prompt, llm_string)
        with self._cache.failsafe("lookup"):
            if question := self._question(prompt, llm_string):
                hit = await asyncio.to_thread(self._cache.find_exact, question)
                if hit is None:
                    text = self._cache.text_to_embed(question)
                    vector = None if text is None else _vector(await self._remote.aembed_query(text))
                    hit = await asyncio.to_thread(self._cache.find, question, vector)
                return _loaded(hit)
        return None

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Store an answer that is fit to be served; its question was embedded by the lookup before."""
        await asyncio.to_thread(self.update, prompt, llm_string, return_val)

    def clear(self, **_: Any) -> None:
        """Delete all entries of this namespace."""
        self._cache.clear()

    def stats(self) -> CacheStats:
        """Report what the cache did since it was made, in this process."""
        return self._cache.stats()

    def close(self) -> None:
        """Close the store; later lookups miss."""
        self._cache.close()

    def _question(self, prompt: str, llm_string: str) -> Question | None:
        question = question_of_prompt(prompt, llm_string)
        if question is None and not self._warned:
            self._warned = True
            log.warning(
                "a call is not cached: its parameters hold an object or a class that cannot be told by its name"
            )
        return question


class _LangChainEmbedder:
    """A LangChain `Embeddings` as the core's `Embedder`."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        model = getattr(embeddings, "model", None) or getattr(embeddings, "model_name", "")
        self.name = f"{type(embeddings).__qualname__}:{model}"

    def embed(self, text: str) -> Vector:
        return _vector(self._embeddings.embed_query(text))


def _vector(numbers: list[float]) -> Vector:
    return np.asarray(numbers, dtype=np.float32)


def _loaded(hit: Hit | None) -> RETURN_VAL_TYPE | None:
    return None if hit is None else load(hit)
