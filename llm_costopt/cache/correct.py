"""What the application says of what is stored: that a hit was right or wrong, or that entries no longer hold."""

from collections.abc import Sequence

from llm_costopt.cache.compare import agrees, scored
from llm_costopt.cache.failsafe import failsafe
from llm_costopt.cache.lookup import key_for, near, vector_of
from llm_costopt.cache.parts import Parts
from llm_costopt.cache.settings import check
from llm_costopt.cache.store import Entry, Selection
from llm_costopt.types import Question


def feedback(parts: Parts, about: str | Question, *, ok: bool) -> bool:
    """Learn that the hit *about*, or the last one of that question, was right or wrong; tell whether it is known."""
    if isinstance(about, Question):
        known = parts.served.get(key_for(parts, about).exact)
        about = known.id if known else ""
    exact, _, entry = about.partition("/")
    found = parts.store.by_id(entry) if entry else None
    if found is None:
        return False
    scored(parts, about, float(ok))
    parts.policies.judged(exact, right=ok)
    if not ok:
        _part(parts, exact, found)
    return True


def invalidate(parts: Parts, *, tags: Sequence[str], model: str | None, older_than: float | None, dry_run: bool) -> int:
    """Delete the entries that meet all that is given, unless it is a *dry_run*, and count them."""
    if isinstance(tags, str):
        raise TypeError(f"tags is a list of texts, such as tags=[{tags!r}]; got {tags!r}")
    if not tags and model is None and older_than is None:
        raise ValueError("say what to delete: tags=, model= or older_than=; clear() deletes everything")
    check("older_than", older_than, lambda given: given is None or given >= 0, "a number of seconds", 3600)
    before = None if older_than is None else parts.clock() - older_than
    chosen = parts.store.select(Selection(tags=frozenset(tags), model=model, stored_before=before))
    if not dry_run:
        for entry in chosen:
            parts.store.delete(entry)
    return len(chosen)


def _part(parts: Parts, exact: str, wrong: Entry) -> None:
    """See that the request *exact* is not served from *wrong* again, nor from what says the same near it."""
    if wrong.exact == exact:
        parts.store.delete(wrong.id)
    else:
        parts.store.part(exact, wrong.id)
    with failsafe("comparison", parts.tally.count):  # what was complained about is parted already
        vector = vector_of(parts, wrong.text)
        while vector is not None:  # each time without those of the time before
            around = near(parts, exact, wrong.scope, vector).neighbours
            same = [one.entry for one in around if agrees(parts, wrong.says, wrong.answer, one)]
            if not same:
                return
            for entry in same:
                parts.store.part(exact, entry)
