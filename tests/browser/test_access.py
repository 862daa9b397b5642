"""The report for everybody: axe-core's checks, the keyboard alone, and paper."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_report_page import ready, report
from tests.report.build import write_capture
from tests.report.incident import write_incident

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]
AXE = "axe-core@4.14.1"
RUN = """async () => {
  const found = await axe.run(document, { resultTypes: ["violations"] });
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes[0].target} (${nodes.length})`);
}"""

PAPER = """() => {
  const parts = [...document.querySelectorAll("main :is(p, h2, h3, dl, table, th, svg)")];
  const right = (one) => one.getBoundingClientRect().right;
  const out = (one) => one.getClientRects().length > 0 && right(one) > innerWidth + 1;
  return {
    ground: getComputedStyle(document.body).backgroundColor,
    bar: getComputedStyle(document.querySelector(".filter-bar")).display,
    wide: parts.filter(out).map((one) => `${one.closest("section").id}: ${one.tagName}`),
  };
}"""


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return axe-core's script: that at $PERFKIT_AXE, or the one that npm has."""
    given = os.environ.get("PERFKIT_AXE")
    if given:
        return Path(given).read_text("utf-8")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed, and PERFKIT_AXE names no axe.min.js")
    folder = tmp_path_factory.mktemp("axe")
    command = [
        npm,
        "install",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefix",
        folder,
        AXE,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        pytest.skip(f"npm could not install {AXE}: {done.stderr.strip()[-200:]}")
    return script.read_text("utf-8")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("access") / "incident.perfkit"
    return report(write_incident(path, seconds=180, rate=10), "incident")


@pytest.fixture(scope="module")
def with_code(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("access") / "code.perfkit"
    return report(write_capture(path), "code")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("which", ["html", "with_code"])
def test_axe_finds_nothing(
    which: str, width: int, dark: bool, axe: str, open_page: OpenPage, request: Any
) -> None:
    page = ready(open_page(request.getfixturevalue(which), width=width, dark=dark))
    page.evaluate(axe)
    assert page.evaluate(RUN) == []
    # What is behind a click, too: all that unfolds, a request's detail, and the list of keys.
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    row = page.locator("#slow_requests .is-virtual tbody tr[data-row]").first
    row.scroll_into_view_if_needed()
    row.click()
    page.locator("#slow_requests .waterfall").wait_for()
    assert page.evaluate(RUN) == []
    page.keyboard.press("Escape")
    page.locator("[data-action=shortcuts]").click()
    assert page.evaluate(RUN) == []


def test_axe_would_find_something(html: str, axe: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    page.evaluate(axe)
    page.evaluate("document.querySelector('main').append(document.createElement('button'))")
    assert [line.split(":")[0] for line in page.evaluate(RUN)] == ["button-name"]


def focused(page: Any) -> Any:
    return page.evaluate("document.activeElement.id || document.activeElement.className")


def test_sections_are_walked_through_by_keys(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    page.keyboard.press("j")
    assert focused(page) == "recommendations"
    page.keyboard.press("j")
    assert focused(page) == "bottlenecks"
    page.keyboard.press("k")
    assert focused(page) == "recommendations"
    assert "at=recommendations" in page.url


def test_keys_are_listed_and_the_list_is_left_by_escape(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    assert dialog.is_visible()
    assert "Next section" in dialog.inner_text()
    page.keyboard.press("j")
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert "at=" not in page.url


def test_keys_do_nothing_while_one_writes(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    box = page.locator(".filter-bar input").first
    box.focus()
    page.keyboard.type("d?jx")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert page.locator("dialog[open]").count() == 0


def test_the_filter_is_reached_and_cleared_by_keys(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html, fragment="status=error"))
    page.keyboard.press("f")
    assert page.evaluate("document.activeElement.closest('.filter-bar') !== null")
    page.keyboard.press("Tab")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("x")
    assert page.evaluate("window.perfkit.filter.active()") is False


def test_the_theme_changes_by_a_key(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html))
    page.keyboard.press("d")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_every_control_is_reached_by_tab(with_code: str, open_page: OpenPage) -> None:
    page = ready(open_page(with_code))
    seen = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        section = page.evaluate("document.activeElement.closest('section')?.id ?? ''")
        seen.add(section)
        if section == "capture_health":
            break
    wanted = page.locator("main > section").evaluate_all("all => all.map(one => one.id)")
    without = {"summary", "capture_health"} | {
        one
        for one in wanted
        if page.locator(f"#{one}").locator("button, a, input, select, [tabindex='0']").count() == 0
    }
    assert set(wanted) - seen <= without


def test_paper_is_light_and_nothing_runs_out_of_it(html: str, open_page: OpenPage) -> None:
    page = ready(open_page(html, width=760, dark=True))
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_timeout(500)
    found = page.evaluate(PAPER)
    assert found["ground"] == "rgb(255, 255, 255)"
    assert found["bar"] == "none"
    assert found["wide"] == []


NAVIGATION = """() => {
  const nav = document.querySelector(".nav");
  const box = nav.getBoundingClientRect();
  const inside = (link) => {
    const { left, right } = link.getBoundingClientRect();
    return left >= box.left - 10 && right <= box.right + 1;
  };
  const links = [...nav.querySelectorAll("a")];
  const current = nav.querySelector("[aria-current]");
  return { out: links.filter((one) => !inside(one)).length, current: current && inside(current) };
}"""


@pytest.mark.parametrize("width", [390, 600, 760, 1024, 1280, 1366, 1600])
def test_the_navigation_is_whole_or_follows(html: str, width: int, open_page: OpenPage) -> None:
    page = ready(open_page(html, width=width))
    if width > 720:
        assert page.evaluate(NAVIGATION)["out"] == 0
    # Where it scrolls sideways, it has what the reader looks at. The page grows while it is drawn.
    page.wait_for_function("""() => {
      scrollTo(0, document.documentElement.scrollHeight);
      return document.querySelector(".nav a:last-child[aria-current]");
    }""")
    assert page.evaluate(NAVIGATION)["current"] is True
