"""A real Chromium, and pages made of the shipped scripts around made-up data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perfkit.report import assets
from perfkit.report.pack import pack
from tests.browser import synthetic

CHROMIUM = os.environ.get("PERFKIT_CHROMIUM", "/usr/bin/chromium")
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Synthetic</title>
<link rel="icon" href="data:,"><style>{styles}</style><script>{theme}</script></head><body>
<header class="page-head"><h1>Synthetic report</h1></header>
<div class="topbar"><div class="topbar-row"><nav class="nav" aria-label="Sections">{links}</nav>
<button class="button is-quiet" type="button" data-action="theme" hidden>Dark</button></div>
<form class="filter-bar" data-filter-bar hidden></form></div>
<main class="page">{sections}</main>
<script type="application/octet-stream" id="perfkit-data">{data}</script>
<script type="application/octet-stream" id="perfkit-plotly">{plotly}</script>
{scripts}</body></html>"""

_SLOTS = {
    "summary": '<div class="stats"><div class="stat"><div class="stat-label">p95</div>'
    '<div class="stat-value" data-stat="p95_ns">all</div></div></div>'
    '<div data-slot="timeline"></div>',
    "flame_requests": '<div data-slot="flame"></div>',
    "flame_code": '<div class="toolbar" data-slot="controls"></div><div data-slot="flame"></div>',
    "comparison": '<div class="toolbar" data-slot="controls"></div><div data-slot="flame"></div>',
    "slow_requests": '<div data-slot="list"></div><div data-slot="detail"></div>',
    "heatmaps": '<div data-slot="panels" class="stack"></div>',
}


def page_html(data: synthetic.Data, extra: str = "") -> str:
    """Return a page of the shipped scripts and styles around the data."""
    shipped = assets.load()
    sections = "".join(
        f'<section class="section" id="{name}" data-section="{name}">'
        f'<div class="section-head"><h2>{name}</h2></div>{slots}</section>'
        for name, slots in _SLOTS.items()
        if name in data.sections
    )
    return _PAGE.format(
        policy=shipped.policy,
        styles=shipped.styles,
        theme=shipped.theme,
        links="".join(f'<a href="#{name}">{name}</a>' for name in data.sections),
        sections=sections + extra,
        data=pack(data.packed()),
        plotly=shipped.plotly_packed,
        scripts="".join(f"<script>{script}</script>" for script in shipped.scripts),
    )


@pytest.fixture(scope="session")
def browser(playwright_driver: Any) -> Iterator[Any]:
    """Start Chromium once for all tests."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no Chromium at {CHROMIUM} (set PERFKIT_CHROMIUM)")
    started = playwright_driver.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
    yield started
    started.close()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open a page of the data; fails the test on any console message or network request."""
    problems: list[str] = []
    contexts = []

    def open_(
        data: synthetic.Data | str,
        *,
        fragment: str = "",
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        extra: str = "",
    ) -> Any:
        html = data if isinstance(data, str) else page_html(data, extra)
        file = tmp_path / "report.html"
        file.write_text(html, encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("request", lambda request: _note(request.url, file, problems))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.goto(file.as_uri() + (f"#{fragment}" if fragment else ""))
        page.wait_for_selector("html[data-perfkit]", state="attached", timeout=30_000)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not problems


def _note(url: str, file: Path, problems: list[str]) -> None:
    if not url.startswith((file.as_uri(), "data:", "blob:")):
        problems.append(f"request: {url}")
