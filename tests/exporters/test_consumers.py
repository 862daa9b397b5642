"""Exports opened by the tools that they are for: speedscope, `go tool pprof`, Chromium."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perfkit import exporters
from perfkit.exporters.base import Source
from tests.browser.conftest import CHROMIUM
from tests.exporters import shop

SPEEDSCOPE = "1.25.0"
_FLAGS = ["--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
FORMATS = {
    "speedscope": "speedscope json file",
    "collapsed": "collapsed stack format",
    "pprof": "protobuf encoded pprof file",
    "chrome": "Trace Event Format profile",
}
"""Format -> what speedscope says that it imports."""


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that exports a capture to a file."""
    folder = tmp_path_factory.mktemp("consumers")
    captures = {
        hostile: shop.write(folder / f"{hostile}.perfkit", hostile=hostile)
        for hostile in (False, True)
    }

    def write_(form: str, *, view: str | None = None, hostile: bool = False) -> Path:
        exporter = exporters.by_name(form)
        file = folder / f"{view}-{hostile}{exporter.SUFFIX}"
        source = Source("shop", shop.tables(captures[hostile]), view)
        file.write_bytes(b"".join(exporter.export(source)))
        return file

    return write_


@pytest.fixture(scope="module")
def chromium(playwright_driver: Any) -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no Chromium at {CHROMIUM} (set PERFKIT_CHROMIUM)")
    started = playwright_driver.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
    yield started
    started.close()


@pytest.fixture(scope="module")
def speedscope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of speedscope itself, as npm delivers it."""
    if shutil.which("npm") is None:
        pytest.skip("no npm, from which speedscope comes")
    folder = tmp_path_factory.mktemp("npm")
    packed = subprocess.run(
        ["npm", "pack", "--silent", f"speedscope@{SPEEDSCOPE}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if packed.returncode:
        pytest.skip(f"npm cannot fetch speedscope: {packed.stderr.strip()[-200:]}")
    with tarfile.open(folder / packed.stdout.strip().splitlines()[-1]) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package" / "dist" / "release" / "index.html"


@pytest.mark.real
@pytest.mark.browser
@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_speedscope_opens_it(
    form: str, hostile: bool, write: Callable[..., Path], chromium: Any, speedscope: Path
) -> None:
    page = chromium.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.goto(speedscope.as_uri())
    page.set_input_files("input[type=file]", str(write(form, hostile=hostile)))
    page.wait_for_selector("text=Sandwich", timeout=30_000)
    told = "\n".join(said)
    assert f"Importing as {FORMATS[form]}" in told
    # What it has to mend it says: an end without a begin, a sample without a frame.
    assert "error" not in told.lower()
    assert "Tried to end" not in told
    if form == "speedscope":
        assert "(1/6)" in page.inner_text("body")
    page.click("text=Sandwich")
    wanted = shop.HOSTILE.split(";")[0].strip() if hostile and form != "collapsed" else "main"
    page.wait_for_function("wanted => document.body.innerText.includes(wanted)", arg=wanted)
    page.close()


@pytest.mark.real
@pytest.mark.skipif(shutil.which("go") is None, reason="no Go (Debian: apt-get install golang-go)")
@pytest.mark.parametrize(
    ("view", "says"),
    [
        ("running", ["Type: running", "40ms 50.00%", "main", "work"]),
        ("code", ["Type: wall", "130ms", "wait", "50ms 38.46%"]),
        ("critical-path", ["Type: critical", "100ms", "call b", "50ms 50.00%"]),
        ("requests", ["Type: self", "140ms", "call a"]),
    ],
)
def test_go_tool_pprof_adds_it_up(view: str, says: list[str], write: Callable[..., Path]) -> None:
    done = subprocess.run(
        ["go", "tool", "pprof", "-top", "-nodefraction=0", str(write("pprof", view=view))],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for one in says:
        assert one in done.stdout, done.stdout


@pytest.mark.browser
def test_the_drawing_is_seen_and_searched_in_chromium(
    write: Callable[..., Path], chromium: Any
) -> None:
    page = chromium.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.goto(write("svg", view="requests").as_uri())
    # The whole name is found, though its frame may be too narrow for it.
    assert page.evaluate("window.find('call b')")
    assert not page.evaluate("window.find('no such name')")
    titles = page.eval_on_selector_all("g > title", "all => all.map(one => one.textContent)")
    assert "POST /buy (shop)\n140 ms, 100 %; itself 20 ms" in titles
    widths = page.eval_on_selector_all("g > rect", "all => all.map(one => one.getBBox().width)")
    assert max(widths) == pytest.approx(1180, abs=0.1)
    page.goto(write("svg", view="running", hostile=True).as_uri())
    assert page.evaluate("window.find('<script>alert(1)</script>')")
    assert said == []
    page.close()
