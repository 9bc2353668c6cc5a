"""`llm-costopt estimate`, as a person and as a script call it."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm_costopt.cli import app
from llm_costopt.monitor.example import lines
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.measured import measured
from llm_costopt.types import CacheKind, CallRecord, Usage

EXAMPLE = "--requests-per-day 200000 --input-tokens 300 --output-tokens 150"
DAY = 86_400.0


def run(line: str) -> str:
    """Call the command line and give what it prints."""
    done = CliRunner().invoke(app, ["estimate", *line.split()], env={"COLUMNS": "120"})
    if done.exception:
        raise done.exception
    return done.output


def read(line: str) -> dict[str, Any]:
    """Call it for figures."""
    found: dict[str, Any] = json.loads(run(f"{line} --json"))
    return found


def test_the_table_goes_step_by_step() -> None:
    """A person sees dollars and percent of each step, and the whole."""
    printed = run(f"{EXAMPLE} --cache-hits 30% --routed-cheap 0.6 --batched 70%")
    rows = [line.split("│")[1:-1] for line in printed.splitlines() if line.startswith("│")]

    assert [[cell.strip() for cell in row] for row in rows] == [
        ["baseline", "$13,500.00", "", ""],
        ["cache", "$9,450.00", "$4,050.00", "30.0 %"],
        ["router", "$4,120.20", "$5,329.80", "39.5 %"],
        ["batch", "$2,678.13", "$1,442.07", "10.7 %"],
        ["in all", "$2,678.13", "", "80.2 %"],
    ]


def test_prices_of_ones_own_and_ranges() -> None:
    """`--price` serves models that no list knows, and a range shows both ends."""
    found = read(f"{EXAMPLE} --strong mine --price mine=2.50/10 --cheap mini --price mini=0/0 --routed-cheap 20%..40%")

    assert found["steps"][-1]["usd"] == {"low": 8100.0, "high": 10800.0}
    assert "$8,100.00 to $10,800.00" in run(f"{EXAMPLE} --cheap mini --price mini=0/0 --routed-cheap 20%..40%")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--cache-hits 0.3", "give --requests-per-day, --input-tokens, --output-tokens, or a ledger"),
        (f"{EXAMPLE} --price 2.50/10", "--price is MODEL=INPUT/OUTPUT"),
        (f"{EXAMPLE} --price m=2.50", "the price of 'm' must be"),
        (f"{EXAMPLE} --batched 3", "batched is a share"),
        ("--from nowhere.db", "nowhere.db: there is no ledger"),
    ],
)
def test_what_is_wrong_is_one_sentence(line: str, says: str) -> None:
    """Bad input is named."""
    with pytest.raises(ValueError, match=says):
        run(line)


def test_the_documents_figures_are_computed_and_differences_said() -> None:
    """Every figure of the example stands beside what its inputs give, and each difference has a reason."""
    found = {line["what"]: line for line in read("--document")["lines"]}
    same = [line for line in found.values() if line["document"] == line["computed"]]

    assert [line["document"] for line in same] == ["$675", "$3,375", "$13,500", "$33,750", "$67,500", "$9,450"]
    assert all(line["why"] for line in found.values() if line not in same)
    assert found["and 60 % routed cheap"]["computed"] == "$4,120.20"
    assert found["and 70 % by batch at half price"]["computed"] == "$2,678.13"
    assert found["saved in all"]["computed"] == "80.2 %"
    assert [line["computed"] for what, line in found.items() if " / " in what] == [
        "69.9 %", "79.6 %", "65.1 %", "27.0 %", "17.9 %",
    ]  # fmt: skip
    assert all(line.what in " ".join(run("--document").split()) for line in lines())


def call(name: str, model: str | None, at: float, **fields: Any) -> CallRecord:
    """Make a record of 300 + 150 tokens."""
    usage = Usage(input_tokens=300, output_tokens=150, cache_read_tokens=60)
    return CallRecord(**{"id": name, "model": model, "at": at, "usage": usage, "cost": Decimal(1), **fields})


def hit(name: str, at: float, kind: CacheKind = "exact") -> CallRecord:
    """Make a record of a hit."""
    return call(name, "big-2024-08-06", at, cache=kind, cost=Decimal(0))


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Ten requests in two days: two hits, four cheap, one escalated, two strong ones, one that failed."""
    with Ledger(tmp_path / "costs.db") as opened:
        for record in (
            *(hit(f"hit {n}", 0.0) for n in range(2)),
            *(call(f"cheap {n}", "small", DAY, tier="cheap", batch=n < 2) for n in range(4)),
            call("draft", "small", DAY, tier="cheap"),
            call("better", "big-2024-08-06", DAY, tier="strong", replaces="draft"),
            call("strong", "big-2024-08-06", DAY, tier="strong"),
            call("beside", "big-2024-08-06", DAY, shadow=True),
            call("failed", "big-2024-08-06", DAY, usage=None, cost=None, error="TimeoutError"),
            call("unpriced", "big-2024-08-06", 2 * DAY, tier="strong", cost=None),
        ):
            opened.append(record)
    return tmp_path / "costs.db"


