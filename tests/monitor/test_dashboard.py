"""The Grafana dashboard: made by its script, and sound without a server."""

import json
import runpy
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm_costopt.cli import app

SHIPPED = files("llm_costopt.monitor").joinpath("dashboard.json").read_text(encoding="utf-8")
SCRIPT = Path(__file__).parents[2] / "scripts" / "dashboard.py"


def panels() -> list[dict[str, Any]]:
    """List the panels that show something."""
    return [panel for panel in json.loads(SHIPPED)["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """List the title of the panel and the expression of each query."""
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


def test_what_ships_is_what_the_script_makes() -> None:
    """Nobody edited the JSON by hand, or forgot to make it anew."""
    pytest.importorskip("grafana_foundation_sdk", reason="it makes the dashboard and is of the group `dev`")
    if not SCRIPT.exists():
        pytest.skip("the script is in the source tree only")

    assert runpy.run_path(str(SCRIPT))["dashboard"]() == SHIPPED


def test_it_fits_any_grafana() -> None:
    """Panels have ids of their own and ask the Prometheus that the user picks; the dashboard's uid stays, so that a new one replaces it."""
    board = json.loads(SHIPPED)
    ids = [panel["id"] for panel in board["panels"]]
    sources = [part["datasource"]["uid"] for panel in panels() for part in (panel, *panel["targets"])]

    assert board["uid"] == "llm-costopt"
    assert len(set(ids)) == len(ids)
    assert set(sources) == {"${datasource}"}
    assert [v["name"] for v in board["templating"]["list"]] == ["datasource", "model"]
    assert all(target["refId"] for panel in panels() for target in panel["targets"])
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in panels())


def test_the_command_prints_it() -> None:
    """`llm-costopt dashboard` prints the file as it ships."""
    assert CliRunner().invoke(app, ["dashboard"]).stdout == SHIPPED
