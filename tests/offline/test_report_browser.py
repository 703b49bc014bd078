"""The report as a browser shows it, in headless Chromium: skipped where there is none, except in CI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

from tests.offline.invented import WORDS, invented_run
from tests.offline.screenshots import browser, chromium, opened
from trimtab.offline.findings import ShiftFound, SweepFound, read_findings
from trimtab.offline.report import write_report

WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def started() -> Iterator[Browser]:
    executable = chromium()
    if executable is None:
        reason = "no Chromium on PATH, and CHROME names none"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with browser(executable) as started:
        yield started


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = invented_run(tmp_path_factory.mktemp("study"))
    write_report(run, run / "report.html")
    return run


@dataclass
class Watched:
    """A page, what it asked for and what it complained of."""

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def watched(started: Browser, run: Path) -> Iterator[Watched]:
    page = opened(started, run / "report.html", WIDTHS[0])
    found = Watched(page)
    page.on("request", lambda request: found.asked.append(request.url))
    page.on("console", lambda message: found.complaints.append(message.text))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.reload()
    yield found
    page.close()


def test_the_page_asks_for_nothing_and_complains_of_nothing(watched: Watched, run: Path) -> None:
    asked = [url for url in watched.asked if not url.startswith("data:")]
    assert asked == [(run / "report.html").resolve().as_uri()]
    assert watched.complaints == []


def test_the_policy_forbids_what_a_finding_might_smuggle_in(watched: Watched) -> None:
    """Were an escape ever forgotten, the browser itself would run no foreign script and fetch no address."""
    watched.page.evaluate(
        """() => {
            const image = "<img src='http://127.0.0.1:9/x.png' onerror='window.ran = 1'>";
            document.body.insertAdjacentHTML("beforeend", image);
            const script = document.createElement("script");
            script.textContent = "window.ran = 1";
            document.body.append(script);
        }"""
    )
    watched.page.wait_for_timeout(100)
    for directive in ("img-src", "script-src"):
        assert [one for one in watched.complaints if "Content Security Policy" in one and directive in one], directive
    assert watched.page.evaluate("window.ran") is None


def test_every_section_is_there_and_its_link_leads_to_it(watched: Watched) -> None:
    links = watched.page.locator("nav a").all()
    assert len(links) == watched.page.locator("main section").count() == 8
    for link in links:
        anchor = link.get_attribute("href")
        assert watched.page.locator(f"section{anchor} h2").first.inner_text() == link.inner_text()
        link.click()
        assert watched.page.locator(f"section{anchor} > details").get_attribute("open") is not None


def test_every_picture_is_decoded(watched: Watched) -> None:
    sizes = watched.page.locator("img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert len(sizes) == 5 * len(WORDS)
    assert min(sizes) == 112


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_overflows_sideways(started: Browser, run: Path, width: int, theme: str) -> None:
    page = opened(started, run / "report.html", width, "dark" if theme == "dark" else "light")
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Tables wider than a telephone scroll in a box of their own; nothing else may reach over the edge.
    over = page.evaluate(
        """() => [...document.querySelectorAll("main *, header *, nav *")]
            .filter(one => !one.closest(".scroll table, .unseen, defs"))
            .filter(one => one.getBoundingClientRect().right > innerWidth + 1 || one.getBoundingClientRect().left < -1)
            .map(one => one.outerHTML.slice(0, 120))"""
    )
    assert over == []
    page.close()


def test_the_two_themes_differ(started: Browser, run: Path) -> None:
    grounds = set()
    for theme in ("light", "dark"):
        page = opened(started, run / "report.html", WIDTHS[0], "dark" if theme == "dark" else "light")
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert len(grounds) == 2


def test_charts_have_a_mark_for_every_datum(watched: Watched, run: Path) -> None:
    findings = read_findings(run)
    shift, sweep = findings["shift-place"], findings["sweep-yes-no"]
    assert isinstance(shift, ShiftFound)
    assert isinstance(sweep, SweepFound)

    def marks(kind: str, which: str = "") -> int:
        return watched.page.locator(f"svg[data-chart={kind}] .mark{which}").count()

    assert marks("arrows") == len(shift.concepts)
    assert marks("dumbbells") == 2 * len(shift.concepts)
    assert marks("scatter") == sum(one.recovery is not None for one in shift.concepts)
    assert marks("intervals") == len(shift.correlations) + len(shift.controls)
    assert marks("pareto", ".dev") == sum(one.split == "dev" for one in sweep.points)
    assert marks("pareto", ".test") == sum(one.split == "test" for one in sweep.points)
    assert watched.page.locator(".ring.chosen").count() == sum(one.chosen for one in sweep.points)
    assert marks("curves") == 2 * 6 + 6 * len(WORDS)
    assert watched.page.locator(".card").count() == len(WORDS)


def unfolded(watched: Watched, caption: str) -> Locator:
    """A table whose caption has been clicked."""
    watched.page.locator("summary", has_text=caption).click()
    return watched.page.get_by_role("table", name=caption)


def test_what_is_long_is_folded_and_printed_whole(watched: Watched) -> None:
    hidden = watched.page.get_by_role("table", name="Every concept's shift")
    assert hidden.count() == 0
    watched.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert watched.page.locator("details:not([open])").count() == 0
    watched.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert hidden.count() == 0


def test_a_click_or_a_key_on_a_header_sorts_its_column(watched: Watched) -> None:
    table = unfolded(watched, "Every concept's shift")
    rows = table.locator("tbody tr td:nth-child(3)")
    unsorted = [int(text) for text in rows.all_inner_texts()]
    header = table.get_by_role("columnheader", name="states")
    header.get_by_role("button").click()
    assert [int(text) for text in rows.all_inner_texts()] == sorted(unsorted)
    assert header.get_attribute("aria-sort") == "ascending"
    header.get_by_role("button").press("Enter")
    assert [int(text) for text in rows.all_inner_texts()] == sorted(unsorted, reverse=True)


def test_a_concept_without_recovery_stays_last_however_it_is_sorted(watched: Watched) -> None:
    table = unfolded(watched, "Every concept's shift")
    recovery = table.locator("tbody tr td:nth-child(9)")
    for _ in range(2):
        table.get_by_role("columnheader", name="recovery").get_by_role("button").click()
        assert recovery.all_inner_texts()[-1] == ""


def test_the_page_is_whole_without_javascript(started: Browser, run: Path) -> None:
    page = started.new_page(java_script_enabled=False)
    page.goto((run / "report.html").resolve().as_uri())
    assert page.locator("main section").count() == 8
    assert page.locator("th button").count() == 0
    assert page.locator("svg.chart .mark").count() > 200
    page.close()
