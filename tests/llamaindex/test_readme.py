"""What the README shows of LlamaIndex is what happens."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core import Settings
from llama_index_instrumentation import get_dispatcher
from llmock.pytest_plugin import LLMock

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def _nothing_left() -> Iterator[None]:
    root = get_dispatcher()
    handlers, spans = root.event_handlers[:], root.span_handlers[:]
    yield
    root.event_handlers, root.span_handlers, Settings._llm = handlers, spans, None


@pytest.mark.usefixtures("_nothing_left")
def test_the_example_runs_as_printed(
    llmock: LLMock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recommended order of wrappers answers the second question from the cache and prints a summary."""
    section = README.partition("## In LlamaIndex")[2]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_BASE", llmock.base_url("openai"))
    random.seed(0)  # a share of the hits is checked against the model; this one is not
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out

    assert "'cache': 'semantic'" in printed
    assert "requests=2" in printed
    assert len(llmock.requests) == 1
