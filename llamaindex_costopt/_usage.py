"""The ways in which LlamaIndex's integrations pass on a provider's reply → what the core wants to know of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from llm_costopt.reported import counted, finish_of, usage_of_openai
from llm_costopt.types import Usage


def fields_of(raw: Any) -> Mapping[str, Any]:
    """Give the provider's own reply as a mapping; empty if it is in no form that can be read."""
    if isinstance(raw, BaseModel):
        return raw.model_dump()
    return raw if isinstance(raw, Mapping) else {}


def usage_of(said: Mapping[str, Any], extra: Mapping[str, Any]) -> Usage | None:
    """Read the tokens of a reply *said*, or of what the integration put beside it; None if nobody counted.

    OpenAI's two APIs, Anthropic and Google name them differently; those that speak OpenAI's language are the rest.
    """
    reported = fields_of(said.get("usage")) or said.get("usage_metadata") or {}
    if "cache_read_tokens" in reported:
        return Usage(**reported)  # our own words, on an answer from store
    if "prompt_token_count" in reported:
        return _of_google(reported)
    if "input_tokens" in reported:
        return _of_responses(reported) if "input_tokens_details" in reported else _of_anthropic(reported)
    return usage_of_openai(reported) or usage_of_openai(extra)


def finish_reason(said: Mapping[str, Any]) -> str | None:
    """Read why the model stopped."""
    return finish_of(_choice(said))


def is_refusal(said: Mapping[str, Any]) -> bool:
    """Tell whether the provider marks the reply as a refusal."""
    return bool((_choice(said).get("message") or {}).get("refusal"))


def is_batch(said: Mapping[str, Any]) -> bool:
    """Tell whether the reply was paid at the price of a batch; Anthropic says so beside the tokens."""
    return "batch" in {said.get("service_tier"), fields_of(said.get("usage")).get("service_tier")}


def _choice(said: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = said.get("choices") or said.get("candidates") or ()
    return fields_of(choices[0]) if choices else said


def _of_responses(reported: Mapping[str, Any]) -> Usage | None:
    into, out = reported.get("input_tokens_details") or {}, reported.get("output_tokens_details") or {}
    return counted(
        input_tokens=reported["input_tokens"],
        output_tokens=reported.get("output_tokens"),
        cache_read_tokens=into.get("cached_tokens"),
        reasoning_tokens=out.get("reasoning_tokens"),
    )


def _of_anthropic(reported: Mapping[str, Any]) -> Usage | None:
    """Add up the three parts of the input, which Anthropic counts apart."""
    read, written = (reported.get(f"cache_{what}_input_tokens") or 0 for what in ("read", "creation"))
    lives = reported.get("cache_creation") or {}
    return counted(
        input_tokens=reported["input_tokens"] + read + written,
        output_tokens=reported.get("output_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=lives.get("ephemeral_1h_input_tokens"),
    )


def _of_google(reported: Mapping[str, Any]) -> Usage | None:
    thoughts = reported.get("thoughts_token_count") or 0
    return counted(
        input_tokens=(reported["prompt_token_count"] or 0) + (reported.get("tool_use_prompt_token_count") or 0),
        output_tokens=(reported.get("candidates_token_count") or 0) + thoughts,
        cache_read_tokens=reported.get("cached_content_token_count"),
        reasoning_tokens=thoughts,
        input_audio_tokens=_audio(reported.get("prompt_tokens_details")),
        output_audio_tokens=_audio(reported.get("candidates_tokens_details")),
    )


def _audio(parts: Sequence[Any] | None) -> int:
    """Count what Google lists as audio, which has a price of its own."""
    listed = map(fields_of, parts or ())
    return sum(part.get("token_count") or 0 for part in listed if part.get("modality") == "AUDIO")
