"""The dependency graph in a real Chromium: reached by keyboard, and the same as its table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser import synthetic
from tests.browser.test_report_page import ready, report
from tests.report.incident import write_incident

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("dependencies") / "incident.perfkit"
    return report(write_incident(path, seconds=30, rate=10), "incident")


def near(page: Any) -> list[str]:
    boxes = page.locator("#dependencies .graph-node:not(.is-far)")
    return sorted(boxes.evaluate_all("all => all.map(one => one.dataset.node)"))


def test_a_box_is_chosen_and_left_by_keyboard(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    box = page.locator('#dependencies [data-node="stock"]')
    box.focus()
    page.keyboard.press("Enter")
    assert near(page) == ["db.internal:5432", "gateway", "stock"]
    assert page.locator("[data-table=dependencies] tbody tr:visible").count() == 2
    assert box.get_attribute("aria-pressed") == "true"
    assert "service=" not in page.url
    assert "dependency=stock" in page.url
    page.keyboard.press("Escape")
    assert len(near(page)) == 4


def test_the_choice_is_in_the_link(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html, fragment="dependency=stock"))
    assert near(page) == ["db.internal:5432", "gateway", "stock"]
    assert page.locator("#dependencies tbody tr:visible").count() == 2


def test_boxes_and_labels_are_inside_the_picture(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    outside = page.locator("#dependencies .graph").evaluate(
        """svg => [...svg.querySelectorAll("text")].filter(text => {
          const box = text.getBBox();
          const node = text.closest(".graph-node");
          const width = node ? 184 : svg.viewBox.baseVal.width;
          return box.x < 0 || box.x + box.width > width;
        }).map(text => text.textContent)"""
    )
    assert outside == []


def test_it_scrolls_in_a_narrow_window(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html, width=390))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_headings_wrap_rather_than_push_columns_out_of_sight(open_page: OpenPage) -> None:
    heads = "<th class='num'><button>Network and queue</button></th>" * 10
    cells = "<td class='num'>1.5 ms</td>" * 10
    table = f"<table class='table'><thead><tr>{heads}</tr></thead><tr>{cells}</tr></table>"
    wide = f"<div class='table-wrap' id='wide'>{table}</div>"
    page = open_page(synthetic.build(), extra=wide, width=1280)
    assert page.locator("#wide").evaluate("one => one.scrollWidth <= one.clientWidth")
