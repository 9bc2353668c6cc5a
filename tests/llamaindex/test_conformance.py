"""Every wrapper passes for the model that it wraps, alone and stacked."""

from collections.abc import Callable

import pytest
from llama_index.core.llms import LLM
from llama_index.llms.openai import OpenAI
from llmock.pytest_plugin import LLMock

from llamaindex_costopt import BatchingLLM, CachedLLM, RouterLLM
from llamaindex_costopt.testing import SECRET, assert_llm_conformance
from llm_costopt import SemanticCache

STACKS: dict[str, Callable[[LLM], LLM]] = {
    "cached": CachedLLM,
    "routed": lambda m: RouterLLM(tiers=[m]),
    "cached routed": lambda m: CachedLLM(RouterLLM(tiers=[m])),
    "batching": lambda m: BatchingLLM(m, flush_interval=0),
    "cached routed batching": lambda m: CachedLLM(RouterLLM(tiers=[BatchingLLM(m, flush_interval=0)])),
    "batching routed cached": lambda m: BatchingLLM(RouterLLM(tiers=[CachedLLM(m)]), flush_interval=0),
    "routed with a cache": lambda m: RouterLLM(tiers=[m], cache=SemanticCache()),
    "routed over two": lambda m: RouterLLM(cheap=m, strong=m, complexity=lambda _: ("simple", "")),
    "cached cached": lambda m: CachedLLM(CachedLLM(m)),
}


@pytest.mark.parametrize("wrap", STACKS.values(), ids=STACKS.keys())
def test_a_wrapper_is_not_noticed(wrap: Callable[[LLM], LLM], llmock: LLMock) -> None:
    """In over forty ways of calling, a wrapped OpenAI model gives the same results, calls, events, tokens and bodies as a bare one."""

    def make() -> LLM:
        return OpenAI(model="gpt-4o-mini", api_base=llmock.base_url("openai"), api_key=SECRET, max_retries=0)

    checks = assert_llm_conformance(make, wrap, requests=lambda: [r.body for r in llmock.requests])

    assert checks >= 40
