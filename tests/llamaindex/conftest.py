"""What the tests of LlamaIndex's package share."""

from collections.abc import Callable

import pytest
from llama_index.core.llms import LLM
from llama_index.llms.openai import OpenAI
from llmock.pytest_plugin import LLMock


@pytest.fixture
def openai(llmock: LLMock) -> Callable[..., LLM]:
    """Make models that ask a server on this machine."""

    def make(model: str = "gpt-4o-mini", **options: object) -> LLM:
        base = {"api_base": llmock.base_url("openai"), "api_key": "sk-test", "max_retries": 0}
        return OpenAI(model=model, **{**base, **options})  # type: ignore[arg-type]

    return make
