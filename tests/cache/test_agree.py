"""Whether two answers say the same."""

import pytest

from llm_costopt.cache.agree import agree, number

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
