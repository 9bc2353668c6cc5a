"""What a served answer says of itself, the same in both hosts."""

from typing import Any

from llm_costopt.cache.records import Hit


def mark_of(hit: Hit) -> dict[str, Any]:
    """Say how *hit* was found: `cache`, `similarity`, `age_s`, `id`, and where they apply `sure` and `stale`."""
    return {
        "cache": hit.kind,
        "similarity": round(hit.similarity, 4),
        "age_s": round(hit.age, 1),
        "id": hit.id,
        **({} if hit.sure is None else {"sure": round(hit.sure, 4)}),
        **({"stale": True} if hit.stale else {}),
    }
