"""What LangChain's calls look like to Prometheus, OpenTelemetry and the alerts, beside the handler's own summary."""

from dataclasses import fields
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="the extra `prometheus` is not installed")
pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from langchain_costopt import CostCallbackHandler, RouterChatModel
from llm_costopt.monitor.alerts import Alert, Alerts
from llm_costopt.monitor.guarded import each
from llm_costopt.monitor.otel import OtelExporter
from llm_costopt.monitor.prometheus import PrometheusExporter
from llm_costopt.types import Saved, Usage
from tests.scripted import COMPLEX, MEDIUM, SIMPLE, UNSURE, Scripted, cheap, strong

DOLLARS = {"cheap": Decimal(1), "strong": Decimal(10)}


def price(model: str, usage: Usage, *, provider: str | None = None, batch: bool = False) -> Decimal | None:
    """Charge by the token."""
    return DOLLARS[model] * (usage.input_tokens + usage.output_tokens) if model in DOLLARS else None


@pytest.fixture
def _cached() -> Any:
    set_llm_cache(InMemoryCache())
    yield
    set_llm_cache(None)


@pytest.mark.usefixtures("_cached")
def test_every_exporter_tells_what_the_summary_tells() -> None:
    """A simple, an escalated, a complex and a repeated request, and one without a price, add up to the same everywhere."""
    metrics, reader, told = PrometheusExporter(), InMemoryMetricReader(), list[Alert]()
    meters = MeterProvider([reader])
    alerts = Alerts([told.append], every=None)
    handler = CostCallbackHandler(
        prices=price, on_record=each(metrics, OtelExporter(costs=True, meter_provider=meters), alerts)
    )
    router = RouterChatModel(cheap=cheap("Paris.", UNSURE), strong=strong())
    for question in (SIMPLE, MEDIUM, COMPLEX, SIMPLE):
        router.invoke(question, {"callbacks": [handler]})
    Scripted(model_name="house", replies=cheap("Yes.").replies).invoke("Are you there?", {"callbacks": [handler]})
    alerts.check()
    summary = handler.summary()

    def total(name: str, **labels: str) -> float:
        samples = [s for family in metrics.registry.collect() for s in family.samples if s.name == name]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())

    data: Any = reader.get_metrics_data()
    points = {m.name: m.data.data_points for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
    causes = [f.name for f in fields(Saved)]
    saved = {c: float(getattr(summary.saved, c)) for c in causes}
    by_metrics = {
        c: total("llm_savings_usd_total", source=c) - total("llm_savings_lost_usd_total", source=c) for c in causes
    }
    by_otel = {p.attributes["llm.savings.source"]: p.value for p in points["llm_savings_usd"]}

    assert summary.escalation_rate
    assert summary.hits["exact"]
    assert total("llm_requests_total") == summary.requests == 5
    assert total("llm_escalations_total") / total("llm_routed_requests_total") == summary.escalation_rate
    assert total("llm_requests_total", cache="exact") == summary.hits["exact"]
    assert total("llm_cost_usd_total") == sum(p.value for p in points["llm_cost_usd"]) == float(summary.cost_usd)
    assert by_metrics == by_otel == saved
    assert [(a.name, a.about) for a in told] == [("LLMUnpricedRequests", "house")]
    assert metrics.failures == alerts.failures == handler.failures == 0
    meters.shutdown()
