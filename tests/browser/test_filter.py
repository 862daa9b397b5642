"""One filter for the whole page, kept in the link."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfkit import units
from tests.browser import synthetic

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def data() -> synthetic.Data:
    return synthetic.build()


def chosen(data: synthetic.Data, **case: Any) -> np.ndarray:
    requests = data.sections["slow_requests"]["requests"]
    count = len(requests["start_ns"])
    return np.array([synthetic.passes(requests, i, **case) for i in range(count)])


def test_the_bar_filters_every_section(open_page: Any, data: Any) -> None:
    page = open_page(data, fragment="slow=0")
    bar = page.locator("[data-filter-bar]")
    bar.get_by_label("Filter by endpoints").select_option(label="GET /tools")
    bar.get_by_label("Filter by status").select_option(label="Succeeded")
    bar.get_by_placeholder("Longer than…").fill("20ms")
    bar.get_by_placeholder("Longer than…").press("Enter")
    case = {"endpoint": "GET /tools", "status": "ok", "min_duration_ns": 20_000_000}
    passed = chosen(data, **case)
    requests = data.sections["slow_requests"]["requests"]
    assert f"{passed.sum()} of 400 requests" in bar.inner_text()
    p95 = np.quantile(requests["duration_ns"][passed], 0.95)
    assert page.locator("[data-stat=p95_ns]").inner_text() == units.duration(p95)
    expected = synthetic.request_totals(data.sections["flame_requests"], **case)
    total = page.evaluate("Array.from(perfkit.flame.views.requests.values.total)")
    assert total == expected
    page.wait_for_function(
        "(n) => document.querySelector('#slow_requests .is-virtual').ariaRowCount == n",
        arg=str(passed.sum() + 1),
    )
    samples = data.sections["flame_code"]["samples"]
    in_chosen = [
        e >= 0 and passed[e] and s == 1
        for e, s in zip(samples["entry"], samples["state"], strict=True)
    ]
    page.wait_for_function(
        "(sum) => perfkit.flame.views.code.values.whole === sum",
        arg=int(samples["duration"][np.array(in_chosen)].sum()),
    )
    bar.get_by_role("button", name="Clear filter").click()
    assert page.locator("[data-stat=p95_ns]").inner_text() == "all"
    assert page.evaluate("location.hash") == "#slow=0"


def test_a_link_opens_the_same_view(open_page: Any, data: Any) -> None:
    page = open_page(data)
    patch = {
        "endpoints": [synthetic.HOSTILE[0], "GET /tools"],
        "tools": [synthetic.HOSTILE[1]],
        "status": "error",
        "from_ns": 1_000_000_000,
        "to_ns": 9_000_000_000,
        "min_duration_ns": 1_500_000,
    }
    page.evaluate("(patch) => perfkit.filter.set(patch)", patch)
    state = page.evaluate("perfkit.filter.state")
    assert state == {**patch, "services": [], "request": None}
    again = open_page(data, fragment=page.evaluate("location.hash.slice(1)"))
    assert again.evaluate("perfkit.filter.state") == state
    assert (
        again.get_by_label("Filter by endpoints").locator("option:checked").inner_text()
        == "2 chosen"
    )
    again.evaluate("location.hash = 'endpoint=GET+/health'")
    again.wait_for_function("perfkit.filter.state.endpoints[0] === 'GET /health'")
    assert again.evaluate("perfkit.filter.state.status") == ""


@pytest.mark.parametrize(
    "fragment",
    [
        "from=abc&to=-5&min=1e999&status=other&endpoint=",
        "from=9&to=1",
        "requests=999999&code=-1&requests.q=%2F(%2F&request=1e9&at=nowhere",
        "%E0%A4%A&=&&endpoint=%00&__proto__=1",
        "flame_code",
    ],
)
def test_a_broken_link_does_no_harm(open_page: Any, data: Any, fragment: str) -> None:
    page = open_page(data, fragment=fragment)
    assert page.evaluate("document.documentElement.dataset.perfkit") == "ready"
    state = page.evaluate("perfkit.filter.state")
    assert state["status"] == ""
    assert state["from_ns"] is None or state["from_ns"] <= (state["to_ns"] or 0)
    assert page.locator(".card.is-error").count() == 0


@pytest.mark.parametrize(
    ("text", "ns"),
    [("250ms", 250e6), ("1.5 s", 1.5e9), ("2 min", 120e9), ("30", 30e6), ("5µs", 5e3), ("x", None)],
)
def test_durations_are_read(open_page: Any, data: Any, text: str, ns: float | None) -> None:
    page = open_page(synthetic.build(requests=5, span_nodes=10, code_nodes=10, samples=10))
    assert page.evaluate("(text) => perfkit.filterBar.parseDuration(text)", text) == ns


def test_cards_and_buttons_of_the_page_follow(open_page: Any, data: Any) -> None:
    extra = """<div id="a" data-scope='{"endpoints": ["GET /tools"], "tools": []}'>a</div>
      <div id="b" data-scope='{"endpoints": [], "tools": ["search"]}'>b</div>
      <button id="c" data-filter-set='{"endpoints": ["GET /health"]}'>c</button>
      <table class="table" data-sortable><thead><tr><th>name</th><th class="num">n</th></tr></thead>
      <tbody><tr><td>x</td><td data-value="2">2 ms</td></tr>
      <tr><td>a</td><td data-value="10">10 ms</td></tr></tbody></table>
      <div class="tabs" role="tablist"><button class="tab" role="tab" aria-controls="p1"
      aria-selected="true">1</button><button class="tab" role="tab" aria-controls="p2"
      aria-selected="false">2</button></div><div id="p1">1</div><div id="p2" hidden>2</div>"""
    page = open_page(data, extra=extra)
    page.locator("#c").click()
    assert page.evaluate("perfkit.filter.state.endpoints") == ["GET /health"]
    assert not page.locator("#a").is_visible()
    assert page.locator("#b").is_visible()
    page.get_by_role("columnheader", name="n", exact=True).get_by_role("button").click()
    assert page.locator("table[data-sortable] tbody tr").first.inner_text().startswith("a")
    page.get_by_role("tab", name="2").click()
    assert page.locator("#p2").is_visible()
    assert not page.locator("#p1").is_visible()


def test_quantiles_of_weighted_requests_are_those_of_the_repeated_ones(
    open_page: Any, data: Any
) -> None:
    page = open_page(synthetic.build(requests=5, span_nodes=10, code_nodes=10, samples=10))
    rng = np.random.default_rng(5)
    values = rng.integers(1, 1000, 50)
    weights = rng.integers(1, 9, 50)
    ratios = [0, 0.1, 0.5, 0.9, 0.95, 0.99, 1]
    got = page.evaluate(
        "([v, w, r]) => perfkit.liveTable.quantiles(v, w, r)",
        [values.tolist(), weights.tolist(), ratios],
    )
    assert got == pytest.approx(np.quantile(np.repeat(values, weights), ratios).tolist())


def test_dragging_over_time_selects_it_everywhere(open_page: Any, data: Any) -> None:
    page = open_page(data)
    area = page.locator("#heatmaps .timechart-area").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.25, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, y)
    assert page.locator("#heatmaps .crosshair:not([hidden])").count() >= 2
    page.mouse.move(box["x"] + box["width"] * 0.5, y)
    page.mouse.up()
    state = page.evaluate("perfkit.filter.state")
    assert state["from_ns"] == pytest.approx(5e9, abs=1e8)
    assert state["to_ns"] == pytest.approx(10e9, abs=1e8)
    expected = synthetic.request_totals(
        data.sections["flame_requests"], from_ns=state["from_ns"], to_ns=state["to_ns"]
    )
    page.wait_for_function(
        "(sum) => perfkit.flame.views.requests.values.total.reduce((a, b) => a + b, 0) === sum",
        arg=sum(expected),
    )
    assert page.locator(".filter-range:not([data-chip])").is_visible()
    page.locator(".filter-range:not([data-chip]) button").click()
    assert page.evaluate("perfkit.filter.state.from_ns") is None
