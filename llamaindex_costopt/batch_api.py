"""Half price for LlamaIndex's models: the Batch API behind `OpenAI`, `OpenAIResponses` and `Anthropic`."""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib import import_module
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.llms import LLM

from llamaindex_costopt._convert import whole
from llamaindex_costopt._wrapper import Wrapper
from llm_costopt.batch.queue import BatchQueue
from llm_costopt.batch.transport import AsyncBatchTransport, BatchTransport
from llm_costopt.monitor.prices import Prices


def use_batch_api(llm: LLM, queue: BatchQueue | str | os.PathLike[str]) -> LLM:
    """Wrap a copy of *llm* whose requests travel through the provider's Batch API, at half the price.

    All that is asked at the same time becomes one job: `asyncio.gather` over `achat` and its like, with any number of
    them; a pipeline's `num_workers` is the size of its jobs. An answer may take up to a day, so no timeout of the model's
    holds. A stream yields its answer in one piece. An HTTP client that the model was given is not used: the proxies of the
    environment are, or `BatchQueue(client=…)` for the calls to the Batch API. Caches and routers go around it.

    Args:
        llm: an `OpenAI`, an `OpenAIResponses` or an `Anthropic`, or of a class derived from one, such as `OpenAILike`.
        queue: a `BatchQueue`, or the path of its file.

    Raises:
        TypeError: *llm* is of another class, or what it calls is neither OpenAI's nor Anthropic's own API.
        ValueError: *llm* is no chat model, so that the Batch API would never be asked.
    """
    attach = next((_ATTACH[kind.__name__] for kind in type(llm).__mro__ if kind.__name__ in _ATTACH), None)
    if attach is None:
        raise TypeError(
            f"use_batch_api takes LlamaIndex's OpenAI, OpenAIResponses or Anthropic, not {type(llm).__name__}: give "
            f"a wrapper such a model inside; if another model's client takes an HTTP client and its provider speaks the "
            f"protocol of one of the two, give it one with BatchTransport"
        )
    if not llm.metadata.is_chat_model:
        raise ValueError(f"{type(llm).__name__} completes texts, and batches hold chats: give it is_chat_model=True")
    copy = llm.model_copy()
    attach(copy, queue)
    return _InOnePiece(llm=copy)


class _InOnePiece(Wrapper):
    """Answer a stream with the one chunk that a batch has."""

    @classmethod
    def class_name(cls) -> str:
        """Name the wrapper as the host's models are."""
        return "llm_costopt_batch_api"

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Ask."""
        return self.llm.chat(messages, **kwargs)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Ask."""
        return await self.llm.achat(messages, **kwargs)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Ask."""
        return self.llm.complete(prompt, formatted, **kwargs)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Ask."""
        return await self.llm.acomplete(prompt, formatted, **kwargs)

    # A stream that nobody reads asks nobody, as with the integrations themselves.

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        """Ask when the first chunk is wanted."""

        def chunks() -> Iterator[Any]:
            yield whole(self.llm.chat(messages, **kwargs))

        return chunks()

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Ask when the first chunk is wanted."""

        def chunks() -> Iterator[Any]:
            yield whole(self.llm.complete(prompt, formatted, **kwargs))

        return chunks()

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        """Ask when the first chunk is wanted."""

        async def chunks() -> AsyncIterator[Any]:
            yield whole(await self.llm.achat(messages, **kwargs))

        return chunks()

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        """Ask when the first chunk is wanted."""

        async def chunks() -> AsyncIterator[Any]:
            yield whole(await self.llm.acomplete(prompt, formatted, **kwargs))

        return chunks()


# The integrations keep their SDK's clients to themselves.
# ruff: noqa: SLF001


def _attach_lazy(llm: Any, queue: BatchQueue | str | os.PathLike[str]) -> None:
    llm._client, llm._aclient = llm._get_client(), llm._get_aclient()
    # What may pass was already tried in another batch; the integration would ask all over again.
    llm.reuse_client, llm.max_retries = True, 0
    _attach(llm, queue, "openai", "OpenAI")


def _attach_responses(llm: Any, queue: BatchQueue | str | os.PathLike[str]) -> None:
    _attach(llm, queue, "openai", "OpenAI")


def _attach_anthropic(llm: Any, queue: BatchQueue | str | os.PathLike[str]) -> None:
    _attach(llm, queue, "anthropic", "Anthropic")


def _attach(llm: Any, queue: BatchQueue | str | os.PathLike[str], library: str, client: str) -> None:
    sdk = import_module(library)
    if type(llm._client) is not getattr(sdk, client):
        raise TypeError(
            f"use_batch_api needs a model that calls {client} itself, not through {type(llm._client).__name__}: Azure, "
            f"Vertex and Bedrock have batches of another kind"
        )
    found = queue if isinstance(queue, BatchQueue) else BatchQueue(queue, prices=Prices())
    # The SDK's own class of client, since its releases disagree on the library: httpx or httpx2. Without a timeout of
    # its own, Anthropic's refuses long answers that do not stream.
    http = sdk.DefaultHttpxClient(transport=BatchTransport(found))
    later = sdk.DefaultAsyncHttpxClient(transport=AsyncBatchTransport(found))
    llm._client = llm._client.with_options(http_client=http, timeout=None)
    llm._aclient = llm._aclient.with_options(http_client=later, timeout=None)


_ATTACH = {"OpenAI": _attach_lazy, "OpenAIResponses": _attach_responses, "Anthropic": _attach_anthropic}
