"""Make the Grafana dashboard that ships: `python scripts/dashboard.py > llm_costopt/monitor/dashboard.json`."""

import sys
from itertools import count

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

USD, SHARE, SECONDS, PER_SECOND, PLAIN = "currencyUSD", "percentunit", "s", "reqps", "short"

HITS = 'llm_requests_total{cache!="miss"}'

SCORES = "sum by (about) (increase(llm_answer_score_{}[1d]))"

MODEL = '{model=~"$model"}'


OURS = '{source!="prompt_cache"}'
"""What we save: the provider's prompt cache works without us."""


def saved(over: str, of: str = "increase", *, by: str = "", which: str = OURS) -> str:
    """Say what was saved: the difference of two counters."""
    names = ("llm_savings_usd_total", "llm_savings_lost_usd_total")
    one, other = (f"sum{by} ({of}({name}{which}[{over}]))" for name in names)
    return f"{one} - {other}"


def query(expr: str, legend: str) -> prometheus.Dataquery:
    """Make a query of a panel."""
    return prometheus.Dataquery().datasource(SOURCE).expr(expr).legend_format(legend)


def number(title: str, unit: str, expr: str, about: str) -> stat.Panel:
    """Make a panel with one number over the whole time shown."""
    options = common.ReduceDataOptions().calcs(["lastNotNull"])
    panel = stat.Panel().title(title).description(about).datasource(SOURCE).unit(unit).reduce_options(options)
    return (
        panel.graph_mode(looks.BigValueGraphMode.NONE)
        .height(4)
        .span(6)
        .with_target(query(expr, title).ref_id("A").instant())
    )


def lines(title: str, unit: str, *queries: tuple[str, str], about: str = "", stacked: bool = False) -> timeseries.Panel:
    """Make a panel with lines over time."""
    panel = timeseries.Panel().title(title).description(about).datasource(SOURCE).unit(unit).height(8).span(12)
    if stacked:
        stack = common.StackingConfig().mode(looks.StackingMode.NORMAL)
        panel = panel.stacking(stack).fill_opacity(30)
    for letter, (expr, legend) in zip("ABCD", queries, strict=False):
        panel = panel.with_target(query(expr, legend).ref_id(letter))
    return panel


RATE = "$__rate_interval"
PANELS: dict[str, list[stat.Panel | timeseries.Panel]] = {
    "Money": [
        number("Paid", USD, "sum(increase(llm_cost_usd_total[$__range]))", "Drafts and shadow calls included."),
        number(
            "Saved", USD, saved("$__range"), "Against the models that would have been asked; without the prompt cache."
        ),
        number(
            "Saved of what it would have cost",
            SHARE,
            f"({saved('$__range')}) / (sum(increase(llm_cost_usd_total[$__range])) + ({saved('$__range')}))",
            "What is unpriced is in neither.",
        ),
        number(
            "Calls at an unknown cost",
            PLAIN,
            "sum(increase(llm_unpriced_requests_total[$__range])) or vector(0)",
            "They are missing in all amounts.",
        ),
        lines(
            "US dollars an hour, with and without",
            USD,
            (f"sum(rate(llm_cost_usd_total[{RATE}])) * 3600", "paid"),
            (
                f"(sum(rate(llm_cost_usd_total[{RATE}])) + {saved(RATE, 'rate')}) * 3600",
                "without cache, router, batch",
            ),
        ),
        lines(
            "Saved an hour, by cause",
            USD,
            (f"({saved(RATE, 'rate', by=' by (source)', which='')}) * 3600", "{{source}}"),
        ),
        lines(
            "US dollars an hour, by model",
            USD,
            (f"sum by (model) (rate(llm_cost_usd_total{MODEL}[{RATE}])) * 3600", "{{model}}"),
            stacked=True,
        ),
        lines(
            "US dollars per request",
            USD,
            (f"sum(rate(llm_cost_usd_total[{RATE}])) / sum(rate(llm_requests_total[{RATE}]))", "per request"),
        ),
    ],
    "Cache and router": [
        lines(
            "Hit rate",
            SHARE,
            (
                f"sum by (cache) (rate({HITS}[{RATE}])) / on () group_left () sum(rate(llm_requests_total[{RATE}]))",
                "{{cache}}",
            ),
            stacked=True,
        ),
        lines(
            "Escalated, of the routed requests",
            SHARE,
            (f"sum(rate(llm_escalations_total[{RATE}])) / sum(rate(llm_routed_requests_total[{RATE}]))", "escalated"),
        ),
        lines(
            "Calls by model",
            PER_SECOND,
            (f'sum by (model) (rate(llm_request_seconds_count{{cache="miss",model=~"$model"}}[{RATE}]))', "{{model}}"),
            stacked=True,
        ),
        lines(
            "Measured error of a day's answers",
            SHARE,
            (
                f"1 - {SCORES.format('sum')} / ({SCORES.format('count')} > 0)",
                "{{about}}",
            ),
            about="As far as answers were judged: 1 minus the mean score.",
        ),
    ],
    "Requests": [
        lines("Requests", PER_SECOND, (f"sum by (outcome) (rate(llm_requests_total[{RATE}]))", "{{outcome}}")),
        lines(
            "Latency",
            SECONDS,
            *(
                (
                    f"histogram_quantile({q}, sum by (le, cache) (rate(llm_request_seconds_bucket{MODEL}[{RATE}])))",
                    f"p{round(100 * q)} {{{{cache}}}}",
                )
                for q in (0.5, 0.95)
            ),
        ),
        lines(
            "Tokens a second",
            PLAIN,
            (f"sum by (type) (rate(llm_tokens_total{MODEL}[{RATE}]))", "{{type}}"),
            stacked=True,
        ),
    ],
    "Budgets and batches": [
        lines(
            "Budgets",
            SHARE,
            ("max by (budget, per) (llm_budget_spent_usd / llm_budget_usd)", "{{budget}} per {{per}}: spent"),
            ("max by (budget, per) (llm_budget_elapsed_ratio)", "{{budget}} per {{per}}: time"),
        ),
        lines("Jobs of the Batch API", PLAIN, ("max by (state) (llm_batch_jobs)", "{{state}}"), stacked=True),
        lines(
            "Rows of batches an hour",
            PLAIN,
            (f"sum by (outcome) (rate(llm_batch_rows_total[{RATE}])) * 3600 > 0", "{{outcome}}"),
        ),
        lines(
            "Waiting to be sent, and until a job expires",
            SECONDS,
            ("max(llm_batch_oldest_pending_seconds)", "oldest waiting"),
            ("min(llm_batch_next_expiry_seconds)", "next expiry"),
        ),
    ],
}


def dashboard() -> str:
    """Make the dashboard as JSON."""
    every = models.VariableOption(selected=True, text="All", value="$__all")
    board = (
        grafana.Dashboard("LLM costs and savings")
        .uid("llm-costopt")
        .tags(["llm", "cost"])
        .refresh("1m")
        .time("now-24h", "now")
        .with_variable(grafana.DatasourceVariable("datasource").type("prometheus").label("Prometheus"))
        .with_variable(
            grafana.QueryVariable("model")
            .datasource(SOURCE)
            .query("label_values(llm_cost_usd_total, model)")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(every)
            .label("Model")
        )
    )
    ids = count(1)
    for title, panels in PANELS.items():
        board = board.with_row(grafana.Row(title).id(next(ids)))
        for panel in panels:
            board = board.with_panel(panel.id(next(ids)))
    return JSONEncoder(sort_keys=True, indent=1).encode(board.build()) + "\n"


if __name__ == "__main__":
    sys.stdout.write(dashboard())
