"""A decision that can be read, kept and read back."""

import json
from typing import Any

import pytest

from llm_costopt.router.decision import Decision

DECISION = Decision(
    complexity="medium",
    why="no rule applies",
    tier="strong",
    escalated=True,
    at=1.0,
    skipped={"tier 2": "no images"},
    unknown={"strong": "tools"},
    arm="routed",
    right={"cheap": 0.61, "strong": 0.9},
    cost={"cheap": 0.0001, "strong": 0.002},
    propensity={"cheap": 1.0, "strong": 0.02},
    attempts=(
        {"tier": "cheap", "model": "mini", "result": "rejected", "confidence": 0.4, "why": "hedging"},
        {"tier": "strong", "model": None, "result": "accepted", "confidence": None, "why": None},
    ),
)


def test_it_explains_itself() -> None:
    """Each reason is a line: what was found, who was left out, what was expected, what came of each call."""
    assert DECISION.explain().splitlines() == [
        "medium: no rule applies",
        "tier 2 is not asked: no images",
        "nobody says whether strong has what it takes: tools",
        "right with cheap 61%, strong 90%",
        "would cost cheap $0.000100, strong $0.002000",
        "cheap (mini): rejected at 0.40 (hedging)",
        "strong (unknown model): accepted",
        "strong answers",
    ]


def test_it_comes_back_from_json() -> None:
    """As JSON it keeps all there is, leaves out what there is none of, and bears other keys beside it."""
    said = json.loads(json.dumps(DECISION.to_dict()))

    assert Decision.from_dict({**said, "cache": "exact"}) == DECISION
    assert "arm" not in Decision(complexity="simple", why="", tier="cheap", at=0.0).to_dict()
    others: list[dict[str, Any]] = [{}, {"attempts": []}, {"attempts": None}]
    for other in others:
        with pytest.raises(ValueError, match=r"^this answer carries no decision of a router$"):
            Decision.from_dict(other)
