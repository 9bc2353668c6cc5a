"""Half price for LangChain's models: the Batch API behind `ChatOpenAI` and `ChatAnthropic`."""

import os
from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel

from llm_costopt.batch.queue import BatchQueue
from llm_costopt.batch.transport import AsyncBatchTransport, BatchTransport
from llm_costopt.monitor.prices import Prices

Model = TypeVar("Model", bound=BaseChatModel)


def use_batch_api(model: Model, queue: BatchQueue | str | os.PathLike[str]) -> Model:
    """Return a copy of *model* whose requests travel through the provider's Batch API, at half the price.

    `abatch` with any number of inputs becomes one job; do not set `max_concurrency` below it. `batch` starts a thread
    for each of `max_concurrency` inputs, which is then the size of a job. An answer may take up to a day, so no timeout
    of the model's holds. `stream` yields its answer in one piece. An HTTP client or proxy that the model was given is not
    used: those of the environment are, or `BatchQueue(client=…)` for the calls to the Batch API.

    Args:
        model: a `ChatOpenAI` or a `ChatAnthropic`.
        queue: a `BatchQueue`, or the path of its file.

    Raises:
        TypeError: *model* is of another class.
    """
    attach = next((_ATTACH[kind.__name__] for kind in type(model).__mro__ if kind.__name__ in _ATTACH), None)
    if attach is None:
        raise TypeError(
            f"use_batch_api takes a ChatOpenAI or a ChatAnthropic, not {type(model).__name__}: if its client takes an "
            f"HTTP client and its provider speaks the protocol of one of the two, give it one with BatchTransport"
        )
    found = queue if isinstance(queue, BatchQueue) else BatchQueue(queue, prices=Prices())
    copy = model.model_copy(update={"disable_streaming": True, "streaming": False})
    attach(copy, BatchTransport(found), AsyncBatchTransport(found))
    return copy


def _attach_openai(model: Any, blocking: BatchTransport, not_blocking: AsyncBatchTransport) -> None:
    import openai

    # The SDK's own class of client, since its releases disagree on the library: httpx or httpx2.
    if model.root_client is not None:  # there is none with a key that only async code can get
        http = openai.DefaultHttpxClient(transport=blocking)
        model.root_client = model.root_client.with_options(http_client=http, timeout=None)
        model.client = model.root_client.chat.completions
    later = openai.DefaultAsyncHttpxClient(transport=not_blocking)
    model.root_async_client = model.root_async_client.with_options(http_client=later, timeout=None)
    model.async_client = model.root_async_client.chat.completions


def _attach_anthropic(model: Any, blocking: BatchTransport, not_blocking: AsyncBatchTransport) -> None:
    import anthropic

    # ChatAnthropic takes no client; it makes these two when they are first used. Without a timeout of its own the SDK
    # refuses long answers that do not stream.
    http = anthropic.DefaultHttpxClient(transport=blocking)
    later = anthropic.DefaultAsyncHttpxClient(transport=not_blocking)
    model.__dict__["_client"] = model._client.with_options(http_client=http, timeout=None)  # noqa: SLF001
    model.__dict__["_async_client"] = model._async_client.with_options(http_client=later, timeout=None)  # noqa: SLF001


_ATTACH = {"ChatOpenAI": _attach_openai, "ChatAnthropic": _attach_anthropic}
