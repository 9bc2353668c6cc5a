"""Observe, switch off, presets and endpoints in LangChain."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from typer.testing import CliRunner

from langchain_costopt import CostCallbackHandler, RouterChatModel, RouterMiddleware, SemanticCache, endpoint
from llm_costopt.cli import app
from llm_costopt.monitor.ab import compare
from llm_costopt.monitor.observing import would_be
from llm_costopt.monitor.prices import Prices
from llm_costopt.presets import ROUTER
from llm_costopt.types import CallRecord
from tests.scripted import (
    BEST,
    COMPLEX,
    MEDIUM,
    SIMPLE,
    SURE,
    UNSURE,
    Scripted,
    ainvoke,
    astream,
    cheap,
    invoke,
    mark,
    scripted,
    stream,
    strong,
)

PRICES = Prices({"cheap": (1, 1), "strong": (10, 10)})

ways = pytest.mark.parametrize("call", [invoke, ainvoke, stream, astream])


@pytest.fixture(autouse=True)
def _no_cache_left() -> Iterator[None]:
    yield
    set_llm_cache(None)


@ways
@pytest.mark.parametrize("by", ["option", "environment"])
@pytest.mark.parametrize("asked", [SIMPLE, MEDIUM, COMPLEX])
@pytest.mark.parametrize("mode", ["observe", "off"])
def test_the_strongest_tier_answers_alone(
    call: Callable[..., Any], by: str, asked: str, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Observing or off, by option or by environment, one call of the strong model answers, and no draft is made."""
    tiers = cheap(UNSURE), strong(BEST)
    if by == "environment":
        monkeypatch.setenv("LLM_COSTOPT", mode)
    router = RouterChatModel(
        cheap=tiers[0], strong=tiers[1], **({"mode": mode} if by == "option" else {}), prices=PRICES
    )
    answer = call(router, asked)

    assert (answer.text, [len(tier.seen) for tier in tiers]) == (BEST, [0, 1])
    assert mark(answer).get("would") == (None if mode == "off" else "strong" if asked == COMPLEX else "cheap")


@ways
def test_what_is_observed_is_in_the_ledger(call: Callable[..., Any], tmp_path: Path) -> None:
    """One command prints, from the ledger alone, what would have been asked and what that would have cost."""
    path = tmp_path / "costs.db"
    handler = CostCallbackHandler(ledger=path, prices=PRICES)
    router = RouterChatModel(cheap=cheap(SURE), strong=strong(BEST), mode="observe", prices=PRICES)
    for asked in (SIMPLE, MEDIUM, MEDIUM, COMPLEX):
        call(router, asked, {"callbacks": [handler]})
    handler.ledger.close()
    ran = CliRunner().invoke(app, ["router", str(path), "--json"])
    found = {(way["tier"], way["drafts"]): way for way in json.loads(ran.output)["ways"]}

    assert {way: one["requests"] for way, one in found.items()} == {
        ("cheap", False): 1,
        ("cheap", True): 2,
        ("strong", False): 1,
    }
    for (tier, drafts), one in found.items():
        assert one["kept"] == pytest.approx(one["paid"] * (0.1 if tier == "cheap" else 1), rel=0.1)
        assert one["rejected"] == pytest.approx(one["kept"] + one["paid"] * drafts)
    printed = " ".join(CliRunner().invoke(app, ["router", str(path)], env={"COLUMNS": "120"}).output.split())
    assert "drafted by cheap" in printed
    assert "Routing would have saved" in printed


def test_a_ledger_of_a_router_that_acts_has_nothing_to_show(tmp_path: Path) -> None:
    """It says how to observe, and counts what has no price apart."""
    path = tmp_path / "costs.db"
    handler = CostCallbackHandler(ledger=path)
    RouterChatModel(cheap=cheap(SURE), strong=strong(BEST)).invoke(SIMPLE, {"callbacks": [handler]})
    with pytest.raises(ValueError, match="no router observed anything; give it mode='observe'"):
        raise CliRunner().invoke(app, ["router", str(path), "--hours", "1"]).exception or AssertionError

    RouterChatModel(cheap=cheap(SURE), strong=strong(BEST), mode="observe").invoke(SIMPLE, {"callbacks": [handler]})
    handler.ledger.close()
    printed = CliRunner().invoke(app, ["router", str(path)]).output
    assert "1 requests have no known price" in printed
    assert "would have saved" not in printed


def test_failures_and_shadow_calls_are_no_observed_requests() -> None:
    """Only what answered a request counts."""
    why = "observe: cheap would draft at 0.5 of the cost; medium"
    records = [
        CallRecord(id=name, at=0.0, model="strong", cost=Decimal(1), why=why, **fields)
        for name, fields in (("a", {}), ("b", {"shadow": True}), ("c", {"error": "TimeoutError"}))
    ]

    assert [(one.requests, one.kept, one.rejected) for one in would_be(records)] == [
        (1, Decimal("0.5"), Decimal("1.5"))
    ]


def test_a_conversation_goes_on_where_it_would_have_been() -> None:
    """A later turn that observes takes the tier that would have answered for the one whose prompt cache is warm."""
    prices = Prices({"cheap": (1, 1, 1), "strong": (2, 2, "0.01")})
    router = RouterChatModel(cheap=cheap(SURE), strong=strong(BEST), mode="observe", prices=prices)
    begin = [SystemMessage(600 * "Be brief. "), HumanMessage(SIMPLE)]
    second = router.invoke([*begin, router.invoke(begin), HumanMessage(SIMPLE)])

    assert "prompt cache" not in mark(second)["why"]
    assert mark(second)["would"] == "cheap"


