"""The router as a LlamaIndex model."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import ChatPromptTemplate
from llama_index_instrumentation.dispatcher import instrument_tags
from llmock.pytest_plugin import LLMock

from llamaindex_costopt import CachedLLM, CostEventHandler, RouterLLM
from llamaindex_costopt._checks import City, weather_tool
from llm_costopt import Prices, SemanticCache, Usage, endpoint
from llm_costopt.errors import BudgetExceededError
from llm_costopt.router.spending import Budget
from tests.llamaindex.echo import Echo

SIMPLE = "What is the capital of France?"
MEDIUM = "Suggest a name for my bakery"
COMPLEX = "Analyze the risks of opening a bakery"
SURE = "The Crusty Corner is a friendly name."
UNSURE = "I am not sure, perhaps The Crumb."
BEST = "Call it The Golden Loaf, people will remember."

PRICES = Prices({"cheap": (1, 1), "strong": (100, 100)})


def _user(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


async def _all(stream: Any) -> list[Any]:
    return [chunk async for chunk in await stream]


WAYS: dict[str, Callable[[RouterLLM, str], Any]] = {
    "chat": lambda r, text: r.chat(_user(text)),
    "achat": lambda r, text: asyncio.run(r.achat(_user(text))),
    "stream_chat": lambda r, text: list(r.stream_chat(_user(text)))[-1],
    "astream_chat": lambda r, text: asyncio.run(_all(r.astream_chat(_user(text))))[-1],
    "complete": lambda r, text: r.complete(text),
    "acomplete": lambda r, text: asyncio.run(r.acomplete(text)),
    "stream_complete": lambda r, text: list(r.stream_complete(text))[-1],
    "astream_complete": lambda r, text: asyncio.run(_all(r.astream_complete(text)))[-1],
}
every_way = pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS.keys())


def _tiers(*cheap: Any, strong: Any = BEST) -> tuple[Echo, Echo]:
    return Echo(name="cheap", replies=list(cheap)), Echo(name="strong", replies=[strong])


def _text(response: Any) -> str:
    return str(response.message.content if hasattr(response, "message") else response.text)


def _attempts(response: Any) -> list[tuple[str, str]]:
    mark = response.additional_kwargs["llm_costopt"]
    assert json.loads(json.dumps(mark)) == mark
    return [(a["tier"], a["result"]) for a in mark["attempts"]]


@every_way
@pytest.mark.parametrize(
    ("asked", "draft", "said", "attempts"),
    [
        (SIMPLE, "Paris.", "Paris.", [("cheap", "accepted")]),
        (MEDIUM, SURE, SURE, [("cheap", "accepted")]),
        (MEDIUM, UNSURE, BEST, [("cheap", "rejected"), ("strong", "accepted")]),
        (COMPLEX, SURE, BEST, [("strong", "accepted")]),
        (MEDIUM, RuntimeError("down"), BEST, [("cheap", "failed"), ("strong", "accepted")]),
    ],
    ids=["simple", "kept", "escalated", "complex", "fallen back"],
)
def test_requests_find_their_tier(ask: Any, asked: str, draft: Any, said: str, attempts: Any) -> None:
    """Simple, medium and complex requests, doubtful drafts and failures end where they should, in every way of calling."""
    cheap, strong = _tiers(draft)
    response = ask(RouterLLM(cheap=cheap, strong=strong), asked)

    assert _text(response) == said
    assert _attempts(response) == attempts


@every_way
def test_the_decision_tells_what_each_attempt_used(ask: Any) -> None:
    """Tokens, models and reasons of draft and answer are in the response, of a stream once it has ended."""
    cheap, strong = _tiers(UNSURE)
    router = RouterLLM(cheap=cheap, strong=strong)
    decision = router.decision(ask(router, MEDIUM))

    assert decision.escalated
    assert [(a["model"], a["usage"]["input_tokens"], a["usage"]["output_tokens"]) for a in decision.attempts] == [
        ("cheap", 10, len(UNSURE.split())),
        ("strong", 10, len(BEST.split())),
    ]


def test_an_option_that_is_none_is_refused_by_the_provider_alone() -> None:
    """A limit that is a text fails no request here; what a tier makes of it is between the two."""
    cheap, strong = _tiers(SURE)

    assert _text(RouterLLM(cheap=cheap, strong=strong).chat(_user(SIMPLE), max_tokens="5")) == SURE


def test_a_draft_that_is_rejected_is_never_shown() -> None:
    """A stream shows the accepted answer alone, chunk by chunk where it need not be judged."""
    cheap, strong = _tiers(UNSURE)
    chunks = list(RouterLLM(cheap=cheap, strong=strong).stream_chat(_user(MEDIUM)))

    assert "".join(c.delta for c in chunks) == BEST
    assert len(chunks) == len(BEST.split(" "))


def test_an_option_that_there_is_none_of() -> None:
    """A misspelt option is refused by its name."""
    cheap, strong = _tiers(SURE)

    with pytest.raises(ValueError, match=r"budget\n.*not permitted"):
        RouterLLM(cheap=cheap, strong=strong, budget=1)


class Breaking(Echo):
    """Breaks off after its first chunk."""

    def stream_chat(self, messages: Any, **options: Any) -> Any:
        first = next(super().stream_chat(messages, **options))

        def gen() -> Iterator[Any]:
            yield first
            raise RuntimeError("cut off")

        return gen()

    async def astream_chat(self, messages: Any, **options: Any) -> Any:
        async def gen() -> AsyncIterator[Any]:
            for chunk in self.stream_chat(messages, **options):
                yield chunk

        return gen()


@pytest.mark.parametrize("ask", [WAYS["stream_chat"], WAYS["astream_chat"]], ids=["stream", "astream"])
def test_a_tier_whose_streams_break_off_is_left_alone(ask: Any) -> None:
    """Three streams in a row that break after their first chunk count as an outage, as three calls that fail do."""
    first, best = Breaking(name="cheap", replies=[SURE]), Echo(name="strong", replies=[BEST])
    router = RouterLLM(cheap=first, strong=best)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="cut off"):
            ask(router, SIMPLE)

    assert _text(ask(router, SIMPLE)) == BEST
    assert len(first.seen) == 3


def test_an_error_of_the_last_tier_reaches_the_caller() -> None:
    """If nobody can answer, the last tier's error is raised."""
    cheap, strong = _tiers(RuntimeError("one"), strong=ValueError("two"))

    with pytest.raises(ValueError, match="two"):
        RouterLLM(cheap=cheap, strong=strong).chat(_user(MEDIUM))


