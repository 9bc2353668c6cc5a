"""All places to which a monitor could carry a word of a request, read as one text."""

import logging
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="the extra `prometheus` is not installed")
pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from llm_costopt.monitor.alerts import Alert, Alerts
from llm_costopt.monitor.guarded import each
from llm_costopt.monitor.otel import OtelExporter
from llm_costopt.monitor.prometheus import PrometheusExporter


class Everywhere:
    """Exporters of all kinds, and a folder for the ledger."""

    def __init__(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        self._folder, self._caplog = folder, caplog
        self._metrics, self._reader, self._spans = PrometheusExporter(), InMemoryMetricReader(), InMemorySpanExporter()
        self._alerts: list[Alert] = []
        traces = TracerProvider()
        traces.add_span_processor(SimpleSpanProcessor(self._spans))
        otel = OtelExporter(
            costs=True, spans=True, meter_provider=MeterProvider([self._reader]), tracer_provider=traces
        )
        self._judge = Alerts([self._alerts.append], every=None)
        self.on_record = each(self._metrics, otel, self._judge)
        """To be given to a monitor."""
        self.ledger = folder / "ledger.db"
        """Where it is to keep its calls."""

    def text(self) -> str:
        """Read all files, logs, metrics, spans and alerts."""
        self._judge.check()
        spans = [span.to_json() for span in self._spans.get_finished_spans()]
        data: Any = self._reader.get_metrics_data()
        found = [generate_latest(self._metrics.registry).decode(), *spans, data.to_json(), repr(self._alerts)]
        assert spans
        assert "llm_cost_usd_total" in found[0]
        files = [file.read_bytes().decode("latin-1") for file in self._folder.iterdir()]
        return "\n".join([*found, *files, *(f"{r.getMessage()} {r.exc_text or ''}" for r in self._caplog.records)])
