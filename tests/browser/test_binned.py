"""Captures that the page cannot carry one by one: what follows the filter is exact, or marked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from perfkit import units
from perfkit.analysis.session import Tables
from perfkit.report import population
from perfkit.report.render import build
from perfkit.report.sections import flame_requests
from tests.browser.test_report_page import ready
from tests.browser.test_scope import choose
from tests.report.build import open_tables
from tests.report.incident import write_incident

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]

_TOTALS = """() => {
  const { tree, values } = perfkit.flame.views.requests;
  return Array.from(values.total, (total, i) =>
    [perfkit.tree.path(tree, i).map((node) => perfkit.tree.name(tree, node)), total]);
}"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_incident(tmp_path_factory.mktemp("binned") / "i.perfkit", seconds=400, rate=10)


@pytest.fixture(scope="module")
def tables(path: Path) -> Tables:
    return open_tables(path)


@pytest.fixture(scope="module", params=["cells", "requests"])
def html(request: pytest.FixtureRequest, tables: Tables) -> Iterator[tuple[str, str]]:
    """A page whose cells are binned, or whose requests are, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flame_requests, "EXACT_CELLS", 2000)
        if request.param == "requests":
            patch.setattr(population, "EXACT_ENTRIES", 500)
        made = build(tables, [], title="binned")
        assert made.failed == []
        yield request.param, made.html


def requests(tables: Tables) -> pl.DataFrame:
    origin = tables.frame("facts")["start_ns"][0]
    return tables.frame("requests").filter("entry").with_columns(at=pl.col("start_ns") - origin)


def tile(page: Any, name: str) -> str:
    return str(page.locator(f"#summary [data-stat={name}]").inner_text()).replace("\xa0", " ")


def roots(page: Any) -> dict[str, float]:
    return {path[0]: total for path, total in page.evaluate(_TOTALS) if len(path) == 1}


def test_by_endpoint_and_status_every_sum_is_exact(
    html: tuple[str, str], tables: Tables, open_page: OpenPage
) -> None:
    kind, text = html
    page = ready(open_page(text))
    assert page.get_by_text("a filter by time or minimum duration takes whole groups").is_visible()
    for patch, wanted in (
        ({"endpoints": ["POST /orders"]}, pl.col("endpoint") == "POST /orders"),
        ({"endpoints": ["POST /orders"], "status": "error"}, pl.col("status") == "error"),
        ({"endpoints": ["GET /items/{id}"]}, pl.col("endpoint") == "GET /items/{id}"),
    ):
        choose(page, "flame_requests", **patch)
        chosen = requests(tables).filter(wanted)
        assert chosen.height > 20
        count = page.locator(".filter-count").inner_text()
        assert count.startswith(f"{units.number(chosen.height)} of ")
        ratio = (chosen["status"] == "error").mean()
        assert tile(page, "error_ratio") == units.percent(ratio)
        assert sum(roots(page).values()) == chosen["duration_ns"].sum()
        # A percentile of bins is one of means of like requests.
        assert tile(page, "p95_ns").startswith("≈ ") == (kind == "requests")
        page.evaluate("perfkit.filter.clear()")


def test_by_time_and_duration_it_is_said_to_be_coarser(
    html: tuple[str, str], tables: Tables, open_page: OpenPage
) -> None:
    kind, text = html
    page = ready(open_page(text))
    start, end = 100e9, 200e9
    choose(page, "flame_requests", from_ns=start, to_ns=end)
    every = requests(tables)
    chosen = every.filter(pl.col("at").is_between(start, end, closed="left")).height
    text = page.locator(".filter-count").inner_text()
    if kind == "cells":  # the page knows each request, only its flame graph has bins
        assert text.startswith(f"{units.number(chosen)} of ")
        assert not tile(page, "rate_per_s").startswith("≈")
        return
    assert text.startswith("≈ ")
    assert tile(page, "rate_per_s").startswith("≈ ")
    # Whole bins are taken: at either end at most the requests of one stretch of time are amiss.
    stretch = 400e9 / population.BINNED_BUCKETS + 1
    edge = every.filter(
        pl.any_horizontal(
            *(
                pl.col("at").is_between(moment - stretch, moment + stretch)
                for moment in (start, end)
            )
        )
    ).height
    said = int(text.removeprefix("≈ ").split(" of ")[0].replace(",", ""))
    assert abs(said - chosen) <= edge
    choose(page, "flame_requests", min_duration_ns=100e6)
    assert page.locator(".filter-count").inner_text().startswith("≈ ")
    page.evaluate("perfkit.filter.clear()")
    assert "≈" not in page.locator("#summary").inner_text()
