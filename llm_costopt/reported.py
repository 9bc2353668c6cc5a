"""What providers and our router report with an answer, whichever host passes it on → the core's words."""

from collections.abc import Mapping
from typing import Any

from llm_costopt.types import Usage

_FINISH = {
    **dict.fromkeys(["stop", "end_turn", "stop_sequence", "eos", "completed"], "stop"),
    **dict.fromkeys(["length", "max_tokens", "max_output_tokens", "model_length", "incomplete"], "length"),
    **dict.fromkeys(["content_filter", "safety", "refusal", "recitation", "blocklist", "prohibited_content"], "filter"),
    **dict.fromkeys(["tool_calls", "tool_use", "function_call"], "tools"),
}


def decision_of(said: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Read what a router says of a call, as fields of its `CallRecord`."""
    facts = {name: said.get(prefix + name) for name in ("complexity", "replaces", "tier", "why", "arm")}
    return facts | {name: bool(said.get(prefix + name)) for name in ("shadow", "spare")}


def finish_of(info: Mapping[str, Any]) -> str | None:
    """Say why a model stopped, as `Answer.finish` does; None if *info* does not tell."""
    details = info.get("incomplete_details")
    said = (
        (details or {}).get("reason")
        or info.get("finish_reason")
        or info.get("stop_reason")
        or info.get("done_reason")
        or (info.get("status") if info.get("status") == "incomplete" else None)
    )
    return None if said is None else _FINISH.get(str(said).lower(), str(said))


def usage_of_openai(reported: Any) -> Usage | None:
    """Translate the usage of OpenAI's chat completions; None if it is none, or says that there were no tokens."""
    if not isinstance(reported, Mapping) or "prompt_tokens" not in reported:
        return None
    into, out = reported.get("prompt_tokens_details") or {}, reported.get("completion_tokens_details") or {}
    read, written, thought = (
        reported["prompt_tokens"] or 0,
        reported.get("completion_tokens") or 0,
        out.get("reasoning_tokens") or 0,
    )
    if thought and reported.get("total_tokens") == read + written + thought:
        written += thought  # xAI counts them beside the others, and charges them likewise
    return counted(
        input_tokens=read,
        output_tokens=written,
        cache_read_tokens=into.get("cached_tokens"),
        cache_write_tokens=into.get("cache_write_tokens"),
        reasoning_tokens=thought,
        input_audio_tokens=into.get("audio_tokens"),
        output_audio_tokens=out.get("audio_tokens"),
    )


def counted(**tokens: int | None) -> Usage | None:
    """Make a `Usage` of counts that may be missing; None if there are none at all."""
    counts: dict[str, Any] = {name: n or 0 for name, n in tokens.items()}
    # No call reads nothing and writes nothing: servers and streams that do not count report zeros.
    return Usage(**counts) if counts["input_tokens"] or counts["output_tokens"] else None
