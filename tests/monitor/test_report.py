"""The report as HTML: what it says, what it escapes, and how it is written."""

import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from llm_costopt.cli import main
from llm_costopt.monitor import wording
from llm_costopt.monitor.advice import Goals
from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.report import page, write_report
from llm_costopt.observed import Observed, say
from llm_costopt.types import Saved
from tests.monitor.calls import NOW, call, ledger_of

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7777}}\x00\x1b[31m"


def words(html: str) -> str:
    """Give what a reader sees, without charts, styles and tags."""
    bare = re.sub(r"<(style|svg|title)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", bare).split())


@pytest.fixture(scope="module")
def simulated_page(simulated: Ledger) -> str:
    """Give the page on the simulated month."""
    return page(simulated, name="simulated.db")


def test_the_headline_is_the_ledgers_own_summary(simulated: Ledger, simulated_page: str) -> None:
    """Spent, saved, the share, requests and hit rate are those of `Ledger.summary`, and the ledger is named."""
    summary, said = simulated.summary(None), words(simulated_page)
    part = summary.saved_usd / (summary.saved_usd + summary.cost_usd)

    assert (
        f"{summary.requests:,} requests cost at least ${summary.cost_usd:.2f}, {100 * part:.1f} % less than without us"
        in said
    )
    assert f"Saved ${summary.saved_usd:.2f}" in said
    assert f"Hit rate {100 * (summary.hit_rate or 0):.1f} %" in said
    assert "simulated.db" in said


def test_each_chart_has_a_name_two_sizes_and_a_table(simulated_page: str) -> None:
    """Those who cannot see a chart hear what it is of and find its numbers below it; a phone gets its own."""
    cards = re.findall(r'<section class="card" .*?</section>', simulated_page, flags=re.DOTALL)
    drawn = [card for card in cards if "<svg" in card]

    assert len(drawn) == 9
    for card in drawn:
        assert re.search(r'role="img" aria-label="Chart: [^"]{30,}"', card)
        assert card.count("<svg") == 2
        assert card.count('<th scope="row">') >= 2
        assert card.count('<th scope="col">') >= 2


def test_days_and_endpoints_stand_in_the_tables(simulated: Ledger, simulated_page: str) -> None:
    """The amounts of each day and endpoint are the ledger's totals."""
    said = words(simulated_page)
    for total in simulated.totals("endpoint", None):
        assert f"{total.key} {total.requests:,}" in said
        assert wording.money(total.cost_usd) in said
    for total in simulated.totals("day", None):
        assert f"{total.requests} {wording.money(total.cost_usd)} {wording.money(total.saved_usd)}" in said


def test_causes_arms_and_unknown_prices_are_said(simulated_page: str) -> None:
    """Savings by cause with what drafts and shadow calls cost, the verdict on quality, and the models without a price."""
    said = words(simulated_page)

    assert "for rejected drafts and" in said
    assert "Cost: routed requests cost" in said
    assert "Send nightly-digest through the Batch API" in said
    assert re.search(r"\d+ calls have no known cost and are in no amount here: in-house-7b", said)


def test_the_page_needs_nothing_else(simulated_page: str) -> None:
    """It holds no script, no style but the one that its policy lets in, and no address to load from; it is small."""
    bare = simulated_page.replace('xmlns="http://www.w3.org/2000/svg"', "")

    assert not re.search(r"<script|<link rel=\"style|<img|<iframe|@import|url\(|https?:|\son\w+=|\sstyle=", bare)
    assert "default-src 'none'; style-src 'sha256-" in simulated_page
    assert len(simulated_page.encode()) < 300_000


def test_charts_tell_each_mark_to_a_pointer(simulated_page: str) -> None:
    """Over each day of the cost and each bar of an endpoint stand its numbers."""
    tips = re.findall(r"<title>([^<]*)</title>", simulated_page)

    assert sum(bool(re.fullmatch(r"\d+ \w+: \$[\d.]+ paid, \$[\d.]+ without us", tip)) for tip in tips) == 2 * 30
    assert any(tip.startswith("POST /code: ") for tip in tips)


