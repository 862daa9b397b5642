"""Which frames a code flame graph has: functions, lines, merged recursion; against slow twins."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from tests.browser import synthetic

pytestmark = pytest.mark.browser

Key = tuple[Any, ...]

_SHOWN = """() => {
  const { tree, values } = perfkit.flame.views.code;
  const key = (i) => [perfkit.tree.name(tree, i), tree.strings[tree.file[i]]];
  return { whole: values.whole,
           paths: Array.from(values.self, (_, i) => perfkit.tree.path(tree, i).map(key)),
           self: Array.from(values.self), total: Array.from(values.total) };
}"""
_TOP = """() => {
  const { top } = perfkit.flame.views.code;
  const { tree, sums } = top;
  return sums.keys.map((key) => { const i = sums.node[key];
    return [[tree.strings[tree.label[i]], tree.strings[tree.file[i]], tree.line[i],
             tree.strings[tree.module[i]]], sums.self[key], sums.total[key]]; });
}"""


@pytest.fixture(scope="module")
def data() -> synthetic.Data:
    """Few functions in few files at few lines, so that all of them meet again and again."""
    made = synthetic.build(requests=50, code_nodes=600, samples=3000)
    tree = made.sections["flame_code"]["tree"]
    rng = np.random.default_rng(3)
    strings = [f"f{i}" for i in range(6)] + ["/srv/a.py", "/srv/b.py"] + ["mod.a", "mod.b"]
    n = len(tree["parent"])
    in_b = rng.integers(0, 2, n)
    tree |= {
        "strings": strings,
        "label": rng.integers(0, 6, n),
        "file": 6 + in_b,
        "module": 8 + in_b,
        "line": rng.integers(1, 4, n),
    }
    return made


class Twin:
    """The running samples, each with its path of (function, file, line, module)."""

    def __init__(self, section: dict[str, Any]) -> None:
        tree, samples = section["tree"], section["samples"]
        strings = tree["strings"]
        paths: list[Key] = []
        for i, parent in enumerate(tree["parent"]):
            frame = (
                *(strings[tree[name][i]] for name in ("label", "file")),
                int(tree["line"][i]),
                strings[tree["module"][i]],
            )
            paths.append((*(paths[parent] if parent >= 0 else ()), frame))
        self.weights: Counter[Key] = Counter()
        for stack, duration, state in zip(
            *(samples[k] for k in ("stack", "duration", "state")), strict=True
        ):
            if state == 1:
                self.weights[paths[stack]] += int(duration)

    def shown(self, *, lines: bool, recursion: bool) -> dict[Key, int]:
        """Return own time by path of what frames are called, and their file."""
        own: Counter[Key] = Counter()
        for path, weight in self.weights.items():
            made: list[Key] = []
            functions: list[Key] = []
            for function, file, line, _ in path:
                if recursion and (function, file) in functions:
                    keep = functions.index((function, file)) + 1
                    made, functions = made[:keep], functions[:keep]
                    continue
                made.append((f"{function}:{line}" if lines else function, file))
                functions.append((function, file))
            own[tuple(made)] += weight
        return {path: weight for path, weight in own.items() if weight}

    def sums(self, *places: int) -> dict[Key, tuple[int, int]]:
        """Return own and total time of each key made of these places of a frame."""
        own: dict[Key, int] = defaultdict(int)
        total: dict[Key, int] = defaultdict(int)
        for path, weight in self.weights.items():
            keys = [tuple(frame[place] for place in places) for frame in path]
            own[keys[-1]] += weight
            for key in set(keys):
                total[key] += weight
        return {key: (own[key], total[key]) for key in total if total[key]}


@pytest.fixture(scope="module")
def twin(data: synthetic.Data) -> Twin:
    return Twin(data.sections["flame_code"])


def shown(page: Any) -> dict[Key, int]:
    found = page.evaluate(_SHOWN)
    assert sum(found["self"]) == found["whole"]
    paths = [tuple(map(tuple, path)) for path in found["paths"]]
    assert len(set(paths)) == len(paths)  # what is one is one bar
    below: Counter[Key] = Counter()
    for path, own in zip(paths, found["self"], strict=True):
        for depth in range(1, len(path) + 1):
            below[path[:depth]] += own
    assert found["total"] == [below[path] for path in paths]
    return {path: own for path, own in zip(paths, found["self"], strict=True) if own}


def code(page: Any) -> Any:
    section = page.locator("#flame_code")
    section.scroll_into_view_if_needed()
    page.wait_for_function("perfkit.flame.views.code?.stage.bars")
    return section


def test_frames_are_functions_until_lines_are_asked_for(
    open_page: Any, data: synthetic.Data, twin: Twin
) -> None:
    page = open_page(data)
    section = code(page)
    assert shown(page) == twin.shown(lines=False, recursion=False)
    section.get_by_label("Frames", exact=True).select_option("line")
    assert shown(page) == twin.shown(lines=True, recursion=False)


@pytest.mark.parametrize("lines", [False, True])
def test_recursion_is_merged_into_the_outermost_call(
    open_page: Any, data: synthetic.Data, twin: Twin, lines: bool
) -> None:
    page = open_page(data)
    section = code(page)
    section.get_by_label("Merge recursion").check()
    if lines:
        section.get_by_label("Frames", exact=True).select_option("line")
    assert shown(page) == twin.shown(lines=lines, recursion=True)


def test_the_top_table_is_by_function_line_or_module(
    open_page: Any, data: synthetic.Data, twin: Twin
) -> None:
    page = open_page(data)
    section = code(page)
    page.keyboard.press("2")
    assert section.get_by_role("tab", name="Top functions").get_attribute("aria-selected") == "true"
    for by, places in (("function", (0, 1)), ("line", (0, 1, 2)), ("module", (3,))):
        section.get_by_role("button", name=f"By {by}").click()
        found = {
            tuple(frame[place] for place in places): (own, total)
            for frame, own, total in page.evaluate(_TOP)
        }
        assert found == twin.sums(*places), by
    section.get_by_role("row").nth(1).click()
    assert page.evaluate("perfkit.flame.views.code.query").startswith("mod.")
    assert section.get_by_role("tab", name="Flame graph").get_attribute("aria-selected") == "true"


def test_a_row_of_a_line_opens_callers_and_callees_of_its_function(
    open_page: Any, data: synthetic.Data, twin: Twin
) -> None:
    page = open_page(data)
    section = code(page)
    page.keyboard.press("2")
    section.get_by_role("button", name="By line").click()
    row = section.get_by_role("row").nth(1)
    name = row.get_by_role("cell").nth(0).inner_text()
    file = row.get_by_role("cell").nth(1).inner_text().split(":")[0]
    row.click()
    own, total = twin.sums(0, 1)[name, f"/{file}"]
    head = section.locator(".sandwich-head")
    written = [page.evaluate(f"perfkit.format.value({one}, 'ns')") for one in (total, own)]
    assert head.inner_text().startswith(f"total {written[0]} (")
    assert f"self {written[1]} (" in head.inner_text()
    page.keyboard.press("1")
    assert section.get_by_role("tab", name="Flame graph").get_attribute("aria-selected") == "true"


def test_a_link_keeps_the_frames_and_the_frame(open_page: Any, data: synthetic.Data) -> None:
    page = open_page(data)
    section = code(page)
    view = "perfkit.flame.views.code"
    page.evaluate(f"{view}.zoom({view}.node(40))")
    name = page.evaluate(f"perfkit.tree.name({view}.tree, {view}.stage.view.node)")
    section.get_by_label("Frames", exact=True).select_option("line")
    by_line = page.evaluate(f"perfkit.tree.name({view}.tree, {view}.stage.view.node)")
    assert by_line.startswith(f"{name}:")
    section.get_by_label("Merge recursion").check()
    fragment = page.evaluate("location.hash.slice(1)")
    assert "code.frames=lines-recursion" in fragment
    before = [shown(page), page.evaluate(f"{view}.stage.view.node")]
    again = open_page(data, fragment=fragment)
    assert code(again).get_by_label("Merge recursion").is_checked()
    assert [shown(again), again.evaluate(f"{view}.stage.view.node")] == before


def test_a_search_finds_files_too(open_page: Any, data: synthetic.Data, twin: Twin) -> None:
    page = open_page(data)
    code(page)
    page.evaluate("perfkit.flame.views.code.search('srv/b.py')")
    whole = sum(twin.weights.values())
    touched = sum(
        weight
        for path, weight in twin.weights.items()
        if any(file == "/srv/b.py" for _, file, _, _ in path)
    )
    ratio = page.evaluate("perfkit.flame.views.code.matched.ratio")
    assert ratio == pytest.approx(touched / whole)
