"""The loopback server that plays a log back, over real HTTP."""

import pytest
from openai import NotFoundError, OpenAI

from llm_costopt.demo.log import LoggedRequest, Recorded
from llm_costopt.demo.playback import Playback, serving


def _row(name: str, text: str, answer: str) -> LoggedRequest:
    recorded = Recorded(content=answer, right=True, prompt_tokens=7, completion_tokens=3, latency_ms=100.0)
    return LoggedRequest(
        id=name,
        messages=[{"role": "user", "content": text}],
        same_as=name,
        answers={"cheap": recorded, "strong": recorded},
        has_answers=True,
    )


def _ask(url: str, text: str, model: str = "big", *, stream: bool = False) -> tuple[str, str | None, int]:
    with OpenAI(base_url=url, api_key="recorded", max_retries=0) as client:
        reply = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": text}], extra_body={"stream": stream}
        )
    assert reply.usage is not None
    return reply.id, reply.choices[0].message.content, reply.usage.total_tokens


def test_answers_are_played_back_in_turn() -> None:
    """A request that was logged twice gets its two answers one after the other, and after a rewind again."""
    playback = Playback([_row("a", "hi", "one"), _row("b", "hi", "two")], {"big": "strong"})
    with serving(playback) as url:
        replies = [_ask(url, "hi") for _ in range(2)]
        playback.rewind()
        again = _ask(url, "hi")

    assert replies == [("chatcmpl-a-strong", "one", 10), ("chatcmpl-b-strong", "two", 10)]
    assert again == replies[0]


def test_recorded_model_time_adds_up() -> None:
    """The server answers at once and reports the model time that the log recorded."""
    playback = Playback([_row("a", "hi", "one")], {"big": "strong"})
    with serving(playback) as url:
        _ask(url, "hi")
        _ask(url, "hi")

    assert playback.model_ms() == 200.0
    assert playback.model_ms() == 0.0


@pytest.mark.parametrize(
    ("text", "model", "stream"), [("other", "big", False), ("hi", "small", False), ("hi", "big", True)]
)
def test_what_is_not_recorded_is_an_error(text: str, model: str, stream: bool) -> None:
    """Another request, another model and a stream get the provider's kind of error, which says why."""
    playback = Playback([_row("a", "hi", "one")], {"big": "strong"})
    with serving(playback) as url, pytest.raises(NotFoundError, match="only plays back"):
        _ask(url, text, model, stream=stream)
