"""Metrics for Prometheus: what is counted, under which labels, in one process and in several."""

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="the extra `prometheus` is not installed")

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from llm_costopt.monitor.prometheus import PrometheusExporter
from llm_costopt.monitor.watched import BatchState
from llm_costopt.router.spending import Budget
from llm_costopt.types import CallRecord, Saved, Usage

ON_GPT = {"model": "gpt-4o", "provider": "openai", "operation": "chat"}


def call(name: str, **fields: Any) -> CallRecord:
    """Make a record of a call that cost half a dollar."""
    base = CallRecord(id=name, at=0.0, model="gpt-4o", provider="openai", cost=Decimal("0.5"))
    return replace(base, **fields)


def value(exporter: PrometheusExporter, name: str, labels: Mapping[str, str] | None = None) -> float | None:
    """Read one series."""
    return exporter.registry.get_sample_value(name, dict(labels or {}))


def test_a_call_is_counted_under_what_it_was() -> None:
    """Request, cost, tokens by disjoint types and seconds are found under model, provider and operation."""
    exporter = PrometheusExporter()
    usage = Usage(input_tokens=100, output_tokens=30, cache_read_tokens=60, cache_write_tokens=10, reasoning_tokens=20)
    exporter(call("a", usage=usage, latency=0.3))

    assert value(exporter, "llm_requests_total", ON_GPT | {"cache": "miss", "outcome": "ok"}) == 1
    assert value(exporter, "llm_cost_usd_total", ON_GPT) == 0.5
    assert value(exporter, "llm_request_seconds_sum", ON_GPT | {"cache": "miss"}) == 0.3
    tokens = {
        kind: value(exporter, "llm_tokens_total", ON_GPT | {"type": kind})
        for kind in ("input", "cache_read", "cache_write", "output", "reasoning")
    }
    assert tokens == {"input": 30, "cache_read": 60, "cache_write": 10, "output": 10, "reasoning": 20}


def test_a_hit_is_a_request_without_tokens() -> None:
    """A hit counts as a request under how it was found, costs nothing, and its tokens were not paid."""
    exporter = PrometheusExporter()
    usage = Usage(input_tokens=100, output_tokens=30)
    exporter(call("a", usage=usage, cache="semantic", cost=Decimal(0), saved=Saved(cache=Decimal(2))))

    assert value(exporter, "llm_requests_total", ON_GPT | {"cache": "semantic", "outcome": "ok"}) == 1
    assert value(exporter, "llm_savings_usd_total", {"source": "cache"}) == 2
    assert value(exporter, "llm_cost_usd_total", ON_GPT) == 0
    assert value(exporter, "llm_tokens_total", ON_GPT | {"type": "input"}) is None


def test_money_lost_is_a_counter_of_its_own() -> None:
    """A draft that is rejected takes its savings back: no counter goes down, and their difference is what was saved."""
    exporter = PrometheusExporter()
    exporter(call("draft", complexity="medium", saved=Saved(router=Decimal(4))))
    before = value(exporter, "llm_savings_usd_total", {"source": "router"})
    exporter(call("strong", complexity="medium", replaces="draft", cost=Decimal(3), saved=Saved()))
    after = value(exporter, "llm_savings_usd_total", {"source": "router"})
    lost = value(exporter, "llm_savings_lost_usd_total", {"source": "router"})

    assert (before, after, lost) == (4, 4, 4.5)
    assert value(exporter, "llm_routed_requests_total") == 1
    assert value(exporter, "llm_escalations_total", ON_GPT) == 1
    assert value(exporter, "llm_requests_total", ON_GPT | {"cache": "miss", "outcome": "ok"}) == 1


def test_unknown_prices_and_failures_are_told_apart() -> None:
    """A call that worked at an unknown cost is unpriced; one that failed is an error."""
    exporter = PrometheusExporter()
    exporter(call("a", cost=None, model=None))
    exporter(call("b", cost=None, error="TimeoutError"))

    assert value(exporter, "llm_unpriced_requests_total", ON_GPT | {"model": "unknown"}) == 1
    assert value(exporter, "llm_unpriced_requests_total", ON_GPT) is None
    assert value(exporter, "llm_requests_total", ON_GPT | {"cache": "miss", "outcome": "error"}) == 1


