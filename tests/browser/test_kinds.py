"""Reports of captures that lack something, or hold the worst of names: each is a good report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perfkit.capture import CaptureWriter
from tests.browser.test_report_page import ready, report
from tests.report.build import write_capture

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]
NOTHING = "There is nothing over time in this capture"
NO_SPANS = "There are no spans in this capture"
SHORT = "The capture is too short to say what is usual"
HOSTILE = (
    "</script><script>window.hacked=1</script>\u202egnp <img src=x onerror=hacked=1> \x07",
    "<b>" + "x" * 1_000_000 + "'\"</b>",
)


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ("spans", {"trends": SHORT, "heatmaps": "Latency of queries", "dependencies": "sqlite"}),
        ("samples", {"trends": NOTHING, "heatmaps": NOTHING, "bottlenecks": NO_SPANS}),
        ("metrics", {"trends": SHORT, "heatmaps": "CPU of each core", "dependencies": NO_SPANS}),
        ("nothing", {"trends": NOTHING, "heatmaps": NOTHING, "summary": "This capture is empty"}),
    ],
)
def test_what_is_not_there_is_said(
    kinds: str, said: dict[str, str], tmp_path: Path, open_page: OpenPage
) -> None:
    path = tmp_path / "part.perfkit"
    if kinds == "nothing":
        with CaptureWriter(path):
            pass
    else:
        parts = {f"with_{name}": name == kinds for name in ("spans", "samples", "metrics")}
        write_capture(path, **parts)
    page = ready(open_page(report(path, kinds)))
    assert page.locator(".is-error").count() == 0
    for section, text in said.items():
        assert text in page.locator(f"#{section}").inner_text()


def test_without_requests_no_load_is_drawn(tmp_path: Path, open_page: OpenPage) -> None:
    path = write_capture(tmp_path / "m.perfkit", with_spans=False, with_samples=False)
    page = ready(open_page(report(path, "metrics")))
    assert "requests, at most" not in page.locator("#summary").inner_text()


@pytest.mark.parametrize("name", HOSTILE, ids=["markup", "megabyte"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_worst_of_names_is_text(
    name: str, width: int, tmp_path: Path, open_page: OpenPage
) -> None:
    path = write_capture(tmp_path / "worst.perfkit", requests=12, hostile=name)
    page = ready(open_page(report(path, "worst"), width=width))
    page.locator("#slow_requests .is-virtual tbody tr:not(.spacer)").first.click()
    page.locator("#slow_requests .waterfall").wait_for()
    page.locator("#dependencies .graph-node").last.press("Enter")
    assert page.evaluate("window.hacked") is None
    assert page.locator(".is-error").count() == 0
    assert page.locator("main img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
