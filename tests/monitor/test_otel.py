"""Metrics and spans for OpenTelemetry, read from the SDK's memory."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from llm_costopt.monitor.otel import OtelExporter
from llm_costopt.types import CallRecord, Saved, Usage

CALL = CallRecord(
    id="a",
    at=100.0,
    model="gpt-4o-2024-08-06",
    provider="azure",
    usage=Usage(input_tokens=100, output_tokens=30, cache_read_tokens=60, reasoning_tokens=20),
    cost=Decimal("0.5"),
    saved=Saved(router=Decimal(2)),
    latency=1.5,
)

COMMON = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "azure.ai.openai",
    "gen_ai.response.model": "gpt-4o-2024-08-06",
}


@dataclass
class Memory:
    """Where an exporter's metrics and spans end up."""

    reader: InMemoryMetricReader
    spans: InMemorySpanExporter
    providers: dict[str, Any]

    def exporter(self, **options: Any) -> OtelExporter:
        """Make an exporter that writes here."""
        return OtelExporter(**self.providers, **options)

    def points(self) -> dict[str, list[Any]]:
        """List the data points of each metric."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}


@pytest.fixture
def memory() -> Iterator[Memory]:
    """Make an SDK that keeps all in memory."""
    reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
    meters, tracers = MeterProvider([reader]), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    yield Memory(reader, spans, {"meter_provider": meters, "tracer_provider": tracers})
    meters.shutdown()
    tracers.shutdown()


def test_a_call_is_told_in_the_conventions_words(memory: Memory) -> None:
    """Tokens by type and seconds stand under the conventions' names, units and buckets; nothing else is told."""
    memory.exporter()(CALL)
    points = memory.points()

    tokens = {
        p.attributes["gen_ai.token.type"]: (p.sum, dict(p.attributes)) for p in points["gen_ai.client.token.usage"]
    }
    assert tokens["input"] == (100, COMMON | {"gen_ai.token.type": "input"})
    assert tokens["output"] == (30, COMMON | {"gen_ai.token.type": "output"})
    (seconds,) = points["gen_ai.client.operation.duration"]
    assert (seconds.sum, dict(seconds.attributes)) == (1.5, COMMON)
    assert list(seconds.explicit_bounds) == pytest.approx([0.01 * 2**n for n in range(14)])
    assert set(points) == {"gen_ai.client.token.usage", "gen_ai.client.operation.duration"}
    assert memory.spans.get_finished_spans() == ()


def test_a_failed_call_names_the_model_that_was_asked(memory: Memory) -> None:
    """Of a failure the duration is told with the class of the error, and no answer's model."""
    memory.exporter()(replace(CALL, error="TimeoutError", usage=None, cost=None))
    points = memory.points()
    (seconds,) = points["gen_ai.client.operation.duration"]

    assert seconds.attributes["error.type"] == "TimeoutError"
    assert seconds.attributes["gen_ai.request.model"] == "gpt-4o-2024-08-06"
    assert "gen_ai.response.model" not in seconds.attributes
    assert "gen_ai.client.token.usage" not in points


def test_a_hit_is_no_operation(memory: Memory) -> None:
    """What the cache answered used no tokens and no model; a call in a batch has no duration."""
    exporter = memory.exporter(spans=True)
    exporter(replace(CALL, cache="exact", cost=Decimal(0)))
    assert memory.points() == {}
    exporter(replace(CALL, id="b", batch=True))
    assert set(memory.points()) == {"gen_ai.client.token.usage"}
    assert len(memory.spans.get_finished_spans()) == 1


def test_costs_and_savings_are_asked_for(memory: Memory) -> None:
    """With `costs=True`, dollars paid and saved are told, a record twice counts once, and savings go down with a rejected draft."""
    exporter = memory.exporter(costs=True)
    exporter(replace(CALL, complexity="medium"))
    exporter(replace(CALL, complexity="medium"))
    exporter(replace(CALL, id="b", complexity="medium", replaces="a", cost=Decimal(3), saved=Saved()))
    exporter(replace(CALL, id="c", cache="exact", cost=Decimal(0), saved=Saved(cache=Decimal(1))))
    points = memory.points()
    saved = {p.attributes["llm.savings.source"]: p.value for p in points["llm_savings_usd"]}

    assert [(p.value, dict(p.attributes)) for p in points["llm_cost_usd"]] == [(3.5, COMMON)]
    assert saved == {"cache": 1.0, "router": -0.5, "batch": 0.0, "prompt_cache": 0.0}


