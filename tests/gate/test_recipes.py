"""The recipes: valid for those who read them, and every shell command in them is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.gate.build import record, runs

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
GATE = {"GET /a": 100.0}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.github-actions", ROOT / "action.yml"),
        ("vendor.github-workflows", RECIPES / "github.yml"),
        ("vendor.gitlab-ci", RECIPES / "gitlab-ci.yml"),
    ],
)
def test_a_recipe_follows_the_schema_of_its_reader(schema: str, path: Path) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    extra = ["--data-transform", "gitlab-ci"] if "gitlab" in schema else []
    done = subprocess.run([*check, *extra], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def shell(
    script: str, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a script as a CI system does, with a perfkit that records made-up runs at once."""
    tools = folder / ".tools"
    tools.mkdir(exist_ok=True)
    (tools / "perfkit").write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "if sys.argv[1] == 'record':\n"
        "    from pathlib import Path\n"
        "    from tests.gate.build import record\n"
        "    target = Path(sys.argv[sys.argv.index('-o') + 1])\n"
        "    assert sys.argv[sys.argv.index('--') + 1].endswith('run-load-test.sh')\n"
        "    number = int(''.join(filter(str.isdigit, target.name)))\n"
        "    slow = 1.5 if 'change' in target.name or os.environ.get('SLOW') else 1.0\n"
        "    record(target, {'GET /a': 100.0 * slow}, seed=number + ord(target.name[0]))\n"
        "else:\n"
        "    from perfkit.cli.main import run\n"
        "    run()\n"
    )
    (tools / "perfkit").chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    clean = {"PATH": path, "HOME": str(folder), **environment}
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )


def action_step(name: str) -> str:
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    (step,) = [step for step in action["runs"]["steps"] if step["name"] == name]
    # Inputs come as variables: text of a pull request is never part of a script.
    assert "${{" not in step["run"]
    run: str = step["run"]
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "status", "verdict"),
    [
        ("p95(endpoint=/a) < 1s", 0, "passed"),
        ("p95(endpoint=/a) < 1ms", 3, "failed"),
        ("p95(endpoint=/b) < 1ms", 2, "error"),
        ("p95 < $(touch owned)", 2, "error"),
    ],
)
def test_the_action_checks_and_says_what_came_of_it(
    tmp_path: Path, budget: str, status: int, verdict: str
) -> None:
    runs(tmp_path, "run-", 2, GATE)
    given = {
        "PERFKIT_CAPTURES": "run-*.perfkit",
        "PERFKIT_BASELINE": "",
        "PERFKIT_HISTORY": "",
        "PERFKIT_BUDGETS": f"{budget}\n\nerror_ratio < 1%\n",
        "PERFKIT_FAIL_ON": "",
        "PERFKIT_ARGUMENTS": "--min-effect\n10%\n",
        "PERFKIT_OUTPUT": "gate",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }
    done = shell(action_step("Check"), tmp_path, given)
    assert done.returncode == status, done.stderr
    assert f"verdict={verdict}\n" in (tmp_path / "output").read_text()
    assert not (tmp_path / "owned").exists()
    if "touch" not in budget:
        names = {"gate.json", "gate.md", "gate.sarif", "gate.xml"}
        assert set(os.listdir(tmp_path / "gate")) == names
        assert "Performance gate" in (tmp_path / "summary").read_text()


def test_the_action_compares_with_a_baseline(tmp_path: Path) -> None:
    runs(tmp_path, "main-", 4, GATE, seed=1)
    runs(tmp_path, "change-", 4, {"GET /a": 160.0}, seed=9)
    given = dict.fromkeys(("HISTORY", "BUDGETS", "FAIL_ON", "ARGUMENTS"), "") | {
        "CAPTURES": "change-*.perfkit",
        "BASELINE": "main-*.perfkit",
        "OUTPUT": "out",
    }
    environment = {f"PERFKIT_{name}": value for name, value in given.items()}
    done = shell(
        action_step("Check"), tmp_path, {**environment, "GITHUB_OUTPUT": str(tmp_path / "o")}
    )
    assert done.returncode == 3
    assert "verdict=failed\n" in (tmp_path / "o").read_text()


@pytest.mark.real
def test_the_workflow_records_both_sides_in_turn(tmp_path: Path) -> None:
    steps = yaml.safe_load((RECIPES / "github.yml").read_text())["jobs"]["gate"]["steps"]
    (script,) = [step["run"] for step in steps if "run" in step]
    done = shell(script, tmp_path, {})
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.perfkit"))) == 10


@pytest.mark.real
def test_gitlab_adds_on_the_main_branch_and_checks_on_others(tmp_path: Path) -> None:
    job = yaml.safe_load((RECIPES / "gitlab-ci.yml").read_text())["performance"]
    record_all, decide = job["script"]
    main = {
        "CI_COMMIT_BRANCH": "main",
        "CI_DEFAULT_BRANCH": "main",
        "CI_COMMIT_SHA": "abc",
        "CI_COMMIT_REF_NAME": "main",
    }
    assert shell(f"{record_all}\n{decide}", tmp_path, main).returncode == 0
    assert len(list((tmp_path / "history").iterdir())) == 5
    for capture in tmp_path.glob("*.perfkit"):
        capture.rename(tmp_path / f"old-{capture.name}")
    other = {**main, "CI_COMMIT_BRANCH": "", "SLOW": "1"}
    done = shell(f"{record_all}\n{decide}", tmp_path, other)
    assert done.returncode == 3, done.stdout + done.stderr
    assert {"gate.xml", "gate.json"} <= set(os.listdir(tmp_path))
    assert job["retry"]["exit_codes"] == job["allow_failure"]["exit_codes"] == 75
    assert "--exit-unstable 75" in decide


@pytest.mark.real
def test_the_commands_of_the_jenkinsfile_run(tmp_path: Path) -> None:
    scripts = re.findall(r"'''(.*?)'''", (RECIPES / "Jenkinsfile").read_text(), re.S)
    recording, gate = (script.replace("\\\\", "\\") for script in scripts)
    assert shell(recording, tmp_path, {}).returncode == 0
    add = "perfkit history add run-*.perfkit history --branch main; rm -r run-*.perfkit"
    assert shell(add, tmp_path, {}).returncode == 0
    record(tmp_path / "run-9.perfkit", {"GET /a": 150.0}, seed=99)
    done = shell(gate, tmp_path, {})
    assert done.returncode == 75, done.stdout + done.stderr
    assert (tmp_path / "gate.xml").exists()


def test_the_documentation_shows_the_recipes() -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    for name in ("github.yml", "gitlab-ci.yml", "Jenkinsfile"):
        assert (RECIPES / name).read_text() in page, name
