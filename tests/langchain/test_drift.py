"""The measured error of LangChain's cache reaches the alerts."""

from typing import Any

import pytest
from langchain_core.language_models import SimpleChatModel
from langchain_core.messages import BaseMessage

from langchain_costopt import SemanticCache
from llm_costopt.monitor.alert_rules import default_rules
from llm_costopt.monitor.alerts import Alert, Alerts
from tests.cache.test_budget import traffic

HOUR = 3600.0


class House(SimpleChatModel):
    """Answers what it is asked with what it knows."""

    knows: dict[str, str]

    @property
    def _llm_type(self) -> str:
        return "house"

    def _call(self, messages: list[BaseMessage], *_: Any, **__: Any) -> str:
        return self.knows[str(messages[-1].content)]


class Town:
    """A cache over a model, with alerts over a clock that the test sets."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000 * HOUR
        self.told: list[Alert] = []
        drift = [rule for rule in default_rules() if rule.name == "LLMAnswerErrorDrift"]
        self.alerts = Alerts([self.told.append], rules=drift, every=None, clock=lambda: self.now)
        self.cache = SemanticCache(on_score=self.alerts.score, **options)

    def look(self) -> list[tuple[str, str, str]]:
        """Look three times, and list all that was ever told."""
        for _ in range(3):
            self.alerts.check()
        return [(a.name, a.about, a.state) for a in self.told]


@pytest.mark.parametrize("options", [{"shadow_rate": 1.0}, {"mode": "observe"}], ids=["checks", "observes"])
def test_a_cache_that_compares_itself_raises_an_alert_once(options: dict[str, Any]) -> None:
    """After a week of right would-be hits the answers change: the comparisons fail, and one alert says that the cache drifts."""
    town = Town(max_error=0.05, namespace="house", **options)

    def day(seed: int, says: str) -> None:
        requests = traffic(400, seed)
        model = House(knows={text: f"{says}{right}" for text, right in requests}, cache=town.cache)
        for text, _ in requests:
            model.invoke(text)

    day(1, "")
    calm = town.look()
    town.now += 48 * HOUR
    day(2, "no more ")

    assert calm == []
    assert town.look() == [("LLMAnswerErrorDrift", "cache", "firing")]
    assert (town.alerts.failures, town.cache.stats().errors) == (0, 0)


def test_feedback_raises_an_alert_once() -> None:
    """What users say of hits, of the plain rule's too, is a measure as well."""
    town = Town(threshold=0.5)
    model = House(knows={"What is the capital of France?": "Paris"}, cache=town.cache)

    def judged(number: int, *, ok: bool) -> None:
        for _ in range(number):
            model.invoke("What is the capital of France?")
            hit = model.invoke("What is the capital of France?").response_metadata["llm_costopt"]
            assert town.cache.feedback(hit["id"], ok=ok)

    judged(60, ok=True)
    calm = town.look()
    town.now += 48 * HOUR
    judged(60, ok=False)

    assert calm == []
    assert town.look() == [("LLMAnswerErrorDrift", "cache", "firing")]