def test_metadata_promise_what_all_tiers_can_do() -> None:
    """The smallest window and the fewest abilities, before and after any call."""
    cheap, strong = Echo(name="cheap", window=4000, calls_tools=False), Echo(name="strong", window=9000)
    router = RouterLLM(cheap=cheap, strong=strong)
    before = router.metadata
    for asked in (SIMPLE, COMPLEX):
        router.chat(_user(asked))

    assert router.metadata == before
    assert (before.context_window, before.is_function_calling_model, before.model_name) == (
        4000,
        False,
        "router[cheap|strong]",
    )


def test_a_tier_that_cannot_call_tools_is_passed_over() -> None:
    """A request with tools goes to the tier that can call them, and the reason is told."""
    cheap, strong = Echo(name="cheap", calls_tools=False), Echo(name="strong")
    router = RouterLLM(cheap=cheap, strong=strong)
    response = router.chat_with_tools([weather_tool()], user_msg=SIMPLE)

    assert (len(cheap.seen), len(strong.seen)) == (0, 1)
    assert router.decision(response).skipped == {"cheap": "no tools"}
    assert [c.tool_name for c in router.get_tool_calls_from_response(response)] == ["get_weather"]


def test_each_attempt_gets_the_conversation_once() -> None:
    """The list of earlier messages is left alone, and a second attempt does not send the user's turn twice."""
    cheap, strong = _tiers(RuntimeError("down"))
    history = [ChatMessage(role="user", content="Hi"), ChatMessage(role="assistant", content="Hello")]
    RouterLLM(cheap=cheap, strong=strong).chat_with_tools([weather_tool()], user_msg=SIMPLE, chat_history=history)

    assert len(history) == 2
    assert [m.content for m in strong.seen[0][0]] == ["Hi", "Hello", SIMPLE]


def test_tool_required_reaches_the_body(openai: Callable[..., LLM], llmock: LLMock) -> None:
    """What must be a tool call is asked of OpenAI as that."""
    router = RouterLLM(cheap=openai("gpt-4o-mini"), strong=openai("gpt-4o"))
    router.chat_with_tools([weather_tool()], user_msg=SIMPLE, tool_required=True)

    assert [r.body["tool_choice"] for r in llmock.requests] == ["required"]


def test_a_tool_loop_stays_on_its_tier() -> None:
    """What the strong tier asked of a tool is answered by it, though the next step alone would be a simple one."""
    cheap, strong = Echo(name="cheap"), Echo(name="strong")
    levels: Any = iter(["complex", "simple"])
    router = RouterLLM(cheap=cheap, strong=strong, complexity=lambda _: (next(levels), "a test"))

    async def ask() -> Any:
        agent = FunctionAgent(tools=[weather_tool()], llm=router)
        return await agent.run(COMPLEX, memory=ChatMemoryBuffer.from_defaults(token_limit=3000))

    asyncio.run(ask())

    assert (len(cheap.seen), len(strong.seen)) == (0, 2)


