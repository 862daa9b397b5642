"""Two populations as a difference: sums against a slow twin, the noise band, what is offered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfkit.report import baseline
from perfkit.report.render import build
from tests.browser import synthetic
from tests.report.build import open_tables, write_capture

pytestmark = pytest.mark.browser

_SIDES = """(name) => { const view = perfkit.flame.views[name];
  const part = ({ total, self, whole, blocks }) => ({ total: Array.from(total),
    self: Array.from(self), whole, blocks: blocks?.length ?? 0 });
  return { first: part(view.values), second: part(view.difference.baseline),
    both: Array.from(view.shown.total), known: view.difference.known,
    steps: Array.from(view.values.total.keys()).map((n) => view.difference.step(n)) }; }"""


def sides(page: Any, name: str = "difference-requests") -> dict[str, Any]:
    page.locator("#comparison").scroll_into_view_if_needed()
    page.wait_for_function("(name) => perfkit.flame.views[name]?.difference", arg=name)
    return page.evaluate(_SIDES, name)


@pytest.fixture(scope="module")
def data() -> synthetic.Data:
    return synthetic.build()


def totals(section: dict[str, Any], passed: set[int]) -> np.ndarray:
    cells = section["cells"]
    sums = np.zeros(len(section["tree"]["label"]))
    for node, group, total in zip(cells["node"], cells["group"], cells["total_ns"], strict=True):
        if int(group) in passed:
            sums[node] += total
    return sums


def of_endpoint(groups: dict[str, Any], name: str) -> set[int]:
    endpoint = groups["strings"].index(name)
    return {i for i, e in enumerate(groups["endpoint"].tolist()) if e == endpoint}


def test_endpoint_against_endpoint_are_the_sums_of_each(open_page: Any, data: Any) -> None:
    page = open_page(data, fragment="compare.a=endpoint:GET+/tools&compare.b=endpoint:GET+/health")
    found = sides(page)
    section = data.sections["flame_requests"]
    for side, name in (("first", "GET /tools"), ("second", "GET /health")):
        expected = totals(section, of_endpoint(section["groups"], name))
        assert found[side]["total"] == pytest.approx(expected.tolist())
        assert found[side]["blocks"] == 10
    whole = found["first"]["whole"], found["second"]["whole"]
    mean = [
        (a / whole[0] + b / whole[1]) / 2 * whole[0]
        for a, b in zip(found["first"]["total"], found["second"]["total"], strict=True)
    ]
    assert found["both"] == pytest.approx(mean)


def test_slow_and_typical_are_each_endpoints_own(open_page: Any, data: Any) -> None:
    found = sides(open_page(data))
    section = data.sections["flame_requests"]
    groups = section["groups"]
    slow: set[int] = set()
    typical: set[int] = set()
    for endpoint in set(groups["endpoint"].tolist()):
        rows = [i for i, e in enumerate(groups["endpoint"].tolist()) if e == endpoint]
        lengths = sorted(int(groups["duration_ns"][i]) for i in rows)
        low = lengths[int(np.ceil(0.75 * len(rows))) - 1]
        high = lengths[int(np.ceil(0.95 * len(rows))) - 1]
        slow |= {i for i in rows if groups["duration_ns"][i] >= high}
        typical |= {i for i in rows if groups["duration_ns"][i] <= low}
    assert found["first"]["total"] == pytest.approx(totals(section, slow).tolist())
    assert found["second"]["total"] == pytest.approx(totals(section, typical).tolist())


def test_the_noise_is_the_jackknife_over_blocks(open_page: Any, data: Any) -> None:
    rng = np.random.default_rng(3)
    blocks = rng.uniform(0, 10, (7, 5))
    wholes = blocks.sum(axis=1) + rng.uniform(1, 5, 7)
    column, whole = blocks.sum(axis=0), wholes.sum()
    left_out = (column - blocks) / (whole - wholes)[:, None]
    expected = np.sqrt(6 / 7 * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))
    page = open_page(data)
    found = page.evaluate(
        "([c, w, b, ws]) => Array.from(perfkit.flame.standardErrors(c, w, b, ws))",
        [column.tolist(), float(whole), blocks.tolist(), wholes.tolist()],
    )
    assert found == pytest.approx(expected.tolist())


def test_halves_of_the_same_traffic_are_grey(open_page: Any, data: Any) -> None:
    found = sides(open_page(data, fragment="compare.a=early&compare.b=late"))
    coloured = [step for step in found["steps"] if step]
    assert found["known"]
    assert found["first"]["total"] != found["second"]["total"]
    assert len(coloured) <= 0.05 * len(found["steps"])


def test_one_request_has_no_noise_and_the_page_says_so(open_page: Any, data: Any) -> None:
    page = open_page(data, fragment="compare.a=request:3&compare.b=request:4")
    found = sides(page)
    section = data.sections["flame_requests"]
    assert found["first"]["total"] == pytest.approx(totals(section, {3}).tolist())
    assert not found["known"]
    assert "too little to say what is chance" in page.locator("#comparison").inner_text()


def test_kept_filters_compare_one_time_range_with_another(open_page: Any, data: Any) -> None:
    page = open_page(data, fragment="from=0&to=5000000000")
    sides(page)
    page.get_by_role("button", name="Keep filter as first").click()
    page.evaluate("perfkit.filter.set({ from_ns: 10e9, to_ns: 20e9 })")
    page.get_by_role("button", name="Keep filter as second").click()
    page.evaluate("perfkit.filter.clear()")
    page.wait_for_timeout(200)
    found = sides(page)
    section = data.sections["flame_requests"]
    start = section["groups"]["start_ns"]
    for side, low, high in (("first", 0, 5e9), ("second", 10e9, 20e9)):
        passed = {i for i, at in enumerate(start.tolist()) if low <= at < high}
        assert found[side]["total"] == pytest.approx(totals(section, passed).tolist())
    again = open_page(data, fragment=page.evaluate("location.hash.slice(1)"))
    assert sides(again)["first"] == found["first"]


def test_a_broken_link_is_shown_as_the_filter(open_page: Any, data: Any) -> None:
    page = open_page(data, fragment="compare.a=filter:%7Bbroken&compare.b=request:99999999")
    found = sides(page)
    assert found["first"]["whole"] > 0
    assert found["second"]["whole"] == 0
    text = json.dumps({"endpoints": 3, "from_ns": "x", "status": ["no"]})
    open_page(data, fragment=f"compare.a=filter:{text}")


def test_side_by_side_zooms_together(open_page: Any, data: Any) -> None:
    page = open_page(data)
    sides(page)
    page.locator("#comparison").get_by_role("tab", name="Side by side").click()
    stages = page.locator("#comparison .flame-side .flame-canvas")
    assert stages.count() >= 2
    stages.first.click(position={"x": 20, "y": 27})
    crumbs = page.locator("#comparison .flame-side .flame-status strong")
    assert crumbs.count() == 2
    assert crumbs.nth(0).inner_text() == crumbs.nth(1).inner_text()


def test_code_is_compared_too(open_page: Any, data: Any) -> None:
    page = open_page(data, fragment="compare.a=early&compare.b=late")
    sides(page)
    page.locator("#comparison").get_by_role("tab", name="Code", exact=True).click()
    found = sides(page, "difference-code")
    samples = data.sections["flame_code"]["samples"]
    running = samples["state"] == 1
    whole = samples["duration"][running].sum()
    assert found["first"]["whole"] + found["second"]["whole"] == pytest.approx(whole)
    page.locator("#comparison").get_by_role("tab", name="What differs").last.click()
    assert page.locator("#comparison .comparison-kind:visible table tbody tr").count() > 3


@pytest.fixture(scope="module")
def against(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("against")
    tables = open_tables(write_capture(folder / "now.perfkit", requests=200))
    before = open_tables(write_capture(Path(folder) / "before.perfkit", requests=120))
    made = build(tables, [], title="now", baseline=baseline.read([before], [tables]))
    assert made.failed == []
    return made.html


def test_a_baseline_is_the_second_side_by_itself(open_page: Any, against: str) -> None:
    page = open_page(against)
    page.wait_for_selector("html[data-perfkit=ready]", state="attached")
    found = sides(page)
    roots = page.evaluate("Array.from(perfkit.flame.views['difference-requests'].source.parent)")
    for side, requests in (("first", 200), ("second", 120)):
        whole = sum(total for total, p in zip(found[side]["total"], roots, strict=True) if p < 0)
        assert whole == pytest.approx(found[side]["whole"])
        assert requests > 0
    assert found["first"]["whole"] > found["second"]["whole"] > 0
    page.locator("#comparison").get_by_role("tab", name="Code", exact=True).click()
    assert sides(page, "difference-code")["second"]["whole"] > 0
    page.evaluate("perfkit.filter.set({ endpoints: ['no such endpoint'] })")
    page.wait_for_timeout(200)
    assert sides(page, "difference-code")["second"]["whole"] == 0
    page.locator("#comparison").get_by_role("tab", name="Requests", exact=True).click()
    assert sides(page)["second"]["whole"] == 0


def test_two_requests_are_compared_from_their_details(open_page: Any, data: Any) -> None:
    one, other = data.sections["slow_requests"]["details"]["request"].tolist()[:2]
    page = open_page(data, fragment=f"compare.a=request:{one}")
    sides(page)
    page.evaluate("(row) => perfkit.compare.set(1, `request:${row}`)", other)
    found = sides(page)
    section = data.sections["flame_requests"]
    assert found["first"]["total"] == pytest.approx(totals(section, {one}).tolist())
    assert found["second"]["total"] == pytest.approx(totals(section, {other}).tolist())


def test_a_detail_offers_its_request_for_comparison(open_page: Any, data: Any) -> None:
    page = open_page(data)
    sides(page)
    page.locator("#slow_requests table.is-virtual tbody tr[data-row]").first.click()
    page.locator("#slow_requests").get_by_role("button", name="Compare: first").click()
    key = page.evaluate("perfkit.filter.view('compare.a')")
    assert key.startswith("request:")
    found = sides(page)
    row = int(key.partition(":")[2])
    expected = totals(data.sections["flame_requests"], {row})
    assert found["first"]["total"] == pytest.approx(expected.tolist())
