"""Routed against other requests: who is compared with whom, what is said of it, and the command that shows it."""

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llm_costopt import cli
from llm_costopt.monitor.ab import NOT_RANDOM, TAGS, Comparison, compare
from llm_costopt.monitor.intervals import Estimate
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.verdict import verdict
from llm_costopt.types import CallRecord

NOW = 1_000_000.0


def call(name: str, **fields: Any) -> CallRecord:
    """Make a record of a call that cost a dollar and took a second."""
    return replace(CallRecord(id=name, at=NOW, model="m", cost=Decimal(1), latency=1.0), **fields)


def fill(ledger: Ledger, name: str, count: int, *, scores: int = 0, good: int = 0, **fields: Any) -> None:
    """Append *count* calls, in turn for 90 and 110 % of their cost, and score some of them, of which some as good."""
    cost = fields.pop("cost", 1.0)
    for n in range(count):
        price = None if cost is None else Decimal(str(cost)) * (9 + 2 * (n % 2)) / 10
        ledger.append(call(f"{name}-{n}", cost=price, **fields))
    for n in range(scores):
        ledger.score(f"{name}-{n}", float(n < good))


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """Make an empty ledger in memory."""
    with Ledger(clock=lambda: NOW) as ledger:
        yield ledger


def experiment(ledger: Ledger, *, good: tuple[int, int] = (190, 190)) -> Comparison:
    """Compare 200 routed requests that cost 40 % and take half the time with 200 of the control arm, all scored."""
    fill(ledger, "r", 200, cost=0.4, latency=0.5, arm="routed", complexity="simple", scores=200, good=good[0])
    fill(ledger, "c", 200, cost=1.0, latency=1.0, arm="control", complexity="simple", scores=200, good=good[1])
    return compare(ledger)


def test_the_arms_of_a_router_are_compared(ledger: Ledger) -> None:
    """Each side has its figures, and differences are multiples of the control's, or shares less the control's."""
    found = experiment(ledger, good=(180, 190))

    assert (found.routed.name, found.routed.requests, found.routed.priced, found.routed.scored) == (
        "routed",
        200,
        200,
        200,
    )
    assert (found.control.name, found.control.requests, found.caveats) == ("control", 200, ())
    for estimate, value in (
        (found.routed.cost, 0.4),
        (found.control.cost, 1.0),
        (found.cost, 0.4),
        (found.routed.latency, 0.5),
        (found.latency, 0.5),
        (found.latency_p95, 0.5),
        (found.errors, 0.0),
        (found.hits, 0.0),
        (found.routed.score, 0.9),
        (found.score, -0.05),
        (found.quality, 0.9 / 0.95),
    ):
        assert estimate
        assert estimate.value == pytest.approx(value)
        assert estimate.low <= estimate.value <= estimate.high


def test_drafts_count_and_shadow_calls_stand_apart(ledger: Ledger) -> None:
    """A rejected draft is part of its request's cost, a shadow call of none."""
    for n in range(100):
        ledger.append(call(f"draft-{n}", cost=Decimal("0.5"), arm="routed"))
        ledger.append(call(f"final-{n}", arm="routed", replaces=f"draft-{n}"))
        ledger.append(call(f"shadow-{n}", cost=Decimal(7), latency=9.0, arm="routed", shadow=True))
    fill(ledger, "c", 100, arm="control")
    found = compare(ledger)

    assert (found.routed.requests, found.shadow_calls, found.shadow_usd) == (100, 100, 700.0)
    assert found.routed.cost
    assert found.routed.latency
    assert (found.routed.cost.value, found.routed.latency.value) == (1.5, 2.0)


def test_hits_and_failures_are_compared(ledger: Ledger) -> None:
    """The shares of both sides are those of their requests."""
    fill(ledger, "r", 50, arm="routed", error="TimeoutError")
    fill(ledger, "r2", 50, arm="routed")
    fill(ledger, "c", 75, arm="control", cache="exact")
    fill(ledger, "c2", 25, arm="control")
    found = compare(ledger)

    assert found.errors
    assert found.hits
    assert (found.errors.value, found.hits.value) == (0.5, -0.75)
    assert "Failures: routed requests differ by +50.0 points, +39.7 to +59.6." in verdict(found)


