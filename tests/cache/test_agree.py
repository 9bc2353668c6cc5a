"""Whether two answers say the same."""

import pytest

from llm_costopt.cache.agree import NAMES, agree, joined, known, names, number

SAME = [
    ("card_arrival", "Card arrival."),
    ("Yes.", "yes"),
    ("You can return unused items within 60 days.", "Unused items can be returned within 60 days."),
    (
        "Refunds arrive three days after we receive the parcel.",
        "A refund arrives 3 days after we have received your parcel.",
    ),
    (
        "Open the settings and choose Password to change it.",
        "To change your password, open Settings and choose Password there.",
    ),
]

DIFFERENT = [
    ("change_pin", "get_pin"),
    ("yes", "no"),
    ("Standard delivery costs 4 euros in the whole country.", "Standard delivery costs 9 euros in the whole country."),
    (
        "Press the upper button to enable the alarm for tonight.",
        "Press the upper button to disable the alarm for tonight.",
    ),
    ("You can return unused items within sixty days.", "Our stores open at nine on every day but Sunday."),
    ("We ship to the islands on working days only.", "We do not ship to the islands on working days only."),
    ("Run `git reset --soft HEAD~1` in your working copy.", "Run `git reset --hard HEAD~1` in your working copy."),
    ("-5", "5"),
    ("C++", "C"),
    ("<", ">"),
    ("👍", "👎"),
    ("दिन", "दान"),
    ("5 %", "$5"),
    ("", "Unused items can be returned within 60 days."),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_in_other_words(one: str, other: str) -> None:
    """Other words, another order, a number spelled out and other marks change nothing, from either side."""
    assert agree(one, other)
    assert agree(other, one)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_another_answer(one: str, other: str) -> None:
    """Another label, number, direction or subject is another answer, from either side."""
    assert not agree(one, other)
    assert not agree(other, one)


def test_equal_answers_share_a_number() -> None:
    """Case, spacing and marks change nothing; what differs has another number, which fits a signed integer of a database."""
    assert number("Card arrival.") == number("card_arrival") == number(" CARD  arrival!")
    assert len({number(text) for text in ("card arrival", "arrival card", "C", "C++", "5", "-5", "", "👍", "👎")}) == 9
    assert all(0 <= number(str(n)) < 2**62 for n in range(100))


def test_a_number_is_the_same_in_every_process() -> None:
    """What one process stored, another one recognises."""
    assert number("yes") == 1045233


SENTENCES = [f"Open the settings, choose entry {n} and confirm it." for n in range(NAMES + 1)]


def test_who_agrees_joins_all_the_groups_it_agrees_with() -> None:
    """An answer that says the same as two others has a name in common with both, which have none in common."""
    own, one, other = map(number, SENTENCES[:3])
    both = joined(own, [one, other])

    assert known(both, one)
    assert known(both, other)
    assert known(one, other) is None
    assert joined(own, []) == own


def test_the_groups_that_most_agree_with_are_kept() -> None:
    """Of more groups than there is room for, the one that fewest speak for is left out, and the number stays in its range."""
    numbers = [number(text) for text in SENTENCES]
    rare, *frequent = (names(one)[0] for one in numbers)
    kept = joined(numbers[0], [*numbers, *numbers[1:]])

    assert set(names(kept)) == set(frequent)
    assert rare not in names(kept)
    assert 0 <= kept < 2**62


def test_only_prose_must_be_compared() -> None:
    """Two short answers, or a short one and a sentence, say the same or not by their numbers alone."""
    assert known(number("yes"), number("Yes.")) is True
    assert known(number("yes"), number("no")) is False
    assert known(number("yes"), number(SENTENCES[0])) is False
