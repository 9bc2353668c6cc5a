"""Targets, budgets, comparisons and reasons of a router, through LangChain."""

import asyncio
import random
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import ConfigurableField

from langchain_costopt import CostCallbackHandler, RouterChatModel
from llm_costopt import Budget, BudgetExceededError, Ledger, Prices
from llm_costopt.monitor.prometheus import PrometheusExporter
from llm_costopt.router.learned import LearnedRules
from llm_costopt.types import Answer, CallRecord, Question, Usage
from tests.scripted import (
    BEST,
    COMPLEX,
    MEDIUM,
    SIMPLE,
    SOON,
    SURE,
    UNSURE,
    Breaking,
    Scripted,
    both_streams,
    cheap,
    each_colour,
    every_way,
    mark,
    scripted,
    strong,
)

PRICES = Prices({"cheap": (1, 2), "strong": (20, 40), "middle": (5, 10)})


def routed(first: Scripted | None = None, best: Scripted | None = None, **options: Any) -> RouterChatModel:
    """Make a router over two tiers with known prices."""
    return RouterChatModel(cheap=first or cheap(SURE), strong=best or strong(), **{"prices": PRICES, **options})


def as_good(_: Question, answer: Answer, reference: Answer) -> float:
    """Judge every answer as good as the reference."""
    return 1.0


def no_good(_: Question, answer: Answer, reference: Answer) -> float:
    """Judge no answer as good as the reference."""
    return 0.0


def test_a_target_without_outcomes_means_strong_calls() -> None:
    """As long as nothing is proven the strong model answers, and the reason says how little is known."""
    message = routed(target_quality=0.95).invoke(MEDIUM)

    assert message.text == BEST
    assert "0 outcomes" in mark(message)["why"]


@pytest.mark.parametrize("told", [RuntimeError(), "dear", -1, float("nan"), float("inf"), None])
@every_way
def test_a_price_list_that_fails_later_breaks_no_call(call: Any, told: Any) -> None:
    """What was expected stays booked where the user's own price list fails for what was really used."""
    calls: list[str] = []

    def price(model: str, usage: Usage, *, provider: str | None = None) -> Any:
        calls.append(model)
        if len(calls) <= 6:  # the rates of both tiers
            return Decimal(usage.input_tokens + usage.output_tokens) / (1 if model == "strong" else 10)
        if isinstance(told, Exception):
            raise told
        return told

    budget = Budget(10_000)
    router = RouterChatModel(cheap=cheap(SURE), strong=strong(), prices=price, budgets=[budget])
    message = call(router, MEDIUM)

    assert message.content == SURE
    assert budget.spent == Decimal(str(mark(message)["cost"]["cheap"]))


def test_a_model_without_a_name_has_no_price() -> None:
    """The way out is a name, since no price list could hold the model."""
    nameless = FakeListChatModel(responses=["Yes."])
    with pytest.raises(ValueError, match="give the model a field `model` or `model_name`"):
        RouterChatModel(cheap=nameless, strong=nameless, budgets=[Budget(1)])


@pytest.mark.parametrize("told", ["dear", -1, float("nan"), float("inf")])
def test_a_price_that_is_none(told: Any) -> None:
    """What is no amount of money counts as an unknown price, and a limit in US dollars is refused at once."""
    with pytest.raises(ValueError, match="needs the price of each tier"):
        RouterChatModel(cheap=cheap(SURE), strong=strong(), prices=lambda *_, **__: told, budgets=[Budget(1)])


@pytest.mark.parametrize(("judge", "text"), [(as_good, SURE), (no_good, BEST)])
def test_comparisons_move_a_router_to_its_target(judge: Callable[..., float], text: str) -> None:
    """Comparisons prove that the cheap model keeps the quality, and it is asked; where they prove the contrary, it is not."""
    router = routed(target_quality=0.95, shadow_rate=1.0, judge=judge)
    for n in range(150):
        router.invoke(f"{MEDIUM} {n}")
        assert router.settled(30)

    assert router.rules.outcomes == 150
    assert router.invoke(MEDIUM).text == text
    assert "140 outcomes" in router.rules.explanation  # the point is chosen anew at every tenth more


