"""What `docs/rollout.md` tells people to run, in its order."""

import random
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.globals import set_llm_cache
from llmock.pytest_plugin import LLMock
from llmock.routers import batch as llmock_batches
from typer.testing import CliRunner

from llm_costopt.cli import app

PAGE = (Path(__file__).parent.parent / "docs" / "rollout.md").read_text(encoding="utf-8")


@pytest.fixture
def _no_cache_left() -> Iterator[None]:
    yield
    set_llm_cache(None)


@pytest.mark.usefixtures("_no_cache_left")
def test_every_block_runs_in_order(llmock: LLMock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each block of code and each command works with what the ones before it have left, up to the kill switch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(llmock_batches, "_BATCH_DELAY", 0.1)
    monkeypatch.setenv("COLUMNS", "120")
    random.seed(0)  # which requests are in the control arm
    names: dict[str, object] = {}
    ran = []
    for language, block in re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL):
        if language == "python":
            exec(compile(block, "rollout.md", "exec"), names)
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            if program == "export":
                monkeypatch.setenv(*arguments[0].split("="))
                continue
            assert program == "llm-costopt"
            done = CliRunner().invoke(app, arguments)
            assert done.exception is None, (line, done.output, done.exception)
            ran.append(arguments[0])

    assert set(ran) == {"estimate", "cache", "router", "report", "ab", "batch", "top", "rules", "dashboard"}
    assert [r.path for r in llmock.requests][-1] == "/v1/chat/completions"


def test_every_alert_that_it_names_is_there() -> None:
    """The alerts by which to go on or back are those of the shipped rules."""
    rules = CliRunner().invoke(app, ["rules"]).output

    assert all(f"alert: {name}" in rules for name in re.findall(r"`(LLM[A-Z]\w+[a-z])`", PAGE))


def test_the_readme_links_to_it() -> None:
    """Whoever reads the README finds the page."""
    assert "(docs/rollout.md)" in (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
