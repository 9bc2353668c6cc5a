"""How long answers stay fresh, by kind of content."""

import pytest

from llm_costopt.cache.ttl import HOUR, JITTER, KINDS, MINUTE, TTL, checked, fresh_for, kind_of
from llm_costopt.types import Answer, Message, Question

QUESTION = Question(messages=(Message(role="human", text="Why?"),))
ANSWER = Answer(text="So.")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("What is the price of gold?", "live"),
        ("Who is the current president?", "live"),
        ("What's the latest version of Python?", "live"),
        ("What's the weather in Rome?", "live"),
        ("what happened today", "live"),
        ("How much does the plan cost?", "live"),
        ("gold price", "live"),
        ("Is it raining in Oslo?", "live"),
        ("Who is winning the match?", "live"),
        ("Did the Bergen team win?", "live"),
        ("When is the next train to Turin?", "live"),
        ("Is the museum open?", "live"),
        ("What happened in the vote last night?", "live"),
        ("How many days until the fair?", "live"),
        ("Wie ist das Wetter heute?", "live"),
        ("¿Qué hora es en Lima?", "live"),
        ("Quel est le prix de l'or ?", "live"),
        ("How do I open an account?", "general"),
        ("Write me a short poem about rain", "creative"),
        ("tell a joke", "creative"),
        ("Come up with names for my bakery", "creative"),
        ("haiku about winter", "creative"),
        ("Flip a coin", "creative"),
        ("please pick a random number", "creative"),
        ("Generate a strong password", "creative"),
        ("Schreib ein Gedicht", "creative"),
        ("How do I generate a random number in Python?", "general"),
        ("How do I create a password?", "general"),
        ("Summarize the plot of Hamlet", "summary"),
        ("tl;dr of the second law", "summary"),
        ("Classify this review: great food", "label"),
        ("What is the sentiment of: I like it", "label"),
        ("How do I reset my password?", "general"),
        ("Where do penguins live?", "general"),
        ("Write a function that sorts a list", "general"),
        ("What does the story of Job mean?", "general"),
        ("How do I make chicken stock?", "general"),
        ("", "general"),
    ],
)
def test_the_kind_shows_in_the_words(text: str, kind: str) -> None:
    """What changes by the minute, what should be new each time, summaries and labels are told from the rest."""
    assert kind_of(text) == kind


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        ("static", 24 * HOUR, 72 * HOUR),
        ("summary", 6 * HOUR, 12 * HOUR),
        ("label", 12 * HOUR, 24 * HOUR),
        ("live", 5 * MINUTE, 15 * MINUTE),
        ("creative", 0, 0),
    ],
)
@pytest.mark.parametrize("draw", [0.0, 0.999])
def test_the_defaults_lie_in_the_usual_ranges(kind: str, least: float, most: float, draw: float) -> None:
    """Whatever the jitter draws, each kind's time stays within its range, and creative work gets none."""
    seconds = fresh_for(KINDS, QUESTION, ANSWER, kind, lambda: draw)

    assert seconds is not None
    assert least <= seconds <= most


def test_jitter_only_shortens() -> None:
    """Times spread over the last tenth, so that answers of one moment do not expire together, and none lasts longer."""
    draws = iter(range(10))
    times = [fresh_for(1000.0, QUESTION, ANSWER, "general", lambda: next(draws) / 10) for _ in range(10)]

    assert times == sorted(times, key=lambda t: -(t or 0))
    assert times[0] == 1000.0
    assert all(t is not None and 1000 * (1 - JITTER) < t <= 1000 for t in times)
    assert len(set(times)) == 10


@pytest.mark.parametrize(
    ("ttl", "kind", "seconds"),
    [
        (60.0, "general", 60.0),
        (None, "general", None),
        (HOUR, "live", KINDS["live"]),
        (60.0, "live", 60.0),
        (None, "live", KINDS["live"]),
        (None, "creative", 0.0),
        ({"live": HOUR}, "live", HOUR),
        ({"live": HOUR}, "static", KINDS["static"]),
        ({"creative": None}, "creative", None),
        (lambda question, answer: len(answer.text) * 7.0, "live", 21.0),
    ],
)
def test_the_users_word_comes_first(ttl: TTL, kind: str, seconds: float | None) -> None:
    """One number is for all but what is brief by nature, a mapping for what it names, a function for everything."""
    assert fresh_for(ttl, QUESTION, ANSWER, kind, lambda: 0.0) == seconds


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), {"news": 1}, {"live": -1}, {"live": float("nan")}])
def test_a_time_that_makes_no_sense_is_refused(ttl: TTL) -> None:
    """Numbers that are not above 0 and unknown kinds are errors that name what would be right."""
    with pytest.raises(ValueError, match="ttl"):
        checked(ttl)
