"""The present view as a file: what is in it is what is shown."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.browser import synthetic

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def data() -> synthetic.Data:
    return synthetic.build()


def saved(page: Any, section: str, format_: str, folder: Path) -> Path:
    """Choose a format in the menu, as a reader does, and return the file."""
    menu = page.locator(f"#{section} select[aria-label='Export the present view']").first
    menu.scroll_into_view_if_needed()
    with page.expect_download() as download:
        menu.select_option(format_)
    target = folder / download.value.suggested_filename
    download.value.save_as(target)
    return target


def self_times(page: Any, name: str) -> list[float]:
    return page.evaluate("(name) => Array.from(perfkit.flame.views[name].values.self)", name)


def test_collapsed_stacks_sum_to_what_is_shown(open_page: Any, data: Any, tmp_path: Path) -> None:
    page = open_page(data)
    file = saved(page, "flame_code", "collapsed", tmp_path)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert file.name.endswith("-code.collapsed.txt")
    weights = [int(line.rpartition(" ")[2]) for line in lines]
    expected = [round(value) for value in self_times(page, "code")]
    assert Counter(weights) == Counter(value for value in expected if value)


def test_a_zoomed_view_exports_only_what_is_below(
    open_page: Any, data: Any, tmp_path: Path
) -> None:
    page = open_page(data)
    page.evaluate("perfkit.flame.views.requests.zoom(1)")
    file = saved(page, "flame_requests", "collapsed", tmp_path)
    parent = data.sections["flame_requests"]["tree"]["parent"].tolist()
    own = self_times(page, "requests")
    below = 0
    for node in range(len(parent)):
        at = node
        while at > 1:
            at = parent[at]
        below += round(own[node]) if at == 1 else 0
    lines = file.read_text(encoding="utf-8").splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == below


def test_speedscope_has_every_weight_and_valid_frames(
    open_page: Any, data: Any, tmp_path: Path
) -> None:
    page = open_page(data)
    found = json.loads(saved(page, "flame_code", "speedscope", tmp_path).read_text("utf-8"))
    (profile,) = found["profiles"]
    assert profile["unit"] == "nanoseconds"
    assert profile["endValue"] == sum(profile["weights"])
    assert sum(profile["weights"]) == sum(round(value) for value in self_times(page, "code"))
    frames = len(found["shared"]["frames"])
    assert all(0 <= frame < frames for stack in profile["samples"] for frame in stack)


def test_a_difference_exports_both_sides(open_page: Any, data: Any, tmp_path: Path) -> None:
    page = open_page(data, fragment="compare.a=early&compare.b=late")
    page.locator("#comparison").scroll_into_view_if_needed()
    page.wait_for_function("perfkit.flame.views['difference-requests']?.difference")
    file = saved(page, "comparison", "collapsed", tmp_path)
    pairs = [line.split(" ")[-2:] for line in file.read_text(encoding="utf-8").splitlines()]
    expected = self_times(page, "difference-requests")
    assert sum(int(first) for _, first in pairs) == sum(round(value) for value in expected)
    found = json.loads(saved(page, "comparison", "speedscope", tmp_path).read_text("utf-8"))
    assert [profile["name"] for profile in found["profiles"]] == ["second half", "first half"]


def test_pictures_have_every_bar_and_hostile_names_stay_text(
    open_page: Any, data: Any, tmp_path: Path
) -> None:
    page = open_page(data)
    file = saved(page, "flame_requests", "svg", tmp_path)
    root = ElementTree.parse(file).getroot()
    space = "{http://www.w3.org/2000/svg}"
    bars = page.evaluate("perfkit.flame.views.requests.stage.bars.length")
    assert len(root.findall(f"{space}g")) == bars
    assert {element.tag.removeprefix(space) for element in root.iter()} == {
        *("svg", "rect", "g", "title", "text")
    }
    picture = saved(page, "flame_requests", "png", tmp_path).read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width = page.evaluate("perfkit.flame.views.requests.stage.width")
    assert int.from_bytes(picture[16:20], "big") == 2 * width