@every_way
def test_a_comparison_is_made_beside_the_call(call: Any) -> None:
    """The other tier is asked with the same request, once; its calls are in the records as shadow calls, and the score is kept."""
    first, best, scores = cheap(SURE), strong(), []
    records: list[CallRecord] = []
    router = routed(first, best, shadow_rate=1.0, judge=as_good, on_score=lambda *told: scores.append(told))
    handler = CostCallbackHandler(prices=PRICES, on_record=records.append)
    message = call(router, MEDIUM, {"callbacks": [handler]})
    assert router.settled(30)

    assert message.text == SURE
    assert (len(first.seen), len(best.seen)) == (1, 1)
    assert best.seen[0].messages == first.seen[0].messages
    assert sorted((r.tier, r.shadow) for r in records) == [("cheap", False), ("strong", True)]
    assert scores == [(mark(message)["attempts"][0]["id"], 1.0)]
    assert mark(message)["propensity"] == {"cheap": 1.0, "strong": 1.0}
    assert handler.summary().requests == 1


def test_a_chat_model_may_judge() -> None:
    """A model that is asked which answer is better gives the labels, and its calls are paid for, so they are recorded."""
    judge = scripted("judge", "SAME")
    records: list[CallRecord] = []
    router = routed(shadow_rate=1.0, judge=judge)
    router.invoke(MEDIUM, {"callbacks": [CostCallbackHandler(on_record=records.append)]})
    assert router.settled(30)

    assert MEDIUM in str(judge.seen[0].messages[0].content)
    assert BEST in str(judge.seen[0].messages[0].content)
    assert router.rules.outcomes == 1
    assert [r.model for r in records if r.shadow] == ["strong", "judge"]


def test_a_comparison_that_fails_costs_the_user_nothing() -> None:
    """A judge that raises and a tier that fails leave the answer as it is, and are counted."""

    def broken(*_: object) -> float:
        raise ZeroDivisionError

    router = routed(shadow_rate=1.0, judge=broken)
    assert router.invoke(MEDIUM).text == SURE
    assert router.settled(30)
    assert router.memory is not None
    assert router.memory.shadow.dropped == 1
    assert router.rules.outcomes == 0


def test_what_was_learned_outlives_the_process(tmp_path: Any) -> None:
    """Saved and given to another router, it answers at the same operating point at once."""
    router = routed(target_quality=0.95, shadow_rate=1.0, judge=as_good)
    for n in range(100):
        router.invoke(f"{MEDIUM} {n}")
    assert router.settled(60)
    router.rules.save(tmp_path / "router.json")
    again = routed(target_quality=0.95, learned=LearnedRules.load(tmp_path / "router.json"))

    assert again.invoke(MEDIUM).text == SURE
    assert again.rules.outcomes == 100


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_share_of_strong_calls_holds(share: float) -> None:
    """However many requests look complex, no more than the share goes to the strong model, and hardly fewer."""
    router, rng = routed(max_strong_share=share), random.Random(3)
    tiers = [mark(router.invoke(rng.choice([SIMPLE, MEDIUM, COMPLEX, COMPLEX])))["tier"] for _ in range(400)]

    assert share * 0.8 < tiers.count("strong") / 400 <= share + 0.01


def test_a_strong_call_that_fails_is_no_part_of_its_share() -> None:
    """After an outage of the strong tier its share is what it was: nothing has to be paid back for answers that nobody got."""
    best = scripted("strong", *[ConnectionError()] * 30, BEST)
    first = cheap(SURE)
    first.profile = ModelProfile(tool_calling=False)
    router = routed(first, best, max_strong_share=0.5)
    tooled = router.bind_tools([{"type": "function", "function": {"name": "add", "parameters": {}}}])
    for _ in range(30):
        with pytest.raises(ConnectionError):
            tooled.invoke(COMPLEX)

    assert mark(router.invoke(COMPLEX))["tier"] == "strong"


