"""The filter drives dependencies, episodes and what was waited for, or they say it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from perfkit import units
from perfkit.analysis.session import Tables
from perfkit.report.render import build
from tests.browser.test_report_page import ready
from tests.report.build import open_tables
from tests.report.incident import write_incident

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]
SECONDS = 400


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("scope") / "incident.perfkit"
    return write_incident(path, seconds=SECONDS, rate=10)


@pytest.fixture(scope="module")
def tables(path: Any) -> Tables:
    return open_tables(path)


@pytest.fixture(scope="module")
def html(tables: Tables) -> str:
    made = build(tables, [], title="incident")
    assert made.failed == []
    return made.html


CHOOSE = """async ([patch, id]) => {
  const runs = () => performance.getEntriesByName(`perfkit:section ${id}`).length;
  const before = runs();
  if (patch) perfkit.filter.set(patch);
  else perfkit.filter.clear();
  while (runs() === before) await new Promise((done) => setTimeout(done, 20));
}"""


def choose(page: Any, section: str, **patch: Any) -> None:
    """Set the filter, or clear it, and wait until the section has followed."""
    page.evaluate(CHOOSE, [patch or None, section])


def arrows(page: Any) -> dict[tuple[str, str], str]:
    found = page.locator("#dependencies .graph-edge").evaluate_all(
        "all => all.map(one => [one.dataset.source, one.dataset.target, "
        "one.querySelector('text').textContent])"
    )
    return {(source, target): text for source, target, text in found}


def edges(tables: Tables) -> dict[tuple[str, str], str]:
    """Return what the arrows say in a report of these tables alone."""
    found = {
        (row["service"], row["component"]): (row["total_ns"], row["count"])
        for row in tables.frame("edges").to_dicts()
    }
    entries = tables.frame("requests").filter("entry")
    for service, ns, count in (
        entries.group_by("service").agg(pl.col("duration_ns").sum(), pl.len()).iter_rows()
    ):
        found["requests", service] = (ns, count)
    return {
        key: f"{units.duration(total)} · {units.number(round(count))}"
        for key, (total, count) in found.items()
    }


def test_arrows_are_those_of_a_report_of_the_chosen_alone(
    path: Any, tables: Tables, html: str, open_page: OpenPage
) -> None:
    page = ready(open_page(html))
    whole = arrows(page)
    assert whole == edges(tables)
    # As the whole is what the page came with, the sums in the page are seen only when it filters.
    choose(page, "dependencies", min_duration_ns=1)
    assert arrows(page) == whole
    choose(page, "dependencies", endpoints=["POST /orders"], min_duration_ns=0)
    alone = edges(open_tables(path, endpoint="POST /orders"))
    assert {key: text for key, text in arrows(page).items() if text != "none"} == alone
    assert alone != whole
    assert "pass the filter" in page.locator("#dependencies [data-slot=scope]").inner_text()
    choose(page, "dependencies")
    assert arrows(page) == whole


def test_episodes_of_other_times_and_endpoints_are_left_out(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    cards = page.locator("#trends .episode")
    number = cards.count()
    assert number >= 1
    choose(page, "trends", from_ns=0, to_ns=60e9)
    assert page.locator("#trends .episode:visible").count() == 0
    note = page.locator("#trends [data-slot=episodes]")
    assert note.inner_text().startswith(f"{number} of {number} are of another time")
    choose(page, "trends", from_ns=200e9, to_ns=320e9)
    assert page.locator("#trends .episode:visible").count() >= 1
    choose(page, "trends")
    assert page.locator("#trends .episode:visible").count() == number
    assert note.inner_text() == ""


def test_what_was_waited_for_follows_the_time(
    tables: Tables, html: str, open_page: OpenPage
) -> None:
    page = ready(open_page(html))
    table = page.locator("[data-table=contention]")
    before = table.inner_text()
    origin = tables.frame("facts")["start_ns"][0]
    low, high = 250e9, 260e9
    choose(page, "trends", from_ns=low, to_ns=high)
    touched = tables.frame("contention").filter(
        pl.col("start_ns") - origin < high, pl.col("end_ns") - origin > low
    )
    sums = touched.group_by("resource").agg(
        pl.len(), pl.col("contended_ns").sum(), pl.col("wait_ns").sum()
    )
    rows = table.locator("tbody tr:visible")
    seen = {
        row.locator("td").first.inner_text(): [
            row.locator(f"[data-key={key}]").inner_text()
            for key in ("episodes", "contended_ns", "wait_ns")
        ]
        for row in rows.all()
    }
    assert seen
    assert seen == {
        name: [str(count), units.duration(contended), units.duration(waited)]
        for name, count, contended, waited in sums.iter_rows()
    }
    note = page.locator("#trends [data-slot=waits]")
    assert "touch the chosen time" in note.inner_text()
    choose(page, "trends", from_ns=0, to_ns=1e9)
    assert rows.count() == 0
    choose(page, "trends")
    assert table.inner_text() == before
    assert not note.is_visible()
    choose(page, "trends", endpoints=["POST /orders"])
    assert "Of all requests" in note.inner_text()
