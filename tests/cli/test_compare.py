from __future__ import annotations

import datetime as dt
import json
import random
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result
from polars.testing import assert_frame_equal

from perfkit.cli import options
from perfkit.cli.main import main
from perfkit.errors import CaptureError, UsageError
from tests.analysis import shop
from tests.analysis.build import Memory, S, write


def stored(path: Path, capture: Memory) -> str:
    from perfkit.capture import CaptureWriter

    with CaptureWriter(path, command=["test"]) as writer:
        writer.append("spans", capture.table("spans").collect())
    return str(path)


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four captures: two before a stock service got slower, and two after."""
    folder = tmp_path_factory.mktemp("shop")
    slow = shop.slower("GET /stock", 5)
    made = [(n, shop.capture(60, seed=n, change=slow if n > 2 else None)) for n in range(1, 5)]
    return [stored(folder / f"{number}.perfkit", capture) for number, capture in made]


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["compare", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_answer_is_in_the_first_lines_and_fits_the_terminal(captures: list[str]) -> None:
    output = run(*captures[:2], "vs", *captures[2:]).stdout
    lines = output.splitlines()
    assert max(len(line) for line in lines) <= 80
    head = " ".join(lines[:8])
    assert "Changed: GET /cart p95" in head
    assert "Most likely cause: stock: GET /stock takes" in head
    assert "Tested over runs: 2 against 2 captures." in head


def test_one_capture_a_side_says_that_its_claim_is_weaker(captures: list[str]) -> None:
    output = " ".join(run(captures[0], captures[2]).stdout.split())
    assert "A weaker claim: blocks of time (10 against 10)" in output
    assert "Most likely cause: stock" in output


@pytest.mark.slow
@pytest.mark.parametrize("filters", [(), ("--endpoint", "GET /cart")])
def test_large_captures_are_compared_shard_by_shard_with_the_same_result(
    captures: list[str], monkeypatch: pytest.MonkeyPatch, filters: tuple[str, ...]
) -> None:
    sides = [*captures[:2], "vs", *captures[2:], "--json", *filters]
    whole = json.loads(run(*sides).stdout)
    monkeypatch.setattr("perfkit.analysis.sharded.WHOLE_SPANS", 1)
    result = run(*sides)
    assert "shards by trace" in result.stderr
    divided = json.loads(result.stdout)
    # Votes are added up in the order of the entries, which come shard by shard.
    causes = [pl.DataFrame(data.pop("causes")) for data in (divided, whole)]
    assert_frame_equal(*causes)
    assert divided == whole


def test_nothing_changed(captures: list[str]) -> None:
    output = " ".join(run(captures[0], captures[1]).stdout.split())
    assert "No evidence of change in requests" in output
    assert "No component stands out" in output


def test_json_holds_everything(captures: list[str]) -> None:
    data = json.loads(run(*captures[:2], "vs", *captures[2:], "--json").stdout)
    assert data["unit"] == "run"
    assert data["runs"] == [2, 2]
    assert data["causes"][0]["component"] == "stock"
    assert data["evidence"][0]["operation"] == "GET /stock"
    assert {row["kind"] for row in data["differences"]} == {"endpoint", "component"}
    assert any(row["label"] == "GET /stock" for row in data["request_paths"])
    assert data["answer"][0].startswith("Changed: ")


def test_a_single_capture_compares_slow_with_typical(tmp_path: Path) -> None:
    def sometimes(spans: list[shop.Span], noise: random.Random) -> list[shop.Span]:
        if noise.random() > 0.1:
            return spans
        spans = [dict(span, tool="ask") if span["name"] == "GET /cart" else span for span in spans]
        return shop.slower("GET /stock", 20)(spans, noise)

    path = stored(tmp_path / "one.perfkit", shop.capture(300, change=sometimes))
    output = run(path).stdout
    assert output.startswith("typical requests → slow requests\n")
    answer = " ".join(output.split("\n\n")[0].split())
    assert "Slow requests to GET /cart are those with tool=ask (100 % of the slow, 0 %" in answer
    assert "Most likely cause: stock: GET /stock takes" in answer
    assert "what goes together, not what causes what" in answer
    data = json.loads(run(path, "--json").stdout)
    assert {row["kind"] for row in data["slow_traits"]} == {"was", "did"}


def test_before_and_after_a_moment(captures: list[str]) -> None:
    output = run(captures[0], "--at", "30").stdout
    assert output.startswith("before 1970-01-01 00:00:30.000Z → from 1970-01-01 00:00:30.000Z\n")
    assert run(captures[0], "--at", "0:00:30").stdout == output


def test_a_time_of_day_is_the_first_one_in_the_capture() -> None:
    begun_ns = 1_795_996_799 * 10**9  # 2026-11-29, one second before midnight
    assert options.moment_of(dt.time(23, 59, 59), begun_ns) == begun_ns
    assert options.moment_of(dt.time(0, 0, 1, 500_000), begun_ns) == begun_ns + 2_500_000_000
    assert options.moment_of(7, begun_ns) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("A", "B", "C"), "3 captures: which are before, which after?"),
        (("A", "vs"), "write captures on both sides of one 'vs'"),
        (("A", "vs", "B", "vs", "C"), "write captures on both sides of one 'vs'"),
        (("A", "B", "--at", "5"), "--at compares requests of one capture"),
        (("A", "--at", "5", "--endpoints", "/a", "/b"), "ask for different comparisons"),
        (("A", "--between", "1; DROP TABLE x", "entry"), "not"),
        (("A", "--at", "1e12"), "there is no request"),
        (("A", "--at", "23:59"), "there is no request"),
    ],
)
def test_the_impossible_is_refused(
    captures: list[str], arguments: tuple[str, ...], message: str
) -> None:
    names = dict(zip("ABC", captures, strict=False))
    with pytest.raises(UsageError) as error:
        run(*(names.get(argument, argument) for argument in arguments))
    assert message in error.value.message


def test_captures_that_are_none_are_refused(captures: list[str], tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no such capture"):
        run(captures[0], str(tmp_path / "none.perfkit"))
    other = write(tmp_path / "other.perfkit", [S(1, 0, 10, kind="server")])
    info = other / "capture.json"
    info.write_text(info.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(CaptureError, match="format version 99"):
        run(captures[0], str(other))


def test_names_from_outside_do_not_control_the_terminal(tmp_path: Path) -> None:
    evil = "GET /\x1b[31m\u202eevil"
    paths = [
        write(
            tmp_path / f"{length}.perfkit",
            [
                S(1, n * 10**9, n * 10**9 + length + n, trace=n + 1, kind="server", endpoint=evil)
                for n in range(60)
            ],
        )
        for length in (1000, 9000)
    ]
    output = run(*map(str, paths)).stdout
    assert "evil" in output
    assert "\x1b" not in output
    assert "\u202e" not in output
