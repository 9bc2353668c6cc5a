"""The parts of a question."""

from zlib import crc32

from hypothesis import example, given
from hypothesis import strategies as st

from llm_costopt.cache.reading import pack, places, read, sketch, unpack


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
    assert found.meaning == set(found.content)


@given(st.text(max_size=60))
@example("password, password")
def test_a_sketch_may_be_kept(text: str) -> None:
    """What was packed comes back the same, and holds each word once."""
    found = sketch(text)

    assert unpack(pack(found)) == found
    assert len(places(found.words)) * 2 == len(found.words)


def test_a_sketch_by_other_rules_is_not_used() -> None:
    """What is missing, or was packed by a release with other rules, is told from what can be compared."""
    packed = pack(sketch("reset my password"))

    assert unpack(b"") is None
    assert unpack(bytes([packed[0] + 1]) + packed[1:]) is None


def test_the_rules_of_a_sketch_are_those_that_its_mark_stands_for() -> None:
    """A text's sketch is what this mark has always meant: whoever changes what is in it must change the mark, or files mix both."""
    packed = pack(sketch("Could you please tell me how the 2 KEYBOARD layouts of IT differ?"))

    assert (packed[0], crc32(packed)) == (2, 2672999966)
