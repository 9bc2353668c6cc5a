"""The frozen records that every part speaks; the host packages translate into them and out of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

CacheKind = Literal["exact", "semantic"]

Arm = Literal["routed", "control"]
"""Which side of a comparison a request was put on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The tokens of one call, in one canonical form whatever the provider counts."""

    input_tokens: int
    """All tokens read, those of the provider's prompt cache included."""
    output_tokens: int
    """All tokens written, those of hidden reasoning included."""
    cache_read_tokens: int = 0
    """The part of the input that came from the provider's prompt cache."""
    cache_write_tokens: int = 0
    """The part of the input that was written to the provider's prompt cache."""
    cache_write_1h_tokens: int = 0
    """The part of those written that is kept for an hour, which costs more."""
    reasoning_tokens: int = 0
    """The part of the output that was hidden reasoning."""
    input_audio_tokens: int = 0
    """The part of the input that was audio."""
    output_audio_tokens: int = 0
    """The part of the output that was audio."""
    estimated: bool = False
    """Whether nobody reported the tokens, and they were counted from the texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call of a tool that a model asked for."""

    id: str | None
    """The provider's id, minted per call; it never takes part in a key."""
    name: str
    """The tool's name."""
    args: Mapping[str, Any]
    """The arguments, as JSON values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: str
    """`system`, `human`, `ai`, `tool`, or the host's own word for another role."""
    text: str
    """All of the text."""
    parts: tuple[Any, ...] = ()
    """The content blocks as JSON values, in order, if any of them is not text; else empty."""
    name: str | None = None
    """The speaker's or the tool's name."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The tool calls of an `ai` turn."""
    tool_call_id: str | None = None
    """Which call a `tool` turn answers."""
    status: str | None = None
    """`error` if the tool failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request to a model."""

    messages: tuple[Message, ...]
    """The conversation, the newest turn last; never empty."""
    model: str = ""
    """Which model with which parameters, as exactly as the host can say it."""
    model_name: str | None = None
    """The model's name alone, where the host says it."""
    with_tools: bool = False
    """Whether the model may call tools or has been told to."""
    with_schema: bool = False
    """Whether the answer must have a structure: a JSON schema, JSON mode, a response format."""
    tools: Mapping[str, Any] = field(default_factory=dict)
    """The JSON schema of each tool's arguments by name, where the host knows them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One reply of a model."""

    text: str
    """All of the text."""
    finish: str | None = None
    """Why the model stopped: `stop`, `length`, `filter`, `tools`, or the provider's word for another reason."""
    refused: bool = False
    """Whether the provider itself marked the reply as a refusal."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The tool calls that could be read."""
    invalid: str | None = None
    """What the host could not parse in the reply: a tool call, a structured answer."""
    usage: Usage | None = None
    """The tokens of the call; None if the provider did not say."""
    model: str | None = None
    """The model that replied, by the provider's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """Money that one request did not cost, by cause; negative where a cause cost more than it saved."""

    cache: Decimal = Decimal(0)
    """US dollars: a stored answer instead of a call."""
    router: Decimal = Decimal(0)
    """US dollars: a cheaper model instead of the strong one, less what rejected drafts and shadow calls cost."""
    batch: Decimal = Decimal(0)
    """US dollars: the discount of the provider's Batch API."""
    prompt_cache: Decimal = Decimal(0)
    """US dollars: tokens that the provider read from its own prompt cache, less the surcharge for those that it wrote there."""

    @property
    def total(self) -> Decimal:
        """US dollars: all that we saved. The provider's prompt cache is no part of it: it works without us just as well."""
        return self.cache + self.router + self.batch


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One real call or one cache hit, as the monitor keeps it."""

    id: str
    """Unique; a record that is appended twice counts once."""
    at: float
    """When it ended, in seconds since the epoch."""
    model: str | None
    """The model that replied (for a hit, the one that had), by the provider's name."""
    provider: str | None = None
    """The provider's name as the host gives it."""
    usage: Usage | None = None
    """The tokens (for a hit, those that were not paid again); None if unknown."""
    cost: Decimal | None
    """US dollars paid; 0 for a hit; None if the price or the usage is unknown."""
    saved: Saved | None = None
    """US dollars not paid, against the baseline; None if the cost or the baseline is unknown."""
    latency: float | None = None
    """Seconds from the host's start event to its end event; None if unknown."""
    cache: CacheKind | None = None
    """How the cache found the answer; None for a real call."""
    complexity: str | None = None
    """`simple`, `medium` or `complex` if a router decided, else None."""
    replaces: str | None = None
    """The id of the record whose draft was rejected in favour of this call; None if this call is no escalation."""
    batch: bool = False
    """Whether the call went through the provider's Batch API."""
    tags: tuple[str, ...] = ()
    """The host's tags of the call."""
    error: str | None = None
    """The class name of the error if the call failed; what it cost is known only if the error told its usage."""
    tier: str | None = None
    """The router's name of the tier that was asked; None without a router."""
    why: str | None = None
    """The router's reasons, never text of a request; None without a router."""
    arm: Arm | None = None
    """Which arm of a comparison the request was in; None without one."""
    spare: bool = False
    """Whether another tier is asked if this call fails: its failure is then not the request's."""
    shadow: bool = False
    """Whether the call was made beside the answer, only to compare: it is no request of its own."""
    endpoint: str | None = None
    """The endpoint of the application that the call served, as it was told when the call started; None if nobody said."""
    tenant: str | None = None
    """The application's customer that the call served, told likewise; None if nobody said."""
    request: str | None = None
    """A keyed hash of the request, by which its repetitions are told without its text; None if nobody made one."""


OnRecord = Callable[[CallRecord], None]
"""Whoever wants to know of each call; must not block for long."""
