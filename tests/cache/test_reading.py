"""The parts of a question."""

from hypothesis import given
from hypothesis import strategies as st

from llm_costopt.cache.reading import read, sketch


def test_the_sketch_of_trigrams_sees_spelling_and_neighbours() -> None:
    """Case and marks change nothing, a near spelling shares most, another order of words loses what spans the spaces."""
    plain, near = sketch("reset my password").trigrams, sketch("resetting my passwords").trigrams
    turned = sketch("password my reset").trigrams

    assert sketch("Reset my PASSWORD?!").trigrams == plain
    assert (plain & near).bit_count() > 0.7 * plain.bit_count()
    assert turned != plain
    assert sketch("?!").trigrams == 0


@given(st.text(max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    """Whatever the characters, the parts agree with each other, and reading it again gives the same."""
    found = read(text)

    assert found == read.__wrapped__(text)
    assert sketch(text).length == sketch(text).trigrams.bit_count()
    assert found.meaning == set(found.content)
