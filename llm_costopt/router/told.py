"""What handlers are told of a router's calls: the same facts in both hosts."""

from collections.abc import Mapping
from typing import Any

from llm_costopt.router.cascade import Attempt, Call
from llm_costopt.router.router import Run
from llm_costopt.router.start import Model

_UNFIT = {
    "LengthFinishReasonError": "truncated",
    "ContentFilterFinishReasonError": "filtered",
    "OpenAIRefusalError": "refused",
    "OutputParserException": "unparsable",
    "ValidationError": "unparsable",  # pydantic's: the SDK of OpenAI parses what has a schema inside its call
}


def unfit(error: Exception) -> str | None:
    """Name what is wrong with the answer if *error* says so, and not that the call failed."""
    return _UNFIT.get(type(error).__name__)


def facts_of_call(run: Run, call: Call, *, strong: str | None) -> dict[str, Any]:
    """Say what a call is for, before it is made; *strong* is the strongest tier's model."""
    return {
        "call": call.id,
        "baseline": strong,
        "complexity": call.level,
        "tier": run.router.names[call.tier],
        "why": call.why,
        **({"arm": run.arm} if run.arm else {}),
        **({"spare": True} if call.spare else {}),
        **({"replaces": call.replaces} if call.replaces else {}),
    }


def facts_of_attempt(
    run: Run,
    attempt: Attempt[Any],
    *,
    model: Model,
    strong: str | None,
    usage: Mapping[str, Any] | None,
    cache: str | None,
    batch: bool,
) -> dict[str, Any]:
    """Say what came of a call; *model* is the one that replied, *usage* its tokens in the host's form, *batch* how they were paid."""
    return {
        "id": attempt.call.id,
        "tier": run.router.names[attempt.call.tier],
        "model": model.name,
        "provider": model.provider,
        "result": attempt.result,
        "confidence": attempt.confidence,
        "why": attempt.why,
        "latency": round(attempt.seconds, 4),
        "usage": usage,
        "cache": cache,
        "replaces": attempt.call.replaces,
        "baseline": strong,
        "complexity": attempt.call.level,
        "error": attempt.why if attempt.result == "failed" else None,
        **({"batch": True} if batch else {}),
        **({"spare": True} if attempt.call.spare else {}),
        **({"arm": run.arm} if run.arm else {}),
    }