def test_names_that_others_chose_are_shown_and_never_obeyed() -> None:
    """Markup in a model's, endpoint's, tier's or ledger's name is text, in the page and inside the charts."""
    ledger = ledger_of(
        *(
            call(
                f"{n}",
                at=NOW - n * 3600 * 24,
                model=HOSTILE,
                endpoint=HOSTILE,
                tier=HOSTILE,
                complexity=HOSTILE,
                tags=(HOSTILE,),
                cost=None if n > 6 else Decimal(1),
                saved=Saved(router=Decimal(2)),
            )
            for n in range(9)
        )
    )
    html = page(ledger, name=HOSTILE)

    assert not re.search(r"<script|<img|\x00|\x1b|54439", html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    for svg in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL):
        ET.fromstring(svg)


def test_a_router_that_only_observed_has_asked_nothing_again() -> None:
    """While every request goes to the strong model, none was escalated; that is known."""
    why = say(Observed(tier="cheap", drafts=False, share=0.06), "no rule applies")
    observed = (call(f"{n}", tier="strong", complexity="simple", why=why) for n in range(3))
    said = words(page(ledger_of(*observed), name="costs.db"))

    assert "0.0 % were asked again of a dearer model" in said


def test_an_empty_ledger_says_what_to_do(tmp_path: Path) -> None:
    """There is a page all the same, and it names the steps."""
    said = words(page(ledger_of(), name="costs.db"))

    assert "No calls yet" in said
    assert "The ledger is empty." in said
    assert 'CostCallbackHandler(ledger="costs.db")' in said.replace("&#34;", '"')


def test_the_period_is_that_which_was_asked_for() -> None:
    """Calls before it take no part, and the page says which time it shows."""
    ledger = ledger_of(call("old", at=NOW - 100 * 3600), call("new", at=NOW - 3600))
    short, long = (words(page(ledger, name="x", hours=hours)) for hours in (5, 120))

    assert "1 request cost $1.00" in short
    assert "the calls of the last 5 hours" in short
    assert "2 requests cost $2.00" in long
    assert "the calls of the last 5 days" in long
    assert "no call that ended in the last 0.5 hours" in words(page(ledger, name="x", hours=0.5))


@pytest.mark.parametrize(
    ("saved", "says"),
    [("1", "50.0 % less than without us"), ("0", "and nothing was saved"), ("-0.5", "$0.50 more than without us")],
)
def test_a_loss_is_called_a_loss(saved: str, says: str) -> None:
    """What a cause cost more than it saved is drawn in red and said in the headline."""
    html = page(ledger_of(call("one", saved=Saved(router=Decimal(saved)))), name="x")

    assert says in words(html)
    assert ('<i class="red"></i>lost' in html) is (saved == "-0.5")


def test_one_call_of_unknown_everything_makes_a_page() -> None:
    """Neither price nor model nor time is needed."""
    said = words(page(ledger_of(call("one", model=None, cost=None, latency=None)), name="x"))

    assert "1 request cost at least $0" in said
    assert "No call says how long it took." in said
    assert "No router decided a request in this time." in said
    assert "Per request unknown unknown on the mean" in said


def test_the_providers_prompt_cache_is_no_saving_of_ours() -> None:
    """It is shown beside the causes and takes no part in what was saved."""
    html = page(ledger_of(call("one", saved=Saved(prompt_cache=Decimal(3)))), name="x")

    assert "without us too" in words(html)
    assert "and nothing was saved" in words(html)


def test_more_names_than_fit_are_put_together(tmp_path: Path) -> None:
    """Ten endpoints and eight models are drawn; names that look alike when cut stay apart."""
    alike = "a-very-long-name-of-an-endpoint-of-the-application-"
    records = [call(f"{n}", endpoint=f"{alike}{n}", model=f"m{n}", cost=Decimal(100 - n)) for n in range(12)]
    html = page(ledger_of(*records, *(replace(r, id=f"u{r.id}", cost=None) for r in records)), name="x")

    assert "4 others" in html
    assert f"{alike}9" in html
    assert f"{alike}10" not in html
    assert "m0, m1, m10, m11, m2 and 7 more" in words(html)


