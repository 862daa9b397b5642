"""The report on paper: a PDF that Chromium makes, read page by page, and what is drawn for it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_report_page import ready, report
from tests.report.build import write_capture

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]
SHEET_PX = 186 / 25.4 * 96
DRAWN = """() => [...document.querySelectorAll(".flame-plot, .timechart")]
  .filter((one) => one.clientWidth > 0 && one.querySelector("svg"))
  .map((one) => Math.max(...[...one.querySelectorAll("svg")].map((svg) => svg.clientWidth)))"""


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("paper") / "code.perfkit"
    return report(write_capture(path, requests=240), "code")


def test_every_page_of_the_pdf_has_something_and_no_controls(
    html: str, open_page: OpenPage, tmp_path: Path
) -> None:
    pdftotext = shutil.which("pdftotext")
    if pdftotext is None:
        pytest.skip("pdftotext is not installed (package poppler-utils)")
    page = ready(open_page(html, dark=True))
    made = tmp_path / "report.pdf"
    page.pdf(path=made, format="A4")
    done = subprocess.run([pdftotext, "-layout", made, "-"], capture_output=True, check=True)
    text = done.stdout.decode()
    pages = text.split("\f")[:-1]
    assert 3 <= len(pages) <= 24
    assert all(len(one.split()) > 5 for one in pages)
    for heading in page.locator("main h2").all_inner_texts():
        assert heading in text
    for control in ("Export…", "Search frames", "Clear filter", "Heaviest first"):
        assert control in html or control in page.content()
        assert control not in text


def test_all_is_drawn_as_wide_as_paper_and_then_as_before(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    before = page.evaluate(DRAWN)
    assert len(before) > 3
    assert max(before) > SHEET_PX
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert max(page.evaluate(DRAWN)) <= SHEET_PX + 1
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(DRAWN) == before


def test_tables_that_scroll_show_their_first_rows_on_paper(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    said = page.locator("#slow_requests .datatable .toolbar .muted").inner_text()
    total = int(said.removesuffix(" rows"))
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    wrap = page.locator("#slow_requests .table-wrap:has(.is-virtual)")
    rows = wrap.locator("tbody tr[data-row]").count()
    assert rows == 20
    assert f"and {total - rows} rows more in the file" in wrap.inner_text()
    # Nothing lies on what follows.
    assert wrap.evaluate("one => one.scrollHeight <= one.clientHeight")
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert "more in the file" not in wrap.inner_text()


def test_deep_rows_of_little_width_stay_off_paper(open_page: OpenPage, html: str) -> None:
    page = ready(open_page(html))
    cut = page.evaluate(
        """() => {
      const { cutForPaper } = window.perfkit.flame;
      // Three rows: the whole, one child of half the width, and a hair below it.
      const bars = { node: [-1, 0, 1], x0: [0, 0, 0], x1: [700, 350, 6], kind: [0, 0, 0],
        skip: [0, 0, 0], count: [1, 1, 1], rowStart: [0, 1, 2, 3],
        get rows() { return this.rowStart.length - 1; } };
      const rows = cutForPaper(bars, 700);
      return [rows, bars.rowStart, bars.node];
    }"""
    )
    assert cut == [1, [0, 1, 2], [-1, 0]]
