"""Slow requests in a real Chromium: the threshold, the groups, and what is told of one request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from perfkit import units
from perfkit.analysis.session import Tables
from tests.browser.test_report_page import ready, report
from tests.report.build import open_tables
from tests.report.incident import write_incident
from tests.report.test_redaction import PRIVATE, plant

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slow") / "incident.perfkit"
    return write_incident(path, seconds=180, rate=10)


@pytest.fixture(scope="module")
def tables(incident: Path) -> Tables:
    return open_tables(incident)


@pytest.fixture(scope="module")
def html(incident: Path) -> str:
    return report(incident, "incident")


def entries(tables: Tables) -> pl.DataFrame:
    return tables.frame("requests").filter("entry")


def said(page: Any) -> str:
    return str(page.locator("#slow_requests output").first.inner_text())


def test_the_threshold_is_a_percentile_of_what_passes(
    html: str, tables: Tables, open_page: OpenPage
) -> None:
    page = ready(open_page(html))
    durations = entries(tables)["duration_ns"].to_numpy()
    p95 = float(np.quantile(durations, 0.95))
    slow = int((durations >= p95).sum())
    expected = f"{units.duration(p95)} (p95): {slow} of {units.number(len(durations))} requests"
    assert said(page) == expected
    slider = page.get_by_role("slider", name="Which requests count as slow")
    slider.focus()
    page.keyboard.press("Home")
    assert said(page).endswith(
        f"{units.number(len(durations))} of {units.number(len(durations))} requests"
    )
    assert "slow=0" in page.url
    assert page.locator("#slow_requests .datatable .muted").first.inner_text().startswith("1,8")


def test_slow_requests_are_counted_by_group(html: str, tables: Tables, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    durations = entries(tables)
    p95 = float(np.quantile(durations["duration_ns"].to_numpy(), 0.95))
    by = durations.group_by("endpoint").agg(slow=(pl.col("duration_ns") >= p95).sum(), all=pl.len())
    expected = {
        row["endpoint"]: [str(row["slow"]), units.percent(row["slow"] / row["all"])]
        for row in by.to_dicts()
        if row["slow"]
    }
    rows = page.get_by_role("group", name="Slow requests by group").locator("tbody tr")
    found = {
        cells[0]: cells[1:3]
        for cells in (row.locator("td").all_inner_texts() for row in rows.all())
    }
    assert found == expected
    rows.first.get_by_role("button").press("Enter")
    assert page.evaluate("window.perfkit.filter.state.endpoints") == ["POST /orders"]


def detail(page: Any, at: int = 0) -> Any:
    row = page.locator("#slow_requests .is-virtual tbody tr:not(.spacer)").nth(at)
    row.scroll_into_view_if_needed()
    row.click()
    found = page.locator("#slow_requests [data-slot=detail]")
    found.locator(".waterfall").wait_for()
    return found


def table(found: Any, name: str) -> list[list[str]]:
    rows = found.get_by_role("group", name=name).locator("tbody tr").all()
    return [row.locator("td").all_inner_texts() for row in rows]


def test_a_request_is_compared_with_typical_ones(
    html: str, tables: Tables, open_page: OpenPage
) -> None:
    rows = table(detail(ready(open_page(html))), "More time than in typical requests")
    orders = entries(tables).filter(pl.col("endpoint") == "POST /orders")
    slowest = orders.sort("duration_ns", descending=True)["request_row"][0]
    limit = float(np.quantile(orders["duration_ns"].to_numpy(), 0.75))
    usual = orders.filter(pl.col("duration_ns") <= limit)["request_row"]
    waits = tables.frame("tree").filter(pl.col("name") == "pool checkout")
    here = waits.filter(pl.col("entry_row") == slowest)["duration_ns"].sum()
    mean = waits.filter(pl.col("entry_row").is_in(usual.implode()))["duration_ns"].sum() / len(
        usual
    )
    assert rows[0][:3] == ["pool checkout", units.duration(here), units.duration(mean)]


def test_shared_traits_and_queries_are_told(html: str, open_page: OpenPage) -> None:
    found = detail(ready(open_page(html)))
    traits = table(found, "What slow requests share")
    assert ["customer.tier = gold", "100 %"] in [row[:2] for row in traits]
    queries = table(found, "Queries of this request")
    assert [row[1] for row in queries] == ["1", "1"]
    statements = found.get_by_role("group", name="Queries of this request")
    assert statements.get_by_text("UPDATE orders SET state = ? WHERE id = ?").is_visible()
    assert not statements.get_by_text("'paid'").is_visible()


def test_events_are_told_with_what_they_say(tmp_path: Path, open_page: OpenPage) -> None:
    page = ready(open_page(report(plant(tmp_path / "events.perfkit"), "events")))
    (event,) = table(detail(page), "Events of this request")
    assert event[:2] == ["20 ms", "exception"]
    assert "exception.type: LookupError" in event[3]
    assert PRIVATE["message"] in event[3]
