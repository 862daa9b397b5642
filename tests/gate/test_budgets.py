from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.session import Tables
from perfkit.capture import Capture
from perfkit.errors import UsageError
from perfkit.gate import budgets, judge
from tests.gate.build import MS, START, record


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("budgets")
    metrics = {
        "ts_ns": [START + second * 10**9 for second in (0, 0, 1, 1)],
        "name": ["process.cpu.utilization"] * 4,
        "unit": ["1"] * 4,
        "value": [0.5, 1.0, 0.5, 0.0],
        "kind": ["gauge"] * 4,
        "instance": ["pid 1", "pid 2"] * 2,
    }
    memory = {
        **metrics,
        "name": ["process.memory.usage"] * 4,
        "value": [100.0, 300.0, 50.0, 20.0],
    }
    both = {name: values + memory[name] for name, values in metrics.items()}
    path = record(
        folder / "one.perfkit",
        {"GET /a": 100, "POST /tools/invoke": 200, "POST /tools/list": 50},
        noise=0,
        queries=3,
        metrics=both,
    )
    return Tables(Capture.open(path))


def read(text: str, tables: Tables) -> dict[str, float]:
    return {
        reading.thing: reading.value for reading in budgets.measure(budgets.parse(text), tables)
    }


def test_a_percentile_of_one_endpoint(tables: Tables) -> None:
    assert read("p50(endpoint=/a) < 1s", tables) == {"GET /a": 100 * MS}
    assert read("p50(endpoint='GET /a') < 1s", tables) == {"GET /a": 100 * MS}
    assert read("max(endpoint=/a) < 1s", tables) == {"GET /a": 130 * MS}


def test_a_pattern_holds_each_endpoint_to_the_limit_by_itself(tables: Tables) -> None:
    found = judge.checks(budgets.parse("p50(endpoint=/tools/*) < 100ms"), [tables])
    assert {check.thing: check.state for check in found} == {
        "POST /tools/invoke": "failed",
        "POST /tools/list": "passed",
    }


def test_without_a_selector_all_requests_are_measured_together(tables: Tables) -> None:
    assert read("count > 0", tables) == {"": 120.0}
    assert read("queries < 5", tables) == {"": 3.0}
    assert read("max_queries < 5", tables) == {"": 3.0}
    assert read("error_ratio < 1%", tables) == {"": 0.0}
    seconds = (119 * 50 * MS + 50 * MS) / 1e9
    assert read("rate > 1/s", tables)[""] == pytest.approx(120 / seconds, rel=0.05)


def test_cpu_and_memory_add_the_processes_up(tables: Tables) -> None:
    assert read("cpu < 2", tables) == {"": (1.5 + 0.5) / 2}
    assert read("memory < 1GiB", tables) == {"": 400.0}


def test_sql_gives_one_number(tables: Tables) -> None:
    assert read("sql(SELECT MAX(db_count) AS most FROM requests) < 5", tables) == {"": 3.0}
    assert read("sql(SELECT MAX(db_count) AS n FROM requests WHERE tool = 'x') < 5", tables) == {}
    with pytest.raises(UsageError, match="gives 120 rows"):
        read("sql(SELECT db_count FROM requests) < 5", tables)
    with pytest.raises(UsageError, match="rows of String"):
        read("sql(SELECT MAX(endpoint) AS e FROM requests) < 5", tables)


def test_what_matches_nothing_is_an_error_and_says_what_there_is(tables: Tables) -> None:
    (check,) = judge.checks(budgets.parse("p95(endpoint=/b) < 1s"), [tables])
    assert check.state == "error"
    assert "GET /a" in check.help
    (check,) = judge.checks(
        budgets.parse("sql(SELECT MAX(http_status) AS s FROM requests) < 1"), [tables]
    )
    assert check.state == "error"


def test_the_middle_run_is_held_to_the_limit(tables: Tables, tmp_path: Path) -> None:
    slow = Tables(Capture.open(record(tmp_path / "s.perfkit", {"GET /a": 500}, noise=0)))
    budget = budgets.parse("p50(endpoint=/a) < 300ms")
    (check,) = judge.checks(budget, [tables, tables, slow])
    assert check.state == "passed"
    assert check.message == "100 ms (median of 3 runs, 1 beyond the limit)"
    (check,) = judge.checks(budget, [tables, slow, slow])
    assert check.state == "failed"
    (check,) = judge.checks(budgets.parse("p95(endpoint=/tools/list) < 1s"), [tables, slow])
    assert "absent from 1 of 2 runs" in check.message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not a budget"),
        ("p95", "not a budget"),
        ("p95 < 300", "has no unit"),
        ("p95 < fast", "not a duration"),
        ("p0 < 1s", "no function"),
        ("p100 < 1s", "no function"),
        ("foo < 1s", "no function 'foo'"),
        ("p95(host=/a) < 1s", "selects nothing"),
        ("p95(endpoint) < 1s", "selects nothing"),
        ("p95(endpoint=/a, endpoint=/b) < 1s", "selects nothing"),
        ("error_ratio < 5", "no share"),
        ("cpu(service=a) < 1", "all recorded processes"),
        ("memory < much", "not a size"),
        ("queries < nan", "not a number"),
        ("sql(SELECT * FROM read_csv('/etc/passwd')) < 1", "SQL"),
        ("sql(SELECT endpoint, tool FROM requests) < 1", "2 columns"),
        ("sql(DROP TABLE requests) < 1", "SQL"),
        ("p95 < 1s " + "x" * 5000, "not a budget"),
    ],
)
def test_a_wrong_budget_says_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        budgets.parse(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        budgets.parse(text)


@given(
    st.sampled_from(["endpoint", "tool", "service"]),
    st.text(st.characters(blacklist_characters="\"'", blacklist_categories=["Cs"]), min_size=1),
)
def test_a_quoted_selector_is_taken_as_it_is(name: str, value: str) -> None:
    assert budgets.parse(f'p95({name}="{value}") < 1s').selectors == {name: value}
