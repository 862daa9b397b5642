"""`perfkit export` as its user runs it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from perfkit.cli.export import FORMATS, command
from perfkit.errors import InputError, UsageError
from tests.exporters import shop


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return shop.write(tmp_path / "shop.perfkit")


def export(capture: Path, form: str, *arguments: str, **more: Any) -> Result:
    return CliRunner().invoke(
        command, [str(capture), "--format", form, *arguments], catch_exceptions=False, **more
    )


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_beside_the_capture_with_the_suffix_of_its_format(capture: Path, form: str) -> None:
    done = export(capture, form, *(["--table", "endpoints"] if form == "csv" else []))
    (written,) = (path for path in capture.parent.iterdir() if path != capture)
    assert done.stdout.startswith(f"{written} (")
    assert written.name.startswith("shop.")
    assert written.stat().st_size > 50


def test_standard_output_has_the_data_and_nothing_else(capture: Path) -> None:
    assert json.loads(export(capture, "speedscope", "-o", "-").stdout)["name"] == "shop"
    assert gzip.decompress(export(capture, "pprof", "-o", "-").stdout_bytes)
    assert export(capture, "csv", "--table", "tools", "-o", "-").stdout.startswith("tool,")


def test_filters_choose_what_is_written(capture: Path) -> None:
    lines = export(capture, "otlp-json", "--service", "pay", "-o", "-").stdout.splitlines()
    spans = [line for line in map(json.loads, lines) if "resourceSpans" in line]
    assert len(spans) == 1
    assert "GET /p" in json.dumps(spans)
    with pytest.raises(InputError, match="nothing to draw"):
        export(capture, "svg", "--service", "nobody")


@pytest.mark.parametrize(
    ("form", "arguments", "says"),
    [
        ("csv", ["--view", "code"], "draws no flame graph"),
        ("svg", ["--table", "spans"], "writes no tables"),
        ("csv", ["--table", "span"], "did you mean spans?"),
        ("csv", [], "say which with --table"),
    ],
)
def test_what_a_format_cannot_do_is_refused(
    capture: Path, form: str, arguments: list[str], says: str
) -> None:
    with pytest.raises(UsageError) as error:
        export(capture, form, *arguments)
    assert says in f"{error.value.message} {error.value.hint}"
    assert [path.name for path in capture.parent.iterdir()] == [capture.name]


def test_a_failure_leaves_the_old_file_whole(capture: Path, tmp_path: Path) -> None:
    target = tmp_path / "old.svg"
    target.write_text("old")
    with pytest.raises(InputError):
        export(capture, "svg", "--service", "nobody", "-o", str(target))
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.svg", "shop.perfkit"]


def test_xlsx_without_its_extra_says_so(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "xlsxwriter", None)
    with pytest.raises(UsageError, match="not installed"):
        export(capture, "xlsx")