@pytest.mark.parametrize(
    "limit",
    [{"max_cost_per_request": 1}, {"target_quality": 0.9}, {"max_strong_share": 0.5}, {"budgets": [Budget(1)]}],
    ids=str,
)
def test_a_single_tier_that_is_free_keeps_every_limit(limit: dict[str, Any]) -> None:
    """A cached local model without a price is asked under whatever limit."""
    router = RouterChatModel(tiers=[cheap(SURE)], prices=Prices({"cheap": (0, 0)}), **limit)

    assert router.invoke(MEDIUM).text == SURE


def test_a_mean_cost_holds() -> None:
    """The mean cost of the requests stays below the limit, whatever they ask."""
    ledger = Ledger()
    router = routed(cheap("word " * 300), strong("word " * 300), max_cost_per_request=0.004)
    handler = CostCallbackHandler(ledger=ledger, prices=PRICES)
    for _ in range(200):
        router.invoke(COMPLEX, {"callbacks": [handler]})
    mean = handler.summary(None).cost_per_request

    assert mean is not None
    assert Decimal("0.003") < mean <= Decimal("0.0042")


def test_a_budget_first_saves_and_then_stops() -> None:
    """As money runs out complex requests go to the cheap model, and then a request is refused before any call."""
    budget = Budget("0.1", per="month", clock=lambda: 0.0)
    first, best = cheap("word " * 300), strong("word " * 300)
    router, tiers = routed(first, best, budgets=[budget]), []

    def spend() -> None:
        for _ in range(1000):
            tiers.append(mark(router.invoke(COMPLEX))["tier"])  # noqa: PERF401 - it ends with an error

    with pytest.raises(BudgetExceededError, match=r"\$0.1 per month"):
        spend()

    assert (tiers[0], tiers[-1]) == ("strong", "cheap")
    assert len(first.seen) + len(best.seen) == len(tiers)
    assert Decimal("0.095") < budget.spent <= Decimal("0.1")


@each_colour
def test_a_budget_of_a_tag(call: Any) -> None:
    """Only requests with the tag count and are stopped."""
    budget = Budget("0.000001", tag="search")
    router = routed(budgets=[budget])
    assert call(router, MEDIUM).text == SURE
    with pytest.raises(BudgetExceededError, match="'search'"):
        call(router, MEDIUM, {"tags": ["search"]})

    assert budget.spent == 0


def test_what_was_reserved_is_corrected() -> None:
    """After the call a budget holds what it cost, not what it was expected to cost; a failed call costs nothing."""
    budget = Budget(1)
    router = routed(cheap(OSError()), strong("one two three"), budgets=[budget])
    router.invoke(SIMPLE)

    assert budget.spent == pytest.approx(Decimal((10 * 20 + 3 * 40) / 10**6))


@pytest.mark.parametrize("limit", [{"target_quality": 0.9}, {"max_cost_per_request": 1}, {"budgets": [Budget(1)]}])
def test_a_limit_needs_prices(limit: dict[str, Any]) -> None:
    """A target or a limit in dollars over a model whose price nobody knows is refused with the line that helps."""
    with pytest.raises(ValueError, match=r"prices=Prices\(\{'cheap': \(input, output\)\}\)"):
        RouterChatModel(cheap=cheap(SURE), strong=strong(), **limit)


def test_a_comparison_needs_a_judge() -> None:
    """A shadow share without a judge is refused at once."""
    with pytest.raises(ValueError, match="judge="):
        routed(shadow_rate=0.1)


def test_a_control_arm() -> None:
    """The share that is not routed goes to the strong model, and records and decisions name both arms."""
    records: list[CallRecord] = []
    router = routed(control_share=0.5)
    handler = CostCallbackHandler(prices=PRICES, on_record=records.append)
    tiers = {(d["arm"], d["tier"]) for d in (mark(router.invoke(MEDIUM, {"callbacks": [handler]})) for _ in range(60))}

    assert tiers == {("control", "strong"), ("routed", "cheap")}
    assert {(r.arm, r.tier) for r in records} == tiers


