"""A route where drafts do not pay goes straight to the strong tier."""

from llm_costopt.router.drafts import FEWEST, PROBE, Drafts, route_of
from llm_costopt.types import Message, Question


def told(drafts: Drafts, n: int, *, escalated: bool, route: str = "r") -> None:
    """Tell of *n* drafts."""
    for _ in range(n):
        drafts.noted(route, escalated=escalated)


def test_a_route_goes_off_when_drafts_lose_money() -> None:
    """Where nearly all drafts are escalated and one costs a fifth of a strong answer, only a few requests draft, to see."""
    drafts = Drafts()
    told(drafts, 60, escalated=True)

    assert [drafts.pay("r", 0.2) for _ in range(PROBE)].count(True) == 1
    assert drafts.pay("another", 0.2)
    assert drafts.pay("r", None)


def test_a_route_stays_on_while_drafts_pay() -> None:
    """Half of the drafts kept pay at a fifth of the price; at nine tenths they do not."""
    drafts = Drafts()
    told(drafts, 50, escalated=True)
    told(drafts, 50, escalated=False)

    assert all(drafts.pay("r", 0.2) for _ in range(PROBE))
    assert not drafts.pay("r", 0.9)


def test_a_few_drafts_prove_nothing() -> None:
    """Before thirty drafts a route is not judged."""
    drafts = Drafts()
    told(drafts, FEWEST - 1, escalated=True)

    assert all(drafts.pay("r", 0.5) for _ in range(PROBE))


def test_a_route_comes_back() -> None:
    """When the drafts of the probes are kept, the route goes on again."""
    drafts = Drafts()
    told(drafts, 100, escalated=True)
    assert not drafts.pay("r", 0.3)
    told(drafts, 300, escalated=False)

    assert all(drafts.pay("r", 0.3) for _ in range(PROBE))


def test_a_route_is_what_an_application_asks_each_time() -> None:
    """The system prompt, the tools and the structure make a route; what the user says does not."""

    def ask(text: str, system: str = "Be brief.", **options: object) -> str:
        messages = (Message(role="system", text=system), Message(role="human", text=text))
        return route_of(Question(messages=messages, **options))  # type: ignore[arg-type]

    assert ask("one") == ask("two")
    assert len({ask("one"), ask("one", "Be kind."), ask("one", with_schema=True), ask("one", tools={"add": {}})}) == 4
