"""All four parts in one chain over real HTTP: cache → router → micro-batch → model → monitor."""

import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI
from llmock.pytest_plugin import LLMock

from langchain_costopt import BatchingCallbackHandler, CostCallbackHandler, RouterChatModel, SemanticCache
from llm_costopt import CallRecord, Ledger

PROMPT = ChatPromptTemplate([("system", "You answer for a bank."), ("human", "{question}")])


@pytest.fixture
def cache() -> Iterator[SemanticCache]:
    """A semantic cache that all models use for the length of a test."""
    made = SemanticCache(threshold=0.95)
    set_llm_cache(made)
    yield made
    set_llm_cache(None)
    made.close()


def _chain(threshold: float = 0.7) -> Runnable[Any, Any]:
    cheap, strong = (ChatOpenAI(model=name, max_retries=0) for name in ("gpt-4o-mini", "gpt-4o"))
    return PROMPT | RouterChatModel(cheap=cheap, strong=strong, threshold=threshold)


async def test_a_request_passes_all_four_parts(llmock: LLMock, cache: SemanticCache, tmp_path: Path) -> None:
    """Concurrent requests are released in a window, routed, answered, stored, recorded; the same ones again are free."""
    batching = BatchingCallbackHandler(max_batch_size=3, flush_interval=30, max_concurrent=2)
    costs = CostCallbackHandler(ledger=tmp_path / "ledger.db")
    usage = UsageMetadataCallbackHandler()
    first = [{"question": q} for q in ("What is an IBAN?", "Where is the Bern branch?", "Compare loans and leasing")]
    second = [{"question": q} for q in ("what is an iban", "Where's the Bern branch?", "Compare loans and leasing")]
    async with batching:
        answers = await _chain().abatch(first, {"callbacks": [batching, costs, usage]})
        paid = len(llmock.requests)
        again = await _chain().abatch(second, {"callbacks": [batching, costs, usage]})
    summary = costs.summary()

    assert paid == len(llmock.requests) == 3
    assert [a.content for a in again] == [a.content for a in answers]
    assert [a.response_metadata["llm_costopt"]["complexity"] for a in answers] == ["simple", "simple", "complex"]
    assert [a.response_metadata["llm_costopt"].get("cache") for a in again] == ["semantic", "semantic", "exact"]
    assert (summary.requests, summary.calls, summary.errors, summary.unpriced) == (6, 3, 0, 0)
    assert summary.hit_rate == 0.5
    assert set(summary.cost_by_model) == {"gpt-4o", "gpt-4o-mini"}
    assert summary.saved.cache > 0
    assert summary.saved.router > 0
    assert batching.stats().batches == 2
    assert batching.stats().average_batch_size == 3
    assert sum(u["total_tokens"] for u in usage.usage_metadata.values()) == 2 * sum(
        r.usage.input_tokens + r.usage.output_tokens for r in costs.records() if r.usage and not r.cache
    )


def test_an_escalation_is_paid_for_and_is_one_request(llmock: LLMock, cache: SemanticCache) -> None:
    """A doubtful draft and the strong answer are two calls of one request, and the draft counts as a loss of the router."""
    llmock.reply("I'm not sure, perhaps it is possible.").reply("Send us the form and we close it within a week.")
    costs = CostCallbackHandler()
    answer = _chain().invoke({"question": "My late aunt had an account with you"}, {"callbacks": [costs]})
    draft, final = costs.records()
    summary = costs.summary()

    assert answer.content == "Send us the form and we close it within a week."
    assert final.replaces == draft.id
    assert draft.cost is not None
    assert (summary.requests, summary.calls, summary.escalation_rate) == (1, 2, 1.0)
    assert summary.saved.router == -draft.cost


def test_a_fall_back_is_no_escalation(llmock: LLMock, cache: SemanticCache) -> None:
    """When the cheap model is rate limited the strong one answers, and figures and answer say so."""
    llmock.fail(429, retry_after=0)
    costs = CostCallbackHandler()
    answer = _chain().invoke({"question": "What is an IBAN?"}, {"callbacks": [costs]})
    decision = answer.response_metadata["llm_costopt"]

    assert (decision["fell_back"], decision["escalated"], decision["tier"]) == (True, False, "strong")
    assert costs.summary().errors == 1
    assert costs.summary().escalation_rate in {0.0, None}


def test_a_truncated_structured_answer_is_paid_for(llmock: LLMock, cache: SemanticCache) -> None:
    """OpenAI's client raises on a truncated structured answer; its tokens are still counted, and it is an escalation."""
    from llmock.scenarios import Reply

    llmock.add(Reply(text='{"amount": 1', finish_reason="length")).reply('{"amount": 12}')
    costs = CostCallbackHandler()
    cheap, strong = (ChatOpenAI(model=name, max_retries=0) for name in ("gpt-4o-mini", "gpt-4o"))
    router = RouterChatModel(cheap=cheap, strong=strong)
    schema = {
        "title": "Amount",
        "type": "object",
        "properties": {"amount": {"type": "integer"}},
        "required": ["amount"],
        "additionalProperties": False,
    }
    answer = router.with_structured_output(schema).invoke("The bill says twelve", {"callbacks": [costs]})
    draft, final = costs.records()

    assert answer == {"amount": 12}
    assert draft.usage is not None
    assert draft.cost is not None
    assert final.replaces == draft.id
    assert costs.summary().unpriced == 0


async def test_whatever_fails_the_call_answers(llmock: LLMock, tmp_path: Path) -> None:
    """With a cache whose file is gone, a price list that raises and a ledger whose disk is full, the call still answers."""

    def no_price(*_: Any, **__: Any) -> Decimal:
        raise RuntimeError("no price")

    class FullDisk(Ledger):
        def append(self, record: CallRecord) -> None:
            raise sqlite3.OperationalError("database or disk is full")

    broken = SemanticCache(path=tmp_path / "cache.db")
    broken.close()
    costs = CostCallbackHandler(prices=no_price, ledger=FullDisk())
    set_llm_cache(broken)
    try:
        answer = _chain().invoke({"question": "What is an IBAN?"}, {"callbacks": [costs]})
        streamed = "".join(str(c.content) for c in _chain().stream({"question": "hello"}, {"callbacks": [costs]}))
        awaited = await _chain().ainvoke({"question": "What is a BIC?"}, {"callbacks": [costs]})
    finally:
        set_llm_cache(None)

    assert answer.content
    assert streamed
    assert awaited.content
    assert broken.stats().errors >= 4
    assert costs.failures >= 5


def test_a_response_format_counts_as_a_structure(llmock: LLMock, cache: SemanticCache) -> None:
    """A request that binds a response format is never simple, so that its answer is checked."""
    cheap, strong = (ChatOpenAI(model=name, max_retries=0) for name in ("gpt-4o-mini", "gpt-4o"))
    router = RouterChatModel(cheap=cheap, strong=strong)
    asked = [router, router.bind(response_format={"type": "json_object"})]
    levels = [model.invoke("What is an IBAN?").response_metadata["llm_costopt"]["complexity"] for model in asked]

    assert levels == ["simple", "medium"]