def test_rows_of_batches_are_counted_once_by_outcome() -> None:
    """A row that is told twice counts once; its waiting is no latency; errors that nobody listed share a label."""
    exporter = PrometheusExporter()
    row = call("a", batch=True, latency=4000.0)
    for record in (row, row, replace(row, id="b", error="expired"), replace(row, id="c", error="whatever it was")):
        exporter(record)

    outcomes = {o: value(exporter, "llm_batch_rows_total", {"outcome": o}) for o in ("succeeded", "expired", "errored")}
    assert outcomes == {"succeeded": 1, "expired": 1, "errored": 1}
    assert value(exporter, "llm_cost_usd_total", ON_GPT | {"operation": "batch"}) == 1.5
    assert value(exporter, "llm_request_seconds_count", ON_GPT | {"operation": "batch", "cache": "miss"}) is None


def test_labels_stay_few() -> None:
    """From the 101st model on they share a label, and no label tells of a request, its tags or its error."""
    exporter = PrometheusExporter()
    for n in range(150):
        exporter(call(f"id-{n}", model=f"ft:{n}", tags=(f"user-{n}",), error=f"Error{n}", latency=1.0))
    text = generate_latest(exporter.registry).decode()
    models = {s.labels["model"] for f in text_string_to_metric_families(text) for s in f.samples if "model" in s.labels}

    assert len(models) == 101
    assert value(exporter, "llm_cost_usd_total", ON_GPT | {"model": "other"}) == 25
    assert not any(word in text for word in ("id-", "user-", "Error"))


def test_scores_are_counted_by_whose_answer_they_judge() -> None:
    """A score goes to the cache, the router or the control arm, as the record tells or the caller says; the rest is dropped."""
    exporter = PrometheusExporter()
    exporter(call("routed", complexity="simple"))
    exporter(call("shadow", shadow=True))
    for name in ("routed", "shadow", "unheard of"):
        exporter.score(name, 0.25)
    exporter.score("a hit", 1.0, about="cache")

    sums = {a: value(exporter, "llm_answer_score_sum", {"about": a}) for a in ("router", "cache", "other")}
    assert sums == {"router": 0.25, "cache": 1.0, "other": None}


def test_budgets_and_batches_are_asked_when_scraped() -> None:
    """Gauges tell what is so now, not what was so at the last call."""
    budget = Budget(10, per="day", tag="search", clock=lambda: 21_600.0)
    state = BatchState(jobs={"running": 2}, oldest_queued=7.0, next_expiry=60.0)
    exporter = PrometheusExporter(budgets=[budget], batches=lambda: state)
    budget.charge(2.5)
    labels = {"budget": "search", "per": "day"}

    names = ("llm_budget_usd", "llm_budget_spent_usd", "llm_budget_elapsed_ratio")
    assert [value(exporter, name, labels) for name in names] == [10, 2.5, 0.25]
    assert value(exporter, "llm_batch_jobs", {"state": "running"}) == 2
    assert value(exporter, "llm_batch_oldest_pending_seconds") == 7
    assert value(exporter, "llm_batch_next_expiry_seconds") == 60


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_budgets_with_one_name_the_shorter_is_shown(order: tuple[int, int]) -> None:
    """A scrape with two values of one series is refused in part, and two routers may each have a budget without a tag."""
    budgets = [Budget(10), Budget(2)]
    for budget in budgets:
        budget.charge(1)
    exporter = PrometheusExporter(budgets=[budgets[n] for n in order])
    text = generate_latest(exporter.registry).decode()

    assert re.findall(r"(?m)^llm_budget_\w*usd\{.*", text) == [
        'llm_budget_usd{budget="all",per="day"} 2.0',
        'llm_budget_spent_usd{budget="all",per="day"} 1.0',
    ]


def test_nothing_waits() -> None:
    """Without anything queued or running the age is 0, and there is no time until an expiry."""
    exporter = PrometheusExporter(batches=BatchState)

    assert value(exporter, "llm_batch_oldest_pending_seconds") == 0
    assert value(exporter, "llm_batch_next_expiry_seconds") is None


def test_what_fails_inside_is_counted_and_hides_nothing_else() -> None:
    """A batch store that cannot be read and a record that makes no sense raise nothing, and other metrics are served."""

    def gone() -> BatchState:
        raise OSError("disk gone")

    exporter = PrometheusExporter(batches=gone)
    exporter(call("a", cost="a lot"))
    exporter(call("b"))
    text = generate_latest(exporter.registry).decode()

    assert "llm_cost_usd_total{" in text
    assert "llm_batch_jobs" not in text
    assert exporter.failures == 2


def test_two_exporters_live_side_by_side() -> None:
    """Each has a registry of its own, so that a second one, as after a reload, is no error."""
    first, second = PrometheusExporter(), PrometheusExporter(CollectorRegistry())
    first(call("a"))

    assert value(first, "llm_cost_usd_total", ON_GPT) == 0.5
    assert value(second, "llm_cost_usd_total", ON_GPT) is None


