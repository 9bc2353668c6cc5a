"""Cut what an application pays for LLM inference; this package knows no framework and calls no model."""

from typing import TYPE_CHECKING

from llm_costopt._lazy import attach

if TYPE_CHECKING:
    from llm_costopt.batch.queue import BatchQueue, QueueStats
    from llm_costopt.batch.transport import AsyncBatchTransport, BatchTransport
    from llm_costopt.cache.records import CacheStats
    from llm_costopt.cache.scope import cache_scope
    from llm_costopt.cache.semantic import SemanticCache
    from llm_costopt.endpoints import endpoint
    from llm_costopt.errors import BadLogError, BudgetExceededError, CostOptError, MissingExtraError
    from llm_costopt.monitor.ledger import Ledger
    from llm_costopt.monitor.prices import Prices
    from llm_costopt.monitor.summary import Summary
    from llm_costopt.router.learned import LearnedRules
    from llm_costopt.router.spending import Budget
    from llm_costopt.types import Answer, CallRecord, Message, Question, Saved, ToolCall, Usage

__all__ = [
    "Answer",
    "AsyncBatchTransport",
    "BadLogError",
    "BatchQueue",
    "BatchTransport",
    "Budget",
    "BudgetExceededError",
    "CacheStats",
    "CallRecord",
    "CostOptError",
    "LearnedRules",
    "Ledger",
    "Message",
    "MissingExtraError",
    "Prices",
    "Question",
    "QueueStats",
    "Saved",
    "SemanticCache",
    "Summary",
    "ToolCall",
    "Usage",
    "cache_scope",
    "endpoint",
]

__getattr__ = attach(
    __name__,
    {
        **dict.fromkeys(["BatchQueue", "QueueStats"], "llm_costopt.batch.queue"),
        **dict.fromkeys(["AsyncBatchTransport", "BatchTransport"], "llm_costopt.batch.transport"),
        "CacheStats": "llm_costopt.cache.records",
        "SemanticCache": "llm_costopt.cache.semantic",
        "cache_scope": "llm_costopt.cache.scope",
        "endpoint": "llm_costopt.endpoints",
        **dict.fromkeys(
            ["BadLogError", "BudgetExceededError", "CostOptError", "MissingExtraError"], "llm_costopt.errors"
        ),
        "Budget": "llm_costopt.router.spending",
        "LearnedRules": "llm_costopt.router.learned",
        "Ledger": "llm_costopt.monitor.ledger",
        "Prices": "llm_costopt.monitor.prices",
        "Summary": "llm_costopt.monitor.summary",
        **dict.fromkeys(
            ["Answer", "CallRecord", "Message", "Question", "Saved", "ToolCall", "Usage"], "llm_costopt.types"
        ),
    },
)


def __dir__() -> list[str]:
    return __all__
