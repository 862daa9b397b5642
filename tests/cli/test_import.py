from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from perfkit.capture import Capture
from perfkit.cli import main
from perfkit.importers import IMPORTERS

SAMPLES = Path(__file__).resolve().parent.parent / "importers" / "samples"


class Done(NamedTuple):
    returncode: object
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `perfkit import` with arguments, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["perfkit", "import", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main.run()
        return Done(caught.value.code, *capfd.readouterr())

    return call


def test_several_files_become_one_capture(run: Run, tmp_path: Path) -> None:
    done = run(
        *(SAMPLES / "jaeger.json", SAMPLES / "psutil.jsonl", SAMPLES / "pyspy-chrometrace.json"),
        *("-o", "new/x.perfkit", "--started-at", "2026-11-23T06:46:00"),
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("new/x.perfkit: 3 spans, ")
    assert "44 metrics" in done.stderr.splitlines()[0]
    assert os.listdir(tmp_path / "new") == ["x.perfkit"]
    capture = Capture.open(tmp_path / "new" / "x.perfkit")
    assert capture.finished
    for table, rows in capture.info.rows.items():
        assert capture.table(table).collect().height == rows > 0
    assert capture.table("samples").collect()["ts_ns"].min() > 1_795_416_360_000_000_000
    assert [source["file"] for source in capture.info.sources] == [
        *("jaeger.json", "psutil.jsonl", "pyspy-chrometrace.json"),
    ]
    # The same files give the same rows, whatever the day.
    again = run(SAMPLES / "jaeger.json", SAMPLES / "jaeger.json", "-o", "y.perfkit")
    assert again.returncode == 0
    spans = Capture.open(tmp_path / "y.perfkit").table("spans").collect()
    assert spans.equals(capture.table("spans").collect())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "bad: empty file"),
        ("some words\n", "bad: its format is not recognised"),
        ('{"resourceSpans":[{"scopeSpans":[{', "bad, byte 34: not valid JSON"),
        ('{"resourceSpans":[]}', "bad: nothing in it"),
        ("a;b 1\nwhat\n", "bad: its format is not recognised"),
    ],
)
def test_a_failure_is_one_line_and_leaves_nothing(
    content: str, said: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "bad").write_text(content)
    done = run("bad", "-o", "x.perfkit")
    assert (done.returncode, done.stdout) == (1, "")
    first, *rest = done.stderr.splitlines()
    assert first.startswith(f"perfkit: error: {said}")
    assert len(rest) <= 1
    assert os.listdir(tmp_path) == ["bad"]


def test_a_failure_after_much_was_read_leaves_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text('{"resourceSpans":[')
    done = run(SAMPLES / "jaeger.json", "bad", "-o", "x.perfkit")
    assert done.returncode == 1
    assert os.listdir(tmp_path) == ["bad"]


def test_an_existing_capture_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "x.perfkit"
    target.mkdir()
    (target / "capture.json").write_text("mine")
    done = run(SAMPLES / "jaeger.json", "-o", target)
    assert done.returncode == 1
    assert "already exists" in done.stderr
    assert (target / "capture.json").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments", [[], ["x.json"], ["-o", "x.perfkit"], ["x", "-o", "y", "--started-at", "soon"]]
)
def test_wrong_use_is_exit_code_2(arguments: list[str], run: Run, tmp_path: Path) -> None:
    assert run(*arguments).returncode == 2


def test_an_unknown_format_name_is_exit_code_2(run: Run, tmp_path: Path) -> None:
    done = run(SAMPLES / "jaeger.json", "-o", "x", "--format", "xml")
    assert done.returncode == 2
    assert "jaeger-json" in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_file_that_may_not_be_read(run: Run, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.symlink_to(tmp_path / "absent.json")
    done = run(secret, "-o", "x.perfkit")
    assert done.returncode == 1
    assert "no such file" in done.stderr


def test_foreign_text_reaches_the_terminal_without_control_characters(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "evil\x1b[31m.json"
    path.write_text("x")
    done = run(path, "-o", "x.perfkit")
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "evil\x1b[31m.txt").write_text("x")
    (folder / "a.json").write_text(json.dumps(json.loads((SAMPLES / "jaeger.json").read_text())))
    done = run(folder, "-o", "x.perfkit")
    assert done.returncode == 0
    assert "not imported" in done.stderr
    assert "\x1b" not in done.stderr


def test_help_has_an_example(run: Run, tmp_path: Path) -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "Example: perfkit import" in done.stdout
    unwrapped = re.sub(r"-\s+", "-", done.stdout)
    assert [i.NAME for i in IMPORTERS if i.NAME not in unwrapped] == []