def test_a_ledger_gives_rates_models_and_tokens(ledger: Path) -> None:
    """Drafts, failures and shadow calls are no requests; rates are of those that each part sees."""
    with Ledger(ledger) as opened:
        found = measured(opened)

    assert (found.requests, found.days, found.requests_per_day) == (9, 2.0, Decimal("4.5"))
    assert (found.input_tokens, found.output_tokens, found.prompt_cached) == (300, 150, Decimal("0.2"))
    assert (found.strong, found.cheap) == ("big-2024-08-06", "small")
    assert (found.cache_hits, found.routed_cheap) == (Decimal(2) / 9, Decimal(4) / 7)
    assert (found.escalated, found.batched) == (Decimal(1) / 7, Decimal(2) / 7)
    assert (found.paid_usd, found.month_usd, found.unpriced) == (Decimal(8), Decimal(120), 1)


def test_an_estimate_from_a_ledger_can_be_scaled_and_held_against_the_bill(ledger: Path) -> None:
    """What is given wins over what was measured, and the bill at the measured pace stands beside it."""
    line = f"--from {ledger} --strong big --price big=2.50/10.00 --price small=0.15/0.60 --requests-per-day 9000"
    found = read(f"{line} --cache-hits 0")
    paid = Decimal("0.00225") * 2 / 7 + Decimal("0.000135") * 5 / 7 + Decimal("0.00225") / 7

    assert found["inputs"]["requests_per_day"] == 9000
    assert [step["name"] for step in found["steps"]] == ["baseline", "router"]
    assert found["steps"][-1]["usd"]["low"] == pytest.approx(float(270_000 * paid))
    assert found["measured"] == {"requests": 9, "days": 2.0, "unpriced": 1, "month_usd": 120.0}
    assert "Paid for 9 requests in 2.0 days: $120.00 a month at that pace" in run(line)
    assert "1 calls have no known price" in run(line)
    assert "No batch price of big is known" in run(line)


def test_only_the_last_hours_count(ledger: Path) -> None:
    """With `--hours` older calls are left out; here nothing is left to scale."""
    with pytest.raises(ValueError, match="holds no answered request whose tokens are known"):
        run(f"--from {ledger} --hours 1")


def test_a_ledger_without_a_router_needs_a_name_only_if_it_has_two_models(tmp_path: Path) -> None:
    """One model is the strong one; of two without tiers nobody knows which."""
    with Ledger(tmp_path / "a.db") as one:
        one.append(call("a", "big", 0.0))
        assert measured(one).strong == measured(one).cheap == "big"
        assert measured(one).requests_per_day == 0
        assert measured(one).month_usd is None
        one.append(call("b", "small", 0.0))
        with pytest.raises(ValueError, match=r"no router says which of \['big', 'small'\] is the strong model"):
            measured(one)
        assert (measured(one, strong="big").cheap, measured(one, strong="big").routed_cheap) == (
            "small",
            Decimal("0.5"),
        )
    with pytest.raises(ValueError, match="give --requests-per-day, or"):
        run(f"--from {tmp_path / 'a.db'} --strong big")
    assert "a month at that pace" not in run(
        f"--from {tmp_path / 'a.db'} --strong gpt-4o --cheap gpt-4o-mini --requests-per-day 9"
    )


def test_a_model_and_its_dated_snapshot_are_one(tmp_path: Path) -> None:
    """A call that failed has the name that was asked for, and the others that of the snapshot that answered."""
    with Ledger(tmp_path / "a.db") as one:
        one.append(call("failed", "big", 0.0, usage=None, cost=None, error="TimeoutError"))
        one.append(call("a", "big-2024-08-06", DAY))

        assert (measured(one).strong, measured(one).cheap, measured(one).routed_cheap) == ("big", "big", Decimal(0))


def test_a_call_whose_model_nobody_named_is_no_cheaper_one(tmp_path: Path) -> None:
    """Only a router's tier tells that it was: else savings would be shown that there were none."""
    with Ledger(tmp_path / "a.db") as one:
        one.append(call("a", "big", 0.0, tier="strong"))
        one.append(call("b", "small", 0.0, tier="cheap"))
        one.append(call("c", None, DAY, tier="strong"))
        one.append(call("d", None, DAY))
        assert measured(one).routed_cheap == Decimal(1) / 4
        one.append(call("e", None, DAY, tier="cheap"))

        assert measured(one).routed_cheap == Decimal(2) / 5


def test_a_ledger_in_which_one_model_answered_everything_does_not_name_the_cheap_one(tmp_path: Path) -> None:
    """Where a router only observed, what it would route needs the name of the model that would answer."""
    with Ledger(tmp_path / "a.db") as opened:
        opened.append(call("a", "gpt-4o", 0.0, tier="strong"))
        opened.append(call("b", "gpt-4o", 2.0, tier="strong"))
    with pytest.raises(ValueError, match="name it with cheap=, or --cheap"):
        run(f"--from {tmp_path / 'a.db'} --routed-cheap 0.5")
    said = run(f"--from {tmp_path / 'a.db'} --routed-cheap 0.5 --cheap gpt-4o-mini")

    assert "router" in said
    assert "requests per day: 86,400" in said
    assert "Paid for 2 requests in 2.0 s" in said


def test_zero_is_a_number_that_was_given() -> None:
    """Calls that write nothing, such as embeddings, and a day without requests can be asked about."""
    assert "$0.00" in run("--requests-per-day 0 --input-tokens 10 --output-tokens 1")
    assert "baseline" in run("--requests-per-day 9 --input-tokens 10 --output-tokens 0")