PROMPT = ChatPromptTemplate.from_messages([("user", "{question}")])


@pytest.mark.parametrize(
    "ask",
    [
        lambda r: r.structured_predict(City, PROMPT, question=SIMPLE),
        lambda r: asyncio.run(r.astructured_predict(City, PROMPT, question=SIMPLE)),
        lambda r: list(r.stream_structured_predict(City, PROMPT, question=SIMPLE))[-1],
        lambda r: asyncio.run(_all(r.astream_structured_predict(City, PROMPT, question=SIMPLE)))[-1],
        lambda r: City.model_validate_json(r.as_structured_llm(City).chat(_user(SIMPLE)).message.content),
    ],
    ids=["structured", "astructured", "stream", "astream", "as_structured_llm"],
)
def test_a_structure_that_does_not_parse_is_escalated(ask: Any, openai: Callable[..., LLM], llmock: LLMock) -> None:
    """Each tier asks in its own way; a draft that is no such object makes the strong tier answer."""
    llmock.reply('{"name": "Paris"')
    llmock.reply('{"name": "Paris", "population": 2}')
    router = RouterLLM(cheap=openai("gpt-4o-mini"), strong=openai("gpt-4o"), complexity=lambda _: ("medium", "a test"))

    assert ask(router) == City(name="Paris", population=2)
    assert [r.body["model"] for r in llmock.requests] == ["gpt-4o-mini", "gpt-4o"]


def test_the_system_prompt_of_the_tiers_is_sent_once() -> None:
    """What both tiers begin with reaches whichever is asked; tiers that begin differently are refused."""
    cheap, strong = _tiers("Paris.")
    cheap.system_prompt = strong.system_prompt = "Be brief."
    RouterLLM(cheap=cheap, strong=strong).predict(PromptTemplate("{query_str}"), query_str=SIMPLE)

    assert [m.content for m in cheap.seen[0][0]] == ["Be brief.", SIMPLE]
    strong.system_prompt = "Be thorough."
    with pytest.raises(ValueError, match="system_prompt"):
        RouterLLM(cheap=cheap, strong=strong)


def test_no_key_is_told() -> None:
    """The tiers' keys are not in `to_dict()`, a payload or a decision."""
    cheap, strong = _tiers(UNSURE)
    router = RouterLLM(cheap=cheap, strong=strong)
    told = [router.to_dict(), router.to_payload(), router.chat(_user(MEDIUM)).additional_kwargs]

    assert "sk-echo" not in str(told)


def test_what_settings_sets_reaches_all_tiers() -> None:
    """A callback manager that is set on the router is that of its tiers."""
    cheap, strong = _tiers(SURE)
    router = RouterLLM(cheap=cheap, strong=strong)
    router.callback_manager = CallbackManager([])

    assert cheap.callback_manager is strong.callback_manager is router.callback_manager


@every_way
def test_its_cache_is_looked_up_before_routing(ask: Any) -> None:
    """What was answered once, by whichever tier, is answered from store in every way of calling."""
    cheap, strong = _tiers(UNSURE)
    router = RouterLLM(cheap=cheap, strong=strong, cache=SemanticCache(threshold=0.95))
    first, again = ask(router, MEDIUM), ask(router, MEDIUM)

    assert _text(first) == _text(again) == BEST
    assert again.additional_kwargs["llm_costopt"]["cache"] == "exact"
    assert (len(cheap.seen), len(strong.seen)) == (1, 1)


def test_a_budget_is_kept_by_tag() -> None:
    """Requests under a tag stop where its budget ends, and others go on."""
    cheap, strong = _tiers("Paris.")
    budget = Budget(Decimal("0.0004"), per="day", tag="team=a")
    router = RouterLLM(cheap=cheap, strong=strong, prices=PRICES, budgets=[budget])
    with instrument_tags({"team": "a"}):
        router.chat(_user(SIMPLE))
        budget.charge(0.0004)
        with pytest.raises(BudgetExceededError):
            router.chat(_user(SIMPLE))

    assert _text(router.chat(_user(SIMPLE))) == "Paris."


@every_way
def test_an_answer_of_the_batch_api_is_charged_at_its_price(ask: Any) -> None:
    """A budget is charged what a batch costs, and not the list price."""

    class Batched(Echo):
        service_tier: str = "batch"

        def _reply(self, *args: Any) -> ChatResponse:
            reply = super()._reply(*args)
            assert reply.raw
            return reply.model_copy(update={"raw": {**reply.raw, "service_tier": self.service_tier}})

    def price(model: str, usage: Usage, *, provider: str | None = None, batch: bool = False) -> Decimal | None:
        usd = PRICES(model, usage, provider=provider)
        return usd / 2 if usd and batch else usd

    spent = []
    for tier in ("default", "batch"):
        budget = Budget(1)
        ask(RouterLLM(tiers=[Batched(service_tier=tier)], prices=price, budgets=[budget]), "Name it")
        spent.append(float(budget.spent))

    assert 0 < spent[0] == pytest.approx(2 * spent[1])