def test_only_the_last_hours_are_compared(ledger: Ledger) -> None:
    """Requests and shadow calls from before are left out."""
    fill(ledger, "old", 10, arm="routed", at=NOW - 7200)
    fill(ledger, "shadow", 10, arm="routed", at=NOW - 7200, shadow=True)
    fill(ledger, "r", 5, arm="routed")
    fill(ledger, "c", 5, arm="control")
    last, all_ = compare(ledger, hours=1), compare(ledger)

    assert (last.routed.requests, last.shadow_calls) == (5, 0)
    assert (all_.routed.requests, all_.shadow_calls) == (15, 10)


def test_two_tags_can_be_compared(ledger: Ledger) -> None:
    """Whoever assigns requests himself names them by tags, whatever a router says of them."""
    fill(ledger, "r", 3, tags=("new", "shop"))
    fill(ledger, "c", 4, tags=("old", "shop"), arm="routed")
    fill(ledger, "x", 5, arm="control")
    found = compare(ledger, routed_tag="new", control_tag="old")

    assert (found.routed.name, found.routed.requests, found.control.name, found.control.requests) == (
        "new",
        3,
        "old",
        4,
    )
    assert found.caveats == (TAGS,)


def test_without_a_control_arm_other_traffic_stands_in(ledger: Ledger) -> None:
    """What no router decided is compared, with the warning that this was no experiment, and without hits."""
    fill(ledger, "r", 3, complexity="simple")
    fill(ledger, "r2", 2, arm="routed")
    fill(ledger, "plain", 4)
    fill(ledger, "hit", 5, cache="exact")
    fill(ledger, "routed hit", 6, cache="exact", complexity="simple")
    found = compare(ledger)

    assert (found.routed.requests, found.control.requests, found.caveats) == (5, 4, (NOT_RANDOM,))


def test_with_a_control_arm_nobody_else_takes_part(ledger: Ledger) -> None:
    """Requests that were not assigned to an arm are left out."""
    fill(ledger, "r", 3, arm="routed")
    fill(ledger, "c", 4, arm="control", complexity="complex")
    fill(ledger, "plain", 5)
    fill(ledger, "routed", 6, complexity="simple")
    found = compare(ledger)

    assert (found.routed.requests, found.control.requests, found.caveats) == (3, 4, ())


def test_requests_of_unknown_cost_are_counted_apart(ledger: Ledger) -> None:
    """They are no zeros in the mean, and a sentence says how many there are."""
    fill(ledger, "r", 100, arm="routed")
    fill(ledger, "r2", 7, arm="routed", cost=None)
    fill(ledger, "c", 100, arm="control")
    found = compare(ledger)

    assert (found.routed.requests, found.routed.priced) == (107, 100)
    assert found.routed.cost
    assert found.routed.cost.value == 1.0
    assert found.caveats == ("The cost leaves out requests of unknown cost: 7 of 107 (routed).",)


def test_few_requests_tell_nothing(ledger: Ledger) -> None:
    """Below 100 costs or 30 scores a side there is no figure that could mislead, and the sentence says what is needed."""
    fill(ledger, "r", 99, arm="routed", scores=99)
    fill(ledger, "c", 200, arm="control", scores=29)
    found = compare(ledger)

    assert (found.cost, found.latency, found.score, found.quality) == (None,) * 4
    assert found.errors is not None
    assert verdict(found, target_quality=0.95) == [
        "Cost: too few to tell, 100 requests a side are needed and one has 99 of known cost.",
        "Quality: too few to tell, 30 scores a side are needed and one has 29.",
        "At least 95.0 % of the control's quality: not shown, too few to tell, 30 scores a side are needed and one has 29.",
    ]


