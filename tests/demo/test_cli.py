"""`llm-costopt demo`, as a person and as a script call it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from llm_costopt.cli import app
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.router.learned import LearnedRules


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")}
    return subprocess.run(
        [sys.executable, "-c", "from llm_costopt.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**clean, "COLUMNS": "120", **environment},
        check=False,
    )


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """The shipped log's figures for machines."""
    done = _run("demo", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_demo_saves_and_serves_no_wrong_hit(figures: dict[str, Any]) -> None:
    """On the shipped log the optimised run costs less, hits, escalates, and serves nobody another one's answer."""
    assert figures["requests"] >= 300
    assert figures["after"]["cost_usd"] < figures["before"]["cost_usd"]
    assert figures["after"]["hit_rate"] > 0.1
    assert figures["after"]["wrong_hits"] == 0
    assert figures["after"]["escalations"] > 0
    assert 0 < figures["after"]["right"] <= 1


def test_the_demo_leaves_a_ledger_to_report_on(figures: dict[str, Any], tmp_path: Path) -> None:
    """Its second run's requests are in the file, each with its hit or its calls and whether it was right; no file is overwritten."""
    path = tmp_path / "demo.db"
    done = _run("demo", "--json", "--ledger", str(path))
    assert done.returncode == 0, done.stderr
    with Ledger(path) as ledger:
        summary, requests = ledger.summary(None), ledger.requests(None)

    assert summary.requests == figures["requests"]
    assert float(summary.cost_usd) == pytest.approx(figures["after"]["cost_usd"], abs=1e-6)
    assert summary.hit_rate == pytest.approx(figures["after"]["hit_rate"])
    assert sum(r.score or 0 for r in requests) / len(requests) == pytest.approx(figures["after"]["right"])
    assert "there is such a file already" in _run("demo", "--ledger", str(path)).stderr


def test_the_savings_add_up(figures: dict[str, Any]) -> None:
    """What cache and router saved is what the two runs differ by, to the last micro-dollar."""
    saved = figures["saved"]["cache"] + figures["saved"]["router"]

    assert saved == pytest.approx(figures["before"]["cost_usd"] - figures["after"]["cost_usd"], abs=3e-6)


def test_the_figures_are_those_that_scripts_expect(figures: dict[str, Any]) -> None:
    """The JSON has the documented keys."""
    assert {"requests", "before", "after", "saved"} <= figures.keys()
    assert {"cost_usd", "right", "latency_p50_ms"} <= figures["before"].keys()
    assert {"cost_usd", "right", "latency_p50_ms", "hit_rate", "wrong_hits", "escalations"} <= figures["after"].keys()
    assert figures["saved"].keys() == {"cache", "router"}


def test_the_table_says_that_answers_are_recorded(tmp_path: Path) -> None:
    """A person sees the table, and that no model was called; nothing but a progress bar goes to stderr."""
    done = _run("demo")

    assert done.returncode == 0, done.stderr
    for words in (
        "cost",
        "saved by the cache",
        "hit rate",
        "wrong hits",
        "right answers",
        "latency p95",
        "no model was called",
    ):
        assert words in " ".join(done.stdout.split())
    assert "Traceback" not in done.stderr
    assert "HTTP Request" not in done.stderr


def test_a_log_of_texts_can_be_replayed(tmp_path: Path) -> None:
    """Bare texts give hit rate and wrong hits by their labels, and no claim about right answers."""
    log = tmp_path / "texts.jsonl"
    texts = [
        ("How do I reset my password?", "reset"),
        ("how do i reset my password", "reset"),
        ("What is your fax number?", "fax"),
    ]
    log.write_text("".join(json.dumps({"text": t, "same_as": s}) + "\n" for t, s in texts), encoding="utf-8")
    done = _run("demo", "--requests", str(log), "--json")
    found = json.loads(done.stdout)

    assert found["requests"] == 3
    assert found["after"]["hit_rate"] == pytest.approx(1 / 3)
    assert found["after"]["wrong_hits"] == 0
    assert found["after"]["right"] is None


def test_a_log_of_windows_is_replayed_behind_a_proxy(tmp_path: Path) -> None:
    """A byte order mark is no part of the log, and a proxy in the environment is not asked for this machine."""
    log = tmp_path / "texts.jsonl"
    log.write_text('{"text": "hello there"}\n', encoding="utf-8-sig")
    done = _run("demo", "--requests", str(log), "--json", HTTP_PROXY="http://127.0.0.1:9", NO_PROXY="")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["before"]["failed"] == 0


def _answer(content: str, right: bool, latency_ms: float = 0) -> dict[str, Any]:
    said = {"content": content, "right": right, "latency_ms": latency_ms}
    return {**said, "prompt_tokens": 30, "completion_tokens": 40}


def test_a_run_that_costs_more_says_so_and_a_short_one_has_a_tail(tmp_path: Path) -> None:
    """Two escalations cost a plus, not two minus signs; of two requests the slower one is the 95th percentile."""
    rows = [
        {
            "messages": [{"role": "user", "content": f"Suggest a name for my {shop}"}],
            "cheap": _answer("I'm not sure.", right=False),
            "strong": _answer("Crumb, since it is short.", right=True, latency_ms=latency),
        }
        for shop, latency in (("bakery", 5_000), ("garage", 90_000))
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    shown = _run("demo", "--requests", str(log)).stdout
    unknown = _run("demo", "--requests", str(log), "--cheap", "a", "--strong", "b").stdout

    assert "(+6.0 %)" in shown
    assert "-$0.0001" in shown
    assert json.loads(_run("demo", "--requests", str(log), "--json").stdout)["before"]["latency_p95_ms"] > 90_000
    assert "unknown)" not in unknown


def test_unlabelled_texts_have_no_wrong_hits_to_count(tmp_path: Path) -> None:
    """Without labels the number of wrong hits is unknown, not zero."""
    log = tmp_path / "texts.jsonl"
    log.write_text('{"text": "hello there"}\n{"text": "hello there"}\n', encoding="utf-8")
    done = _run("demo", "--requests", str(log), "--json")

    assert json.loads(done.stdout)["after"]["wrong_hits"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--requests", "no-such-file.jsonl"], "there is no such file"),
        (["--requests", "{bad}"], "line 1: this is not JSON"),
        (["--threshold", "1.5"], "threshold is a cosine"),
        (["--threshold", "0"], "threshold is a cosine"),
        (["--live"], "set OPENAI_API_KEY"),
        (["--cheap", "gpt-4o"], "two models"),
        (["--ledger", "/nowhere/demo.db"], "give a file in a folder that exists"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, arguments: list[str], says: str) -> None:
    """What the user can mend ends with one sentence that names the fix, exit code 1 and no traceback."""
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{", encoding="utf-8")
    done = _run("demo", *[a.replace("{bad}", str(bad)) for a in arguments])

    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_unreadable_option_is_no_traceback() -> None:
    """A threshold that is no number is the command line's own error."""
    done = _run("demo", "--threshold", "high")

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("missing", "host"),
    [
        ("langchain_core", "langchain"),
        ("langchain_openai", "langchain"),
        ("llama_index", "llamaindex"),
        ("llama_index.llms.openai", "llamaindex"),
    ],
)
def test_without_a_host_or_its_models_the_demo_says_what_to_install(missing: str, host: str) -> None:
    """A missing host, or its integration of OpenAI, is reported with the exact install line."""
    code = f"import sys; sys.modules[{missing!r}] = None\nfrom llm_costopt.cli import main; main()"
    line = [sys.executable, "-c", code, "demo", "--host", host]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert f"pip install 'llm-costopt[{host}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_live_goes_to_the_server_of_the_environment(tmp_path: Path) -> None:
    """`--live` asks the models behind OPENAI_BASE_URL, here a playback of the same log."""
    from llm_costopt.demo.log import read_log
    from llm_costopt.demo.playback import Playback, serving

    log = tmp_path / "log.jsonl"
    log.write_text('{"text": "What is your fax number?", "same_as": "fax"}\n' * 2, encoding="utf-8")
    playback = Playback(read_log(log), {"gpt-4o": "strong", "gpt-4o-mini": "cheap"})
    with serving(playback) as url:
        done = _run("demo", "--live", "--json", "--requests", str(log), OPENAI_API_KEY="key", OPENAI_BASE_URL=url)
    found = json.loads(done.stdout)

    assert found["after"]["hit_rate"] == 0.5
    assert found["before"]["right"] is None


def test_a_request_that_fails_is_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    """A strong answer that the client refuses, being cut off, is a failed and wrong one, and no traceback."""
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    cut_off = {
        "content": '{"n": ',
        "finish_reason": "length",
        "right": False,
        "prompt_tokens": 9,
        "completion_tokens": 3,
    }
    row = {
        "messages": [{"role": "user", "content": "How many?"}],
        "schema": {"name": "N", "schema": schema},
        "same_as": "a",
        "cheap": cut_off,
        "strong": cut_off,
    }
    plain = {"text": "What is your fax number?", "same_as": "fax"}
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(r) + "\n" for r in (row, plain)), encoding="utf-8")
    done = _run("demo", "--requests", str(log), "--json")
    found = json.loads(done.stdout)

    assert (found["before"]["failed"], found["after"]["failed"]) == (1, 1)
    assert found["before"]["right"] == 0
    assert found["before"]["cost_usd"] > 0


def test_live_without_a_server_ends_early(tmp_path: Path) -> None:
    """When nothing answers, the run ends after three requests with one sentence that holds the provider's error."""
    log = tmp_path / "log.jsonl"
    log.write_text('{"text": "What is your fax number?"}\n' * 50, encoding="utf-8")
    wrong = {"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    done = _run("demo", "--live", "--requests", str(log), **wrong)

    assert done.returncode == 1
    assert "none of the first 3 requests was answered; the last error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_calibrate_learns_from_the_shipped_log(tmp_path: Path) -> None:
    """It prints a curve with the chosen point, says what that rests on, and writes rules that a router can use."""
    log = Path(str(resources.files("llm_costopt.demo") / "requests.jsonl"))
    out = tmp_path / "router.json"
    shown = _run("calibrate", str(log), "--out", str(out))
    figures = json.loads(_run("calibrate", str(log), "--out", str(out), "--json").stdout)

    assert shown.returncode == 0
    assert "←" in shown.stdout
    assert "with 95 %" in shown.stdout
    assert figures["outcomes"] == 399
    assert figures["low"] >= 0.95
    assert figures["cost"] < 1
    assert LearnedRules.load(out).explanation in " ".join(shown.stdout.split())


def test_a_point_at_the_end_of_the_curve_is_json(tmp_path: Path) -> None:
    """A share of 0 has no least score, which JSON cannot say as an infinite number."""
    log = str(resources.files("llm_costopt.demo") / "requests.jsonl")
    done = _run("calibrate", log, "--max-strong-share", "0", "--out", str(tmp_path / "router.json"), "--json")
    found = json.loads(done.stdout, parse_constant=pytest.fail)

    assert (found["threshold"], found["strong_share"]) == (None, 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["calibrate", "/nowhere.jsonl"], "/nowhere.jsonl"),
        (["calibrate", "LOG", "--target-quality", "2"], "target"),
        (["calibrate", "LOG", "--price-ratio", "1"], "--price-ratio"),
        (["calibrate", "LOG", "--out", "/nowhere/router.json"], "in a folder that exists and may be written"),
    ],
)
def test_calibrate_refuses_what_makes_no_sense(arguments: list[str], message: str, tmp_path: Path) -> None:
    """Each is one sentence, and no file is written."""
    log = str(resources.files("llm_costopt.demo") / "requests.jsonl")
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "router.json")]
    done = _run(*[log if a == "LOG" else a for a in arguments], *out)

    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "router.json").exists()