def test_a_hit_below_the_router_costs_its_budget_nothing() -> None:
    """A tier whose answer came from a cache has spent nothing."""
    cheap, strong = _tiers("Paris.")
    budget = Budget(Decimal(1), per="day")
    tiers = [CachedLLM(cheap, cache=SemanticCache(threshold=0.95)), strong]
    router = RouterLLM(tiers=tiers, prices=PRICES, budgets=[budget])
    router.chat(_user(SIMPLE))
    spent = budget.spent
    router.chat(_user(SIMPLE))

    assert spent > 0
    assert budget.spent == spent


def test_a_target_asks_the_strongest_until_outcomes_prove_another() -> None:
    """With nothing learned, a quality target means the strong tier; its reason says so."""
    cheap, strong = _tiers(SURE)
    router = RouterLLM(cheap=cheap, strong=strong, prices=PRICES, target_quality=0.95)
    response = router.chat(_user(SIMPLE))

    assert _attempts(response) == [("strong", "accepted")]
    assert router.explain(_user(SIMPLE)).tier == "strong"


def test_feedback_is_about_a_call_and_teaches() -> None:
    """A score for a call is remembered as an outcome, and passed on; an unknown call is none."""
    cheap, strong = _tiers("Paris.")
    told: list[tuple[str, float]] = []
    router = RouterLLM(cheap=cheap, strong=strong, on_score=lambda call, score: told.append((call, score)))
    call = router.decision(router.chat(_user(SIMPLE))).attempts[0]["id"]

    assert router.feedback(call, 1.0)
    assert not router.feedback("unknown", 1.0)
    assert told == [(call, 1.0)]
    with pytest.raises(ValueError, match="from 0 to 1"):
        router.feedback(call, 2)


@pytest.mark.parametrize("as_model", [False, True], ids=["function", "model"])
def test_tiers_are_compared_in_the_background(as_model: bool) -> None:
    """The other tier's answer to a drawn request is fetched and judged beside the user's, and recorded as no request of its own."""
    cheap, strong = _tiers("Paris.")
    judge: Any = Echo(name="judge", replies=["SAME"]) if as_model else (lambda *_: 1.0)
    scores: list[float] = []
    handler = CostEventHandler(prices=PRICES).install()
    try:
        router = RouterLLM(
            cheap=cheap, strong=strong, shadow_rate=1.0, judge=judge, on_score=lambda _, score: scores.append(score)
        )
        with endpoint("POST /ask"):
            router.chat(_user(SIMPLE))
        assert router.settled(10)
    finally:
        handler.uninstall()

    assert len(strong.seen) == 1
    assert {r.endpoint for r in handler.records()} == {"POST /ask"}
    assert scores == [1.0]
    assert [r.model for r in handler.records() if not r.shadow] == ["cheap"]
    assert {r.model for r in handler.records() if r.shadow} == ({"strong", "judge"} if as_model else {"strong"})
    assert router.rules.outcomes == 1


def test_a_share_of_the_requests_is_a_control() -> None:
    """With a control share the arm is in the decision and in the record."""
    cheap, strong = _tiers("Paris.")
    handler = CostEventHandler(prices=PRICES).install()
    try:
        router = RouterLLM(cheap=cheap, strong=strong, control_share=1.0)
        decision = router.decision(router.chat(_user(SIMPLE)))
    finally:
        handler.uninstall()

    assert (decision.arm, decision.tier) == ("control", "strong")
    assert [r.arm for r in handler.records()] == ["control"]


def test_models_that_only_complete_are_routed_too() -> None:
    """Completion models get their prompts as they are, in predictions too."""
    router = RouterLLM(cheap=MockLLM(max_tokens=3), strong=MockLLM(max_tokens=5))

    assert router.predict(PromptTemplate("{query_str}"), query_str=SIMPLE) == "text text text"


@pytest.mark.parametrize(
    "wrong", [{}, {"cheap": Echo()}, {"tiers": [Echo()], "cheap": Echo(), "strong": Echo()}, {"tiers": []}]
)
def test_tiers_are_given_in_one_way(wrong: dict[str, Any]) -> None:
    """Either both short names or a list with something in it."""
    with pytest.raises(ValueError, match="tiers"):
        RouterLLM(**wrong)
