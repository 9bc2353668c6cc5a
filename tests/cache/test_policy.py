"""What a checked hit weighs."""

from llm_costopt.cache.policy import Budget
from llm_costopt.cache.verifier import BATCH, Verifier
from llm_costopt.cache.verify import Neighbour, evidence
from llm_costopt.recent import REMEMBERED

ASKED = "how do i reset my password"
NEAR = [Neighbour(entry=str(1), similarity=0.95, text="how can I reset my password?", says=1)] * 8


def sure_after_wrong_checks(shadow_rate: float) -> float:
    """Let a batch of would-be hits be checked, all found wrong, and say how sure such a hit is then."""
    budget = Budget(0.4, shadow_rate, None, rng=lambda: 0.0)
    state = None
    for n in range(BATCH):
        assert budget.choose(str(n), ASKED, NEAR, 100, lambda _: None) is None
        state = budget.answered(str(n), says=2)
    assert state
    return Verifier(state).sure(evidence(ASKED, NEAR, 0, 100))


def test_a_check_counts_for_all_hits_that_were_not_checked() -> None:
    """The same wrong checks move the belief further the rarer checks are."""
    assert sure_after_wrong_checks(0.05) < sure_after_wrong_checks(0.5) < sure_after_wrong_checks(1.0)


def test_requests_whose_answers_never_come_are_forgotten() -> None:
    """Of very many requests that failed, only the last are remembered."""
    budget = Budget(0.4, 1.0, None, rng=lambda: 0.0)
    for n in range(REMEMBERED + BATCH):
        budget.choose(str(n), ASKED, NEAR, 100, lambda _: None)
    forgotten = [budget.answered(str(n), says=1) for n in range(BATCH)]
    remembered = [budget.answered(str(n), says=1) for n in range(BATCH, 2 * BATCH)]

    assert not any(forgotten)
    assert any(remembered)
