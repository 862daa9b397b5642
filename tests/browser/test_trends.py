"""Trends and spikes in a real Chromium: what happened when is on every chart over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.test_report_page import ready, report
from tests.report.incident import write_incident

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]
SECONDS, FROM, TO = 400, 240, 300


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("incident") / "incident.perfkit"
    return report(write_incident(path, seconds=SECONDS, rate=10), "incident")


def test_the_top_says_since_when_and_for_whom(html: str, open_page: OpenPage) -> None:
    said = ready(open_page(html)).locator("[data-slot=since]").inner_text()
    said = said.replace("\N{NO-BREAK SPACE}", " ")
    assert said.startswith("For 60 s from 06:50:40 UTC: p95 of POST /orders ")
    assert said.endswith("GET /items/{id} kept its pace.")


def test_the_spike_is_marked_on_every_chart_over_time(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    areas = page.locator("#summary, #trends, #heatmaps, #slow_requests").locator(".timechart-area")
    # The one by the clock is over all minutes at once; nothing has its place there.
    without = areas.evaluate_all(
        """all => all.filter((area) => !area.querySelector(".is-spike")
            && !area.closest(".timechart").querySelector("[aria-label^='By ']")).length"""
    )
    assert areas.count() > 12
    assert without == 0
    band = page.locator("#summary .timechart-area .is-spike").first
    left, width = band.evaluate("e => [e.style.left, e.style.width].map(parseFloat)")
    assert left == pytest.approx(100 * FROM / SECONDS, abs=1.5)
    assert width == pytest.approx(100 * (TO - FROM) / SECONDS, abs=1.5)


def test_the_crosshair_is_on_all_charts_at_once(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    page.locator("#trends .timechart-area").nth(1).hover(position={"x": 200, "y": 20})
    lefts = page.locator(".crosshair").evaluate_all("all => all.map(e => [e.hidden, e.style.left])")
    assert len(lefts) > 12
    assert {hidden for hidden, _ in lefts} == {False}
    assert len({left for _, left in lefts}) == 1


def test_a_spike_can_be_looked_at_alone(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    page.locator("#trends .episode[data-felt] button").click()
    page.wait_for_timeout(300)
    state = page.evaluate("() => window.perfkit.filter.state")
    assert state["from_ns"] == pytest.approx(FROM * 1e9, abs=6e9)
    assert state["to_ns"] == pytest.approx(TO * 1e9, abs=6e9)
    # What is slow then is slow for all: the median of orders alone is above 250 ms.
    assert "ms" in page.locator("#summary [data-stat=p50_ns]").inner_text()
    assert float(page.locator("#summary [data-stat=p50_ns]").inner_text().split()[0]) > 200


def test_charts_follow_the_chosen_endpoint(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html, fragment="endpoint=GET+%2Fitems%2F%7Bid%7D"))
    titles = page.locator("#trends figure:not([hidden]) h4").all_inner_texts()
    assert "Latency of all requests" in titles
    assert not any("POST /orders" in title for title in titles)


def test_more_charts_come_on_demand(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    figures = page.locator("#trends .timechart:visible")
    before = figures.count()
    page.locator("#trends button[aria-expanded=false]").press("Enter")
    # The key may be answered after the press returns.
    page.locator("#trends button[aria-expanded=true]").wait_for()
    figures.nth(before).wait_for()
