"""The shipped alert rules of Prometheus: each fires when it should and only then, by Prometheus' own test tool."""

import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from llm_costopt.cli import app

RULES = files("llm_costopt.monitor").joinpath("rules.yml").read_text(encoding="utf-8")
TESTS = sorted(Path(__file__).parent.glob("rules_*test.yml"))

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed: `bash scripts/get-programs` gets it with apt-get",
)


def alerts() -> list[dict[str, Any]]:
    """List the shipped alerts."""
    return [rule for group in yaml.safe_load(RULES)["groups"] for rule in group["rules"] if "alert" in rule]


NAMES = [alert["alert"] for alert in alerts()]


def expectations() -> list[tuple[Path, dict[str, Any]]]:
    """List what the test files say of each alert, with the file."""
    return [
        (path, expected)
        for path in TESTS
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
        for expected in test["alert_rule_test"]
    ]


def promtool(folder: Path, rules: str, *tests: Path, every: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run *tests* over *rules* in an empty folder; they are judged as often as they say, or *every* so often."""
    (folder / "rules.yml").write_text(rules, encoding="utf-8")
    for test in tests:
        said = test.read_text(encoding="utf-8")
        judged = (
            said if every is None else re.sub(r"(?m)^evaluation_interval: .*", f"evaluation_interval: {every}", said)
        )
        (folder / test.name).write_text(judged, encoding="utf-8")
    names = [test.name for test in tests]
    return subprocess.run(
        ["promtool", "test", "rules", *names], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@needs_promtool
def test_the_rules_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    """`promtool test rules` succeeds over all scenarios."""
    done = promtool(tmp_path, RULES, *TESTS)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == len(TESTS) == 3


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_is_seen_firing_and_not_firing(name: str) -> None:
    """No alert ships that is not tested both ways."""
    seen = {bool(expected.get("exp_alerts")) for _, expected in expectations() if expected["alertname"] == name}

    assert seen == {True, False}


@needs_promtool
@pytest.mark.parametrize("broken", ["vector(1)", "vector(1) > 1"], ids=["always", "never"])
def test_broken_rules_fail(broken: str, tmp_path: Path) -> None:
    """The scenarios notice every alert that always fires and every one that never does."""
    # Without what is recorded, which no broken alert reads, and seldom, since time is nothing to it: that takes a tenth of the time.
    rules = [{name: said for name, said in alert.items() if name != "for"} | {"expr": broken} for alert in alerts()]

    done = promtool(tmp_path, yaml.safe_dump({"groups": [{"name": "broken", "rules": rules}]}), *TESTS, every="4h")

    assert done.returncode != 0
    assert set(re.findall(r"alertname: (\w+)", done.stdout + done.stderr)) == set(NAMES)


def test_no_rule_repeats_the_known_mistakes() -> None:
    """Counters are only read through `increase` (or as new series), summed over processes, and every ratio has a floor."""
    counter = re.compile(r"\w+_total\b|\w+_(?:count|sum)\b")
    for alert in alerts():
        expr = " ".join(alert["expr"].split())
        bare = re.sub(r"(?:increase|max_over_time)\([^()]*\)|\([^()]* unless [^()]*\)", "", expr)
        assert not counter.search(bare), alert["alert"]
        assert "rate(" not in expr, alert["alert"]
        if " / " in expr and "increase" in expr:
            assert ">= " in expr, alert["alert"]


def test_the_command_prints_the_rules(tmp_path: Path) -> None:
    """`llm-costopt rules` prints the file as it ships, ready to be redirected."""
    assert CliRunner().invoke(app, ["rules"]).stdout == RULES
