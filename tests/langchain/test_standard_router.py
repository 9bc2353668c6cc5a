"""LangChain's own suites for chat models, over a router of two real `ChatOpenAI` and a real HTTP server.

The router passes all that a bare `ChatOpenAI` passes against the same server; no test is overridden. Inputs of images,
audio and PDF stay switched off, which is the suites' default: those tests fetch their files from the internet.
"""

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from llmock.pytest_plugin import LLMock

from langchain_costopt import RouterChatModel

JOKE = '{"setup": "Why do cats purr?", "punchline": "Their engine is cold."}'

CUSTOMERS = ("你好啊集团", "こんにちは株式会社")


def params() -> dict[str, Any]:
    """Make two tiers that find the server in the environment."""
    return {
        "cheap": ChatOpenAI(model="gpt-4o-mini", stream_usage=True, max_retries=0),
        "strong": ChatOpenAI(model="gpt-4o", stream_usage=True, max_retries=0),
    }


class TestUnit(ChatModelUnitTests):
    @pytest.fixture(autouse=True)
    def _server(self, llmock: LLMock) -> None:
        """Point the models' clients at the server."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return RouterChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return params()


@pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema")  # langchain-openai's word on such schemas
class TestIntegration(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _server(self, llmock: LLMock, request: pytest.FixtureRequest) -> None:
        """Let the server say what a test expects of a model that understands its question."""
        test = request.node.originalname
        if test in {"test_tool_calling", "test_tool_calling_async"}:
            llmock.call_tool("magic_function", {"input": 3}, times=None)
        elif test == "test_unicode_tool_call_integration":
            for name in CUSTOMERS:
                llmock.call_tool("unicode_customer", {"customer_name": name, "description": "…"})
        elif test == "test_json_mode":
            llmock.reply(JOKE, times=None)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return RouterChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return params()

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "gpt-4-turbo"
