"""A request → a stored answer, or none: that of the very same request, or that of one that means the same in its scope."""

import time

from llm_costopt.cache import ttl
from llm_costopt.cache.embed import Vector, unit
from llm_costopt.cache.failsafe import failsafe
from llm_costopt.cache.key import Key, exact_only, key_of
from llm_costopt.cache.parts import Parts
from llm_costopt.cache.records import Hit
from llm_costopt.cache.scope import surroundings
from llm_costopt.cache.settings import Settings
from llm_costopt.cache.store import Entry, Nearby
from llm_costopt.cache.verify import NEIGHBOURS, Neighbour
from llm_costopt.types import CacheKind, Question

RECENT = 60.0
"""Seconds within which a second use of an entry is not noted: a read should rarely cost a write."""


def key_for(parts: Parts, question: Question) -> Key:
    """Return where *question* lives, which depends on the `cache_scope` around the call."""
    around = surroundings()
    # A host hands over the same object for the same request; holding it keeps its id from being given again.
    known = parts.keys.get(id(question))
    if known is not None and known[0] is question and known[1] == around:
        return known[2]
    return key_of(question, namespace=parts.namespace, tenant=around.tenant, epoch=around.epoch)


def kind_for(key: Key) -> str:
    """Return the kind of content that `cache_scope` names, or else a rule on the question."""
    return surroundings().kind or ttl.kind_of(key.text)


def same_request(parts: Parts, key: Key) -> Hit | None:
    """Find the answer to this very request."""
    entry = parts.store.get(key.exact)
    if entry is None or entry.scope != key.scope:  # a shared store may hold what others wrote
        return None
    return _serve(parts, key, entry, "exact")


def same_meaning(
    parts: Parts, question: Question, key: Key, now: Settings, *, began: float, vector: Vector | None = None
) -> Hit | None:
    """Find the answer to a request in the same scope that means the same.

    Args:
        parts: the cache.
        question: the request.
        key: where it lives.
        now: what the cache does with this call.
        began: when the lookup did, by the performance counter.
        vector: that of the question's words, if the host has embedded them.
    """
    text = text_to_match(parts, question, key)
    if text is None or not parts.economy.pays(key.endpoint):
        return None
    vector = vector_of(parts, text, vector)
    hit = None if vector is None else _nearest(parts, key, vector, observed=now.mode == "observe")
    ended = time.perf_counter()
    parts.economy.note(key.endpoint, hit=hit is not None, seconds=ended - began)
    if hit is None:
        parts.asked.put(key.exact, ended)
    return hit


def text_to_match(parts: Parts, question: Question, key: Key) -> str | None:
    """Return the words to embed, or None if only the very same request may hit."""
    kind = surroundings().kind
    creative = ttl.is_creative(key.text) if kind is None else kind == "creative"
    return None if creative or exact_only(question, key.text, parts.max_words) else key.text


def vector_of(parts: Parts, text: str, given: Vector | None = None) -> Vector | None:
    """Embed *text*, unless its vector is *given* or remembered; None if it has no direction."""
    if given is None and (known := parts.vectors.get(text)) is not None:
        return known
    vector = unit(parts.embedding.run(parts.embedder.embed, text) if given is None else given)
    if vector is not None:
        parts.vectors.put(text, vector)
    return vector


def near(parts: Parts, exact: str, scope: str, vector: Vector) -> Nearby:
    """Find what may be served to the request *exact*, next to *vector* in *scope*."""
    return parts.store.near(exact, scope, vector, NEIGHBOURS, parts.clock() - parts.stale)


def entry_of(parts: Parts, neighbour: Neighbour) -> Entry | None:
    """Return the entry of *neighbour*; None if it is gone, or its id is another question's, as in a file that was replaced."""
    entry = parts.store.by_id(neighbour.entry)
    return entry if entry is not None and entry.text == neighbour.text else None


def may_wait(key: Key, now: Settings) -> bool:
    """Tell whether waiting for the answer of another caller can be of any use."""
    return now.mode == "on" and (callable(now.ttl) or ttl.seconds_of(now.ttl, kind_for(key)) != 0)


def counted(parts: Parts, question: Question, key: Key, hit: Hit | None, now: Settings) -> Hit | None:
    """Count what was found, and return it unless the cache merely observes."""
    if hit and now.mode == "observe":
        parts.observation.would(key.exact, hit.kind)
        hit = None
    if hit:
        parts.served.put(key.exact, hit)
    else:
        parts.keys.put(id(question), (question, surroundings(), key))
    parts.tally.count("misses" if hit is None else f"hits_{hit.kind}")
    if hit and hit.stale:
        parts.tally.count("stale")
    return hit


def _nearest(parts: Parts, key: Key, vector: Vector, *, observed: bool) -> Hit | None:
    around, policy = near(parts, key.exact, key.scope, vector), parts.policies.here()
    refused = parts.tally.refused
    choice = policy.choose(key.exact, key.text, around.neighbours, around.entries, refused, observed=observed)
    if choice is None:
        return None
    if observed:
        parts.observation.chose(key.exact, choice)
    entry = entry_of(parts, choice.neighbour)
    if entry is None or entry.scope != key.scope:  # gone since it was indexed
        return None
    if entry.exact == key.exact:  # expired, or it had been found; this request fetches it anew
        return None
    return _serve(parts, key, entry, "semantic", similarity=choice.neighbour.similarity, sure=choice.sure)


def _serve(
    parts: Parts, key: Key, entry: Entry, kind: CacheKind, *, similarity: float = 1.0, sure: float | None = None
) -> Hit | None:
    now = parts.clock()
    late = -1.0 if entry.expires_at is None else now - entry.expires_at
    if entry.expires_at is not None and late < 2 * (entry.stored_at - entry.expires_at):
        return None  # stored while the clock was far ahead, so that it would last much longer than it may
    if late >= 0 and (late >= parts.stale or parts.refreshes.claim(entry.id, key.exact, now)):
        return None
    if now - entry.used_at > RECENT:
        with failsafe("bookkeeping", parts.tally.count):  # an answer in hand is served all the same
            parts.store.touch(entry, now)
    return Hit(
        id=f"{key.exact}/{entry.id}",
        payload=entry.payload,
        kind=kind,
        similarity=similarity,
        sure=sure,
        age=now - entry.stored_at,
        stale=late >= 0,
    )
