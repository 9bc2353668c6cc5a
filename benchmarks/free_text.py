"""Answers in free text for a stream of labels: the same facts in several wordings, other facts in the same wordings.

Each label gets facts of its own: what it is about (its words), where to go, what to do there, how long it takes. Each
row says some of them in one of the wordings below, with or without phrases around, so that two answers to the same
label seldom are equal, and answers to different labels are near misses: the same wording, another fact.
"""

import random
from collections.abc import Sequence
from typing import Any

OPENINGS = (
    "",
    "",
    "Sure, happy to help.",
    "Thanks for asking!",
    "Good question!",
)
WORDINGS = (
    "For {topic}, open {place} and {action}. It takes about {days} days.",
    "To deal with {topic}, you should go to {place}, where you can {action}.",
    "Please {action}. You find that in {place}, and after {days} days it will be done.",
    "That is a matter of {topic}. Our colleagues in {place} need some {days} days once you {action}.",
    "Regarding {topic}: {action}. This is possible in {place} at any hour.",
)
CLOSINGS = (
    "",
    "",
    "Is there anything else you would like to know?",
    "If that fails, write to us.",
)
PLACES = (
    "the settings page,the help centre,the account menu,the mobile app,the front office,the payments tab,the archive,"
    "the travel desk,the kitchen panel,the calendar,the profile screen,the security area,the order list,the library"
).split(",")
ACTIONS = (
    "choose the first entry,fill in the short form,press the green button,call the number on the card,scan the code,"
    "pick a date from the list,upload a photo,confirm your address,start the assistant,send the request,tick the box,"
    "write a message to the team,select a new plan,check the latest entries"
).split(",")


def worded(stream: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each row of *stream* that has none an `answer` in one of the wordings; the same in every run."""
    return [{"answer": answer(row["same_as"], n), **row} for n, row in enumerate(stream)]


def answer(label: str, n: int) -> str:
    """Word the facts of *label* for row *n*."""
    facts = random.Random(label)
    said = {"place": facts.choice(PLACES), "action": facts.choice(ACTIONS), "days": facts.randint(2, 30)}
    row = random.Random(f"{label} {n}")
    wording = " ".join(filter(None, (row.choice(OPENINGS), row.choice(WORDINGS), row.choice(CLOSINGS))))
    return wording.format(topic=label.replace("_", " ").replace("-", " number "), **said)
