"""Evidence, the model that weighs it, and the budget that bounds what is served."""

import json
import random

import numpy as np
import pytest

from llm_costopt.cache.agree import joined
from llm_costopt.cache.budget import ErrorBudget
from llm_costopt.cache.reading import sketch
from llm_costopt.cache.verifier import BATCH, Verifier
from llm_costopt.cache.verify import FEATURES, Neighbour, candidate, evidence, together

ASKED = "how do i reset my password"


def near(similarity: float, says: int = 1, text: str = "how can I reset my password?") -> Neighbour:
    """Make a neighbour."""
    return Neighbour("1", similarity, text, says, *sketch(text))


def test_the_candidate_is_the_nearest_that_no_guard_refuses() -> None:
    """A nearer one with another number is passed over; one that is far away is none."""
    passed_over = near(0.9, text="how do i reset my password 7 times")

    assert candidate(ASKED, [passed_over, near(0.8)]) == 1
    assert candidate(ASKED, [passed_over]) is None
    assert candidate(ASKED, [near(0.1)]) is None
    assert candidate(ASKED, []) is None


def test_the_answer_with_most_support_is_chosen() -> None:
    """A lone nearest one stands back behind three a little farther away that say the same, and of them the nearest is served."""
    stored = [near(0.8, says=1), *(near(0.8 - n / 100, says=2) for n in (1, 2, 3))]

    assert candidate(ASKED, stored) == 1
    assert candidate(ASKED, stored[:2]) == 0


def test_the_same_wording_makes_a_hit_surer() -> None:
    """At the same similarity, an answer whose questions are worded like the asked one is surer than a rival's."""
    like, unlike = "how can i reset my password", "account recovery procedure"
    stored = [[near(0.8 - n / 100, says=n % 2, text=(like, unlike)[n % 2 ^ swap]) for n in range(8)] for swap in (0, 1)]
    worded, otherwise = (Verifier().sure(evidence(ASKED, neighbours, 0, 100)) for neighbours in stored)

    assert worded > otherwise + 0.1


def test_the_same_words_make_a_hit_surer() -> None:
    """Among many that differ in one word, the one that says all of the asked words, and no other, is surer for it."""
    things = ["boat", "boot", "coat", "goat", "belt", "bell", "ball", "bowl"]
    crowd = [near(0.95 - n / 50, says=n, text=f"how can I sell the red {one}?") for n, one in enumerate(things)]
    found = evidence("how do i sell a red boat", crowd, 0, 100)
    otherwise = found.copy()
    otherwise[FEATURES.index("differs in words")] = 1

    assert found[FEATURES.index("differs in words")] == 0
    assert Verifier().sure(found) > Verifier().sure(otherwise) + 0.01


def test_what_stands_alone_must_pass_every_guard() -> None:
    """A word more is refused where one entry speaks for the answer, and heard where three say the same."""
    alone = [near(0.9, text="how can I reset my voicemail password?")]
    confirmed = [*alone, near(0.8, text="reset a work password"), near(0.7, text="password reset by mail")]

    assert candidate(ASKED, alone) is None
    assert candidate(ASKED, confirmed) == 0


def test_what_all_say_who_agree_may_not_be_missing() -> None:
    """Three who book for June confirm nothing about July, or without June; where each names another month, or more, the answer serves for any."""
    june = [near(0.9 - n / 100, text=f"{word} a boat for june") for n, word in enumerate(["book", "rent", "get me"])]
    months = [near(0.9 - n / 100, text=f"book a boat for {month}") for n, month in enumerate(["june", "may", "march"])]

    assert candidate("book a boat for july", june) is None
    assert candidate("book a boat for july", months) == 0
    assert candidate("book a boat", june) is None
    assert candidate("book a boat", months) == 0
    crews = [
        near(one.similarity, text=f"{one.text} {more}")
        for one, more in zip(june, ["and crew", "in oslo", "now"], strict=True)
    ]
    assert candidate("book a boat", crews) == 0


@pytest.mark.parametrize("asked", ["bake a vegan cake", "bake a cake for dogs", "Bake a cake on a grill?"])
def test_an_addition_to_one_who_agrees_is_not_confirmed(asked: str) -> None:
    """Those who agree on a cake say nothing about one of another kind."""
    agreed = [near(0.9 - n / 100, text=text) for n, text in enumerate(["bake a cake", "cake recipe", "make me a cake"])]

    assert candidate(asked, agreed) is None
    assert candidate("i need help to bake a cake", agreed) == 0


def test_a_word_more_than_all_who_agree_have_is_not_confirmed() -> None:
    """Those who say all but the same agree on just that; where they differ in what they say, the answer serves for more."""
    same = [
        near(0.9 - n / 100, text=t) for n, t in enumerate(["bake a cake", "how to bake a cake", "help: bake a cake"])
    ]
    various = [
        near(0.9 - n / 100, text=t) for n, t in enumerate(["bake a cake", "bake cherry cake", "bake cake at night"])
    ]

    assert candidate("steps for baking a vegan cake", same) is None
    assert candidate("steps for baking a vegan cake", various) == 0
    assert candidate("which steps for baking one cake", same) == 0


