"""What ships for Prometheus, on the command line: `llm-costopt rules`."""

import sys
from importlib.resources import files


def rules() -> None:
    """Print alert rules for Prometheus: `llm-costopt rules > rules.yml`."""
    sys.stdout.write(files("llm_costopt.monitor").joinpath("rules.yml").read_text(encoding="utf-8"))
