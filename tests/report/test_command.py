from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from perfkit.cli.report import command
from perfkit.errors import CaptureError, PerfkitError, UsageError
from perfkit.report import render


@pytest.fixture
def mine(capture: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(capture, tmp_path / "slow.perfkit"))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def refused(*arguments: object) -> PerfkitError:
    error = invoke(*arguments).exception
    assert isinstance(error, PerfkitError)
    return error


def test_the_report_lies_beside_its_capture(mine: Path) -> None:
    done = invoke(mine)
    assert done.exit_code == 0, done.output
    target = mine.parent / "slow.html"
    size = target.stat().st_size
    assert f"{target} (" in done.stdout
    assert f"{size / 1024:.0f} KiB" in done.stdout
    assert done.stderr.splitlines()[-1].split(":")[0] in ("high", "medium", "low", "info")
    assert "<title>slow</title>" in target.read_text("utf-8")


def test_name_title_and_filters_can_be_given(mine: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.html"
    options = ["-o", target, "--title", "Ticket <17>", "--tool", "search"]
    assert invoke(mine, *options).exit_code == 0
    html = target.read_text("utf-8")
    assert "<title>Ticket &lt;17&gt;</title>" in html
    assert "part of the capture only: tool search" in html


def test_a_directory_is_not_overwritten(mine: Path, tmp_path: Path) -> None:
    error = refused(mine, "-o", tmp_path)
    assert isinstance(error, UsageError)
    assert "is a directory" in error.message
    assert error.hint


def test_a_place_that_does_not_exist_is_refused_before_the_work(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "build", lambda *_, **__: pytest.fail("worked first"))
    assert "no such directory" in refused(mine, "-o", tmp_path / "no" / "x.html").message


def test_without_a_capture_there_is_one_line(tmp_path: Path) -> None:
    assert isinstance(refused(tmp_path / "none.perfkit"), CaptureError)


def test_an_old_report_survives_a_failure(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = mine.parent / "slow.html"
    target.write_text("old")

    def fail(*_: Any, **__: Any) -> None:
        raise CaptureError("damaged")

    monkeypatch.setattr(render, "build", fail)
    assert "damaged" in refused(mine).message
    assert target.read_text() == "old"
    assert sorted(path.name for path in mine.parent.iterdir()) == ["slow.html", "slow.perfkit"]


def test_help_has_an_example() -> None:
    assert "Example: perfkit report slow.perfkit -o slow.html" in invoke("--help").output