def test_swapped_roles_are_refused_however_many_agree() -> None:
    """The same words in another order are another question, whatever the neighbours say."""
    stored = [
        near(0.99 - n / 100, text=f"{please}move money from savings to checking")
        for n, please in enumerate(["", "please ", "now "])
    ]

    assert candidate("move money from checking to savings", stored) is None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("can i sell the boat to my club", "can i sell the boat for my club"),
        ("ferries from kiel to oslo", "ferries from oslo to kiel"),
        ("when does the harbour close", "where does the harbour close"),
        ("may i help you moor", "may you help me moor"),
        ("who sank bismarck", "who bismarck sank"),
        ("can friends of friends see my boat", "can friends see my boat"),
    ],
)
def test_the_same_words_in_another_sense_are_not_confirmed(asked: str, stored: str) -> None:
    """Where one who agrees asks another thing in the same words, so do the others, however they word it."""
    agreed = [
        near(0.9 - n / 100, text=text) for n, text in enumerate([stored, f"{stored} this year", f"question: {stored}"])
    ]

    assert candidate(asked, agreed) is None
    assert candidate(f"{stored} please", agreed) == 0


def test_two_words_in_another_order_are_confirmed_as_one_name() -> None:
    """`Hire boat` may stand for `boat hire`: what speaks against the others is an exchange across other words."""
    texts = ["boat hire", "explain the terms of boat hire", "all about boat hire in summer"]

    assert candidate("hire boat", [near(0.9 - n / 100, text=text) for n, text in enumerate(texts)]) == 1


def test_evidence_has_a_number_for_each_feature() -> None:
    """Whatever the neighbours, all features are there and finite."""
    for neighbours in ([near(1.0)], [near(0.8), near(0.7, 2)] * 4, [near(0.5, n) for n in range(8)]):
        found = evidence(ASKED, neighbours, 0, 5)

        assert found.shape == (len(FEATURES),)
        assert np.isfinite(found).all()


def test_what_the_neighbours_say_decides_beside_similarity() -> None:
    """At the same similarity, neighbours that agree make a hit surer than neighbours that contradict, and closeness helps."""
    verifier = Verifier()
    agreed = verifier.sure(evidence(ASKED, [near(0.8, 1)] * 8, 0, 100))
    contradicted = verifier.sure(evidence(ASKED, [near(0.8, 1)] + [near(0.79, n) for n in range(2, 9)], 0, 100))
    close = verifier.sure(evidence(ASKED, [near(0.97, 1)] + [near(0.5, n) for n in range(2, 9)], 0, 100))
    far = verifier.sure(evidence(ASKED, [near(0.5, n) for n in range(1, 9)], 0, 100))

    assert agreed > 0.9
    assert contradicted < agreed - 0.2
    assert far < close - 0.2


def test_labels_move_the_belief_and_survive_as_json() -> None:
    """After many labels that contradict the shipped weights, a hit of that kind is no longer believed; the state is JSON."""
    verifier, found = Verifier(), evidence(ASKED, [near(0.8)] * 8, 0, 100)
    before = verifier.sure(found)
    moved = [verifier.learn(found, right=False) for _ in range(20 * BATCH)]
    restored = Verifier(json.loads(json.dumps(verifier.to_dict())))

    assert sum(moved) == 20
    assert verifier.sure(found) < 0.2 < before
    assert restored.sure(found) == pytest.approx(verifier.sure(found))


def test_a_state_of_other_evidence_is_left_aside() -> None:
    """What another release learned about other features does not spoil this one."""
    found = evidence(ASKED, [near(0.8)] * 8, 0, 100)
    other = {"features": ["similarity"], "weights": [9.0], "precision": [[1.0]]}

    assert Verifier(other).sure(found) == Verifier().sure(found)


def test_caution_only_lowers_what_is_believed() -> None:
    """The lower bound is never above the estimate."""
    found = evidence(ASKED, [near(0.8)] * 8, 0, 100)
    verifier = Verifier()

    assert verifier.sure(found, caution=2) < verifier.sure(found, caution=0)


@pytest.mark.parametrize("max_error", [0.005, 0.01, 0.05])
def test_what_is_admitted_stays_within_the_budget(max_error: float) -> None:
    """With estimates that are true, the share of requests that are served wrongly is the budget at most, and not far below."""
    rng = random.Random(5)
    budget = ErrorBudget(max_error)
    expected = [0.0] * 20_000
    for n in range(len(expected)):
        sure = 1 - rng.random() ** 3
        if budget.admits(sure):
            expected[n] = 1 - sure
    share = sum(expected[2000:]) / len(expected[2000:])

    assert 0.6 * max_error < share <= 1.05 * max_error


def test_nothing_is_served_that_is_more_likely_wrong() -> None:
    """However much of the budget is left, a candidate below one half is not served, nor one that is not there."""
    budget = ErrorBudget(0.4)

    assert not any(budget.admits(sure) for sure in [0.45, 0.0] * 200)


def test_a_third_answer_brings_two_together() -> None:
    """Neighbours whose answers were not seen to say the same count as one group if another one's says the same as both."""
    apart = [near(0.9, 1), near(0.8, 2), near(0.7, 3), near(0.6, 4)]
    linked = [*apart, near(0.5, joined(9, [2, 3])), near(0.4, joined(9, [1, 3]))]

    assert len({one.says for one in together(apart)}) == 4
    first, second, third, other, *links = (one.says for one in together(linked))
    assert {first, second, third, *links} == {first}
    assert other != first


def test_a_missed_agreement_counts_for_less_the_oftener_it_is_missed() -> None:
    """Where right candidates are seldom seen to be right, "wrong" lowers the belief less."""
    found = evidence(ASKED, [near(0.9)] * 8, 0, 100)

    def after(seen: float) -> float:
        verifier = Verifier()
        for _ in range(20 * BATCH):
            verifier.learn(found, right=False, seen=seen)
        return verifier.sure(found)

    assert after(1.0) < after(0.5) < Verifier().sure(found)