def test_the_file_is_its_owners_alone_and_replaces_another_whole(tmp_path: Path) -> None:
    """Whatever stood there, and whoever might read it, the new page is complete and private."""
    out = tmp_path / "report.html"
    write_report(ledger_of(), out, name="x")
    out.chmod(0o644)
    write_report(ledger_of(call("one")), out, name="x", goals=Goals())

    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert out.read_text(encoding="utf-8").endswith("</html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    """Where a folder stands in the way, no half of a file stays beside it."""
    (tmp_path / "report.html").mkdir()
    with pytest.raises(ValueError, match="cannot be written"):
        write_report(ledger_of(call("one")), tmp_path / "report.html", name="x")

    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_command_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default it goes to report.html in the folder that one is in."""
    with Ledger(tmp_path / "costs.db") as ledger:
        ledger.append(call("one"))
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "costs.db") == 0
    assert run(monkeypatch, "costs.db", "-o", "days.html", "--days", "99999", "--max-error", "0.02") == 0

    assert "1 request cost $1.00" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "costs.db" in (tmp_path / "days.html").read_text(encoding="utf-8")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `llm-costopt report` and give its exit code."""
    monkeypatch.setattr(sys, "argv", ["llm-costopt", "report", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.db"], "there is no ledger"),
        (["notes.txt"], "file is not a database"),
        (["costs.db", "-o", "none/report.html"], "cannot be written: No such file or directory"),
        (["costs.db", "-o", "costs.db"], "is the ledger itself"),
        (["none.db", "-o", "costs.db"], "there is no ledger"),
        (["costs.db", "-o", "notes.txt"], "there is a file already that is no report"),
        (["costs.db", "-o", "pipe"], "there is a file already that is no report"),
        (["costs.db", "--hours", "1", "--days", "1"], "give one of them"),
        (["costs.db", "--max-error", "5"], "are shares"),
        (["costs.db", "--target-quality", "95"], "are shares"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    """It names what to mend, with exit code 1, and no page is made."""
    Ledger(tmp_path / "costs.db").close()
    (tmp_path / "notes.txt").write_text("these are notes, and not a database of any kind")
    os.mkfifo(tmp_path / "pipe")  # stands for a device, which is never tried: whoever may write there would replace it
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 1
    printed = capsys.readouterr()

    assert (printed.out, len(printed.err.splitlines())) == ("", 1)
    assert says in printed.err
    assert (tmp_path / "notes.txt").read_text() == "these are notes, and not a database of any kind"
    assert not list(tmp_path.rglob("*.html"))


@pytest.mark.parametrize("missing", ["vl_convert", "jinja2"])
def test_a_missing_extra_names_the_install_line(missing: str) -> None:
    """Without a library of the report, it says what to install."""
    code = f"import sys; sys.modules[{missing!r}] = None\nimport llm_costopt.monitor.report"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert "the report needs an optional dependency: pip install 'llm-costopt[report]'" in done.stderr


@pytest.mark.parametrize(
    ("usd", "written"),
    [
        ("0", "$0"),
        ("1234.5", "$1,234"),
        ("12.3", "$12.30"),
        ("-4", "−$4.00"),
        ("0.104", "$0.10"),
        ("0.0123456", "$0.0123"),
        ("0.00001234", "$0.0000123"),
        ("0.00000000001", "<$0.0000001"),
    ],
)
def test_money_is_written_to_what_matters(usd: str, written: str) -> None:
    """Cents from ten cents on, three digits below, and never an exponent."""
    assert wording.money(Decimal(usd)) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, "unknown"), (0.00042, "0.42 ms"), (0.038, "38 ms"), (1.25, "1.2 s"), (4000, "4,000 s")],
)
def test_durations_are_written_in_their_unit(value: float | None, written: str) -> None:
    """From a hit's fraction of a millisecond to a batch's hours."""
    assert wording.seconds(value) == written


def test_a_ledger_that_is_damaged_inside_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its first pages may be sound, so that it opens; what is read later is told without a traceback."""
    with Ledger(tmp_path / "costs.db") as ledger:
        for n in range(500):
            ledger.append(call(str(n), why="because" * 10))
    whole = (tmp_path / "costs.db").read_bytes()
    (tmp_path / "costs.db").write_bytes(whole[: 3 * 16384] + bytes(len(whole) - 3 * 16384))
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "costs.db") == 1
    printed = capsys.readouterr()

    assert (printed.out, len(printed.err.splitlines())) == ("", 1)
    assert "malformed" in printed.err
    assert not list(tmp_path.rglob("*.html"))