@pytest.mark.skipif(find_spec("llama_index") is None, reason="LlamaIndex is not installed")
def test_a_log_is_replayed_in_the_other_host(tmp_path: Path) -> None:
    """`--host llamaindex` sends a log through LlamaIndex's models, and `make demo HOST=…` asks for that."""
    log = tmp_path / "log.jsonl"
    log.write_text('{"text": "How do I reset my password?"}\n' * 3, encoding="utf-8")
    done = _run("demo", "--host", "llamaindex", "--requests", str(log), "--json")
    asked = subprocess.run(
        ["make", "--dry-run", "--assume-old=.venv/.installed", "demo", "HOST=llamaindex"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["after"]["hit_rate"] == pytest.approx(2 / 3)
    assert "llm-costopt demo --host llamaindex" in asked.stdout


def _commands(group: Any, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in getattr(group, "commands", {}).items():
        yield (*path, name)
        yield from _commands(command, *path, name)


@pytest.mark.parametrize("command", list(_commands(get_command(app))), ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    """`--help` of each command prints its options, whatever signs stand in their texts."""
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})

    assert done.exit_code == 0
    assert "Usage" in done.output
    assert " ." not in done.output  # what looks like a style is swallowed
    narrow = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"})
    assert not re.search(r"\w…", narrow.output)  # a word that is too long for its column is cut