@each_colour
def test_the_control_arm_refuses_no_request(call: Any) -> None:
    """A request that the budget holds on the cheap tier alone is answered there and counts for no arm, and is not refused by lot."""
    router = routed(control_share=1.0, budgets=[Budget("0.002")])
    message = call(router, MEDIUM)

    assert message.content == SURE
    assert (mark(message)["tier"], mark(message).get("arm")) == ("cheap", None)


def test_what_is_not_read_to_its_end_is_paid_as_expected() -> None:
    """The provider is paid for a stream that is closed, and does not say how much: the budget holds what it expected."""
    budget = Budget(1)
    router = routed(budgets=[budget])
    expected = router.explain(SIMPLE).cost
    assert expected is not None
    shown = router.stream(SIMPLE)
    next(shown)
    shown.close()  # type: ignore[attr-defined]

    assert float(budget.spent) == pytest.approx(expected["cheap"])


def test_comparisons_are_paid_from_the_budget() -> None:
    """What the other tier says beside the answer costs its price, whoever reads it."""
    budget = Budget(1)
    router = routed(shadow_rate=1.0, judge=as_good, budgets=[budget])
    cost = mark(router.invoke(MEDIUM))["cost"]
    assert router.settled(30)

    assert float(budget.spent) == pytest.approx(10e-6 + 7 * 2e-6 + cost["strong"])


def test_reasons_before_and_after() -> None:
    """A decision can be had without any call, and be read back from the answer; the record has its reason too."""
    first, best = cheap(UNSURE), strong()
    records: list[CallRecord] = []
    router = routed(first, best)
    planned = router.explain(MEDIUM)
    assert (first.seen, best.seen) == ([], [])
    answer = router.invoke(MEDIUM, {"callbacks": [CostCallbackHandler(on_record=records.append)]})
    decision = router.decision(answer)

    assert (planned.tier, planned.complexity) == ("cheap", "medium")
    assert decision.explain().splitlines()[-1] == "strong answers"
    assert "cheap (cheap): rejected" in decision.explain()
    assert [r.why for r in records] == ["no rule applies", "no rule applies"]
    with pytest.raises(ValueError, match="no decision"):
        router.decision(AIMessage("hello"))


