"""What the tests of LlamaIndex's package share."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
from llmock.pytest_plugin import LLMock

# Where LangChain alone is installed there is nothing to test here.
collect_ignore_glob = [] if find_spec("llama_index") else ["test_*.py"]


@pytest.fixture
def openai(llmock: LLMock) -> Callable[..., Any]:
    """Make models that ask a server on this machine."""
    from llama_index.llms.openai import OpenAI

    def make(model: str = "gpt-4o-mini", **options: Any) -> OpenAI:
        base: dict[str, Any] = {"api_base": llmock.base_url("openai"), "api_key": "sk-test", "max_retries": 0}
        return OpenAI(model=model, **{**base, **options})

    return make
