"""What ships for Prometheus and Grafana, on the command line: `llm-costopt rules`, `llm-costopt dashboard`."""

import sys
from importlib.resources import files


def rules() -> None:
    """Print alert rules for Prometheus: `llm-costopt rules > rules.yml`."""
    sys.stdout.write(files("llm_costopt.monitor").joinpath("rules.yml").read_text(encoding="utf-8"))


def dashboard() -> None:
    """Print a dashboard for Grafana: `llm-costopt dashboard > dashboard.json`."""
    sys.stdout.write(files("llm_costopt.monitor").joinpath("dashboard.json").read_text(encoding="utf-8"))
