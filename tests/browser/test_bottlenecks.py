"""Bottlenecks in a real Chromium: the slider says what the replays say."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from perfkit import units
from perfkit.report import what_if
from tests.browser.test_report_page import ready, report
from tests.report.build import open_tables
from tests.report.incident import write_incident

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]
POOL = {
    "service": "gateway",
    "category": "internal",
    "component": "gateway",
    "name": "pool checkout",
}


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, what_if.Replays]:
    path = tmp_path_factory.mktemp("bottlenecks") / "incident.perfkit"
    write_incident(path, seconds=120, rate=10)
    return report(path, "incident"), what_if.run(open_tables(path), [POOL])


def p95(page: Any) -> str:
    return str(page.locator("#bottlenecks .bottleneck output b").first.inner_text())


def said(replays: what_if.Replays, step: int, group: int = 0) -> str:
    now, then = (replays.at(0, at, group, "p95") for at in (0, step))
    whose = replays.endpoints[group] or "all requests"
    less = units.percent(1 - then / now)
    return f"p95 of {whose} {units.duration(now)} → {units.duration(then)} (−{less})"


def test_the_slider_says_what_was_replayed(
    incident: tuple[str, what_if.Replays], open_page: OpenPage
) -> None:
    html, replays = incident
    page = ready(open_page(html))
    assert page.locator("#bottlenecks .bottleneck h3").first.inner_text() == "pool checkout"
    slider = page.locator("#bottlenecks .bottleneck input[type=range]").first
    assert p95(page) == said(replays, 3)
    slider.fill("75")
    assert p95(page) == said(replays, 4)
    slider.focus()
    page.keyboard.press("End")
    assert p95(page) == said(replays, 6)
    assert slider.get_attribute("aria-valuetext") == "100 % less"


def test_between_two_replays_it_says_so(
    incident: tuple[str, what_if.Replays], open_page: OpenPage
) -> None:
    html, replays = incident
    page = ready(open_page(html))
    output = page.locator("#bottlenecks .bottleneck output").first
    assert "between" not in output.inner_text()
    page.locator("#bottlenecks .bottleneck input[type=range]").first.fill("60")
    assert "between two replays" in output.inner_text()
    low, high = (replays.at(0, step, 0, "p95") for step in (3, 4))
    assert units.duration(low + (high - low) * (0.60 - 0.5) / 0.25) in output.inner_text()


def test_the_slider_follows_the_chosen_endpoint(
    incident: tuple[str, what_if.Replays], open_page: OpenPage
) -> None:
    html, replays = incident
    page = ready(open_page(html, fragment="endpoint=POST+%2Forders"))
    assert p95(page) == said(replays, 3, replays.endpoints.index("POST /orders"))
    page = ready(open_page(html, fragment="status=error"))
    assert "not only those of the filter" in page.locator("#bottlenecks output").first.inner_text()


def test_the_evidence_follows_the_filter(
    incident: tuple[str, what_if.Replays], open_page: OpenPage
) -> None:
    html, _ = incident
    legend = "#bottlenecks .bottleneck .legend"
    before = ready(open_page(html)).locator(legend).first.inner_text()
    page = ready(open_page(html, fragment="endpoint=GET+%2Fitems%2F%7Bid%7D"))
    after = page.locator(legend).first.inner_text()
    assert re.search(r"of it here, at most [1-9]", before)
    assert "of it here, at most 0 s" in after


def test_without_scripts_the_steps_are_a_table(
    incident: tuple[str, what_if.Replays], browser: Any, tmp_path: Any
) -> None:
    html, replays = incident
    file = tmp_path / "plain.html"
    file.write_text(html, encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    page.locator("#bottlenecks [data-steps] summary").first.click()
    rows = page.locator("#bottlenecks [data-steps] tbody").first.inner_text()
    assert units.duration(replays.at(0, 6, 0, "p95")) in rows
    context.close()
