"""The page as a whole: hostile text, theme, narrow windows, failures, slow requests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.browser import synthetic

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def data() -> synthetic.Data:
    return synthetic.build()


def test_hostile_names_are_text_everywhere(open_page: Any, data: Any) -> None:
    page = open_page(data, width=1400)
    # Every view that shows names: both flame graphs, their tables, tips, requests, heatmaps.
    for section in ("flame_requests", "flame_code"):
        box = page.locator(f"#{section} input[type=search]").first
        box.fill("<img")
        box.press("Enter")
        canvas = page.locator(f"#{section} .flame-graph .flame-canvas")
        size = canvas.bounding_box()
        for x in range(3, int(size["width"]), 40):
            canvas.hover(position={"x": x, "y": min(100, size["height"] - 5)})
        for tab in page.locator(f"#{section} [role=tab]").all():
            tab.click()
        page.locator(f"#{section} [role=tab]").first.click()
    page.evaluate(
        "(name) => { const view = perfkit.flame.views.requests;"
        " view.select(view.tree.label.indexOf(view.tree.strings.indexOf(name))); }",
        synthetic.HOSTILE[1],
    )
    assert synthetic.HOSTILE[1] in page.locator("#flame_requests .flame-path").inner_text()
    drawn = page.locator("#flame_requests .flame-plot .textpoint text").all_text_contents()
    assert any(text.startswith("<img src=x") for text in drawn)
    page.locator("#slow_requests .is-virtual tbody tr[data-row]").first.click()
    for name in page.locator("#slow_requests .waterfall-open").all():
        name.click()
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main b, main a").count() == 0
    assert page.evaluate("document.querySelectorAll('.flame-plot a, .flame-plot b').length") == 0
    # Direction overrides and controls are written out.
    text = page.evaluate("document.body.innerText")
    assert "\u202e" not in text
    assert "\x07" not in text


def test_theme_follows_the_system_then_the_reader(open_page: Any, data: Any) -> None:
    page = open_page(data, dark=True)
    theme = "document.documentElement.dataset.theme"
    fill = "document.querySelector('#flame_requests .flame-plot').data[0].marker.color[1]"
    assert page.evaluate(theme) == "dark"
    dark = page.evaluate(fill)
    page.locator("[data-action=theme]").click()
    assert page.evaluate(theme) == "light"
    assert page.evaluate(fill) != dark
    page.reload()
    page.wait_for_selector("html[data-perfkit=ready]", state="attached")
    assert page.evaluate(theme) == "light"


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_does_not_scroll_sideways(open_page: Any, data: Any, width: int) -> None:
    page = open_page(data, width=width)
    page.locator("#slow_requests .is-virtual tbody tr[data-row]").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for stage in page.locator(".flame-graph .flame-canvas").all():
        assert stage.bounding_box()["width"] <= width


def test_a_slow_request_opens(open_page: Any, data: Any) -> None:
    page = open_page(data)
    details = data.sections["slow_requests"]["details"]
    page.locator("#slow_requests .is-virtual tbody tr[data-row]").first.click()
    rows = page.locator("#slow_requests .waterfall-row")
    spans = int(details["first"][1])
    assert rows.count() == spans
    assert "3 shorter spans" in page.locator("[data-slot=detail]").inner_text()
    whole = rows.first.locator(".waterfall-bar").bounding_box()
    track = rows.first.locator(".waterfall-track").bounding_box()
    assert whole["width"] == pytest.approx(track["width"], abs=2)
    for i in range(spans):
        row = page.locator(f'#slow_requests [data-span="{i}"]')
        bar = row.locator(".waterfall-bar").bounding_box()
        duration = details["spans"]["duration_ns"][i] / details["spans"]["duration_ns"][0]
        assert bar["width"] == pytest.approx(max(track["width"] * duration, 2), abs=2)
        assert row.locator(".waterfall-critical").count() == 1
    statement = page.locator('#slow_requests [data-span="1"] .waterfall-open')
    statement.click()
    assert "SELECT * FROM t WHERE id = ?" in page.locator(".waterfall-detail").inner_text()
    rows.first.locator(".waterfall-fold").click()
    assert rows.count() == 1
    link = page.evaluate("location.hash.slice(1)")
    again = open_page(data, fragment=f"{link}&slow=0")
    assert again.locator("#slow_requests .waterfall-row").count() == spans
    # The page carries the spans of the slowest only, and says so of the others.
    again.get_by_role("button", name="Duration").click()
    again.locator("#slow_requests .is-virtual tbody tr[data-row]").first.click()
    assert "slowest requests only" in again.locator("[data-slot=detail]").inner_text()


def test_of_binned_requests_the_list_is_of_those_with_details(open_page: Any) -> None:
    data = synthetic.build(requests=50, span_nodes=10, code_nodes=10, samples=10)
    section = data.sections["slow_requests"]
    requests = section["requests"] | {"weight": np.full(50, 20_000.0)}
    details = section["details"] | {"request": np.arange(30) % 7}
    section |= {"coarse": True, "requests": requests, "details": details}
    page = open_page(data, fragment="slow=0")
    table = page.locator("#slow_requests table.is-virtual").first
    assert table.get_attribute("aria-rowcount") == "31"
    roots = details["spans"]["duration_ns"][details["first"][:-1]]
    first = page.evaluate("(n) => perfkit.format.duration(n)", int(roots.max()))
    row = table.locator("tr[data-row]").first
    assert row.locator("td").first.inner_text() == first
    row.click()
    shown = page.locator("[data-slot=detail]").inner_text()
    assert first in shown
    bin_ = int(details["request"][int(roots.argmax())])
    assert requests["strings"][requests["endpoint"][bin_]] in shown
    page.evaluate("perfkit.filter.set({ status: 'error' })")
    failed = sum(int(requests["status"][bin_]) for bin_ in details["request"])
    page.wait_for_function(
        "(n) => document.querySelector('#slow_requests .is-virtual').ariaRowCount == n",
        arg=str(failed + 1),
    )


def test_a_long_table_shows_the_rows_in_sight_and_sorts_all(open_page: Any) -> None:
    data = synthetic.build(requests=10_000, span_nodes=10, code_nodes=10, samples=10)
    page = open_page(data, fragment="slow=0")
    table = page.locator("#slow_requests table.is-virtual")
    assert table.locator("tr[data-row]").count() < 100
    durations = sorted(data.sections["slow_requests"]["requests"]["duration_ns"].tolist())
    cell = table.locator("tr[data-row] td").first
    first = page.evaluate("(n) => perfkit.format.duration(n)", durations[-1])
    assert cell.inner_text() == first
    table.get_by_role("button", name="Duration").click()
    assert cell.inner_text() == page.evaluate("(n) => perfkit.format.duration(n)", durations[0])
    wrap = page.locator("#slow_requests .datatable .table-wrap").first
    wrap.evaluate("(element) => element.scrollTo(0, element.scrollHeight)")
    page.wait_for_function(
        "(text) => document.querySelector("
        "'#slow_requests .is-virtual tbody tr:nth-last-child(2) td').innerText === text",
        arg=first,
    )
    page.locator("#slow_requests input[type=search]").fill("GET /health")
    strings = data.sections["slow_requests"]["requests"]["strings"]
    endpoint = data.sections["slow_requests"]["requests"]["endpoint"]
    count = sum(strings[e] == "GET /health" for e in endpoint)
    page.wait_for_function(
        "(n) => document.querySelector('#slow_requests .is-virtual').ariaRowCount == n",
        arg=str(count + 1),
    )


def test_a_section_that_fails_leaves_the_rest_standing(browser: Any, tmp_path: Any) -> None:
    from tests.browser.conftest import page_html

    data = synthetic.build(requests=20, span_nodes=20, code_nodes=20, samples=20)
    del data.sections["heatmaps"]["panels"]
    data.sections["flame_requests"]["tree"]["parent"][3] = 7
    file = tmp_path / "broken.html"
    file.write_text(page_html(data), encoding="utf-8")
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-perfkit=ready]", state="attached")
    assert page.locator("#flame_requests .card.is-error").count() == 1
    assert "before its parent" in page.locator("#flame_requests .card").inner_text()
    assert page.locator("#heatmaps .card.is-error").count() == 1
    assert page.locator("#flame_code .bars .point").count() > 3
    assert not errors
    page.close()


def test_a_broken_container_is_said_and_the_text_stands(browser: Any, tmp_path: Any) -> None:
    from tests.browser.conftest import page_html

    data = synthetic.build(requests=20, span_nodes=20, code_nodes=20, samples=20)
    html = page_html(data, extra="<p id=rest>rest</p>")
    at = html.index('id="perfkit-data">') + len('id="perfkit-data">')
    file = tmp_path / "cut.html"
    file.write_text(html[:at] + html[at + 200 :], encoding="utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-perfkit=failed]", state="attached")
    assert "could not be started" in page.locator("main .card.is-error").inner_text()
    assert page.locator("#rest").is_visible()
    page.close()


def test_printing_draws_everything_in_light(open_page: Any, data: Any) -> None:
    page = open_page(data, dark=True)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("[data-filter-bar]").is_visible()
    assert page.locator("#flame_code .bars .point").count() > 10
