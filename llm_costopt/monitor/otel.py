"""Calls as OpenTelemetry's GenAI metrics and spans, for Datadog and any other backend that takes OTLP."""

from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version

from llm_costopt.errors import MissingExtraError
from llm_costopt.monitor.guarded import Guard
from llm_costopt.monitor.stream import News, Stream
from llm_costopt.types import CallRecord, Saved, Usage

try:
    from opentelemetry.metrics import Meter, MeterProvider, get_meter_provider
    from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider, get_tracer_provider
except ModuleNotFoundError as missing:
    raise MissingExtraError("OtelExporter", "otel") from missing

Attributes = dict[str, str | int | float]

# The buckets are those that the conventions name.
_TOKENS = [4.0**n for n in range(14)]
_SECONDS = [0.01 * 2**n for n in range(14)]

_PROVIDERS = {
    "amazon_bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "gemini": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "vertexai": "gcp.vertex_ai",
    "xai": "x_ai",
}
"""The conventions' names of providers that the hosts call otherwise."""


class OtelExporter:
    """Tell OpenTelemetry of calls: `CostCallbackHandler(on_record=OtelExporter())`.

    It records `gen_ai.client.token.usage` and `gen_ai.client.operation.duration` with the attributes of the GenAI
    conventions. A hit of the cache is no operation of a model and in neither. It never raises: what fails inside is
    counted in `failures`. A record takes about 90 µs with the SDK behind it.

    Args:
        costs: also record what the conventions do not name yet: the counter `llm_cost_usd` and, since savings can be
            negative, the up-down counter `llm_savings_usd` by `llm.savings.source`, and the cost of spans.
        spans: also make a span of each call, below the current one, from its start to its end; for applications whose
            calls no other instrumentation traces.
        meter_provider: the global one if None.
        tracer_provider: the global one if None.
    """

    def __init__(
        self,
        *,
        costs: bool = False,
        spans: bool = False,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self._guard = Guard("The OpenTelemetry exporter")
        self._stream = Stream()
        self._costs, self._spans = costs, spans
        ours = "llm-costopt", version("llm-costopt")
        self._tracer = (tracer_provider or get_tracer_provider()).get_tracer(*ours)
        self._define((meter_provider or get_meter_provider()).get_meter(*ours))

    @property
    def failures(self) -> int:
        """Count what failed inside."""
        return self._guard.failures

    def __call__(self, record: CallRecord) -> None:
        """Tell of *record*, once."""
        with self._guard():
            news = self._stream.read(record)
            if news is None:
                return
            if record.cache is None:
                self._measure(record)
            if self._costs:
                self._count_money(record, news)
            if self._spans and record.cache is None:
                self._trace(record)

    def _define(self, meter: Meter) -> None:
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._seconds = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        if self._costs:
            # The unit is in the name: from a unit "USD", Prometheus would make `…_USD_total`.
            self._cost = meter.create_counter("llm_cost_usd", description="US dollars paid.")
            self._saved = meter.create_up_down_counter("llm_savings_usd", description="US dollars not paid.")

    def _measure(self, record: CallRecord) -> None:
        common = attributes(record)
        if record.usage is not None:
            for kind, count in (("input", record.usage.input_tokens), ("output", record.usage.output_tokens)):
                self._tokens.record(count, {**common, "gen_ai.token.type": kind})
        if record.latency is not None and not record.batch:  # a batch waits by design
            failed = {"error.type": record.error} if record.error else {}
            self._seconds.record(record.latency, {**common, **failed})

    def _count_money(self, record: CallRecord, news: News) -> None:
        if record.cost is not None and record.cache is None:
            self._cost.add(float(record.cost), attributes(record))
        for source, amount in news.saved.items():
            self._saved.add(float(amount), {"llm.savings.source": source})

    def _trace(self, record: CallRecord) -> None:
        end = int(record.at * 1e9)
        span = self._tracer.start_span(
            f"chat {record.model}" if record.model else "chat",
            kind=SpanKind.CLIENT,
            attributes=span_attributes(record, costs=self._costs),
            start_time=end - int((record.latency or 0.0) * 1e9),
        )
        if record.error:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=end)


def attributes(record: CallRecord) -> Attributes:
    """Name what *record* is about as the GenAI conventions do: few values, and never one of a request."""
    named: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _PROVIDERS.get(record.provider or "", record.provider or "unknown"),
    }
    if record.model:  # of a failed call, only who was asked is known
        named["gen_ai.request.model" if record.error else "gen_ai.response.model"] = record.model
    return named


def span_attributes(record: CallRecord, *, costs: bool = False) -> Attributes:
    """Name all that a span of *record* tells; set them on a span of your own with `span.set_attributes`.

    With *costs*, also what the conventions do not name yet: the cost as `gen_ai.usage.cost`, as most backends read it,
    and as `gen_ai.usage.cost.amount`, `.currency` and `.source`, as is proposed; and what was saved, by cause.
    """
    named = attributes(record)
    if record.usage is not None:
        named |= _usage(record.usage)
    if record.error:
        named["error.type"] = record.error
    if costs and record.cost is not None:
        cost = float(record.cost)
        named |= {"gen_ai.usage.cost": cost, "gen_ai.usage.cost.amount": cost}
        named |= {"gen_ai.usage.cost.currency": "USD", "gen_ai.usage.cost.source": "local"}
    if costs and record.saved is not None:
        named |= {f"llm.savings.{cause.name}_usd": float(getattr(record.saved, cause.name)) for cause in fields(Saved)}
    return named


def _usage(usage: Usage) -> Mapping[str, int]:
    parts = {
        "cache_read.input_tokens": usage.cache_read_tokens,
        "cache_creation.input_tokens": usage.cache_write_tokens,
        "reasoning.output_tokens": usage.reasoning_tokens,
    }
    told = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    return {f"gen_ai.usage.{name}": count for name, count in (told | {k: n for k, n in parts.items() if n}).items()}
