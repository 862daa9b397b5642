"""perfkit.yaml: found upwards, and checked against the commands' own options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from perfkit import config
from perfkit.cli.main import _configured_defaults, main
from perfkit.errors import UsageError

OPTIONS = {
    "record": {
        "rate": {"type": "integer"},
        "duration": {"type": "string"},
        "native": {"type": "boolean"},
    },
    "report": {"title": {"type": "string"}, "status": {"enum": ["ok", "error"]}},
}


def write(folder: Path, text: str) -> Path:
    path = folder / config.FILE_NAME
    path.write_text(text, encoding="utf-8")
    return path


def test_found_in_a_parent(tmp_path: Path) -> None:
    path = write(tmp_path, "record:\n  rate: 50\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert config.find(below) == path


def test_nearest_wins(tmp_path: Path) -> None:
    write(tmp_path, "")
    below = tmp_path / "a"
    below.mkdir()
    nearest = write(below, "")
    assert config.find(below) == nearest


def test_values(tmp_path: Path) -> None:
    path = write(tmp_path, "record:\n  rate: 50\n  duration: 1m\nreport:\n  status: error\n")
    loaded = config.load(path, OPTIONS)
    assert loaded.values == {
        "record": {"rate": 50, "duration": "1m"},
        "report": {"status": "error"},
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_empty(tmp_path: Path, text: str) -> None:
    assert config.load(write(tmp_path, text), OPTIONS).values == {}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("recrod:\n  rate: 1\n", "unknown command 'recrod'", "did you mean 'record'?"),
        ("record:\n  rte: 1\n", "unknown option of record 'rte'", "did you mean 'rate'?"),
        ("record:\n  rate: fast\n", "record.rate is 'fast', expected integer", None),
        ("record:\n  rate: true\n", "record.rate is True, expected integer", None),
        ("report:\n  status: so-so\n", "report.status is 'so-so'", None),
        ("record: 5\n", "record must map options to values", None),
        ("- record\n", "must map commands to their options", None),
        ("a: [\n", "not valid YAML", None),
        ("a: !!python/object/apply:os.system [id]\n", "not valid YAML", None),
    ],
)
def test_refused_in_one_line(tmp_path: Path, text: str, message: str, hint: str | None) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        config.load(path, OPTIONS)
    assert caught.value.message.startswith(f"{path}: {message}")
    assert "\n" not in caught.value.message
    if hint:
        assert caught.value.hint == hint


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / config.FILE_NAME
    path.write_bytes(b"\xff\xfe\x00record")
    with pytest.raises(UsageError):
        config.load(path, OPTIONS)


@given(st.text(max_size=200))
def test_any_text_is_values_or_a_usage_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / config.FILE_NAME
    path.write_bytes(text.encode("utf-8", "replace"))
    try:
        values = dict(config.load(path, OPTIONS).values)
    except UsageError as error:
        message, values = error.message, {}
    else:
        message = ""
    assert "\n" not in message
    assert set(values) <= set(OPTIONS)


def test_schema_lists_every_option() -> None:
    made = config.schema(OPTIONS)
    assert set(made["properties"]) == set(OPTIONS)
    assert made["properties"]["report"]["properties"]["status"] == {"enum": ["ok", "error"]}
    assert made["properties"]["record"]["additionalProperties"] is False


def test_rules_are_chosen_once_for_all_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        tmp_path,
        "rules:\n  rules: [mine]\n  silence: [db.slow-query]\n"
        "show:\n  silence: [db.redundant-query]\n",
    )
    (tmp_path / "mine").mkdir()
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    listed = CliRunner().invoke(main, ["rules", "list"]).output
    assert re.search(r"db.slow-query .*\(silenced\)", listed)
    defaults = _configured_defaults(main.make_context("perfkit", ["report", "x.perfkit"]))
    # A folder in the file lies beside the file; a command's own section wins.
    assert defaults["report"]["rules"] == [str(tmp_path / "mine")]
    assert defaults["show"]["silence"] == ["db.redundant-query"]
    assert defaults["report"]["silence"] == ["db.slow-query"]
