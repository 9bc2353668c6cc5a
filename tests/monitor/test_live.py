"""From a call to somebody's webhook and to every panel, through a real Prometheus and Alertmanager."""

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from importlib.resources import as_file, files
from itertools import count

import pytest

pytest.importorskip("prometheus_client", reason="the extra `prometheus` is not installed")

from llm_costopt.monitor.prometheus import PrometheusExporter
from llm_costopt.monitor.watched import BatchState
from llm_costopt.router.spending import Budget
from llm_costopt.types import CallRecord, Saved, Usage
from tests.prometheus_stack import PROGRAMS, PrometheusStack

needs_prometheus = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)),
    reason="Prometheus is not installed: `bash scripts/get-programs` gets it with apt-get",
)

_PATIENCE = 45.0

_MODELS = ("gpt-4o", "gpt-4o-mini")


def traffic(exporter: PrometheusExporter, ids: "count[int]") -> None:
    """Tell of one of each kind of call."""
    usage = Usage(input_tokens=100, output_tokens=50, cache_read_tokens=10, reasoning_tokens=5)
    base = CallRecord(
        id="",
        at=0.0,
        model=_MODELS[0],
        provider="openai",
        usage=usage,
        cost=Decimal("0.01"),
        saved=Saved(),
        latency=0.5,
    )
    draft = f"draft {next(ids)}"
    records = (
        replace(base, id=draft, model=_MODELS[1], complexity="medium", saved=Saved(router=Decimal("0.02"))),
        replace(base, complexity="medium", replaces=draft),
        replace(base, cache="exact", cost=Decimal(0), saved=Saved(cache=Decimal("0.01"))),
        replace(base, cache="semantic", cost=Decimal(0), saved=Saved(cache=Decimal("0.01"))),
        replace(base, batch=True, saved=Saved(batch=Decimal("0.01"), prompt_cache=Decimal("0.01"))),
        replace(base, model="house-llm", cost=None, saved=None),
        replace(base, cost=None, saved=None, error="TimeoutError"),
        replace(base, shadow=True),
    )
    for record in records:
        exporter(record if record.id else replace(record, id=f"call {next(ids)}"))
    for about, score in (("router", 0.9), ("cache", 1.0), ("control", 1.0)):
        exporter.score("", score, about=about)  # type: ignore[arg-type]  # a tuple of literals is one of strings


def until(done: Callable[[], bool], act: Callable[[], None]) -> bool:
    """Act until it is done; False if that takes too long."""
    give_up = time.monotonic() + _PATIENCE
    while not done():
        if time.monotonic() > give_up:
            return False
        act()
        time.sleep(0.3)  # a scrape is a second apart: nothing changes faster
    return True


def shipped_queries() -> dict[str, str]:
    """Give each query of the dashboard by its panel and legend, with what Grafana fills in."""
    board = json.loads(files("llm_costopt.monitor").joinpath("dashboard.json").read_text(encoding="utf-8"))
    values = {"$__rate_interval": "30s", "$__range": "1m", "$model": ".*"}
    return {
        f"{panel['title']}: {target['legendFormat']}": re.sub(r"\$\w+", lambda v: values[v[0]], target["expr"])
        for panel in board["panels"]
        for target in panel.get("targets", [])
    }


@needs_prometheus
def test_an_alert_arrives_and_every_panel_has_series() -> None:
    """With the rules and the dashboard as they ship: a call without a price reaches the webhook as firing, and every query of every panel gives finite numbers."""
    budget = Budget(100, per="month")
    budget.charge(7)
    state = BatchState(jobs={"running": 2}, oldest_queued=3.0, next_expiry=80_000.0)
    exporter, ids = PrometheusExporter(budgets=[budget], batches=lambda: state), count()
    missing = shipped_queries()

    with (
        as_file(files("llm_costopt.monitor").joinpath("rules.yml")) as rules,
        PrometheusStack(app=exporter.start_http_server(0), rules=rules) as stack,
    ):

        def served() -> bool:
            for panel, expr in list(missing.items()):
                series = stack.query(expr)
                if series and all(one["value"][1] not in {"NaN", "+Inf", "-Inf"} for one in series):
                    del missing[panel]
            return not missing

        def fired() -> bool:
            return ("LLMUnpricedRequests", "firing") in stack.alerts()

        assert until(fired, lambda: traffic(exporter, ids)), stack.alerts()
        assert until(served, lambda: traffic(exporter, ids)), missing
        models = {a["labels"].get("model") for message in stack.received for a in message["alerts"]}
        causes = {s["metric"]["source"] for s in stack.query("llm_savings_usd_total > 0")}

    assert "house-llm" in models
    assert causes == {"cache", "router", "batch", "prompt_cache"}
    assert exporter.failures == 0
