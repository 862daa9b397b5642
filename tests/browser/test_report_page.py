"""A whole report in a real Chromium: what a reader does first, without an error or a request."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perfkit.report.render import build
from perfkit.rules.evaluate import run
from perfkit.rules.load import load_rules
from tests.report.build import open_tables, write_capture

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]


def report(path: Path, title: str) -> str:
    tables = open_tables(path)
    made = build(tables, run(load_rules(), tables), title=title)
    assert made.failed == []
    return made.html


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report(write_capture(tmp_path_factory.mktemp("page") / "small.perfkit"), "small")


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of the recorded run of a real gateway."""
    from click.testing import CliRunner

    from perfkit.cli.import_ import command

    data = shared_data / "contextforge"
    target = tmp_path_factory.mktemp("real") / "gateway.perfkit"
    files = [*sorted((data / "otlp").glob("*.pb")), data / "pyspy-chrometrace.json"]
    done = CliRunner().invoke(command, [*map(str, files), "-o", str(target)])
    assert done.exit_code == 0, done.output
    return report(target, "gateway")


@pytest.fixture(params=["small", "real"])
def html(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def ready(page: Any) -> Any:
    page.wait_for_selector("html[data-perfkit=ready]", state="attached", timeout=60_000)
    return page


def flame(page: Any, name: str = "flame_requests") -> Any:
    stage = page.locator(f"#{name} .flame-stage").first
    stage.scroll_into_view_if_needed()
    return stage


def crumbs(page: Any, name: str = "flame_requests") -> list[str]:
    return list(page.locator(f"#{name} .flame-path").first.locator(".crumb").all_inner_texts())


def top_frames(page: Any) -> str:
    page.locator("#flame_requests [role=tab]").nth(1).click()
    text = str(page.locator("#flame_requests .flame-top tbody").inner_text())
    page.locator("#flame_requests [role=tab]").nth(0).click()
    return text


def choose(page: Any, label: str, value: str) -> None:
    page.get_by_role("combobox", name=label).first.select_option(value)


def test_it_starts_and_says_what_is_wrong_first(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    sections = page.locator("main section").evaluate_all("all => all.map(s => s.id)")
    assert sections[:2] == ["summary", "recommendations"]
    assert page.locator("#summary .verdict").inner_text()
    assert page.locator(".is-error").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_zoom_and_back_in_the_request_flame_graph(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    stage = flame(page)
    stage.focus()
    before = crumbs(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    zoomed = crumbs(page)
    assert len(zoomed) == len(before) + 1
    assert "requests=" in page.url
    page.keyboard.press("Backspace")
    assert crumbs(page) == before


def test_search_lights_up_frames_and_says_their_share(small: str, open_page: OpenPage) -> None:
    page = ready(open_page(small))
    flame(page)
    box = page.locator("#flame_requests input[type=search]").first
    box.fill("SELECT")
    box.press("Enter")
    found = page.locator("#flame_requests").get_by_text(re.compile(r"\d+ frames?, \d+(\.\d+)? %"))
    found.wait_for()
    # 320 + 20 queries of 8 and 20 ms; 40 searches of 215 ms on average, 20 items of 40 ms.
    assert found.inner_text() == "2 frames, 32 %"


def test_a_filter_reaches_every_section(small: str, open_page: OpenPage) -> None:
    page = ready(open_page(small))
    assert "POST /tools/invoke" in top_frames(page)
    choose(page, "Endpoint", "GET /items/{id}")
    page.wait_for_timeout(300)
    assert "POST /tools/invoke" not in top_frames(page)
    assert page.locator("#summary [data-stat=p50_ns]").inner_text() == "40 ms"
    queries = page.locator("[data-table=queries] td[data-key=calls]").all_inner_texts()
    assert sorted(queries) == ["0", "20"]
    endpoints = page.locator("[data-table=endpoints] td[data-key=requests]")
    assert sorted(endpoints.evaluate_all("all => all.map(c => c.textContent)")) == ["0", "20"]
    assert "GET" in page.url
    page.evaluate("perfkit.filter.clear()")
    page.wait_for_timeout(300)
    assert "POST /tools/invoke" in top_frames(page)
    assert sorted(page.locator("[data-table=queries] td[data-key=calls]").all_inner_texts()) == [
        "20",
        "320",
    ]


def test_tool_and_time_filters_are_exact(small: str, open_page: OpenPage) -> None:
    page = ready(open_page(small))
    page.evaluate("perfkit.filter.set({tools: ['search'], from_ns: 0, to_ns: 1e9})")
    page.wait_for_timeout(300)
    expected = page.evaluate(
        """() => {
          const {requests} = perfkit.data.slow_requests;
          const search = requests.strings.indexOf("search");
          let count = 0;
          for (let i = 0; i < requests.start_ns.length; i++)
            if (requests.tool[i] === search && requests.start_ns[i] < 1e9) count++;
          return count;
        }"""
    )
    assert 0 < expected < 40
    tools = page.locator("[data-table=tools] td[data-key=requests]")
    assert tools.evaluate_all("all => all.map(c => c.textContent)") == [str(expected)]
    code = page.locator("#flame_code").get_by_text(re.compile("^Shown: "))
    assert "of 12 s sampled" in code.inner_text()


def test_a_slow_request_opens(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    row = page.locator("#slow_requests tr[tabindex]").first
    row.scroll_into_view_if_needed()
    row.click()
    detail = page.locator("#slow_requests [data-slot=detail]")
    detail.locator("text=/\\d (ns|µs|ms|s)/").first.wait_for()
    assert detail.inner_text()


def test_themes_and_widths(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html, width=390))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.locator("[data-action=theme]").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_running_and_waiting_code_are_told_apart(small: str, open_page: OpenPage) -> None:
    page = ready(open_page(small))
    flame(page, "flame_code")
    said = page.locator("#flame_code").get_by_text(re.compile("^Shown: "))
    assert said.inner_text() == "Shown: 6 s of 12 s sampled."
    page.locator("#flame_code").get_by_role("button", name="All", exact=True).click()
    assert said.inner_text() == "Shown: 12 s of 12 s sampled."
    choose(page, "Thread", "0")
    assert said.inner_text() == "Shown: 3 s of 12 s sampled."


def test_without_data_nothing_breaks(tmp_path: Path, open_page: OpenPage) -> None:
    nothing = dict.fromkeys(("with_spans", "with_samples", "with_metrics"), False)
    html = report(write_capture(tmp_path / "empty.perfkit", **nothing), "empty")
    page = ready(open_page(html))
    assert "This capture is empty" in page.locator("#summary").inner_text()
    assert page.locator(".is-error").count() == 0


def test_hostile_names_run_nothing(tmp_path: Path, open_page: OpenPage) -> None:
    hostile = (
        "</script><img src=x onerror=window.hacked=1><script>window.hacked=1</script>\u202e\x07"
    )
    html = report(write_capture(tmp_path / "hostile.perfkit", hostile=hostile), hostile)
    page = ready(open_page(html))
    page.locator("#slow_requests tr[tabindex]").first.click()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
