"""What providers report, in the core's words."""

import pytest

from llm_costopt.reported import counted, finish_of, usage_of_openai
from llm_costopt.types import Usage


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"finish_reason": "stop"}, "stop"),
        ({"stop_reason": "max_tokens"}, "length"),
        ({"finish_reason": "SAFETY"}, "filter"),
        ({"incomplete_details": {"reason": "max_output_tokens"}, "finish_reason": "stop"}, "length"),
        ({"status": "incomplete"}, "length"),
        ({"status": "done"}, None),
        ({"finish_reason": "other"}, "other"),
    ],
)
def test_every_provider_stops_for_the_same_few_reasons(info: dict[str, object], said: str | None) -> None:
    """The providers' words for an end become the core's; an unknown one stays, and none is none."""
    assert finish_of(info) == said


def test_usage_of_openai_is_read_with_its_parts() -> None:
    """Cached, reasoning and audio tokens are parts of the whole; zeros and other shapes are nothing."""
    reported = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }

    assert usage_of_openai(reported) == Usage(
        input_tokens=10, output_tokens=5, cache_read_tokens=4, reasoning_tokens=2, input_audio_tokens=1
    )
    assert usage_of_openai({"prompt_tokens": 0, "completion_tokens": 0}) is None
    assert usage_of_openai({"input_tokens": 3}) is None
    assert counted(input_tokens=None, output_tokens=1) == Usage(input_tokens=0, output_tokens=1)


@pytest.mark.parametrize(("total", "output"), [(22, 12), (15, 5), (None, 5)])
def test_reasoning_beside_the_output_is_added_to_it(total: int | None, output: int) -> None:
    """Grok counts it apart, which its total tells; elsewhere it is a part of the output already."""
    reported = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": total,
        "completion_tokens_details": {"reasoning_tokens": 7},
    }

    assert usage_of_openai(reported) == Usage(input_tokens=10, output_tokens=output, reasoning_tokens=7)
