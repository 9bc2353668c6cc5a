"""The report in a real browser: Chromium without a window, on a desktop and on a phone, light and dark."""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from llm_costopt.monitor.ledger import Ledger
from llm_costopt.monitor.report import write_report
from llm_costopt.types import Saved
from tests.monitor.calls import NOW, call, ledger_of

pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("chromedriver") is None,
    reason="Chromium is not installed: `bash scripts/get-programs` gets it with apt-get",
)

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"

_HELPERS = """
const seen = e => { const r = e.getBoundingClientRect(); return r.width > 0 && r.height > 0; };
const texts = () => [...document.querySelectorAll('svg')].filter(seen).map(
  svg => [...svg.querySelectorAll('text')].filter(seen).filter(t => t.textContent.trim()));
const luminance = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92
  : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const contrast = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (!c.endsWith(', 0)')) return c; } };
"""

_OVERLAPS = """
return texts().flatMap(ts => ts.flatMap((a, i) => ts.slice(i + 1).filter(b => {
  const [p, q] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
  return Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1 && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 2;
}).map(b => [a.textContent, b.textContent])));
"""

_OUTSIDE = """
return texts().flat().filter(t => { const r = t.getBoundingClientRect(), c = t.closest('.card').getBoundingClientRect();
  return r.left < c.left || r.right > c.right; }).map(t => t.textContent);
"""

_SMALL = "return texts().flat().filter(t => t.getBoundingClientRect().height < 9).map(t => t.textContent);"

_FAINT = """
const drawn = texts().flat().map(t => [t.textContent, contrast(getComputedStyle(t).fill, behind(t))]);
const said = [...document.querySelectorAll('h1, h2, h3, p, dt, dd, small, li, th, td, summary, code')].filter(seen).map(
  e => [e.textContent.slice(0, 40), contrast(getComputedStyle(e).color, behind(e))]);
return [...drawn, ...said].filter(([_, ratio]) => ratio < 4.5);
"""

_MARKS = """
return [...document.querySelectorAll('svg path, svg line')].filter(seen).filter(p => p.querySelector('title'))
  .map(p => getComputedStyle(p).fill).filter(f => f === 'rgb(0, 0, 0)').length;
"""


class Browser:
    """A Chromium that notes what it is asked to load and what it complains of."""

    def __init__(self, folder: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(
            options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver")))
        )

    def show(self, page: Path, *, width: int, dark: bool) -> None:
        """Open *page* as a screen of *width* pixels shows it."""
        phone = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(page.as_uri())

    def ask(self, script: str) -> Any:
        """Run *script* in the page, past its policy, and give what it returns."""
        return self.driver.execute_script(_HELPERS + script)

    def loaded(self) -> list[str]:
        """List what was asked for since the page was shown."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def picture(self, path: Path, width: int) -> None:
        """Keep a picture of the whole page."""
        height = self.ask("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        path.write_bytes(base64.b64decode(shot["data"]))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Give a browser that is started once."""
    started = Browser(tmp_path_factory.mktemp("chromium"))
    yield started
    started.driver.quit()


@pytest.fixture(scope="module")
def report(simulated: Ledger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file of the report on the simulated month."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    write_report(simulated, out, name="simulated.db")
    return out


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 800, 1240])
def test_the_report_is_legible(browser: Browser, report: Path, width: int, dark: bool) -> None:
    """Nothing is loaded, complained of, cut off, too small, too faint or written over something else.

    With REPORT_PICTURES=folder one can look at it.
    """
    browser.show(report, width=width, dark=dark)

    assert browser.loaded() in ([report.as_uri()], [report.as_uri(), "data:,"])
    assert browser.driver.get_log("browser") == []
    assert browser.ask("return [document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert browser.ask("return texts().length") == 9
    assert browser.ask(_OVERLAPS) == []
    assert browser.ask(_OUTSIDE) == []
    assert browser.ask(_SMALL) == []
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.ask(_FAINT) == []
    assert browser.ask(_MARKS) == 0
    assert browser.ask("return [document.documentElement.scrollWidth, innerWidth]") == [width, width]
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = false)")
    if folder := os.environ.get("REPORT_PICTURES"):
        browser.picture(Path(folder) / f"report-{width}-{'dark' if dark else 'light'}.png", width)


def test_light_and_dark_differ(browser: Browser, report: Path) -> None:
    """The page and the charts' marks take the colours of the reader's choice."""
    looks = []
    for dark in (False, True):
        browser.show(report, width=1240, dark=dark)
        looks.append(
            browser.ask(
                "return [luminance(getComputedStyle(document.body).backgroundColor),"
                " luminance(getComputedStyle(texts()[0][0]).fill)]"
            )
        )
    (light_page, light_text), (dark_page, dark_text) = looks

    assert light_page > 0.8
    assert light_text < 0.3
    assert dark_page < 0.05
    assert dark_text > 0.3


def test_hostile_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    """Markup in the names of models, endpoints and tiers stays text: no script, no image, no dialogue, no complaint."""
    told = {"model": HOSTILE, "endpoint": HOSTILE, "tier": HOSTILE, "complexity": HOSTILE, "saved": Saved()}
    ledger = ledger_of(
        *(call(f"{n}", at=NOW - n * 86_400, cost=None if n > 6 else Decimal(1), **told) for n in range(9))
    )
    write_report(ledger, tmp_path / "report.html", name=HOSTILE)
    browser.show(tmp_path / "report.html", width=390, dark=False)

    assert browser.driver.get_log("browser") == []
    assert browser.ask("return document.querySelectorAll('script, img, [onerror]').length") == 0
    assert browser.ask("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    assert browser.ask("return document.body.innerText").count("<script>alert(1)</script>") > 2
    assert browser.ask("return texts().flat().filter(t => t.textContent.startsWith('<script>')).length") > 0


def test_the_policy_holds_against_a_script(browser: Browser, report: Path, tmp_path: Path) -> None:
    """Were a script to get into the page, the browser would not run it."""
    changed = report.read_text(encoding="utf-8").replace("</body>", "<script>document.title = 'run'</script></body>")
    (tmp_path / "report.html").write_text(changed, encoding="utf-8")
    browser.show(tmp_path / "report.html", width=1240, dark=False)

    assert browser.driver.title != "run"
    assert any("Content Security Policy" in entry["message"] for entry in browser.driver.get_log("browser"))
