"""LangChain's ways of reporting tokens → the core's `Usage`; None where nothing useful was reported."""

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from pydantic import BaseModel

from langchain_costopt._convert import MARK
from llm_costopt.reported import counted, usage_of_openai
from llm_costopt.types import Usage

_TIERS = ("", "flex_", "priority_")
"""langchain-openai puts the service tier in front of the detail keys: `flex_cache_read`."""


def usage(message: BaseMessage) -> Usage | None:
    """Read the tokens of *message*; None if the provider did not say, or said that there were none."""
    reported = usage_of_metadata(getattr(message, "usage_metadata", None))
    return reported or usage_of_openai(message.response_metadata.get("token_usage"))


def is_from_cache(reported: Mapping[str, Any] | None) -> bool:
    """Tell by core's own mark whether any cache gave the reply; apart from it, it looks like a paid one."""
    return (reported or {}).get("total_cost") == 0


def is_batch(said: Mapping[str, Any]) -> bool:
    """Tell by the metadata of a message whether it was paid at the price of a batch."""
    counts = said.get("usage")  # where Anthropic says it
    tiers = (said.get("service_tier"), counts.get("service_tier") if isinstance(counts, Mapping) else None)
    return "batch" in tiers or bool((said.get(MARK) or {}).get("batch"))


def usage_of_result(result: LLMResult, *, prompts: int = 1) -> Usage | None:
    """Read the tokens of one call, which may have been made for several *prompts*.

    Each of several generations carries the tokens of the whole call, so the first that reports any speaks for all.
    """
    messages = (g.message for gs in result.generations for g in gs if isinstance(g, ChatGeneration))
    if reported := next((u for u in map(usage, messages) if u), None):
        return reported
    total = (result.llm_output or {}).get("token_usage")
    if prompts > 1 and total == {}:
        # LangChain leaves the tokens of prompts that travelled together with the first of them.
        return Usage(input_tokens=0, output_tokens=0)
    return usage_of_openai(total)


def usage_of_error(error: BaseException) -> Usage | None:
    """Read the tokens of an answer that OpenAI's client refused to return, since it was cut off: it is paid for."""
    tokens = getattr(getattr(error, "completion", None), "usage", None)
    return usage_of_openai(tokens.model_dump()) if isinstance(tokens, BaseModel) else None


def usage_of_metadata(reported: Mapping[str, Any] | None) -> Usage | None:
    """Translate a `usage_metadata` dict."""
    if not reported or "input_tokens" not in reported:
        return None
    into, out = reported.get("input_token_details") or {}, reported.get("output_token_details") or {}
    return counted(
        input_tokens=reported["input_tokens"],
        output_tokens=reported.get("output_tokens"),
        cache_read_tokens=_tiered(into, "cache_read"),
        cache_write_tokens=_cache_write(into),
        cache_write_1h_tokens=into.get("ephemeral_1h_input_tokens"),
        reasoning_tokens=_tiered(out, "reasoning"),
        input_audio_tokens=into.get("audio"),
        output_audio_tokens=out.get("audio"),
    )


def _cache_write(details: Mapping[str, Any]) -> int:
    # langchain-anthropic says `cache_creation: 0` beside the two parts of it; others give the sum as well.
    parts = sum(details.get(f"ephemeral_{life}_input_tokens") or 0 for life in ("5m", "1h"))
    return max(parts, _tiered(details, "cache_creation"))


def _tiered(details: Mapping[str, Any], key: str) -> int:
    return sum(details.get(tier + key) or 0 for tier in _TIERS)
