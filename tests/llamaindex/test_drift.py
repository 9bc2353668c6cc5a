"""The measured error of LlamaIndex's cache reaches the alerts."""

from llama_index.core.base.llms.types import ChatMessage

from llamaindex_costopt import CachedLLM
from llm_costopt import SemanticCache
from llm_costopt.monitor.alert_rules import default_rules
from llm_costopt.monitor.alerts import Alert, Alerts
from tests.llamaindex.echo import Echo


def test_feedback_raises_an_alert_once() -> None:
    """After a week of right hits users call them wrong: one alert says that the cache drifts."""
    now, told = [3_600_000.0], list[Alert]()
    drift = [rule for rule in default_rules() if rule.name == "LLMAnswerErrorDrift"]
    alerts = Alerts([told.append], rules=drift, every=None, clock=lambda: now[0])
    cache = SemanticCache(threshold=0.95, on_score=alerts.score)
    model = CachedLLM(Echo(replies=["Paris."]), cache=cache)

    def judged(*, ok: bool) -> None:
        for _ in range(60):
            asked = [ChatMessage(role="user", content="What is the capital of France?")]
            model.chat(asked)
            assert cache.feedback(model.chat(asked).additional_kwargs["llm_costopt"]["id"], ok=ok)
        for _ in range(3):
            alerts.check()

    judged(ok=True)
    calm = list(told)
    now[0] += 48 * 3600
    judged(ok=False)

    assert calm == []
    assert [(a.name, a.about, a.state) for a in told] == [("LLMAnswerErrorDrift", "cache", "firing")]
