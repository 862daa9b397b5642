"""The heatmap that chooses time for the code flame graph, and one request shown alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.browser import synthetic
from tests.browser.test_flame import shown

pytestmark = pytest.mark.browser

CANVAS = "#flame_code canvas.subsecond"
_WEIGH = """() => {
  const { samples, tree } = perfkit.data.flame_code;
  const { grid, weigh } = perfkit.flame.subsecond;
  const cut = grid(perfkit.data.page.duration_ns);
  return [cut, Array.from(weigh(samples, tree.unit, cut, (i) => samples.thread[i] === 0))];
}"""


_SUM = """([name, least, most]) => {
  const sum = perfkit.flame.views[name].values.self.reduce((sum, value) => sum + value, 0);
  return least <= sum && sum <= most;
}"""


def wait_for_sum(page: Any, name: str, expected: float) -> None:
    """Wait until a flame graph shows so much own time: sections follow when there is time."""
    page.wait_for_function(_SUM, arg=[name, float(expected) - 1000, float(expected) + 1000])


@pytest.fixture(scope="module")
def data() -> synthetic.Data:
    return synthetic.build()


def test_cells_hold_the_time_of_the_samples_in_them(open_page: Any, data: Any) -> None:
    page = open_page(data)
    cut, sums = page.evaluate(_WEIGH)
    samples = data.sections["flame_code"]["samples"]
    cell, cells = cut["cell_ns"], cut["cells"]
    expected = np.zeros(cells)
    starts = getattr(samples["start_ns"], "values", samples["start_ns"])
    for start, duration, thread in zip(starts, samples["duration"], samples["thread"], strict=True):
        if thread != 0 or np.isnan(start):
            continue
        for i in range(max(0, int(start // cell)), cells):
            part = min(start + duration, (i + 1) * cell) - max(start, i * cell)
            if part <= 0:
                break
            expected[i] += part
    assert sums == pytest.approx(expected.tolist(), abs=1)
    assert sum(sums) > 0


def test_a_drag_chooses_the_time_between_two_cells(open_page: Any, data: Any) -> None:
    page = open_page(data)
    before = sum(shown(page, "code", "self"))
    canvas = page.locator(CANVAS)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    columns = 20

    def at(column: float, row: float) -> tuple[float, float]:
        return box["x"] + box["width"] * column / columns, box["y"] + box["height"] * row / 50

    page.mouse.move(*at(3.5, 10.5))
    page.mouse.down()
    page.mouse.move(*at(5.5, 20.5), steps=3)
    page.mouse.up()
    state = page.evaluate("perfkit.filter.state")
    assert (state["from_ns"], state["to_ns"]) == (3_200_000_000, 5_420_000_000)
    page.wait_for_function(_SUM, arg=["code", 1, before - 1])
    page.mouse.click(*at(7.5, 30.5))
    state = page.evaluate("perfkit.filter.state")
    assert (state["from_ns"], state["to_ns"]) == (7_000_000_000, 8_000_000_000)


def test_keys_choose_time_too(open_page: Any, data: Any) -> None:
    page = open_page(data)
    canvas = page.locator(CANVAS)
    canvas.focus()
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowRight", "Enter"):
        canvas.press(key)
    state = page.evaluate("perfkit.filter.state")
    assert (state["from_ns"], state["to_ns"]) == (1_020_000_000, 2_040_000_000)
    canvas.press("Escape")
    assert page.evaluate("perfkit.filter.active()") is False


def test_one_request_alone_in_both_flame_graphs(open_page: Any, data: Any) -> None:
    page = open_page(data)
    samples = data.sections["flame_code"]["samples"]
    running = samples["state"] == 1  # What the section shows first.
    counts = np.bincount(samples["entry"][running & (samples["entry"] >= 0)])
    request = int(counts.argmax())
    page.evaluate("request => perfkit.filter.set({ request })", request)
    own = running & (samples["entry"] == request)
    wait_for_sum(page, "code", samples["duration"][own].sum())
    cells = data.sections["flame_requests"]["cells"]
    wait_for_sum(page, "requests", cells["self_ns"][cells["group"] == request].sum())
    assert f"only={request}" in page.url
    chip = page.locator("[data-chip=request]")
    assert "One request" in chip.inner_text()
    chip.locator("button").click()
    assert page.evaluate("perfkit.filter.active()") is False
    assert chip.is_hidden()


def test_the_detail_of_a_request_shows_it_alone(open_page: Any, data: Any) -> None:
    request = int(data.sections["slow_requests"]["details"]["request"][0])
    page = open_page(data, fragment=f"request={request}")
    page.get_by_role("button", name="Show it alone").click()
    assert page.evaluate("perfkit.filter.state.request") == request