def test_spans_are_asked_for(memory: Memory) -> None:
    """With `spans=True`, each call is a client span over its real time with the conventions' attributes, below the current span."""
    with memory.providers["tracer_provider"].get_tracer("app").start_as_current_span("request") as parent:
        exporter = memory.exporter(spans=True)
        exporter(CALL)
        exporter(replace(CALL, id="b", error="TimeoutError", usage=None))
    call, failed, _ = memory.spans.get_finished_spans()

    assert call.name == "chat gpt-4o-2024-08-06"
    assert call.kind is SpanKind.CLIENT
    assert (call.start_time, call.end_time) == (98_500_000_000, 100_000_000_000)
    assert call.parent is not None
    assert call.parent.span_id == parent.get_span_context().span_id
    assert dict(call.attributes or {}) == COMMON | {
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.reasoning.output_tokens": 20,
    }
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "TimeoutError"


def test_spans_with_costs(memory: Memory) -> None:
    """With both, a span also tells what it cost and saved."""
    memory.exporter(spans=True, costs=True)(CALL)
    (span,) = memory.spans.get_finished_spans()
    told = dict(span.attributes or {})

    assert told["gen_ai.usage.cost"] == told["gen_ai.usage.cost.amount"] == 0.5
    assert (told["gen_ai.usage.cost.currency"], told["gen_ai.usage.cost.source"]) == ("USD", "local")
    assert told["llm.savings.router_usd"] == 2.0


def test_no_attribute_tells_of_a_request(memory: Memory) -> None:
    """Ids and tags, which may name people, are in no metric and no span."""
    memory.exporter(spans=True, costs=True)(replace(CALL, id="id-of-ann", tags=("ann",), why="because of ann"))
    told = str(memory.points()) + str([s.attributes for s in memory.spans.get_finished_spans()])

    assert "ann" not in told


def test_what_fails_inside_is_counted(memory: Memory) -> None:
    """A record that makes no sense raises nothing."""
    exporter = memory.exporter()
    exporter(replace(CALL, latency="long"))  # type: ignore[arg-type]
    exporter("no record")  # type: ignore[arg-type]

    assert exporter.failures >= 1


def test_both_travel_as_otlp() -> None:
    """What an OTLP receiver gets, as Datadog's agent is one, holds the metrics and the span under their names."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the OTLP exporter is not installed")
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    got: dict[str, bytes] = {}

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(f"{url}/metrics"))])
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{url}/traces")))
        OtelExporter(costs=True, spans=True, meter_provider=meters, tracer_provider=tracers)(CALL)
        meters.shutdown()
        tracers.shutdown()
        server.shutdown()
        thread.join()

    metrics = ExportMetricsServiceRequest.FromString(got["/metrics"])
    traces = ExportTraceServiceRequest.FromString(got["/traces"])
    names = {m.name for r in metrics.resource_metrics for s in r.scope_metrics for m in s.metrics}
    assert names == {
        "gen_ai.client.token.usage", "gen_ai.client.operation.duration", "llm_cost_usd", "llm_savings_usd"
    }  # fmt: skip
    assert [s.name for r in traces.resource_spans for c in r.scope_spans for s in c.spans] == ["chat gpt-4o-2024-08-06"]


def test_without_an_sdk_nothing_happens() -> None:
    """The API alone does nothing, and fails nothing: the application brings the SDK."""
    exporter = OtelExporter(costs=True, spans=True)
    exporter(CALL)

    assert exporter.failures == 0


def test_a_missing_extra_names_the_install_line() -> None:
    """Without the API, using the exporter says what to install."""
    code = (
        "import sys; sys.modules['opentelemetry'] = None; sys.modules['opentelemetry.metrics'] = None\n"
        "try: import llm_costopt.monitor.otel\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert out.stdout.startswith("MissingExtraError")
    assert "pip install 'llm-costopt[otel]'" in out.stdout
