"""The pytest plug-in, in pytest sessions of its own."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

from perfkit.analysis.session import Tables
from perfkit.capture import Capture

pytest_plugins = ["pytester"]

TRACED = """
import time
import pytest
from opentelemetry import trace
tracer = trace.get_tracer("app")

def request(queries, error=False):
    with tracer.start_as_current_span(
        "GET /a",
        kind=trace.SpanKind.SERVER,
        attributes={"http.request.method": "GET", "http.route": "/a"},
    ):
        for number in range(queries):
            with tracer.start_as_current_span(
                "SELECT", kind=trace.SpanKind.CLIENT,
                attributes={"db.system": "sqlite", "db.statement": f"SELECT {number}"},
            ):
                time.sleep(0.001)
"""


def test_the_entry_point_is_the_plug_in() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module = importlib.import_module(project["entry-points"]["pytest11"]["perfkit"])
    assert callable(module.pytest_configure)


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    # Other plug-ins of this environment take as long to load as all the rest.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\naddopts = --strict-markers -p perfkit.pytest_plugin\n")
    return pytester


def test_budgets_hold_a_test(session: pytest.Pytester) -> None:
    session.makepyfile(
        TRACED
        + """
@pytest.mark.perfkit("queries(endpoint=/a) <= 3", "p95 < 60s")
def test_few():
    request(3)

@pytest.mark.perfkit("queries(endpoint=/a) <= 3")
def test_many():
    request(4)

@pytest.mark.perfkit("max(endpoint=/a) < 1us")
def test_slow():
    request(1)

def test_unmarked():
    request(50)
"""
    )
    result = session.runpytest_subprocess()
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        ["*perfkit: budgets are not kept*", "*queries(endpoint=/a) <= 3*: 4*"]
    )


def test_what_matches_nothing_or_is_no_budget_fails(session: pytest.Pytester) -> None:
    session.makepyfile(
        TRACED
        + """
@pytest.mark.perfkit("p95(endpoint=/typo) < 1s")
def test_typo():
    request(1)

@pytest.mark.perfkit("p95 < fast")
def test_wrong():
    request(1)
"""
    )
    result = session.runpytest_subprocess()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*Matches nothing*", "*not a duration*"])


def test_a_failed_test_keeps_its_own_reason(session: pytest.Pytester) -> None:
    session.makepyfile(
        TRACED
        + """
@pytest.mark.perfkit("queries <= 0")
def test_it():
    request(1)
    assert 1 == 2
"""
    )
    result = session.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*budgets are not kept*")


@pytest.mark.slow
def test_the_fixture_gives_spans_and_tables_and_the_captures_are_kept(
    session: pytest.Pytester,
) -> None:
    session.makepyfile(
        TRACED
        + """
import threading

def test_it(perfkit_spans):
    worker = threading.Thread(target=request, args=(2,))
    worker.start()
    worker.join()
    assert len(perfkit_spans.spans) == 3
    requests = perfkit_spans.tables().frame("requests")
    assert requests["db_count"].to_list() == [2]

@pytest.mark.perfkit("count <= 1")
def test_only_its_own_spans():
    request(0)
"""
    )
    result = session.runpytest_subprocess("--perfkit-dir", "kept")
    result.assert_outcomes(passed=2)
    kept = sorted(path.name for path in (session.path / "kept").iterdir())
    assert len(kept) == 2
    assert all(Path(name).suffix == ".perfkit" for name in kept)


def test_without_the_extra_the_message_says_what_to_install(session: pytest.Pytester) -> None:
    session.makeconftest("import sys\nsys.modules['opentelemetry.sdk.trace'] = None\n")
    session.makepyfile("def test_it(perfkit_spans): pass\n")
    result = session.runpytest_subprocess()
    result.stdout.fnmatch_lines(["*pip install 'perfkit?pytest?'*"])
    assert result.ret != 0


BUSY = (
    TRACED
    + """
def burn_for_a_while(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))

def test_it():
    with tracer.start_as_current_span(
        "GET /busy", kind=trace.SpanKind.SERVER,
        attributes={"http.request.method": "GET", "http.route": "/busy"},
    ):
        burn_for_a_while(1.5)

def test_other():
    request(2)
"""
)


def tables_of(path: Path) -> Tables:
    return Tables(Capture.open(path))


@pytest.mark.real
def test_the_session_is_recorded_with_its_spans_and_stacks(
    session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A proxy as many a CI machine has one: spans for this machine must not go there.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    session.makepyfile(BUSY)
    result = session.runpytest_subprocess("--perfkit-record", "all.perfkit")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["perfkit: * after *4 spans*stack samples*", "*wrote*all.perfkit*"])
    tables = tables_of(session.path / "all.perfkit")
    endpoints = tables.frame("requests")["endpoint"].to_list()
    assert sorted(endpoints) == ["GET /a", "GET /busy"]
    functions = tables.frame("functions")["function"].to_list()
    assert "burn_for_a_while" in functions
    again = session.runpytest_subprocess("--perfkit-record", "all.perfkit")
    assert again.ret == pytest.ExitCode.USAGE_ERROR
    assert "all.perfkit" in str(again.stderr)


@pytest.mark.real
def test_a_session_that_may_not_be_looked_at_is_recorded_without_stacks(
    session: pytest.Pytester,
) -> None:
    # Not dumpable, and without the capability to look nevertheless (prctl(2)).
    session.makeconftest(
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.prctl(24, 19)\nlibc.prctl(4, 0)\n"
    )
    session.makepyfile(BUSY)
    result = session.runpytest_subprocess("--perfkit-record", "all.perfkit")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*note: no stacks: *no permission to look into*"])
    tables = tables_of(session.path / "all.perfkit")
    assert tables.frame("requests").height == 2
    assert tables["samples"].collect().is_empty()


@pytest.mark.real
def test_each_worker_records_itself(session: pytest.Pytester) -> None:
    pytest.importorskip("xdist", reason="needs pytest-xdist")
    session.makepyfile(BUSY)
    result = session.runpytest_subprocess(
        "-p", "xdist", "-n", "2", "--perfkit-record", "all.perfkit"
    )
    result.assert_outcomes(passed=2)
    captures = [session.path / f"all-gw{number}.perfkit" for number in (0, 1)]
    assert sum(tables_of(path).frame("requests").height for path in captures) == 2
    for path in captures:
        result.stdout.fnmatch_lines([f"*wrote *{path.name}*"])
