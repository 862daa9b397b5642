"""Flame graphs: what is drawn, and what pointer, keyboard and search do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.browser import synthetic

pytestmark = pytest.mark.browser

REQUESTS = "#flame_requests .flame-graph .flame-stage"
CODE = "#flame_code .flame-graph .flame-stage"

_BARS = """(name) => {
  const { bars, width, view } = perfkit.flame.views[name].stage;
  return { node: bars.node, x0: bars.x0, x1: bars.x1, kind: bars.kind, skip: bars.skip,
           count: bars.count, rowStart: bars.rowStart, rows: bars.rows, width, view };
}"""


def bars_of(page: Any, name: str) -> dict[str, Any]:
    return page.evaluate(_BARS, name)


def shown(page: Any, name: str, column: str) -> list[float]:
    return page.evaluate(
        "([name, column]) => Array.from(perfkit.flame.views[name].values[column])", [name, column]
    )


def click_bar(page: Any, selector: str, name: str, index: int) -> None:
    """Click the middle of a bar with the mouse."""
    bars = bars_of(page, name)
    row = next(r for r in range(bars["rows"]) if bars["rowStart"][r + 1] > index)
    x = (bars["x0"][index] + bars["x1"][index]) / 2
    page.locator(f"{selector} .flame-canvas").click(position={"x": x, "y": row * 18 + 9})


def drawn_boxes(page: Any, selector: str) -> int:
    return page.locator(f"{selector} .bars .point").count()


@pytest.fixture(scope="module")
def data() -> synthetic.Data:
    return synthetic.build()


def test_plotly_draws_every_bar_and_the_widths_are_the_sums(open_page: Any, data: Any) -> None:
    page = open_page(data)
    bars = bars_of(page, "requests")
    assert drawn_boxes(page, REQUESTS) == len(bars["node"])
    totals = synthetic.request_totals(data.sections["flame_requests"])
    assert shown(page, "requests", "total") == totals
    parent = data.sections["flame_requests"]["tree"]["parent"]
    whole = sum(total for total, p in zip(totals, parent, strict=True) if p < 0)
    for i, node in enumerate(bars["node"]):
        if bars["kind"][i] == 0 and node >= 0:
            width = bars["x1"][i] - bars["x0"][i]
            # "n more" may take up to 3 pixels from a row, in each row above.
            assert width == pytest.approx(totals[node] / whole * bars["width"], abs=9)


def test_bars_lie_inside_their_parents_and_nothing_is_left_out(open_page: Any, data: Any) -> None:
    page = open_page(data)
    for name in ("requests", "code"):
        bars = bars_of(page, name)
        totals = shown(page, name, "total")
        section = data.sections[f"flame_{name}"]
        parent = section["tree"]["parent"].tolist()
        box = {n: i for i, n in enumerate(bars["node"]) if bars["kind"][i] == 0}
        hidden = {n: i for i, n in enumerate(bars["node"]) if bars["kind"][i] == 1}
        for row in range(bars["rows"]):
            for i in range(bars["rowStart"][row], bars["rowStart"][row + 1] - 1):
                assert bars["x1"][i] <= bars["x0"][i + 1] + 1e-6
        for node, i in box.items():
            children = [c for c, p in enumerate(parent) if p == node and totals[c] > 0]
            drawn = [c for c in children if c in box]
            missing = len(children) - len(drawn)
            assert (bars["count"][hidden[node]] if node in hidden else 0) == missing
            for child in [*(box[c] for c in drawn), *([hidden[node]] if missing else [])]:
                assert bars["x0"][child] >= bars["x0"][i] - 1e-6
                assert bars["x1"][child] <= bars["x1"][i] + 1e-6


def test_the_filter_gives_the_sums_of_the_slow_twin(open_page: Any, data: Any) -> None:
    page = open_page(data)
    section = data.sections["flame_requests"]
    cases: list[dict[str, Any]] = [
        {"endpoint": synthetic.ENDPOINTS[1]},
        {"endpoint": synthetic.HOSTILE[0], "status": "ok"},
        {"tool": synthetic.TOOLS[0], "from_ns": 5 * 10**9, "to_ns": 9 * 10**9},
        {"service": synthetic.SERVICES[1], "min_duration_ns": 30_000_000},
        {"status": "error"},
    ]
    for case in cases:
        lists = {f"{k}s": [v] for k, v in case.items() if k in ("endpoint", "tool", "service")}
        rest = {k: v for k, v in case.items() if f"{k}s" not in lists}
        page.evaluate(
            "(patch) => (perfkit.filter.clear(), perfkit.filter.set(patch))", {**lists, **rest}
        )
        expected = synthetic.request_totals(section, **case)
        page.wait_for_function(
            "(sum) => perfkit.flame.views.requests.values.total.reduce((a, b) => a + b, 0) === sum",
            arg=sum(expected),
        )
        assert shown(page, "requests", "total") == expected, case


def test_a_click_zooms_and_back_and_show_all_return(open_page: Any, data: Any) -> None:
    page = open_page(data)
    before = bars_of(page, "requests")
    index = next(i for i, n in enumerate(before["node"]) if n > 0 and before["kind"][i] == 0)
    node = before["node"][index]
    click_bar(page, REQUESTS, "requests", index)
    zoomed = bars_of(page, "requests")
    assert zoomed["view"] == {"node": node, "skip": 0}
    at = next(i for i, n in enumerate(zoomed["node"]) if n == node)
    assert (zoomed["x0"][at], zoomed["x1"][at]) == (0, zoomed["width"])
    crumbs = page.locator("#flame_requests .crumb")
    assert crumbs.count() >= 2
    assert crumbs.last.get_attribute("aria-current") == "true"
    page.locator("#flame_requests").get_by_role("button", name="Back").click()
    assert bars_of(page, "requests") == before
    click_bar(page, REQUESTS, "requests", index)
    page.locator("#flame_requests").get_by_role("button", name="Show all").click()
    assert bars_of(page, "requests") == before


def test_more_opens_until_the_last_sibling_is_seen(open_page: Any) -> None:
    # One root with 3,000 children, nearly all too thin to draw.
    n = 3001
    data = synthetic.build(requests=5, span_nodes=10, code_nodes=n, samples=10)
    section = data.sections["flame_code"]
    section["tree"]["parent"] = np.array([-1] + [0] * (n - 1))
    section["tree"]["strings"] = [f"function {i}" for i in range(n)]
    section["tree"]["label"] = np.arange(n)
    weights = np.array([0] + [100_000 if i == 1 else 1 + i % 7 for i in range(1, n)])
    section["samples"] = {
        "stack": np.arange(n),
        "start_ns": np.arange(n),
        "duration": weights,
        "thread": np.zeros(n, dtype=int),
        "state": np.ones(n, dtype=int),
        "entry": np.full(n, -1),
    }
    page = open_page(data)
    seen: set[int] = set()
    for _ in range(100):
        bars = bars_of(page, "code")
        seen |= {node for i, node in enumerate(bars["node"]) if bars["kind"][i] == 0 and node > 0}
        more = [i for i, kind in enumerate(bars["kind"]) if kind == 1]
        assert len(seen) + sum(bars["count"][i] for i in more) == n - 1
        if not more:
            break
        click_bar(page, CODE, "code", more[0])
    assert seen == set(range(1, n))


def test_parallel_children_fit_into_their_parent(open_page: Any) -> None:
    data = synthetic.build(requests=1, span_nodes=10, code_nodes=10, samples=10)
    section = data.sections["flame_requests"]
    section["tree"] |= {
        "parent": np.array([-1, 0, 0, 0]),
        "label": np.array([0, 1, 2, 3]),
        "category": np.array([0, 0, 0, 0]),
    }
    # Three calls of 80 each ran side by side within 80 of their parent's 100.
    section["cells"] = {
        "node": np.array([0, 1, 2, 3]),
        "group": np.array([0, 0, 0, 0]),
        "total_ns": np.array([100, 80, 80, 80]),
        "self_ns": np.array([20, 80, 80, 80]),
        "count": np.array([1, 1, 1, 1]),
    }
    page = open_page(data)
    bars = bars_of(page, "requests")
    width = bars["width"]
    extents = {n: bars["x1"][i] - bars["x0"][i] for i, n in enumerate(bars["node"])}
    assert extents[0] == pytest.approx(width)
    for child in (1, 2, 3):
        assert extents[child] == pytest.approx(width * 0.8 / 3)


def test_search_marks_matches_and_counts_nested_ones_once(open_page: Any, data: Any) -> None:
    page = open_page(data)
    section = data.sections["flame_code"]
    tree = section["tree"]
    strings = np.array(tree["strings"], dtype=object)
    for query, matches in (
        ("FUNCTION_1", lambda text: "function_1" in text.lower()),
        ("/^function_[0-9]$/", lambda text: text in {f"function_{i}" for i in range(10)}),
        ("<img", lambda text: "<img" in text),
    ):
        box = page.locator("#flame_code input[type=search]").first
        box.fill(query)
        box.press("Enter")
        totals = shown(page, "code", "total")
        hit = [
            matches(strings[label]) or matches(strings[module])
            for label, module in zip(tree["label"], tree["module"], strict=True)
        ]
        parent = tree["parent"]
        covered = [False] * len(hit)
        matched = 0.0
        for i in range(len(hit)):
            above = int(parent[i])
            covered[i] = above >= 0 and (covered[above] or hit[above])
            matched += totals[i] if hit[i] and not covered[i] else 0
        whole = sum(t for t, p in zip(totals, parent, strict=True) if p < 0)
        found = page.evaluate(
            "(({ count, ratio }) => ({ count, ratio }))(perfkit.flame.views.code.matched)"
        )
        assert found["count"] == sum(h and t > 0 for h, t in zip(hit, totals, strict=True))
        assert found["ratio"] == pytest.approx(matched / whole)
        fills = page.evaluate(
            "document.querySelector('#flame_code .flame-plot').data[0].marker.color.filter("
            "(colour) => colour === perfkit.flame.hues().hit).length"
        )
        bars = bars_of(page, "code")
        drawn = [
            n for n, kind in zip(bars["node"], bars["kind"], strict=True) if kind != 1 and n >= 0
        ]
        assert fills == sum(hit[n] for n in drawn)
    box.fill("/(/")
    box.press("Enter")
    assert "not a pattern" in page.locator("#flame_code .toolbar").nth(1).inner_text()


def test_the_other_way_up(open_page: Any, data: Any) -> None:
    page = open_page(data)
    canvas = page.locator(f"{REQUESTS} .flame-canvas").bounding_box()
    page.locator("#flame_requests").get_by_role("button", name="Flame", exact=True).click()
    bars = bars_of(page, "requests")
    # The root is now in the lowest row: a click there zooms to it.
    y = bars["rows"] * 18 - 18 - 9
    page.locator(f"{REQUESTS} .flame-canvas").click(position={"x": 5, "y": y})
    assert bars_of(page, "requests")["view"] == {"node": 0, "skip": 0}
    assert canvas["width"] > 0


def test_keyboard_alone(open_page: Any, data: Any) -> None:
    page = open_page(data)
    stage = page.locator(REQUESTS)
    stage.focus()
    view = "perfkit.flame.views.requests.stage"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(f"{view}.selected.node") == 1
    assert "span 1" in page.locator("#flame_requests .flame-status").first.inner_text()
    page.keyboard.press("ArrowRight")
    right = page.evaluate(f"{view}.selected.node")
    assert right not in (0, 1)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert page.evaluate(f"{view}.view.node") == 1
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert page.evaluate(f"{view}.view.node") == 0
    page.keyboard.press("Backspace")
    assert page.evaluate(f"{view}.view.node") == 1
    page.keyboard.press("/")
    page.keyboard.type("span 3")
    page.keyboard.press("Enter")
    assert page.evaluate("perfkit.flame.views.requests.query") == "span 3"
    page.keyboard.press("Escape")
    assert page.evaluate("perfkit.flame.views.requests.query") == ""
    assert page.evaluate(f"{view}.view.node") == 1
    page.keyboard.press("Escape")
    assert page.evaluate(f"{view}.view.node") == -1


def test_hiding_library_frames_keeps_all_time(open_page: Any, data: Any) -> None:
    page = open_page(data)
    section = data.sections["flame_code"]
    whole = page.evaluate("perfkit.flame.views.code.values.whole")
    page.get_by_label("Hide library frames").check()
    tree = section["tree"]
    kinds = [tree["categories"][c] for c in tree["category"]]
    visible = [kind not in ("library", "stdlib", "native") for kind in kinds]
    self_ns: dict[tuple[str, ...], int] = {}
    strings = tree["strings"]
    paths: list[tuple[str, ...]] = []
    for i, parent in enumerate(tree["parent"]):
        above = paths[parent] if parent >= 0 else ()
        paths.append((*above, strings[tree["label"][i]]) if visible[i] else above)
    samples = section["samples"]
    for stack, duration, state in zip(
        *(samples[k] for k in ("stack", "duration", "state")), strict=True
    ):
        if state == 1:
            self_ns[paths[stack]] = self_ns.get(paths[stack], 0) + int(duration)
    result = page.evaluate(
        """() => { const { tree, values } = perfkit.flame.views.code;
        return { whole: values.whole, self: Array.from(values.self),
          paths: Array.from(values.self, (_, i) =>
            perfkit.tree.path(tree, i).map((n) => perfkit.tree.name(tree, n))) }; }"""
    )
    assert result["whole"] == whole == sum(self_ns.values())
    got = {tuple(p): s for p, s in zip(result["paths"], result["self"], strict=True) if s}
    assert got == {path: s for path, s in self_ns.items() if path}


def test_callers_and_callees_add_up(open_page: Any, data: Any) -> None:
    page = open_page(data)
    page.locator("#flame_code").get_by_role("tab", name="Top functions").click()
    row = page.locator("#flame_code .flame-top tbody tr[data-row]").first
    name = row.locator("td").first.inner_text()
    row.click()
    parts = page.evaluate(
        """() => { const { above, below } = perfkit.flame.views.code.sandwich;
        const read = (stage) => ({
          total: Array.from(stage.values.total), self: Array.from(stage.values.self),
          name: perfkit.tree.name(stage.tree, 0) });
        return [read(above), read(below)]; }"""
    )
    section = data.sections["flame_code"]
    tree = section["tree"]
    totals = shown(page, "code", "total")
    selfs = shown(page, "code", "self")
    chosen = page.evaluate("perfkit.flame.views.code.chosen")
    function = [(label, tree["file"][i]) for i, label in enumerate(tree["label"])]
    assert tree["strings"][function[chosen][0]] == name

    def outermost(i: int) -> bool:
        p = int(tree["parent"][i])
        while p >= 0 and function[p] != function[chosen]:
            p = int(tree["parent"][p])
        return p < 0

    own = [i for i in range(len(totals)) if function[i] == function[chosen]]
    total = sum(totals[i] for i in own if outermost(i))
    for part in parts:
        assert part["name"] == name
        assert part["total"][0] == total
    # Callers: what nobody calls explains all of it. Callees: own times add up to all of it.
    assert sum(parts[0]["self"]) == total
    assert sum(parts[1]["self"]) == total
    cells = row.locator("td").all_inner_texts()
    assert page.evaluate("(n) => perfkit.format.duration(n)", sum(selfs[i] for i in own)) in cells
    assert page.evaluate("(n) => perfkit.format.duration(n)", total) in cells


def test_a_link_brings_back_zoom_and_search(open_page: Any, data: Any) -> None:
    page = open_page(data)
    bars = bars_of(page, "requests")
    index = next(i for i, n in enumerate(bars["node"]) if n > 1 and bars["kind"][i] == 0)
    click_bar(page, REQUESTS, "requests", index)
    box = page.locator("#flame_requests input[type=search]").first
    box.fill("span 2")
    box.press("Enter")
    fragment = page.evaluate("location.hash.slice(1)")
    again = open_page(data, fragment=fragment)
    assert bars_of(again, "requests")["view"] == {"node": bars["node"][index], "skip": 0}
    assert again.evaluate("perfkit.flame.views.requests.query") == "span 2"


def test_nothing_selected_is_drawn_as_nothing(open_page: Any, data: Any) -> None:
    page = open_page(data, fragment="endpoint=no+such+endpoint")
    assert page.evaluate("perfkit.flame.views.requests.values.whole") == 0
    assert page.evaluate("perfkit.flame.views.code.values.whole") == 0
    page.locator("#flame_code").get_by_role("tab", name="Callers and callees").click()
    page.locator("#flame_code").get_by_role("tab", name="Top functions").click()


def test_difference_colours_what_grew(open_page: Any, data: Any) -> None:
    page = open_page(data)
    steps = page.evaluate(
        """() => { const view = perfkit.flame.views.requests; const { total, self } = view.given;
        const grown = { total: total.slice(), self: self.slice() };
        const children = Array.from(total.keys()).filter((n) => view.source.parent[n] === 0);
        for (const n of children) grown.total[n] *= n % 2 ? 4 : 1;
        view.update(grown, { total, self });
        const of = (p) => children.filter((n) => n % 2 === p)
          .map((n) => [total[n] / total[0], view.difference.step(n)]);
        return [of(1), of(0)]; }"""
    )
    assert all(step > 0 for share, step in steps[0] if share > 0.01)
    assert all(step <= 0 for _, step in steps[1])
    assert page.locator("#flame_requests .group[aria-label=Width]").is_visible()
