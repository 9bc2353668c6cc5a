"""The semantic cache as a LangChain `BaseCache`: `set_llm_cache(SemanticCache())`."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import LanguageModelInput
from langchain_core.runnables import Runnable

from langchain_costopt._convert import TEXT, answer_of, llm_string_of, prompt_of, question_of_prompt
from langchain_costopt._flight import watch
from langchain_costopt._stored import dump, load
from llm_costopt.cache import semantic
from llm_costopt.cache.embed import Embedder, Vector
from llm_costopt.cache.explain import Explanation
from llm_costopt.cache.guards import GUARDS, Guard
from llm_costopt.cache.index import VectorIndex
from llm_costopt.cache.records import CacheStats, Hit
from llm_costopt.cache.settings import OnScore
from llm_costopt.cache.ttl import KINDS, TTL
from llm_costopt.faults import fault
from llm_costopt.presets import Endpoints, Preset
from llm_costopt.switch import Mode
from llm_costopt.types import Question

log = logging.getLogger(__name__)


class SemanticCache(BaseCache):
    """Answer the same question in other words from store, and a different one never.

    Only the last human turn is compared by meaning; system prompt, earlier turns, model and its
    parameters must be the same. With tools, a schema, images or files only the very same request hits.
    LangChain says a model's parameters as they were at its first call: to change them, use `bind` or make another model.

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
            That of the preset if not given.
        ttl: seconds that an answer is served after it was stored, None for ever, a mapping of seconds by kind, or a
            function of question and answer; `llm_costopt.cache.ttl.KINDS` if not given.
        stale_while_revalidate: seconds after that in which the old answer is served while one request fetches it anew.
        min_hit_rate: where a smaller share of the lookups by meaning hit, they are left off for a while; 0: never;
            None: where they take more time than their hits save.
        single_flight: seconds that a request waits for the same request of another caller; 0: not at all.
        path: a file that keeps entries across restarts and processes; in memory if not given.
        url: a Redis that keeps them for any number of machines, such as `redis://localhost:6379/0`, instead of *path*.
        timeout: seconds that the three replies of a lookup from that Redis may take, a third each; what takes longer is a
            miss. A new connection may take as much again.
        max_entries: above this, expired and then least recently used entries go.
        max_words: a longer question only ever hits exactly.
        namespace: caches of different namespaces share nothing, even in one file.
        embedder: a LangChain `Embeddings` or the core's `Embedder`; the bundled one if not given.
        index: finds what is near, such as a `llm_costopt.cache.faiss.FaissIndex` of this cache's own; in process if not given.
        guards: with *threshold*, may refuse a candidate; all of `llm_costopt.cache.guards.GUARDS` if not given.
        on_score: is told how good answers from the cache are, from 0 to 1, of each would-be hit that was checked and of each
            `feedback`, as in `on_score=alerts.score`; see `llm_costopt.SemanticCache`. A `Ledger` keeps scores of records only.

    Raises:
        ValueError: an argument is out of its range, the file cannot be opened, or *url* is malformed. A Redis that
            does not answer is none: lookups miss until it does.
        TypeError: *on_score* cannot be called as `(hit, score, about="cache")`.
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
        ttl: TTL = KINDS,
        stale_while_revalidate: float = 0.0,
        min_hit_rate: float | None = 0.15,
        single_flight: float = 30.0,
        path: str | os.PathLike[str] | None = None,
        url: str | None = None,
        timeout: float = 0.05,
        max_entries: int = 100_000,
        max_words: int = 50,
        namespace: str = "",
        embedder: Embeddings | Embedder | None = None,
        index: VectorIndex | None = None,
        guards: Sequence[Guard] = GUARDS,
        on_score: OnScore | None = None,
    ) -> None:
        self._aembed = _aembed(embedder) if isinstance(embedder, Embeddings) else None
        self._warned = False
        self._latest: tuple[str | None, bool] = (None, False)
        self._cache = semantic.SemanticCache(
            preset=preset,
            mode=mode,
            endpoints=endpoints,
            max_error=max_error,
            threshold=threshold,
            shadow_rate=shadow_rate,
            ttl=ttl,
            stale_while_revalidate=stale_while_revalidate,
            min_hit_rate=min_hit_rate,
            single_flight=single_flight,
            path=path,
            url=url,
            timeout=timeout,
            max_entries=max_entries,
            max_words=max_words,
            namespace=namespace,
            embedder=_LangChainEmbedder(embedder) if isinstance(embedder, Embeddings) else embedder,
            index=index,
            guards=guards,
            on_score=on_score,
        )
        watch(self._cache)

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
                try:
                    answers = [answer_of(g) for g in return_val]
                    worst = next((a for a in answers if fault(a)), answers[0])
                    payload = dump(return_val, llm_string)
                except BaseException:
                    self._cache.leave(question)
                    raise
                self._cache.save(question, worst, payload)

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """Find a stored answer; with a LangChain `Embeddings`, embed with its async method."""
        with self._cache.failsafe("lookup"):
            if question := self._question(prompt, llm_string):
                return _loaded(await self._cache.afind(question, self._aembed))
        return None

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Store an answer that is fit to be served; its question was embedded by the lookup before."""
        await asyncio.to_thread(self.update, prompt, llm_string, return_val)

    def leave(self, prompt: str, llm_string: str) -> None:
        """Let those go on that wait for the answer to this call: it does not come."""
        with self._cache.failsafe("update"):
            if question := self._question(prompt, llm_string):
                self._cache.leave(question)

    def explain(self, messages: LanguageModelInput, model: Runnable[Any, Any] | None = None) -> Explanation:
        """Say what a lookup of *messages* would do, and why: candidates, evidence, decision. It holds questions in clear.

        Args:
            messages: what a model would be called with.
            model: the model, with the options bound that it is called with; if not given, whatever was looked up last.

        Raises:
            ValueError: *model* is not given and nothing was looked up yet, or its calls are not cached.
        """
        llm_string, is_text = self._latest if model is None else (llm_string_of(model), False)
        if llm_string is None:
            raise ValueError("nothing was looked up yet: say which model is meant, as in explain(messages, model=chat)")
        prompt = messages if is_text and isinstance(messages, str) else prompt_of(messages)
        question = question_of_prompt(prompt, llm_string)
        if question is None:
            raise ValueError(
                "calls of this model are not cached: an object or a class among its parameters has no name"
            )
        return self._cache.explain(question)

    def feedback(self, hit: str, *, ok: bool) -> bool:
        """Learn that a hit was right or wrong; what was wrong is not served to that question again.

        Args:
            hit: the `id` in the message's `response_metadata["llm_costopt"]`.
            ok: whether the answer served.

        Returns:
            Whether the hit is known; False for one whose entry is gone.
        """
        with self._cache.failsafe("feedback"):
            return self._cache.feedback(hit, ok=ok)
        return False

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
            ValueError: nothing is given; `clear` deletes everything.
        """
        return self._cache.invalidate(tags=tags, model=model, older_than=older_than, dry_run=dry_run)

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
        self._latest = llm_string, question is not None and question.model.endswith(TEXT)
        if question is None and not self._warned:
            self._warned = True
            log.warning("a call is not cached: it holds an object or a class that cannot be told by its name")
        return question


class _LangChainEmbedder:
    """A LangChain `Embeddings` as the core's `Embedder`."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        named = (getattr(embeddings, name, None) for name in ("model", "model_name", "model_id"))
        # An object would have another name in the next process, which would not find what this one has stored.
        model = next((name for name in named if name and isinstance(name, str)), "")
        self.name = f"{type(embeddings).__qualname__}:{model}"

    def embed(self, text: str) -> Vector:
        return _vector(self._embeddings.embed_query(text))


def _aembed(embeddings: Embeddings) -> Callable[[str], Awaitable[Vector]]:
    async def embed(text: str) -> Vector:
        return _vector(await embeddings.aembed_query(text))

    return embed


def _vector(numbers: list[float]) -> Vector:
    return np.asarray(numbers, dtype=np.float32)


def _loaded(hit: Hit | None) -> RETURN_VAL_TYPE | None:
    return None if hit is None else load(hit)