def test_a_saving_is_said_with_its_interval(ledger: Ledger) -> None:
    """Less or more, by how much, from where to where."""
    found = experiment(ledger)
    dearer = replace(found, cost=Estimate(value=1.5, low=1.25, high=2.0))

    assert verdict(found)[0] == "Cost: routed requests cost 60.0 % less (59.2 % to 60.8 %)."
    assert verdict(dearer)[0] == "Cost: routed requests cost 50.0 % more (25.0 % to 100.0 %)."


def test_an_interval_that_holds_no_difference_shows_none(ledger: Ledger) -> None:
    """Nothing is claimed of what chance may have done."""
    found = experiment(ledger)
    same = replace(
        found, cost=Estimate(value=0.975, low=0.9, high=1.05), score=Estimate(value=-0.0004, low=-0.046, high=0.046)
    )

    assert verdict(same) == [
        "Cost: no difference shown (−2.5 %, −10.0 to +5.0 %).",
        "Quality: no difference shown (+0.0 points, −4.6 to +4.6).",
    ]


def test_a_loss_of_quality_is_said(ledger: Ledger) -> None:
    """A drop that chance does not explain is named with its size."""
    assert verdict(experiment(ledger, good=(150, 190)))[1] == (
        "Quality: routed answers differ by −20.0 points, −26.8 to −13.2."
    )


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (0.95, "At least 95.0 % of the control's quality: shown (100.0 %, lower bound 95.3 %)."),
        (0.96, "At least 96.0 % of the control's quality: not shown (100.0 %, lower bound 95.3 %)."),
    ],
)
def test_a_target_is_shown_by_the_lower_bound(ledger: Ledger, target: float, said: str) -> None:
    """Equal means are no proof: the lower end of the interval decides."""
    assert verdict(experiment(ledger), target_quality=target)[2] == said


@pytest.mark.parametrize("target", [0.0, 1.01, float("nan")])
def test_a_target_is_a_share(ledger: Ledger, target: float) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="a target quality is a share"):
        verdict(experiment(ledger), target_quality=target)


def test_a_side_that_costs_nothing_is_no_measure(ledger: Ledger) -> None:
    """Where one side is free, no multiple is made up."""
    fill(ledger, "r", 100, arm="routed", cache="exact", cost=0)
    fill(ledger, "c", 100, arm="control")

    assert verdict(compare(ledger))[0] == "Cost: nothing to tell, since one side may well cost nothing."


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `llm-costopt ab` and return its exit code and what it prints."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llm-costopt", "ab", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a file with the experiment of above, a shadow call and a request without a price."""
    with Ledger(tmp_path / "ledger.db", clock=lambda: NOW) as ledger:
        experiment(ledger)
        ledger.append(call("shadow", cost=Decimal(7), arm="routed", shadow=True))
        ledger.append(call("unpriced", cost=None, arm="control"))
    return tmp_path / "ledger.db"


def test_the_command_prints_a_table_and_a_verdict(run: Run, path: Path) -> None:
    """A person sees each figure with its interval, the sentences, the caveats and the shadow calls."""
    code, out, err = run(path, "--target-quality", 0.95)
    text = " ".join(out.split())

    assert (code, err) == (0, "")
    assert (
        "│ cost per request │ $0.400000 ($0.394442 to $0.405558) │ $1.000000 ($0.986106 to $1.013894) │ −60.0 %, "
        in text
    )
    assert "│ failed │ 0.0 % (0.0 % to 1.9 %) │" in text
    assert "Cost: routed requests cost 60.0 % less (59.2 % to 60.8 %)." in text
    assert "At least 95.0 % of the control's quality: shown" in text
    assert "The cost leaves out requests of unknown cost: 1 of 201 (control)." in text
    assert "Beside these, 1 shadow calls cost $7.000000." in text


def test_the_command_says_where_there_is_too_little(run: Run, tmp_path: Path) -> None:
    """Cells of figures that would mislead say so instead, and without shadow calls nothing is said of them."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        fill(ledger, "r", 5, arm="routed")
        fill(ledger, "c", 5, arm="control")
    code, out, _ = run(tmp_path / "ledger.db")

    assert code == 0
    assert out.count("│ too few to tell │") == 6 * 2  # of three cells in a row, every other one
    assert "shadow" not in out


