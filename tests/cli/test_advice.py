"""`perfkit advice`, as its user runs it: from a finding to its measured outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from perfkit.advice import ledger
from perfkit.capture import CaptureWriter
from perfkit.cli.main import main
from perfkit.errors import PerfkitError, UsageError

S, MS = 10**9, 10**6
DAY = 86_400 * S
LONG_AGO = 1_700_000_000 * S
IN_FUTURE = 4_000_000_000 * S


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The others would only take time.
    Path("perfkit.yaml").write_text("rules: {group: [database]}\n")
    monkeypatch.setenv("USER", "ann")
    monkeypatch.setenv("LOGNAME", "ann")


def write(name: str, query_ms: int, start_ns: int) -> str:
    """Write a capture of a search whose query takes so long, once a second for 40 s."""
    rows: list[dict[str, Any]] = []
    for number in range(40):
        begun = start_ns + number * S
        jitter = (number * 7) % 5 * MS
        shared = {"trace_hi": 1, "trace_lo": number, "adjusted_count": 1.0, "service": "shop"}
        rows.append(
            {
                **shared,
                "span_id": 1,
                "kind": "server",
                "name": "GET /search",
                "endpoint": "GET /search",
                "start_ns": begun,
                "duration_ns": 100 * MS + query_ms * MS + jitter,
            }
        )
        rows.append(
            {
                **shared,
                "span_id": 2,
                "parent_id": 1,
                "kind": "client",
                "name": "SELECT",
                "db_system": "postgresql",
                "db_statement": "SELECT id FROM docs WHERE topic = $1",
                "start_ns": begun + 10 * MS,
                "duration_ns": query_ms * MS,
            }
        )
    columns = {key: [row.get(key) for row in rows] for key in rows[1]}
    columns |= {"endpoint": [row.get("endpoint") for row in rows]}
    with CaptureWriter(Path(name)) as writer:
        writer.append("spans", columns)
    return name


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def well(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exception is None, (result.output, result.exception)
    return result.output


def refused(*arguments: str) -> PerfkitError:
    error = run(*arguments).exception
    assert isinstance(error, PerfkitError), error
    return error


@pytest.fixture
def before() -> str:
    return write("before.perfkit", 800, LONG_AGO)


def listed(capture: str) -> dict[str, Any]:
    data = json.loads(well("advice", "list", capture, "--json"))
    return {one["rule_id"]: one for one in data["findings"]}


def test_from_a_finding_to_a_confirmed_saving(before: str) -> None:
    fingerprint = listed(before)["db.slow-query"]["fingerprint"]
    well("advice", "accept", fingerprint[:6], before)
    assert listed(before)["db.slow-query"]["decision"]["status"] == "accepted"
    well("advice", "done", "db.slow-query")
    after = write("after.perfkit", 20, IN_FUTURE)
    output = well("advice", "verify", after)
    assert "It worked as predicted; 780 ms less on each of 40 requests" in output
    (entry,) = ledger.load(Path(ledger.FILE_NAME)).values()
    assert entry.status == "done"
    assert entry.by == "ann"
    assert [one.verdict for one in entry.measured] == ["confirmed"]
    assert "It worked as predicted" in well("advice", "show", fingerprint)
    assert "It worked as predicted" in " ".join(well("show", after).split())
    well("report", after, "-o", "after.html")
    assert "It worked as predicted" in Path("after.html").read_text()


def test_what_comes_back_is_open_again(before: str) -> None:
    well("advice", "done", "db.slow-query", before)
    again = write("again.perfkit", 790, IN_FUTURE)
    assert "but it is back" in listed(again)["db.slow-query"]["decision"]["note"]
    assert "It is back" in well("advice", "verify", again)
    (entry,) = ledger.load(Path(ledger.FILE_NAME)).values()
    assert entry.status == "open"
    assert [one.verdict for one in entry.measured] == ["back"]
    assert "Nothing to measure" in well("advice", "verify", again)


def test_a_dismissed_finding_no_longer_counts(before: str) -> None:
    well("advice", "dismiss", "db.slow-query", before, "--reason", "a nightly <report>")
    data = json.loads(well("show", before, "--json"))
    assert "db.slow-query" not in {one["rule_id"] for one in data["findings"]}
    assert [one["rule_id"] for one in data["dismissed"]] == ["db.slow-query"]
    assert "a nightly <report>" in " ".join(well("show", before).split())
    well("report", before, "-o", "x.html")
    page = Path("x.html").read_text()
    assert "Dismissed: 1" in page
    assert "a nightly &lt;report&gt;" in page
    well("advice", "reopen", "db.slow-query", before)
    assert listed(before)["db.slow-query"]["decision"]["status"] == "open"


def test_a_dismissal_ends(before: str) -> None:
    reason = ("--reason", "until the new index", "--until", "2199-01-01")
    well("advice", "dismiss", "db.slow-query", before, *reason)
    assert listed(before)["db.slow-query"]["decision"]["status"] == "dismissed"
    path = Path(ledger.FILE_NAME)
    path.write_text(path.read_text().replace("2199", "2020"))
    decision = listed(before)["db.slow-query"]["decision"]
    assert decision["status"] == "open"
    assert decision["note"] == "dismissed until 2020-01-01, which is over: until the new index"


def test_a_capture_from_before_the_change_says_nothing_of_it(before: str) -> None:
    well("advice", "done", "db.slow-query", before)
    assert "after this capture" in listed(before)["db.slow-query"]["decision"]["note"]
    assert "Nothing to measure" in well("advice", "verify", before)


def test_done_without_a_capture_says_what_will_not_be_known() -> None:
    error = refused("advice", "done", "db.slow-query")
    assert "no recommendation db.slow-query" in error.message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("accept", "nothing", "before.perfkit"), "no recommendation nothing"),
        (("show", "abcdef"), "no recommendation abcdef"),
        (("dismiss", "db.slow-query", "before.perfkit", "--reason", " "), "needs a reason"),
        (
            ("dismiss", "db.slow-query", "before.perfkit", "--reason", "x", "--until", "soon"),
            "'soon' is not a day",
        ),
        (
            (
                "dismiss",
                "db.slow-query",
                "before.perfkit",
                "--reason",
                "x",
                "--until",
                "2020-01-01",
            ),
            "--until 2020-01-01 is over",
        ),
        (("verify", "nowhere.perfkit"), "no such capture"),
    ],
)
def test_what_cannot_be(before: str, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused("advice", *arguments).message
    assert not Path(ledger.FILE_NAME).exists()


def test_a_damaged_ledger_is_named_and_kept(before: str) -> None:
    Path(ledger.FILE_NAME).write_text("advice: [\n")
    assert isinstance(refused("advice", "accept", "db.slow-query", before), UsageError)
    assert isinstance(refused("report", before), UsageError)
    assert Path(ledger.FILE_NAME).read_text() == "advice: [\n"


def test_another_ledger_can_be_named(before: str, tmp_path: Path) -> None:
    other = tmp_path / "team" / "advice.yaml"
    other.parent.mkdir()
    well("advice", "accept", "db.slow-query", before, "--ledger", str(other))
    assert not Path(ledger.FILE_NAME).exists()
    assert len(ledger.load(other)) == 1
    assert "accepted" in well("advice", "list", "--ledger", str(other))