@ways
def test_the_kill_switch_passes_every_cache_by(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache in front of the router, ours or another one, neither answers nor keeps anything while it is off."""
    for cache in (SemanticCache(), InMemoryCache()):
        model = strong(BEST)
        router = RouterChatModel(tiers=[model], cache=cache)
        call(router, SIMPLE)
        monkeypatch.setenv("LLM_COSTOPT", "off")
        call(router, SIMPLE)
        call(router, SIMPLE)
        assert len(model.seen) == 3
        monkeypatch.delenv("LLM_COSTOPT")
        call(router, SIMPLE)
        assert len(model.seen) == 3


def test_the_monitor_goes_on_while_all_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are recorded as ever, with what they cost."""
    monkeypatch.setenv("LLM_COSTOPT", "off")
    handler = CostCallbackHandler(prices=PRICES)
    RouterChatModel(cheap=cheap(SURE), strong=strong(BEST)).invoke(SIMPLE, {"callbacks": [handler]})
    [record] = handler.ledger.records()

    assert (record.model, record.tier, record.why) == ("strong", "strong", "off: the router is not asked")
    assert record.cost


@pytest.mark.parametrize(("mode", "compared"), [("observe", 1), ("off", 0)])
def test_an_observing_router_may_compare_the_tiers(mode: Any, compared: int) -> None:
    """With a judge the cheap model is asked beside the answer while the router observes, so that it learns; not while it is off."""
    tiers = cheap(SURE), strong(BEST)
    router = RouterChatModel(
        cheap=tiers[0], strong=tiers[1], mode=mode, shadow_rate=1.0, judge=lambda *_: 1.0, prices=PRICES
    )
    assert router.invoke(SIMPLE).text == BEST
    router.settled()

    assert (len(tiers[0].seen), len(tiers[1].seen)) == (compared, 1)


def test_what_was_observed_is_what_routed_requests_are_compared_with() -> None:
    """Without a control arm `ab` holds routed requests against those that a router merely observed, or that came while it was off."""
    handler = CostCallbackHandler(prices=PRICES)
    for mode, times in (("observe", 3), ("off", 2), ("on", 4)):
        router = RouterChatModel(cheap=cheap(SURE), strong=strong(BEST), mode=mode)
        for _ in range(times):
            router.invoke(SIMPLE, {"callbacks": [handler]})
    found = compare(handler.ledger)

    assert (found.routed.requests, found.control.requests) == (4, 5)


def test_a_cache_observes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As LangChain's global cache it lets each call go to the model, and counts what it would have served."""
    cache = SemanticCache(mode="observe")
    set_llm_cache(cache)
    model = scripted("gpt", BEST)
    for _ in range(3):
        model.invoke(SIMPLE)
    stats = cache.stats()

    assert (len(model.seen), stats.hits, stats.would_exact) == (3, 0, 2)


@pytest.mark.parametrize("preset", list(ROUTER))
def test_a_preset_fills_in_and_what_is_given_wins(preset: Any) -> None:
    """A preset is a mapping of the router's own fields; middleware takes it too."""
    router = RouterChatModel(cheap=cheap(SURE), strong=strong(BEST), preset=preset)
    own = RouterChatModel(cheap=cheap(SURE), strong=strong(BEST), preset=preset, cascade="never")
    middle = RouterMiddleware(cheap(SURE), preset=preset).router(strong(BEST))

    assert {name: getattr(router, name) for name in ROUTER[preset]} == ROUTER[preset]
    assert (own.cascade, own.threshold) == ("never", ROUTER[preset]["threshold"])
    assert middle.cascade == router.cascade


def test_presets_and_modes_are_checked() -> None:
    """A wrong word is refused when the router is made."""
    for wrong in ({"preset": "bold"}, {"mode": "dry"}, {"cascade": "often"}, {"endpoints": {"a": "bold"}}):
        with pytest.raises(ValueError, match=r"preset|mode|cascade|bold"):
            RouterChatModel(cheap=cheap(SURE), strong=strong(BEST), **wrong)
    with pytest.raises(ValueError, match="preset is one of"):
        SemanticCache(preset="bold")  # type: ignore[arg-type]


@ways
def test_an_endpoint_has_its_own_settings(call: Callable[..., Any]) -> None:
    """Inside `with endpoint(…)` its word holds for cache and router."""
    tiers: tuple[Scripted, Scripted] = cheap(SURE), strong(BEST)
    router = RouterChatModel(
        cheap=tiers[0],
        strong=tiers[1],
        cache=SemanticCache(endpoints={"drafts": "off"}),
        endpoints={"search": "conservative", "drafts": "observe"},
    )

    def asked(name: str, text: str) -> list[int]:
        before = [len(tier.seen) for tier in tiers]
        with endpoint(name):
            call(router, text)
        return [len(tier.seen) - n for tier, n in zip(tiers, before, strict=True)]

    assert asked("search", MEDIUM) == [0, 1]
    assert asked("faq", MEDIUM) == [1, 0]
    assert asked("drafts", SIMPLE) == asked("drafts", SIMPLE) == [0, 1]


def test_what_may_answer_differently_is_cached_apart() -> None:
    """A cache above the router does not mix answers of one setting with those of another, and keeps what an older release stored."""
    usual = RouterChatModel(cheap=cheap(SURE), strong=strong(BEST), endpoints={"search": "conservative"})
    key = usual._get_llm_string()

    assert "cascade" not in key
    assert "mode" not in key.replace("model", "")
    with endpoint("search"):
        assert usual._get_llm_string() != key
    assert RouterChatModel(cheap=cheap(SURE), strong=strong(BEST), mode="observe")._get_llm_string() != key
    assert isinstance(usual.invoke(SIMPLE), AIMessage)
