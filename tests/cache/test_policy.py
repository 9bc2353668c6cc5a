"""What a checked hit weighs."""

from collections.abc import Sequence

from llm_costopt.cache.agree import joined, number
from llm_costopt.cache.policy import Budget
from llm_costopt.cache.verifier import BATCH, Verifier
from llm_costopt.cache.verify import Neighbour, evidence
from llm_costopt.recent import REMEMBERED

ASKED = "how do i reset my password"
NEAR = [Neighbour(entry=str(1), similarity=0.95, text="how can I reset my password?", says=1)] * 8


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
