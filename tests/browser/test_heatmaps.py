"""Heatmaps in a real Chromium: latency of requests and queries, pools, and the clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from perfkit.report.context import Context
from perfkit.report.sections import heatmaps, slow_queries
from tests.browser import synthetic
from tests.browser.test_report_page import ready, report
from tests.report.build import open_tables
from tests.report.incident import START, S, write_incident

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]
PANEL = """(title) => {
  const figures = [...document.querySelectorAll("#heatmaps figure")];
  const figure = figures.find((one) => one.querySelector("h3")?.textContent.startsWith(title));
  const [trace] = figure.querySelector(".js-plotly-plot").data;
  return { z: trace.z, rows: figure.querySelector(".js-plotly-plot").layout.yaxis.ticktext };
}"""
DAY = 86_400 * S


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("heatmaps") / "incident.perfkit"
    return write_incident(path, seconds=180, rate=10)


def cells(page: Any, title: str) -> int:
    z = page.evaluate(PANEL, title)["z"]
    return sum(value is not None for row in z for value in row)


def test_all_that_the_capture_has_is_there(incident: Path, open_page: OpenPage) -> None:
    page = ready(open_page(report(incident, "incident")))
    titles = page.locator("#heatmaps figure h3").all_inner_texts()
    assert titles == [
        "Latency of requests",
        "Latency of queries",
        "CPU of each core",
        "CPU of each process (100 % is one core)",
        "Memory (RSS) of each process",
        "Connections of each pool: in use, and callers waiting",
        "By minute and second (UTC)",
    ]


def test_queries_stand_where_they_began(incident: Path) -> None:
    context = Context(open_tables(incident), [], "")
    calls = slow_queries.build(context)["data"]["calls"]
    population = context.population
    starts = (
        context.tables["query_calls"]
        .join(context.tables["tree"].select("row", "start_ns"), on="row")
        .collect()["start_ns"]
        .to_numpy()
    )
    width = population.duration_ns / slow_queries.COLUMNS
    expected = np.bincount(((starts - population.origin_ns) / width).astype(int), minlength=120)
    found = np.bincount(calls["column"], minlength=120)
    assert found.sum() == expected.sum() == len(starts)
    assert np.abs(found - expected).max() <= 1


def test_pools_show_use_and_waiting(incident: Path) -> None:
    context = Context(open_tables(incident), [], "")
    panels = heatmaps.build(context)["data"]["panels"]
    (pool,) = [panel for panel in panels if panel["id"] == "pools"]
    assert pool["rows"] == ["orders: in use", "orders: waiting"]
    values = pool["values"].reshape(2, -1)
    bad = slice(110, 130)
    assert (values[0, bad] == 8).all()
    assert (values[1, bad] >= 1).all()
    assert np.nanmax(values[1, :100]) == 0
    assert pool["note"] == "The largest pool has 8 connections."


def test_maps_of_requests_and_queries_follow_the_filter(
    incident: Path, open_page: OpenPage
) -> None:
    html = report(incident, "incident")
    whole, part = (
        ready(open_page(html, fragment=fragment)) for fragment in ("", f"from={30 * S}&to={60 * S}")
    )
    for title in ("Latency of requests", "Latency of queries"):
        z = part.evaluate(PANEL, title)["z"]
        columns = {at for row in z for at, value in enumerate(row) if value is not None}
        assert columns <= set(range(19, 41))
        assert 0 < cells(part, title) < cells(whole, title)


def test_a_second_is_chosen_by_a_click_on_its_cell(incident: Path, open_page: OpenPage) -> None:
    page = ready(open_page(report(incident, "incident")))
    area = page.locator("#heatmaps .is-calendar")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    # The capture begins at second 40 of a minute: the second row's second 10 is second 30 of it.
    assert START // S % 60 == 40
    rows = page.evaluate(PANEL, "By minute")["rows"]
    area.click(position={"x": box["width"] * 10.5 / 60, "y": box["height"] * 1.5 / len(rows)})
    page.wait_for_timeout(300)
    state = page.evaluate("() => window.perfkit.filter.state")
    begin = open_tables(incident).frame("facts")["start_ns"][0]
    assert state["from_ns"] == pytest.approx(START + 30 * S - begin, abs=2000)
    assert state["to_ns"] - state["from_ns"] == S


def test_a_second_is_reached_and_chosen_by_keyboard(incident: Path, open_page: OpenPage) -> None:
    page = ready(open_page(report(incident, "incident")))
    area = page.locator("#heatmaps .is-calendar")
    area.focus()
    # From the capture's first second, 40, down a minute and ten seconds to the left.
    page.keyboard.press("ArrowDown")
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    said = page.locator("#heatmaps figure [aria-live]").last.inner_text()
    assert "Requests" in said
    page.keyboard.press("Enter")
    state = page.evaluate("() => window.perfkit.filter.state")
    begin = open_tables(incident).frame("facts")["start_ns"][0]
    assert state["from_ns"] == pytest.approx(START + 50 * S - begin, abs=2000)
    assert state["to_ns"] - state["from_ns"] == S
    # Nothing is before the first second.
    page.evaluate("window.perfkit.filter.clear()")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert page.evaluate("() => window.perfkit.filter.state")["from_ns"] == state["from_ns"]


def test_the_clock_counts_every_request_once(open_page: OpenPage) -> None:
    data = synthetic.build(requests=300)
    data.page["duration_ns"] = 3 * DAY
    requests = data.sections["slow_requests"]["requests"]
    requests["start_ns"] = np.sort(requests["start_ns"] * (3 * DAY // (20 * synthetic.SECOND)))
    page = ready(open_page(data))
    title = page.locator("#heatmaps figure h3").last
    assert title.inner_text() == "By day and hour of day (UTC)"
    found = page.evaluate(PANEL, "By day")
    start_ms = data.page["start_unix_ms"]
    hours = (start_ms * 1e6 + requests["start_ns"]) // (3600 * S)
    assert cells(page, "By day") == len(np.unique(hours))
    assert len(found["z"]) == len(np.unique(np.arange(hours.min(), hours.max() + 1) // 24))
    counts = pl.Series(hours).value_counts()["count"]
    z = np.array([[value or 0 for value in row] for row in found["z"]])
    assert (z * counts.max()).sum() == pytest.approx(300, rel=1e-3)


def test_short_captures_have_no_clock(open_page: OpenPage) -> None:
    page = ready(open_page(synthetic.build(requests=20)))
    assert page.locator("#heatmaps .is-calendar").count() == 0


def test_a_legend_says_what_is_counted(incident: Path, open_page: OpenPage) -> None:
    page = ready(open_page(report(incident, "incident")))
    legends = page.locator("#heatmaps figure .scale").all_inner_texts()
    assert legends[0].endswith("requests, logarithmic")
    assert legends[1].endswith("queries, logarithmic")


def test_when_the_capture_began_lies_beside_the_figure_at_the_axis_foot(
    incident: Path, open_page: OpenPage
) -> None:
    page = ready(open_page(report(incident, "incident")))
    began = page.locator("#heatmaps .js-plotly-plot .annotation text").first.bounding_box()
    names = [one.bounding_box() for one in page.locator("#heatmaps .ytick text").all()]
    assert began
    assert all(one["x"] + one["width"] <= began["x"] + 1 for one in names)
