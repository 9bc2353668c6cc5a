"""Observe, switch off, presets and endpoints in LlamaIndex."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage

from llamaindex_costopt import BatchingLLM, CachedLLM, CostEventHandler, RouterLLM, endpoint
from llm_costopt import Prices, SemanticCache
from llm_costopt.monitor.observing import would_be
from llm_costopt.presets import ROUTER
from tests.llamaindex.echo import Echo
from tests.llamaindex.test_router import BEST, COMPLEX, MEDIUM, PRICES, SIMPLE, SURE, UNSURE, WAYS

every_way = pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS.keys())


def tiers(draft: str = SURE) -> tuple[Echo, Echo]:
    """Make a cheap and a strong tier."""
    return Echo(name="cheap", replies=[draft]), Echo(name="strong", replies=[BEST])


@every_way
@pytest.mark.parametrize("by", ["option", "environment"])
@pytest.mark.parametrize("asked", [SIMPLE, MEDIUM, COMPLEX])
@pytest.mark.parametrize("mode", ["observe", "off"])
def test_the_strongest_tier_answers_alone(
    ask: Callable[..., Any], by: str, asked: str, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Observing or off, by option or by environment, one call of the strong model answers, and no draft is made."""
    cheap, strong = tiers(UNSURE)
    if by == "environment":
        monkeypatch.setenv("LLM_COSTOPT", mode)
    router = RouterLLM(cheap=cheap, strong=strong, prices=PRICES, **({"mode": mode} if by == "option" else {}))
    decision = router.decision(ask(router, asked))

    assert (len(cheap.seen), len(strong.seen)) == (0, 1)
    assert decision.would == (None if mode == "off" else "strong" if asked == COMPLEX else "cheap")


def test_what_is_observed_is_in_the_ledger() -> None:
    """The records say what would have been asked, and its share of the cost."""
    cheap, strong = tiers()
    router = RouterLLM(cheap=cheap, strong=strong, mode="observe", prices=PRICES)
    costs = CostEventHandler(prices=PRICES).install()
    for asked in (SIMPLE, MEDIUM, COMPLEX):
        router.chat([ChatMessage(role="user", content=asked)])
    costs.uninstall()
    found = would_be(costs.ledger.records())

    assert sorted((one.tier, one.drafts, one.requests) for one in found) == [
        ("cheap", False, 1),
        ("cheap", True, 1),
        ("strong", False, 1),
    ]


def test_a_conversation_goes_on_where_it_would_have_been() -> None:
    """A later turn that observes takes the tier that would have answered for the one whose prompt cache is warm."""
    cheap, strong = tiers()
    prices = Prices({"cheap": (1, 1, 1), "strong": (2, 2, "0.01")})
    router = RouterLLM(cheap=cheap, strong=strong, mode="observe", prices=prices)
    asked = ChatMessage(role="user", content=SIMPLE)
    begin = [ChatMessage(role="system", content=600 * "Be brief. "), asked]
    second = router.decision(router.chat([*begin, router.chat(begin).message, asked]))

    assert "prompt cache" not in second.why
    assert second.would == "cheap"


@every_way
@pytest.mark.parametrize("wrap", ["cached", "router"])
def test_the_kill_switch_passes_the_cache_by(
    ask: Callable[..., Any], wrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is off a cache neither answers nor keeps anything; then it goes on as before."""
    strong = Echo(name="strong", replies=[BEST])
    cache = SemanticCache()
    model: Any = CachedLLM(strong, cache=cache) if wrap == "cached" else RouterLLM(tiers=[strong], cache=cache)
    ask(model, SIMPLE)
    monkeypatch.setenv("LLM_COSTOPT", "off")
    ask(model, SIMPLE)
    assert len(strong.seen) == 2
    monkeypatch.delenv("LLM_COSTOPT")
    ask(model, SIMPLE)
    assert len(strong.seen) == 2


@every_way
def test_a_cache_observes(ask: Callable[..., Any]) -> None:
    """Each call goes to the model, and what would have been served is counted."""
    strong = Echo(name="strong", replies=[BEST])
    cached = CachedLLM(strong, cache=SemanticCache(mode="observe"))
    for _ in range(3):
        ask(cached, SIMPLE)

    assert (len(strong.seen), cached.cache.stats().hits, cached.cache.stats().would_exact) == (3, 0, 2)


async def test_the_kill_switch_releases_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that would wait for others goes at once."""
    monkeypatch.setenv("LLM_COSTOPT", "off")
    with BatchingLLM(Echo(name="strong", replies=[BEST]), flush_interval=1000.0) as model:
        answer = await asyncio.wait_for(model.acomplete(SIMPLE), timeout=10)

    assert answer.text == BEST


@pytest.mark.parametrize("preset", list(ROUTER))
def test_a_preset_fills_in_and_what_is_given_wins(preset: Any) -> None:
    """A preset is a mapping of the router's own fields."""
    cheap, strong = tiers()
    router = RouterLLM(cheap=cheap, strong=strong, preset=preset)
    own = RouterLLM(cheap=cheap, strong=strong, preset=preset, cascade="never")

    assert {name: getattr(router, name) for name in ROUTER[preset]} == ROUTER[preset]
    assert (own.cascade, own.threshold) == ("never", ROUTER[preset]["threshold"])
    with pytest.raises(ValueError, match="preset is one of"):
        RouterLLM(cheap=cheap, strong=strong, preset="bold")


@every_way
def test_an_endpoint_has_its_own_settings(ask: Callable[..., Any]) -> None:
    """Inside `with endpoint(…)` its word holds for cache and router."""
    cheap, strong = tiers()
    router = RouterLLM(
        cheap=cheap,
        strong=strong,
        cache=SemanticCache(endpoints={"drafts": "off"}),
        endpoints={"search": "conservative", "drafts": "observe"},
        prices=Prices({"cheap": (1, 1), "strong": (10, 10)}),
    )

    def asked(name: str, text: str) -> tuple[int, int]:
        before = len(cheap.seen), len(strong.seen)
        with endpoint(name):
            ask(router, text)
        return len(cheap.seen) - before[0], len(strong.seen) - before[1]

    assert asked("search", MEDIUM) == (0, 1)
    assert asked("faq", MEDIUM) == (1, 0)
    assert asked("drafts", SIMPLE) == asked("drafts", SIMPLE) == (0, 1)
