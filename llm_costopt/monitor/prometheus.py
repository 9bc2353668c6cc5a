"""Costs and savings as metrics for a Prometheus server to scrape."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import fields
from importlib.metadata import version

from llm_costopt.errors import MissingExtraError
from llm_costopt.monitor.guarded import Guard
from llm_costopt.monitor.stream import About, News, Stream
from llm_costopt.monitor.watched import Batches, SpendingLimit, check_watched
from llm_costopt.types import CallRecord, Saved, Usage

try:
    from prometheus_client import CollectorRegistry, Counter, Histogram, Summary, start_http_server
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.metrics_core import Metric
    from prometheus_client.multiprocess import MultiProcessCollector
    from prometheus_client.registry import Collector
except ModuleNotFoundError as missing:
    raise MissingExtraError("PrometheusExporter", "prometheus") from missing

_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
"""From a hit in memory to a long answer of a reasoning model."""

_MOST_MODELS = 100
"""Models with a name of their own in the labels; each is about 40 series."""

_ROWS = frozenset({"errored", "expired", "cancelled", "rejected", "missing", "lost"})
"""What may become of a batch's row but success; another error is `errored`."""

_CALL = ("model", "provider", "operation")


class PrometheusExporter:
    """Count calls for Prometheus: `CostCallbackHandler(on_record=exporter)`, then `exporter.start_http_server()`.

    Labels are the model, the provider, the operation (`chat`, `batch`, `shadow`) and how the cache answered; never a
    request, a user or a tag. From the 101st model on, models are called `other`. It never raises: what fails inside is
    counted in `failures`. A record takes about 35 µs.

    With `PROMETHEUS_MULTIPROC_DIR` set before the program starts, the totals of all processes that share the
    directory are served.

    Args:
        registry: where the metrics are registered; one of its own if None. One exporter a registry.
        budgets: shown when scraped.
        batches: tells how the work of batches stands when scraped.

    Raises:
        TypeError: *budgets* is no list, or *batches* cannot be called.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        budgets: Sequence[SpendingLimit] = (),
        batches: Batches | None = None,
    ) -> None:
        check_watched(budgets, batches)
        self.registry = registry or CollectorRegistry()
        self._guard = Guard("The Prometheus exporter")
        self._stream = Stream()
        self._models: set[str] = set()
        several = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        # With several processes the values are in files, and what is served is their sum, not this process's objects.
        self._define(None if several else self.registry)
        if several:
            MultiProcessCollector(self.registry)  # type: ignore[no-untyped-call]
        self.registry.register(_Watched(self._guard, budgets, batches))

    @property
    def failures(self) -> int:
        """Count what failed inside, and what a budget or *batches* failed to tell."""
        return self._guard.failures

    def __call__(self, record: CallRecord) -> None:
        """Count *record*, once."""
        with self._guard():
            news = self._stream.read(record)
            if news is not None:
                self._count(record, news)

    def score(self, call: str, score: float, *, about: About | None = None) -> None:
        """Count how good the answer of *call*, a record's id, was, from 0 to 1: `RouterChatModel(on_score=…)`.

        *about* says whose answer it was; if None, the record tells. Scores of drafts and shadow calls count for nothing.
        """
        with self._guard():
            found = about or self._stream.about(call)
            if found is not None:
                self._score.labels(found).observe(score)

    def start_http_server(self, port: int = 9464, *, addr: str = "127.0.0.1") -> int:
        """Serve `/metrics` in a thread of its own, and return the port; 0 picks a free one.

        Only this machine can connect unless *addr* says otherwise: the metrics tell what a business spends.
        Raises OSError if the port is taken.
        """
        server, _ = start_http_server(port, addr, self.registry)
        return server.server_port

    def _define(self, registry: CollectorRegistry | None) -> None:
        def counter(name: str, about: str, labels: Sequence[str] = _CALL) -> Counter:
            return Counter(name, about, labels, registry=registry)

        self._requests = counter(
            "llm_requests", "Requests, counted at their first call or hit.", (*_CALL, "cache", "outcome")
        )
        self._routed = counter("llm_routed_requests", "Requests for which a router decided.", ())
        self._escalations = counter("llm_escalations", "Requests whose draft was rejected, by what replaced it.")
        self._cost = counter("llm_cost_usd", "US dollars paid, drafts and shadow calls included.")
        self._unpriced = counter("llm_unpriced_requests", "Calls that succeeded at an unknown cost.")
        self._tokens = counter("llm_tokens", "Tokens paid for; the types do not overlap.", (*_CALL, "type"))
        # A counter cannot go down, and a gauge would lose what was saved before a restart and could not be summed over
        # processes that come and go. So there are two counters, and their difference is what was saved.
        self._saved = counter("llm_savings_usd", "US dollars not paid; less llm_savings_lost_usd_total.", ("source",))
        self._lost = counter(
            "llm_savings_lost_usd", "US dollars by which a cause cost more than it saved.", ("source",)
        )
        self._rows = counter("llm_batch_rows", "Rows of batches that were answered or given up.", ("outcome",))
        self._seconds = Histogram(
            "llm_request_seconds",
            "Seconds that a call or a hit took; not of the Batch API, which waits by design.",
            (*_CALL, "cache"),
            registry=registry,
            buckets=_SECONDS,
        )
        self._score = Summary("llm_answer_score", "Scores of answers, from 0 to 1.", ("about",), registry=registry)
        # From the start, since `rate` and `increase` do not see the first value of a series.
        for cause in fields(Saved):
            self._saved.labels(cause.name)
            self._lost.labels(cause.name)
        for outcome in ("succeeded", *_ROWS):
            self._rows.labels(outcome)
        for judged in ("cache", "router", "control"):
            self._score.labels(judged)

    def _count(self, record: CallRecord, news: News) -> None:
        operation = "shadow" if record.shadow else "batch" if record.batch else "chat"
        call = (self._model(record.model), record.provider or "unknown", operation)
        cache = record.cache or "miss"
        if news.begins:
            self._requests.labels(*call, cache, "error" if record.error else "ok").inc()
        if news.routed:
            self._routed.inc()
        if news.escalates:
            self._escalations.labels(*call).inc()
        self._count_money(record, news, call)
        if record.usage is not None and record.cache is None:
            for kind, count in tokens_of(record.usage).items():
                self._tokens.labels(*call, kind).inc(count)
        if record.batch:
            self._rows.labels(_outcome(record.error)).inc()
        elif record.latency is not None:
            self._seconds.labels(*call, cache).observe(record.latency)

    def _count_money(self, record: CallRecord, news: News, call: tuple[str, str, str]) -> None:
        if news.unpriced:
            self._unpriced.labels(*call).inc()
        if record.cost is not None:
            self._cost.labels(*call).inc(float(record.cost))
        for source, amount in news.saved.items():
            if amount:
                (self._saved if amount > 0 else self._lost).labels(source).inc(abs(float(amount)))

    def _model(self, name: str | None) -> str:
        if name is None:
            return "unknown"
        name = name.encode(errors="replace").decode()  # half a character would fail every scrape from then on
        if name in self._models or len(self._models) < _MOST_MODELS:
            self._models.add(name)
            return name
        return "other"


class _Watched(Collector):
    """Ask budgets and batches when somebody scrapes."""

    def __init__(self, guard: Guard, budgets: Sequence[SpendingLimit], batches: Batches | None) -> None:
        self._guard, self._budgets, self._batches = guard, budgets, batches

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("llm_exporter_failures", "What failed in the exporter.", value=self._guard.failures)
        info = GaugeMetricFamily("llm_costopt_info", "Always 1, so that a lost exporter is seen.", labels=["version"])
        info.add_metric([version("llm-costopt")], 1)
        yield info
        yield from self._of_budgets()
        with self._guard():
            yield from self._of_batches()

    def _of_budgets(self) -> list[Metric]:
        usd, spent, elapsed = (
            GaugeMetricFamily(name, about, labels=["budget", "per"])
            for name, about in (
                ("llm_budget_usd", "US dollars that may be spent in a period."),
                ("llm_budget_spent_usd", "US dollars spent since the period began."),
                ("llm_budget_elapsed_ratio", "Part of the period that has passed."),
            )
        )
        found: dict[tuple[str, str], tuple[float, float, float]] = {}
        for budget in self._budgets:
            with self._guard():
                labels = budget.tag or "all", budget.per
                read = float(budget.usd), float(budget.spent), budget.elapsed
                # Of two with one name, as two routers may have them, a scrape can hold one: that which is shorter.
                found[labels] = max(read, found.get(labels, read), key=lambda one: one[1] / one[0])
        for labels, read in found.items():
            for metric, amount in zip((usd, spent, elapsed), read, strict=True):
                metric.add_metric(labels, amount)
        return [usd, spent, elapsed] if self._budgets else []

    def _of_batches(self) -> list[Metric]:
        if self._batches is None:
            return []
        state = self._batches()
        jobs = GaugeMetricFamily("llm_batch_jobs", "Jobs of the Batch API.", labels=["state"])
        for name, count in state.jobs.items():
            jobs.add_metric([name], count)
        found: list[Metric] = [jobs]
        found.append(
            GaugeMetricFamily(
                "llm_batch_oldest_pending_seconds",
                "Age of the oldest request that is not sent yet; 0 if there is none.",
                value=state.oldest_queued or 0.0,
            )
        )
        if state.next_expiry is not None:
            found.append(
                GaugeMetricFamily(
                    "llm_batch_next_expiry_seconds", "Until the next running job expires.", value=state.next_expiry
                )
            )
        return found


def tokens_of(usage: Usage) -> dict[str, int]:
    """Split *usage* into types that do not overlap, so that their sum is right."""
    parts = {
        "input": usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens,
        "cache_read": usage.cache_read_tokens,
        "cache_write": usage.cache_write_tokens,
        "output": usage.output_tokens - usage.reasoning_tokens,
        "reasoning": usage.reasoning_tokens,
    }
    return {kind: count for kind, count in parts.items() if count > 0}


def _outcome(error: str | None) -> str:
    if error is None:
        return "succeeded"
    return error if error in _ROWS else "errored"
