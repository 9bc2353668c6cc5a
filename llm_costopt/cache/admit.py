"""An answer → an entry, or the reason why it is not stored; what was asked about it is learned from it first."""

import json
import time
from functools import partial

from llm_costopt.cache.compare import number_of, scored
from llm_costopt.cache.embed import Vector
from llm_costopt.cache.failsafe import failsafe
from llm_costopt.cache.key import Key
from llm_costopt.cache.lookup import kind_for, text_to_match, vector_of
from llm_costopt.cache.parts import Parts
from llm_costopt.cache.policy import score_of
from llm_costopt.cache.scope import surroundings
from llm_costopt.cache.store import Entry
from llm_costopt.cache.ttl import fresh_for
from llm_costopt.faults import fault
from llm_costopt.types import Answer, Question


def admit(parts: Parts, question: Question, key: Key, answer: Answer, payload: str) -> bool:
    """Store *payload* as the answer to *question* if it is fit to be served; tell whether it was."""
    now = parts.clock()
    if asked := parts.asked.pop(key.exact):
        parts.economy.answered(key.endpoint, time.perf_counter() - asked)
    seconds, problem = _fit(parts, question, key, answer)
    if problem:
        parts.tally.not_stored(problem)
        return False
    vector = _vector(parts, question, key)
    says = number_of(parts, key, vector, answer.text)
    parts.policies.answered(key.exact, says, partial(_compared, parts))
    if parts.observation.answered(key.exact, says, partial(_observed, parts, key)):
        parts.tally.not_stored("observed")  # a hit would have stored nothing
        return False
    entry = Entry(
        exact=key.exact,
        scope=key.scope,
        text=key.text,
        payload=payload,
        answer=answer.text,
        says=says,
        model=question.model_name or answer.model,
        tags=surroundings().tags,
        stored_at=now,
        expires_at=None if seconds is None else now + seconds,
        used_at=now,
    )
    stored = parts.store.put(entry, vector)
    if (old := parts.refreshes.done(key.exact)) not in {None, stored.id}:
        parts.store.delete(old)  # expired, asked in other words; the new answer takes its place
    parts.tally.count("stored")
    return True


def _vector(parts: Parts, question: Question, key: Key) -> Vector | None:
    """Embed what may be matched by meaning; None if nothing may, or if it fails: the very same request finds the answer all the same."""
    text = None if parts.economy.is_off(key.endpoint) else text_to_match(parts, question, key)
    with failsafe("embedding", parts.tally.count):
        return None if text is None else vector_of(parts, text)
    return None


def _fit(parts: Parts, question: Question, key: Key, answer: Answer) -> tuple[float | None, str | None]:
    """Say for how many seconds *answer* may be served, None for ever, and why it may not be served at all."""
    if problem := fault(answer):
        return None, problem
    if question.with_schema and _is_broken(answer.text.strip()):
        return None, "unparsable"  # whoever asks again, since he could not read it, would be given it again
    kind = kind_for(key)
    seconds = fresh_for(parts.chosen.now().ttl, question, answer, kind, parts.rng)
    if seconds is None or seconds > 0:
        return seconds, None
    return seconds, "creative" if kind == "creative" else "ttl"


def _is_broken(text: str) -> bool:
    """Tell whether *text* begins as JSON, but is none: whether there is more to read in other text, its reader knows."""
    try:
        return text.startswith(("{", "[")) and json.loads(text) is None
    except (ValueError, RecursionError):
        return True


def _compared(parts: Parts, right: bool, seen: float) -> None:
    """Take note of a would-be hit that went to the model to be checked."""
    parts.tally.compared(right, seen)
    scored(parts, "", score_of(right, seen))


def _observed(parts: Parts, key: Key, right: bool, seen: float) -> None:
    """Take note of a would-be hit of a cache that merely observes."""
    scored(parts, "", score_of(right, seen))
    parts.policies.judged(key.exact, right=right, seen=seen)