def test_the_server_listens_on_the_loopback() -> None:
    """The metrics are served on 127.0.0.1 unless told otherwise."""
    exporter = PrometheusExporter()
    port = exporter.start_http_server(0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        text = reply.read().decode()

    assert "llm_costopt_info" in text
    if sys.platform == "linux":  # where all of 127/8 is this machine
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"http://127.0.0.2:{port}/metrics", timeout=10)


_WORKER = """
import sys
from decimal import Decimal
from llm_costopt.monitor.prometheus import PrometheusExporter
from llm_costopt.types import CallRecord, Saved
exporter = PrometheusExporter()
for n in range(10):
    exporter(CallRecord(id=str(n), at=0.0, model="m", cost=Decimal(1), saved=Saved(router=Decimal(sys.argv[1])), latency=1.0))
exporter.score("0", 1.0, about="router")
"""

_SERVER = """
from prometheus_client import generate_latest
from llm_costopt.monitor.prometheus import PrometheusExporter
from llm_costopt.monitor.watched import BatchState
print(generate_latest(PrometheusExporter(batches=lambda: BatchState(jobs={"running": 2})).registry).decode())
"""


def test_several_processes_are_one(tmp_path: Path) -> None:
    """With a shared directory, a scrape of any process finds the sum over all, losses and the dead included."""
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def run(code: str, *args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *args], env=env, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    run(_WORKER, "2")
    run(_WORKER, "-3")
    lines = run(_SERVER).splitlines()

    assert 'llm_cost_usd_total{model="m",operation="chat",provider="unknown"} 20.0' in lines
    assert 'llm_savings_usd_total{source="router"} 20.0' in lines
    assert 'llm_savings_lost_usd_total{source="router"} 30.0' in lines
    assert 'llm_request_seconds_count{cache="miss",model="m",operation="chat",provider="unknown"} 20.0' in lines
    assert 'llm_answer_score_count{about="router"} 2.0' in lines
    assert 'llm_batch_jobs{state="running"} 2.0' in lines
    assert sum(line.startswith("llm_savings_usd_total{") for line in lines) == 4


def test_the_first_event_is_seen() -> None:
    """Savings, rows and scores are 0 before the first of them, since a rate does not see the first value of a series."""
    exporter = PrometheusExporter()

    assert value(exporter, "llm_savings_usd_total", {"source": "batch"}) == 0
    assert value(exporter, "llm_savings_lost_usd_total", {"source": "router"}) == 0
    assert value(exporter, "llm_batch_rows_total", {"outcome": "expired"}) == 0
    assert value(exporter, "llm_answer_score_count", {"about": "router"}) == 0


def test_a_missing_extra_names_the_install_line() -> None:
    """Without prometheus_client, using the exporter says what to install."""
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "try: import llm_costopt.monitor.prometheus\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert out.stdout.startswith("MissingExtraError")
    assert "pip install 'llm-costopt[prometheus]'" in out.stdout


def test_no_name_breaks_a_scrape() -> None:
    """Quotes, line ends and halves of characters in a model's name end where the label ends."""
    exporter = PrometheusExporter()
    names = ['a"} 1\nllm_cost_usd_total{model="b', "c\\", "d\ud83d"]
    for name in names:
        exporter(call(name, model=name))
    families = list(text_string_to_metric_families(generate_latest(exporter.registry).decode()))
    labels = {s.labels["model"] for f in families for s in f.samples if s.name == "llm_cost_usd_total"}

    assert labels == {*names[:2], "d?"}


def test_a_budget_that_breaks_hides_no_other() -> None:
    """It is counted, and left out; the one after it is shown."""

    class Lost(Budget):
        @property
        def spent(self) -> Decimal:
            raise OSError("disk gone")

    budget = Budget(2)
    budget.charge(1)
    exporter = PrometheusExporter(budgets=[Lost(1, tag="lost"), budget])

    assert value(exporter, "llm_budget_spent_usd", {"budget": "all", "per": "day"}) == 1
    assert value(exporter, "llm_budget_usd", {"budget": "lost", "per": "day"}) is None
    assert exporter.failures > 0


def test_one_budget_without_a_list_is_refused() -> None:
    """It would break each scrape."""
    with pytest.raises(TypeError, match="budgets is a list"):
        PrometheusExporter(budgets=Budget(50))  # type: ignore[arg-type]