def test_what_nobody_said_of_a_model_is_said() -> None:
    """Where a profile does not say whether a model takes images, it is asked, and the decision says that this was a guess."""
    picture = HumanMessage(
        [{"type": "text", "text": MEDIUM}, {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]
    )
    decision = routed().explain([picture])

    assert decision.unknown == {"cheap": "images", "strong": "images"}


def test_copies_share_what_is_known() -> None:
    """A router configured for one call counts on the same budget, and feedback reaches what it answered."""
    budget = Budget(1)
    router = routed(cheap(UNSURE), budgets=[budget])
    bold = router.configurable_fields(threshold=ConfigurableField("threshold"))
    answer = bold.invoke(MEDIUM, {"configurable": {"threshold": 0.1}})

    assert answer.text == UNSURE
    assert budget.spent > 0
    assert router.feedback(mark(answer)["attempts"][0]["id"], 1.0)
    assert router.model_copy(update={"threshold": 0.1}).invoke(MEDIUM).text == UNSURE


LONG = "word " * 2000


@each_colour
def test_a_conversation_stays_where_its_turns_are_cached(call: Any) -> None:
    """While the provider has the turns in its cache, and that makes the strong model the cheaper one, it goes on answering."""
    router = routed(prices=Prices({"cheap": ("5", "10", "5"), "strong": ("6", "12", "0.5")}))
    first = call(router, f"Analyze this.\n\n{LONG}")
    history = [HumanMessage(LONG), first]
    stale = first.model_copy(deep=True)
    stale.response_metadata["llm_costopt"]["at"] = time.time() - 3600

    assert mark(first)["tier"] == "strong"
    assert mark(call(router, [*history, HumanMessage(SIMPLE)]))["tier"] == "strong"
    assert mark(call(router, [HumanMessage(LONG), stale, HumanMessage(SIMPLE)]))["tier"] == "cheap"
    assert mark(call(routed(), [*history, HumanMessage(SIMPLE)]))["tier"] == "cheap"


def test_a_route_turns_its_drafts_off() -> None:
    """Where drafts at half the price are always rejected, the router stops asking for them, but for a probe now and then."""
    first, best = cheap(UNSURE), strong()
    router = routed(first, best, prices=Prices({"cheap": (10, 20), "strong": (20, 40)}))
    for _ in range(130):
        router.invoke(MEDIUM)

    assert len(best.seen) == 130
    assert 30 <= len(first.seen) < 50
    assert "drafts do not pay" in router.explain(MEDIUM).why


def test_failures_of_all_tiers_count() -> None:
    """A request that every tier fails counts for the cool-down of each, though its error reaches the user."""
    first = cheap(TimeoutError())
    router = routed(first, strong(TimeoutError()))
    for _ in range(5):
        with pytest.raises(TimeoutError):
            router.invoke(MEDIUM)

    assert len(first.seen) == 3


async def test_many_at_once_under_a_budget() -> None:
    """Of many concurrent requests as many are answered as the budget holds, in whatever order they end."""
    budget = Budget("0.01", per="month", clock=lambda: 0.0)
    router = routed(cheap("word " * 300), strong("word " * 300), budgets=[budget])
    found = await asyncio.gather(*(router.ainvoke(COMPLEX) for _ in range(100)), return_exceptions=True)
    answered = [x for x in found if isinstance(x, AIMessage)]

    assert 0 < len(answered) < 100
    assert all(isinstance(x, BudgetExceededError) for x in found if not isinstance(x, AIMessage))
    assert budget.spent <= Decimal("0.0106")


@every_way
def test_a_fall_back_is_one_request(call: Any) -> None:
    """A tier that failed and the one that stood in are one request that did not fail, also in the ledger."""
    ledger = Ledger()
    router = routed(cheap(TimeoutError()), strong())
    call(router, MEDIUM, {"callbacks": [CostCallbackHandler(prices=PRICES, ledger=ledger)]})
    summary = ledger.summary(None)
    [request] = ledger.requests(None)

    assert (summary.requests, summary.calls, summary.errors) == (1, 2, 1)
    assert request.failed is False


@both_streams
def test_an_answer_that_breaks_off_is_a_request_that_failed(chunks: Any) -> None:
    """Nobody stands in once something was shown: the request counts, and as failed, whichever tier it was on."""
    costs = CostCallbackHandler(prices=PRICES)
    broken = Breaking(AIMessage(SURE), TimeoutError())
    with pytest.raises(TimeoutError):
        chunks(routed(scripted("cheap", broken)).with_config(callbacks=[costs]), SIMPLE)
    summary, [request] = costs.summary(None), costs.ledger.requests(None)

    assert (summary.requests, summary.errors, request.failed) == (1, 1, True)


@pytest.mark.parametrize("stopped", [KeyboardInterrupt(), asyncio.CancelledError(), SystemExit()], ids=repr)
def test_an_interrupted_call_is_a_request_that_failed(stopped: BaseException) -> None:
    """Nor does anybody stand in for a call that was interrupted."""

    class Stopped(Scripted):
        def _generate(self, *_: Any, **__: Any) -> ChatResult:
            raise stopped

    costs = CostCallbackHandler(prices=PRICES)
    with pytest.raises(type(stopped)):
        routed(Stopped(model_name="cheap", replies=[])).invoke(SIMPLE, {"callbacks": [costs]})

    assert (costs.summary(None).requests, costs.summary(None).errors) == (1, 1)


def test_a_tier_that_fails_after_a_rejected_draft_is_the_same_request() -> None:
    """The tier that stands in for a failed one replaces the draft: ledger and metrics count one request, escalated, draft included."""
    metrics, ledger = PrometheusExporter(), Ledger()
    costs = CostCallbackHandler(prices=PRICES, ledger=ledger, on_record=metrics)
    router = RouterChatModel(tiers=[cheap(UNSURE), scripted("middle", TimeoutError()), strong()], prices=PRICES)
    router.invoke(MEDIUM, {"callbacks": [costs]})
    summary, [request] = ledger.summary(None), ledger.requests(None)
    counted = {s.name: s.value for m in metrics.registry.collect() for s in m.samples if s.name.startswith("llm_r")}

    assert (summary.requests, summary.escalation_rate) == (1, 1.0)
    assert request.cost == float(summary.cost_usd)
    assert (counted["llm_requests_total"], counted["llm_routed_requests_total"]) == (1, 1)


by_generate = pytest.mark.parametrize(
    "call",
    [
        lambda router, **about: router.generate([[HumanMessage(SIMPLE)]], **about),
        lambda router, **about: asyncio.run(router.agenerate([[HumanMessage(SIMPLE)]], **about)),
    ],
    ids=["generate", "agenerate"],
)


@by_generate
def test_a_budget_of_a_tag_holds_by_generate(call: Any) -> None:
    """Where the router is itself the model that runs, its calls carry the request's tags to a budget."""
    budget = Budget(1, tag="search")
    router = routed(budgets=[budget])
    call(router)
    untagged = budget.spent
    call(router, tags=["search"])

    assert untagged == 0 < budget.spent


@by_generate
def test_what_is_compared_by_generate_is_told_to_handlers(call: Any) -> None:
    """Where the tiers are silent, the calls beside the request are not: they are paid for, and the router's message lacks them."""
    costs = CostCallbackHandler(prices=PRICES)
    router = routed(shadow_rate=1.0, judge=scripted("strong", "1"))
    call(router, callbacks=[costs], tags=["search"], metadata={"endpoint": "ask"})
    assert router.settled(SOON)
    summary, found = costs.summary(None), costs.records()

    assert (summary.requests, summary.calls, summary.shadow_calls) == (1, 3, 2)
    assert {record.model for record in found if record.shadow} == {"strong"}
    assert all("search" in record.tags and record.endpoint == "ask" for record in found)


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_what_is_compared_is_no_part_of_an_event_stream() -> None:
    """A stream of version 3, in which the router is itself the model, shows the answer and no word of a call beside it."""
    router = routed(shadow_rate=1.0, judge=as_good)
    events = await router.astream_events(SIMPLE, version="v3")

    assert await events.text == SURE
    assert router.settled(SOON)


def half_in_batch(model: str, usage: Usage, *, provider: str | None = None, batch: bool = False) -> Decimal | None:
    """Price as PRICES does, and half of that in a batch."""
    usd = PRICES(model, usage, provider=provider)
    return usd / 2 if usd and batch else usd


@every_way
def test_an_answer_of_the_batch_api_is_charged_at_its_price(call: Any) -> None:
    """A budget is charged what a batch costs, and not the list price."""
    spent = []
    for tier in ("default", "batch"):
        budget = Budget(1)
        answer = AIMessage(SURE, response_metadata={"service_tier": tier})
        call(routed(cheap(answer), prices=half_in_batch, budgets=[budget]), SIMPLE)
        spent.append(float(budget.spent))

    assert 0 < spent[0] == pytest.approx(2 * spent[1])


def test_an_answer_of_the_batch_api_by_generate_is_kept_as_that() -> None:
    """Where the router's own message tells of its attempts, it says of each whether it was paid at the price of a batch."""
    costs = CostCallbackHandler(prices=half_in_batch)
    batched = cheap(AIMessage(SURE, response_metadata={"service_tier": "batch"}))
    routed(batched).generate([[HumanMessage(SIMPLE)]], callbacks=[costs])
    [record] = costs.records()

    assert record.usage
    assert (record.batch, record.cost) == (True, half_in_batch("cheap", record.usage, batch=True))


@each_colour
def test_a_hit_below_the_router_costs_nothing(call: Any) -> None:
    """What the cache of a tier answers is not charged to a budget."""
    budget = Budget(1)
    router = routed(cheap(SURE).model_copy(update={"cache": InMemoryCache()}), budgets=[budget])
    call(router, SIMPLE)
    paid = budget.spent
    call(router, SIMPLE)

    assert budget.spent == paid > 0