def test_the_command_prints_figures_for_machines(run: Run, path: Path) -> None:
    """The JSON holds both sides, the differences and the verdict."""
    code, out, _ = run(path, "--json", "--hours", 10**9)
    found = json.loads(out)

    assert code == 0
    assert found["routed"]["requests"] == 200
    assert found["cost"]["value"] == pytest.approx(0.4)
    assert found["verdict"][0].startswith("Cost: routed requests cost 60.0 % less")


def test_a_file_that_is_not_there_is_not_made(run: Run, tmp_path: Path) -> None:
    """A wrong path, a folder and an empty file are one sentence, and stay what they are."""
    (tmp_path / "empty.db").touch()
    for path in (tmp_path / "none.db", tmp_path, tmp_path / "empty.db"):
        code, out, err = run(path)
        assert (code, out) == (1, "")
        assert err == (
            f"llm-costopt: {path}: there is no ledger; give the path that `Ledger(path)` or the monitor was given\n"
        )
    assert [(f.name, f.stat().st_size) for f in tmp_path.iterdir()] == [("empty.db", 0)]


def test_other_files_are_refused(run: Run, tmp_path: Path) -> None:
    """A text and somebody else's database are named in one sentence."""
    (tmp_path / "notes.txt").write_text("precious " * 100)
    theirs = sqlite3.connect(tmp_path / "theirs.db")
    theirs.execute("CREATE TABLE t (x)")
    theirs.close()
    for name, says in (("notes.txt", "file is not a database"), ("theirs.db", "is a database, but not a ledger")):
        code, _, err = run(tmp_path / name)
        assert (code, len(err.splitlines())) == (1, 1)
        assert says in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--hours", "0.5"], "the ledger has no requests of the last 0.5 hours to compare"),
        (["--routed-tag", "a"], "two tags are compared: give both"),
        (["--control-tag", "a"], "two tags are compared: give both"),
        (["--routed-tag", "a", "--control-tag", "x"], "no request carries the tag 'x': the ledger knows 'a', 'b'"),
        (["--routed-tag", "x", "--control-tag", "a"], "no request carries the tag 'x': the ledger knows 'a', 'b'"),
        (["--routed-tag", "a", "--control-tag", "b"], "1 requests carry both 'a' and 'b'"),
        (["--target-quality", "95"], "a target quality is a share"),
        ([], "the ledger has 2 other requests and no routed ones to compare"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(run: Run, tmp_path: Path, arguments: list[str], says: str) -> None:
    """It names what is missing, with exit code 1."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.append(call("one", tags=("a",)))
        ledger.append(call("two", tags=("a", "b")))
        if "--target-quality" in arguments:
            ledger.append(call("three", arm="routed"))
    code, out, err = run(tmp_path / "ledger.db", *arguments)

    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert says in err


@pytest.mark.parametrize("fields", [{"arm": "routed"}, {"complexity": "simple"}])
def test_one_side_alone_is_one_sentence(run: Run, tmp_path: Path, fields: dict[str, Any]) -> None:
    """A ledger where all is routed names the two ways to a comparison."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.append(call("one", **fields))
    code, _, err = run(tmp_path / "ledger.db")

    assert code == 1
    assert "the ledger has 1 routed requests and no other ones to compare: let a router assign a share" in err


def test_an_empty_ledger_is_one_sentence(run: Run, tmp_path: Path) -> None:
    """Without a single request there is nothing to compare."""
    Ledger(tmp_path / "ledger.db").close()

    assert run(tmp_path / "ledger.db") == (1, "", "llm-costopt: the ledger has no requests to compare\n")
