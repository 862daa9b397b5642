from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from perfkit.cli.main import main
from perfkit.errors import CaptureError, UsageError
from tests.gate.build import START, record, runs
from tests.report.build import write_capture

BEFORE = {"GET /a": 100.0, "POST /b": 40.0}
SLOWER = {"GET /a": 150.0, "POST /b": 40.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("check")
    return {
        "before": runs(folder, "before", 4, BEFORE, seed=10),
        "same": runs(folder, "same", 4, BEFORE, seed=20),
        "slower": runs(folder, "slower", 4, SLOWER, seed=30),
        "other": runs(folder, "other", 2, {"GET /z": 10.0}),
    }


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    done = CliRunner().invoke(main, ["check", *arguments], env=env)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_runs_like_the_baseline_pass(made: dict[str, list[str]]) -> None:
    done = run(*made["same"], "--baseline", *made["before"])
    assert done.exit_code == 0
    assert done.stdout.startswith("PASSED\n")


def test_a_regression_fails_and_names_its_cause(made: dict[str, list[str]]) -> None:
    done = run(*made["slower"], "--baseline", *made["before"], "--json")
    assert done.exit_code == 3
    data = json.loads(done.stdout)
    (failed,) = [check for check in data["checks"] if check["state"] == "failed"]
    assert failed["thing"] == "app GET /a"
    assert failed["change"] == pytest.approx(0.5, abs=0.1)
    assert data["tested"] == 2
    assert any("GET /a" in line for line in data["cause"])


@pytest.mark.slow
@pytest.mark.parametrize("filters", [(), ("--endpoint", "/a")])
def test_large_runs_are_checked_shard_by_shard_with_the_same_result(
    made: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, filters: tuple[str, ...]
) -> None:
    sides = [*made["slower"], "--baseline", *made["before"], "--json", *filters]
    whole = run(*sides)
    monkeypatch.setattr("perfkit.analysis.sharded.WHOLE_SPANS", 1)
    divided = run(*sides)
    assert "shards by trace" in divided.stderr
    assert "shards by trace" not in whole.stderr
    assert divided.exit_code == whole.exit_code == 3
    assert json.loads(divided.stdout) == json.loads(whole.stdout)


def test_one_run_a_side_is_unstable(made: dict[str, list[str]]) -> None:
    done = run(made["slower"][0], "--baseline", made["before"][0])
    assert done.exit_code == 0
    assert done.stdout.startswith("UNSTABLE")
    words = " ".join(done.stdout.split())
    assert "nobody can tell" in words
    assert "one run a side" in words
    assert (
        run(made["slower"][0], "--baseline", made["before"][0], "--exit-unstable", "75").exit_code
        == 75
    )


def test_an_improvement_fails_only_when_asked(made: dict[str, list[str]]) -> None:
    sides = [*made["before"], "--baseline", *made["slower"]]
    assert run(*sides).exit_code == 0
    done = run(*sides, "--fail-on-improvement")
    assert done.exit_code == 3
    assert "Record the baseline anew" in done.stdout


def test_budgets_pass_and_fail(made: dict[str, list[str]]) -> None:
    assert run(made["before"][0], "--budget", "p95(endpoint=/a) < 1s").exit_code == 0
    assert run(made["before"][0], "--budget", "p95(endpoint=/a) < 1ms").exit_code == 3


def test_a_budget_that_matches_nothing_is_an_error_and_is_still_written(
    made: dict[str, list[str]], tmp_path: Path
) -> None:
    target = tmp_path / "gate.xml"
    done = run(made["before"][0], "--budget", "p95(endpoint=/typo) < 1s", "--junit", str(target))
    assert done.exit_code == 2
    assert "Matches nothing" in done.stdout
    assert 'errors="1"' in target.read_text()


def test_budgets_stand_in_the_configuration(
    made: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "perfkit.yaml").write_text(
        "check:\n  budget:\n    - p95(endpoint=/a) < 1ms\n    - error_ratio < 1%\n"
    )
    monkeypatch.chdir(tmp_path)
    done = run(made["before"][0])
    assert done.exit_code == 3
    assert "1 failed, 1 passed" in done.stdout


def test_every_output_is_written_on_pass_and_on_fail(
    made: dict[str, list[str]], tmp_path: Path
) -> None:
    for limit, code in (("1s", 0), ("1ms", 3)):
        folder = tmp_path / limit
        folder.mkdir()
        names = {name: str(folder / name) for name in ("junit", "sarif", "markdown", "gitlab")}
        options = [part for name, path in names.items() for part in (f"--{name}", path)]
        done = run(made["before"][0], "--budget", f"p95 < {limit}", *options)
        assert done.exit_code == code
        assert sorted(os.listdir(folder)) == sorted(names)
        assert (
            json.loads(Path(names["sarif"]).read_text())["runs"][0]["invocations"][0]["exitCode"]
            == code
        )


def test_an_output_that_cannot_be_written_is_told_before_the_work(
    made: dict[str, list[str]], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no such directory"):
        run(made["before"][0], "--budget", "p95 < 1s", "--junit", str(tmp_path / "no" / "x.xml"))


def test_the_summary_of_a_github_job_is_added_to(
    made: dict[str, list[str]], tmp_path: Path
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("of another step\n")
    run(made["before"][0], "--budget", "p95 < 1s", env={"GITHUB_STEP_SUMMARY": str(summary)})
    assert summary.read_text().startswith("of another step\n## ✅ Performance gate passed")
    done = run(
        made["before"][0], "--budget", "p95 < 1s", env={"GITHUB_STEP_SUMMARY": str(tmp_path)}
    )
    assert done.exit_code == 0
    assert "GITHUB_STEP_SUMMARY" in done.stderr


def test_a_github_job_is_told_what_failed(made: dict[str, list[str]]) -> None:
    for env, told in (({"GITHUB_ACTIONS": "true"}, True), ({"GITHUB_ACTIONS": ""}, False)):
        done = run(made["before"][0], "--budget", "p95 < 1ns", "--json", env=env)
        assert done.exit_code == 3
        assert ("::error title=perfkit%3A p95 < 1ns::" in done.stderr) == told
        assert json.loads(done.stdout)["verdict"] == "failed"


def test_no_output_holds_what_looks_like_a_token(tmp_path: Path) -> None:
    token = "ghp_" + "a1" * 18
    capture = write_capture(tmp_path / "secret.perfkit", hostile=f"GET /x {token}")
    files = {name: tmp_path / name for name in ("junit", "sarif", "markdown", "gitlab")}
    options = [word for name, file in files.items() for word in (f"--{name}", str(file))]
    result = run(str(capture), "--fail-on", "low", "--json", *options)
    assert result.exit_code == 3
    written = [result.stdout, *(file.read_text() for file in files.values())]
    assert any("[masked]" in text for text in written)
    assert not any(token in text for text in written)


def test_findings_fail_by_severity(tmp_path: Path) -> None:
    path = str(record(tmp_path / "n.perfkit", {"GET /a": 300.0}, queries=30))
    high = run(path, "--fail-on", "low", "--group", "database", "--json")
    data = json.loads(high.stdout)
    assert high.exit_code == 3
    assert {check["kind"] for check in data["checks"]} == {"rule"}
    # People read whom it is about; the id of the query is for programs.
    assert any("query_id=" in check["key"] for check in data["checks"])
    assert not any("query_id" in check["thing"] for check in data["checks"])
    assert any("GET /a" in check["thing"] for check in data["checks"])
    again = str(record(tmp_path / "m.perfkit", {"GET /a": 300.0}, queries=30, seed=1))
    known = run(path, "--fail-on", "low", "--only-new", "--group", "database", "--baseline", again)
    assert known.exit_code == 0
    assert "The baseline has it too" in " ".join(known.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "nothing to judge by"),
        (["--budget", "p95 <"], "not a budget"),
        (["--only-new", "--budget", "p95 < 1s"], "--only-new needs"),
        (["--baseline", "{other}"], "nothing to compare"),
        (["--baseline", "{before}"], "are the same capture"),
        (["--baseline", "{other}", "--history", "{folder}"], "choose one"),
    ],
)
def test_what_cannot_be_is_a_usage_error(
    made: dict[str, list[str]], tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    names = {"other": made["other"][0], "before": made["before"][0], "folder": str(tmp_path)}
    with pytest.raises(UsageError, match=complaint):
        run(made["before"][0], *(argument.format(**names) for argument in arguments))


def test_a_baseline_of_another_format_version_is_refused(
    made: dict[str, list[str]], tmp_path: Path
) -> None:
    old = tmp_path / "old.perfkit"
    shutil.copytree(made["before"][1], old)
    info = json.loads((old / "capture.json").read_text())
    (old / "capture.json").write_text(json.dumps({**info, "format_version": 99}))
    with pytest.raises(CaptureError, match="format version 99"):
        run(made["before"][0], "--baseline", str(old))


def test_other_sampling_other_load_and_other_endpoints_are_told(
    made: dict[str, list[str]], tmp_path: Path
) -> None:
    few = {"GET /a": 100.0, "GET /new": 10.0, "GET /more": 10.0}
    options = {"sampling": {"head_ratio": 0.1}, "seed": 50}
    sampled = runs(tmp_path, "sampled", 2, few, **options)
    done = run(*sampled, "--baseline", *made["before"])
    words = " ".join(done.stdout.split())
    assert 'sampled differently: {} against {"head_ratio": 0.1}' in words
    assert "not called in the runs, but in the baseline: POST /b" in words
    assert "not in the baseline, so not compared: GET /more, GET /new" in words


def test_a_run_without_requests_is_no_run_and_is_told(
    made: dict[str, list[str]], tmp_path: Path
) -> None:
    empty = str(record(tmp_path / "empty.perfkit", {}))
    done = run(made["same"][0], empty, "--baseline", *made["before"])
    said = " ".join(done.stdout.split())
    assert "4 against 1 runs" in said
    assert "without any request, so it counts for nothing" in said
    for sides in ([empty, "--baseline", *made["before"]], [made["same"][0], "--baseline", empty]):
        with pytest.raises(UsageError, match=r"no request in the (baseline|runs): .*empty"):
            run(*sides)
    done = run(empty, "--budget", "p95 < 1s")
    assert done.exit_code == 2
    assert "there is no request in the run" in " ".join(done.stdout.split())


def cpu_metrics(host: float) -> dict[str, list[Any]]:
    names = ["system.cpu.utilization", "process.cpu.utilization", "system.cpu.logical.count"]
    return {
        "ts_ns": [START] * 3,
        "name": names,
        "unit": ["1"] * 3,
        "kind": ["gauge"] * 3,
        "value": [host, 0.4, 2.0],
    }


def test_a_machine_that_others_kept_busy_is_told(tmp_path: Path) -> None:
    busy, quiet = (
        str(record(tmp_path / f"{host}.perfkit", BEFORE, metrics=cpu_metrics(host)))
        for host in (0.95, 0.3)
    )
    said = " ".join(run(busy, "--budget", "p95 < 1s").stdout.split())
    assert "other programs took 75 % of the machine's processors" in said
    assert "other programs" not in run(quiet, "--budget", "p95 < 1s").stdout


def test_a_side_beside_which_others_took_more_is_told(tmp_path: Path) -> None:
    def side(name: str, *hosts: float) -> list[str]:
        return [
            str(record(tmp_path / f"{name}{n}.perfkit", BEFORE, metrics=cpu_metrics(host), seed=n))
            for n, host in enumerate(hosts)
        ]

    calm, busy = side("calm", 0.75, 0.76, 0.74), side("busy", 0.94, 0.95, 0.7)
    mixed = side("mixed", 0.74, 0.75, 0.77)
    assert "beside these" not in " ".join(run(*busy, "--baseline", *calm).stdout.split())
    busy[2] = side("busier", 0.96)[0]
    said = " ".join(run(*busy, "--baseline", *calm).stdout.split())
    assert "took 75 % of the processors beside these runs, and 55 % beside the baseline" in said
    assert "made it slower" in said
    assert "made it faster" in " ".join(run(*calm, "--baseline", *busy).stdout.split())
    assert "beside these" not in " ".join(run(*mixed, "--baseline", *calm).stdout.split())


RERUN = f"""{sys.executable} -c "
import os, sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from pathlib import Path
from tests.gate.build import record
target = Path(os.environ['PERFKIT_CAPTURE'])
record(target, {{'GET /a': float(os.environ['MS']), 'POST /b': 40.0}}, seed=hash(target.name))
" """


@pytest.mark.slow
@pytest.mark.parametrize(("milliseconds", "code"), [("150", 3), ("100", 0)])
def test_a_rerun_confirms_a_regression_or_clears_it(
    made: dict[str, list[str]], tmp_path: Path, milliseconds: str, code: int
) -> None:
    here = [shutil.copytree(path, tmp_path / Path(path).name) for path in made["slower"][:2]]
    done = run(
        *map(str, here),
        "--baseline",
        *made["before"],
        "--confirm",
        RERUN,
        "--json",
        env={"MS": milliseconds},
    )
    data = json.loads(done.stdout)
    assert data["confirmed_by"] == 2
    assert len(data["runs"]) == 4
    assert done.exit_code == code
    assert (tmp_path / "slower0-again-1.perfkit").is_dir()


def test_a_rerun_that_does_not_record_is_an_error(made: dict[str, list[str]]) -> None:
    with pytest.raises(CaptureError, match="status 1 and did not write"):
        run(made["slower"][0], "--baseline", made["before"][0], "--confirm", "exit 1")


def test_nothing_is_rerun_when_all_is_well(made: dict[str, list[str]]) -> None:
    done = run(*made["same"], "--baseline", *made["before"], "--confirm", "exit 1")
    assert done.exit_code == 0
