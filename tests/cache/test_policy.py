"""What a checked hit weighs."""

from collections.abc import Sequence

from llm_costopt.cache.agree import joined, number
from llm_costopt.cache.policy import Budget, score_of
from llm_costopt.cache.reading import sketch
from llm_costopt.cache.verifier import BATCH, Verifier
from llm_costopt.cache.verify import Neighbour, evidence
from llm_costopt.recent import REMEMBERED

ASKED = "how do i reset my password"
STORED = "how can I reset my password?"
NEAR = [Neighbour("1", 0.95, STORED, 1, *sketch(STORED))] * 8


def sure_after_checks(shadow_rate: float = 0.05, says: int = 2, near: Sequence[Neighbour] = NEAR) -> float:
    """Let a batch of would-be hits be checked, all with answers of one number, and say how sure such a hit is then."""
    budget = Budget(0.4, shadow_rate, None, rng=lambda: 0.0)
    state = None
    for n in range(BATCH):
        assert budget.choose(str(n), ASKED, near, 100, lambda _: None) is None
        state = budget.answered(str(n), says=says)
    assert state
    return Verifier(state).sure(evidence(ASKED, NEAR, 0, 100))


def test_a_check_counts_for_all_hits_that_were_not_checked() -> None:
    """The same wrong checks move the belief further the rarer checks are."""
    assert sure_after_checks(0.05) < sure_after_checks(0.5) < sure_after_checks(1.0)


def test_requests_whose_answers_never_come_are_forgotten() -> None:
    """Of very many requests that failed, only the last are remembered."""
    budget = Budget(0.4, 1.0, None, rng=lambda: 0.0)
    for n in range(REMEMBERED + BATCH):
        budget.choose(str(n), ASKED, NEAR, 100, lambda _: None)
    forgotten = [budget.answered(str(n), says=1) for n in range(BATCH)]
    remembered = [budget.answered(str(n), says=1) for n in range(BATCH, 2 * BATCH)]

    assert not any(forgotten)
    assert any(remembered)


PROSE, OTHER = (
    number("Open the settings and choose Password there."),
    number("You find it in the profile, under Security."),
)


def test_prose_that_is_not_seen_to_agree_says_little() -> None:
    """Other words speak less against a candidate than another label does, and the less the fewer there are to compare with."""
    many = [one._replace(says=PROSE) for one in NEAR]
    few = [*many[:2], *[one._replace(similarity=0.2, says=n) for n, one in enumerate(NEAR[2:], 1)]]

    assert sure_after_checks() < sure_after_checks(says=OTHER, near=many) < sure_after_checks(says=PROSE, near=many)
    assert sure_after_checks(says=OTHER, near=few) > sure_after_checks(
        says=2, near=[n._replace(says=n.says & 1) for n in few]
    )


def test_an_answer_in_the_candidates_group_is_right() -> None:
    """Whoever agrees with any neighbour that says the same as the candidate speaks for it, whatever the nearest says."""
    linked = [NEAR[0], NEAR[0]._replace(similarity=0.9, says=joined(9, [1, 5]))] * 4

    assert sure_after_checks(says=5, near=linked) > sure_after_checks(says=2, near=linked)


def checks(says: int, near: Sequence[Neighbour] = NEAR, *, max_error: float = 0.4) -> list[float]:
    """Let one request be answered that may have been served, and list what was told of it."""
    told: list[float] = []
    budget = Budget(max_error, 1.0, None, rng=lambda: 0.0)
    budget.choose("a", ASKED, near, 100, lambda _: None)
    budget.answered("a", says, lambda right, seen: told.append(score_of(right, seen)))
    return told


def test_a_check_tells_how_good_the_hit_would_have_been() -> None:
    """Of a would-be hit it is told once whether its answer was right; of a request that would not have been served, nothing."""
    apart = [one._replace(similarity=0.31 + n / 100, says=n) for n, one in enumerate(NEAR, 1)][::-1]

    assert checks(says=1) == [1.0]
    assert checks(says=2) == [0.0]
    assert checks(says=1, near=apart, max_error=0.001) == []


def test_prose_that_is_not_seen_to_agree_may_be_right_all_the_same() -> None:
    """Two answers in free text that seem to differ often say the same: the score is the chance of that, the smaller the more answers there are to compare with."""
    many = [one._replace(says=PROSE) for one in NEAR]
    two = [*many[:2], *[one._replace(similarity=0.2, says=n) for n, one in enumerate(NEAR[2:], 1)]]
    (seen,), (unseen,), (unseen_by_two,) = checks(PROSE, many), checks(OTHER, many), checks(OTHER, two)

    assert seen == 1.0
    assert 0 < unseen < unseen_by_two < 0.5
