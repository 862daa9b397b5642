"""The report in Firefox: opened, zoomed, filtered and darkened, without an error or a request."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.test_report_page import report
from tests.report.build import write_capture

pytestmark = pytest.mark.browser

PUPPETEER = "puppeteer-core@24.43.1"
SCRIPT = Path(__file__).with_name("firefox.mjs")


@pytest.fixture(scope="module")
def firefox() -> str:
    found = shutil.which("firefox-esr") or shutil.which("firefox")
    if found is None:
        pytest.skip("Firefox is not installed (package firefox-esr)")
    return found


@pytest.fixture(scope="module")
def puppeteer(firefox: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with puppeteer-core: that at $PERFKIT_PUPPETEER, or one that npm fills."""
    given = os.environ.get("PERFKIT_PUPPETEER")
    if given:
        return Path(given)
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed, and PERFKIT_PUPPETEER names no folder")
    folder = tmp_path_factory.mktemp("puppeteer")
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]
    command = [npm, "install", *options, folder, PUPPETEER]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not (folder / "node_modules" / "puppeteer-core").exists():
        pytest.skip(f"npm could not install {PUPPETEER}: {done.stderr.strip()[-200:]}")
    return folder


def test_firefox_shows_zooms_and_filters(firefox: str, puppeteer: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(report(write_capture(tmp_path / "code.perfkit"), "code"), encoding="utf-8")
    picture = tmp_path / "seen.png"
    done = subprocess.run(
        ["node", SCRIPT, puppeteer, firefox, file, picture],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["problems"] == []
    assert seen["failed"] == 0
    assert seen["bars"] > 5
    assert seen["wide"] <= 0
    assert seen["zoomed"] != seen["whole"]
    assert f"of {seen['all']}" in seen["filtered"]
    assert "endpoint=" in seen["fragment"]
    assert sorted(seen["themes"]) == ["dark", "light"]
    assert picture.stat().st_size > 10_000
