"""A month of simulated calls, made once."""

from collections.abc import Iterator

import pytest

from llm_costopt.monitor.ledger import Ledger
from tests.simulated_ledger import END, simulate


@pytest.fixture(scope="session")
def simulated() -> Iterator[Ledger]:
    """Give a ledger in memory with thirty days of simulated traffic; not to be written to."""
    with Ledger(clock=lambda: END) as ledger:
        simulate(ledger, per_day=120)
        yield ledger
