"""Which tiers cannot serve a request at all: asked before any score, so that no call is made that must fail."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_costopt.types import Message, Question

CHARACTERS = 3
"""Characters of a token at least, on average: English has four or more, most other languages fewer. So much text is
taken for more tokens than it is, and only what comes near a window is turned away for nothing."""

_LONG = 8000
"""Tokens that every model in use has room for."""

_MEDIA = {"image_inputs": "images", "audio_inputs": "audio", "video_inputs": "video", "pdf_inputs": "PDF files"}
"""What a profile calls its ability to read what."""

_TYPES = {
    **dict.fromkeys(("image", "image_url", "input_image"), "image_inputs"),
    **dict.fromkeys(("audio", "input_audio"), "audio_inputs"),
    **dict.fromkeys(("video", "video_url", "input_video"), "video_inputs"),
}
"""What content blocks are by their type, in the forms of the hosts and the providers."""

_MIMES = {"image/": "image_inputs", "audio/": "audio_inputs", "video/": "video_inputs", "application/pdf": "pdf_inputs"}
"""What the other blocks, such as `file`, `document` or Google's `media`, are by the type of what is in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a request asks of a model."""

    tokens: int
    """Tokens of the input, estimated from its length, and of the answer, if the caller has set their number."""
    media: frozenset[str]
    """What it shows, by the keys of a profile: `image_inputs`, …."""
    tools: bool
    """Whether tools may be called."""
    schema: bool
    """Whether the answer must have a structure."""


def needs_of(question: Question, *, max_tokens: int = 0) -> Needs:
    """Say what *question* asks of a model that may answer with *max_tokens*, or any number if that is 0."""
    return Needs(
        tokens=sum(characters(m) for m in question.messages) // CHARACTERS + max_tokens,
        media=frozenset(kind for m in question.messages for p in m.parts if (kind := _kind(p))),
        tools=question.with_tools,
        schema=question.with_schema,
    )


def limit_of(options: Mapping[str, Any]) -> int:
    """Read how long an answer may be; 0 if nobody says so, or not in a number above 0, which is for the provider to judge."""
    given = options.get("max_tokens")
    return given if isinstance(given, int) and given > 0 else 0


def lacks(profile: Mapping[str, Any], needs: Needs) -> str | None:
    """Say what a model with *profile* lacks for *needs*; None if nothing is known to be missing.

    The keys are those of LangChain's model profiles: `max_input_tokens`, `image_inputs` and its like, `tool_calling`,
    `structured_output`. What a profile does not say is taken for given: a guess must not turn a model away.
    """
    window = profile.get("max_input_tokens")
    if isinstance(window, int) and needs.tokens > window:
        return f"some {needs.tokens:,} tokens do not fit into {window:,}"
    for needed, key, name in (
        *((key in needs.media, key, name) for key, name in _MEDIA.items()),
        (needs.tools, "tool_calling", "tools"),
        (needs.schema, "structured_output", "structured output"),
    ):
        # A model that calls tools can give a structure by a tool, whatever its provider calls structured output.
        if needed and profile.get(key) is False and not (key == "structured_output" and profile.get("tool_calling")):
            return f"no {name}"
    return None


def unsaid(profile: Mapping[str, Any], needs: Needs) -> str:
    """Name what *needs* asks for and *profile* says nothing of: images and the like, tools, structured output, or room for a long request."""
    asked = (
        (needs.tokens > _LONG, "max_input_tokens", f"room for some {needs.tokens:,} tokens"),
        *((key in needs.media, key, name) for key, name in _MEDIA.items()),
        (needs.tools, "tool_calling", "tools"),
        (needs.schema, "structured_output", "structured output"),
    )
    return ", ".join(name for needed, key, name in asked if needed and profile.get(key) is None)


def _kind(part: Any) -> str | None:
    """Say which ability a content block asks for; None for text, and for a file that does not say what it is."""
    if not isinstance(part, Mapping):
        return None
    inner = [value for value in part.values() if isinstance(value, Mapping)]  # Anthropic's `source`, OpenAI's `file`
    said = [at.get(name) for at in (part, *inner) for name in ("mime_type", "media_type", "file_data")]
    begin = [text[:32].removeprefix("data:") for text in said if isinstance(text, str)]
    kinds = (key for text in begin for mime, key in _MIMES.items() if text.startswith(mime))
    return _TYPES.get(str(part.get("type"))) or next(kinds, None)


def characters(message: Message) -> int:
    """Count the characters of all that *message* says."""
    parts = sum(len(str(p.get("text", ""))) for p in message.parts if isinstance(p, Mapping))
    return max(len(message.text), parts) + sum(len(str(call.args)) for call in message.tool_calls)
