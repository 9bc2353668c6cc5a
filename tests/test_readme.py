"""What the README shows is what happens."""

import os
import random
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.globals import set_llm_cache
from llmock.pytest_plugin import LLMock

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def _no_cache_left() -> Iterator[None]:
    yield
    set_llm_cache(None)


@pytest.mark.usefixtures("_no_cache_left")
def test_the_example_runs_as_printed(
    llmock: LLMock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks of code run one after the other; the first answers its second question from the cache and prints a summary."""
    code, *others = re.findall(r"```python\n(.*?)```", README.partition("## In LlamaIndex")[0], re.DOTALL)
    monkeypatch.chdir(tmp_path)
    random.seed(0)  # a share of the hits is checked against the model; this one is not
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    for other in others:
        exec(compile(other, "README.md", "exec"), names)

    assert len([line for line in code.splitlines() if line.strip()]) <= 14
    assert "'cache': 'semantic'" in printed
    assert "requests=2" in printed


def test_the_first_screen_has_code_and_says_what_it_does_not_do() -> None:
    """Code starts within 25 lines, and there is a section of limits."""
    lines = README.splitlines()

    assert next(n for n, line in enumerate(lines) if line.startswith("```python")) <= 25
    assert "## What it does not do" in README


def test_what_it_links_to_is_there_and_in_the_source_distribution() -> None:
    """Files that it names by a link exist and ship with it, and each place in it that it names is a heading."""
    root = Path(__file__).parent.parent
    ships = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    files = re.findall(r"\]\(([^#)]+)\)", README)
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in README.splitlines() if line.startswith("#")}

    assert files
    assert [f for f in files if not (root / f).is_file() or Path(f).parts[0] not in ships["sdist"]["include"]] == []
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings


def test_the_table_is_as_printed() -> None:
    """The README shows what `llm-costopt demo` prints; only the latencies differ from machine to machine."""
    done = subprocess.run(
        [sys.executable, "-c", "from llm_costopt.cli import main; main()", "demo"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    missing = [line for line in done.stdout.splitlines() if "latency" not in line and line.rstrip() not in README]

    assert missing == []
