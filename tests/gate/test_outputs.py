"""What the gate writes is what the readers of each format take, whatever is in the names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st

from perfkit.gate.outputs import annotations as github
from perfkit.gate.outputs import code_quality, data, junit, markdown, sarif
from perfkit.gate.result import Check, Result, Source

SCHEMAS = Path(__file__).parent / "schemas"
DOCS = Path(__file__).resolve().parents[2] / "docs"
NASTY = "<script>&]]>\x00\x1b[31m|`*_# @team \ud800 \u202e\n"


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / name).read_text(encoding="utf-8"))


def result(text: str = "GET /a") -> Result:
    """One check of each kind and state, with a text wherever there is one."""
    return Result(
        [
            Check(
                "budget", f"p95 < 1s {text}", text, "failed", f"2 s {text}", "p95", 2e9, 1e9, runs=1
            ),
            Check("budget", "p95(endpoint=/b) < 1s", "", "error", text, help=text),
            Check(
                "regression",
                "p95 against the baseline",
                text,
                "failed",
                text,
                "p95_ns",
                2.0,
                before=1.0,
                change=1.0,
                low=0.5,
                high=2.0,
                relative=True,
                p=0.001,
                detectable=0.1,
                runs=5,
                runs_before=5,
                help=text,
            ),
            Check("regression", "p95 against the baseline", "GET /c", "unstable", text),
            Check("rule", "db.slow-query", text, "failed", text, severity="high", help=text),
            Check("rule", "db.n-plus-one", text, "unstable", text, severity="medium"),
            Check("regression", "p95 against the baseline", "GET /d", "passed", text),
        ],
        [Source("a.perfkit", "1", "abc", None, 1)],
        [Source("b.perfkit", "2")],
        [text],
        [text],
        tested=3,
    )


PASSED = Result([Check("budget", "p95 < 1s", "", "passed", "2 ms")], [Source("a.perfkit", "1")])
ALL = [result(), result(NASTY), PASSED]


@pytest.mark.parametrize("one", ALL)
def test_junit_is_what_jenkins_reads(one: Result, tmp_path: Path) -> None:
    content = junit.write(one)
    (tmp_path / "junit.xml").write_bytes(content)
    xmlschema.XMLSchema(str(SCHEMAS / "jenkins-junit.xsd")).validate(str(tmp_path / "junit.xml"))
    suites = ET.fromstring(content).findall("testsuite")
    assert sum(int(suite.get("tests", "0")) for suite in suites) == len(one.checks)
    for attribute, tag, state in (
        ("failures", "failure", "failed"),
        ("errors", "error", "error"),
        ("skipped", "skipped", "unstable"),
    ):
        counted = sum(int(suite.get(attribute, "0")) for suite in suites)
        found = sum(len(suite.findall(f"testcase/{tag}")) for suite in suites)
        assert counted == found == len(one.of(state))


@pytest.mark.parametrize("one", ALL)
def test_sarif_follows_its_schema(one: Result) -> None:
    log = json.loads(sarif.write(one, 3))
    jsonschema.Draft7Validator(schema("sarif-2.1.0.json")).validate(log)
    (run,) = log["runs"]
    assert len(run["results"]) == len(one.of("failed", "error", "unstable"))
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(rules) == len(set(rules))
    for found in run["results"]:
        assert rules[found["ruleIndex"]] == found["ruleId"]


@pytest.mark.real
def test_sarif_satisfies_the_validator_of_its_authors(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm, which brings the SARIF Multitool, is not on this machine")
    package = "@microsoft/sarif-multitool-linux@5.7.0"
    install = ["npm", "install", "--silent", "--prefix", str(tmp_path), package]
    if subprocess.run(install, check=False).returncode:
        pytest.skip(f"npm cannot install {package} here")
    (tmp_path / "gate.sarif").write_bytes(sarif.write(result(), 3))
    tool = tmp_path / "node_modules/@microsoft/sarif-multitool-linux/Sarif.Multitool"
    done = subprocess.run(
        [tool, "validate", tmp_path / "gate.sarif"],
        env={**os.environ, "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Analysis completed successfully" in done.stdout
    assert ": error " not in done.stdout, done.stdout


@pytest.mark.parametrize("one", ALL)
def test_code_quality_follows_the_documentation(one: Result) -> None:
    issues = json.loads(code_quality.write(one))
    jsonschema.Draft202012Validator(schema("gitlab-code-quality.json")).validate(issues)
    assert len({issue["fingerprint"] for issue in issues}) == len(issues)
    assert len(issues) == len(one.of("failed", "error", "unstable"))


@pytest.mark.parametrize("one", ALL)
def test_json_follows_the_published_schema(one: Result) -> None:
    published = json.loads((DOCS / "check.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(published)
    written = json.loads(data.write(one))
    jsonschema.Draft202012Validator(published).validate(written)
    assert written["verdict"] == one.verdict
    assert len(written["checks"]) == len(one.checks)


def test_markdown_is_a_table_in_which_names_are_only_text() -> None:
    lines = markdown.write(result(NASTY)).decode().splitlines()
    assert lines[0] == "## ❌ Performance gate failed"
    rows = [line for line in lines if line.startswith("|")]
    unescaped = [row.replace("\\|", "").count("|") for row in rows]
    assert set(unescaped) == {5}
    told = "\n".join(line.replace("\\<", "").replace("\\@", "") for line in lines)
    assert "<script" not in told
    assert "@team" not in told
    assert markdown.write(PASSED).decode().startswith("## ✅ Performance gate passed")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b `c` *d* _e_ ~f~", r"a\|b \`c\` \*d\* \_e\_ \~f\~"),
        ("[x](javascript:alert(1))", r"\[x\](javascript:alert(1))"),
        ("![x](http://e.example)", r"\!\[x\](http:<!-- -->//e.example)"),
        ("<img src=x> &lt;b&gt;", r"\<img src=x\> \&lt;b\&gt;"),
        ("@team of me@e.example", r"\@<!-- -->team of me\@<!-- -->e.example"),
        ("#1, GH-2, org/repo#3", r"\#<!-- -->1, GH<!-- -->-2, org/repo\#<!-- -->3"),
        ("www.e.example HTTPS://e.example", "www<!-- -->.e.example HTTPS:<!-- -->//e.example"),
        ("a\n# b\r\n| c\u2028d", r"a \#<!-- --> b \| c d"),
        ("GET \u202egnp.exe\u2066\u200b", "GET gnp.exe"),
        ("- no list", r"\- no list"),
        ("12. no list", r"12\. no list"),
        ("404) no list", r"404\) no list"),
        ("1234567890. no list", "1234567890. no list"),
        ("GET /users/{id}?a=1", r"GET /users/\{id\}?a=1"),
    ],
)
def test_hostile_names_are_only_text(name: str, shown: str) -> None:
    assert markdown.text(name) == shown


def test_the_verdict_is_the_worst_of_all() -> None:
    states = {check.state: check for check in result().checks}
    for worst, among in (
        ("failed", ["passed", "unstable", "error", "failed"]),
        ("error", ["passed", "unstable", "error"]),
        ("unstable", ["passed", "unstable"]),
        ("passed", ["passed"]),
    ):
        assert Result([states[state] for state in among], []).verdict == worst


def test_a_fingerprint_is_of_what_was_asked_and_not_of_the_figures() -> None:
    one = Check("budget", "p95 < 1s", "GET /a", "failed", "2 s")
    assert one.fingerprint == Check("budget", "p95 < 1s", "GET /a", "passed", "3 s").fingerprint
    assert one.fingerprint != Check("budget", "p95 < 1s", "GET /b", "failed", "2 s").fingerprint


@given(st.text(st.characters(), max_size=40))
def test_any_name_can_be_written(text: str) -> None:
    one = result(text)
    ET.fromstring(junit.write(one))
    json.loads(sarif.write(one, 3))
    json.loads(code_quality.write(one))
    json.loads(data.write(one))
    markdown.write(one).decode()


def test_annotations_are_the_checks_that_did_not_pass() -> None:
    lines = github.write(result("GET /a, b: 100 %")).decode().splitlines()
    first = "::error title=perfkit%3A p95 < 1s GET /a%2C b%3A 100 %25 GET /a%2C b%3A 100 %25::"
    assert lines[0] == f"{first}2 s GET /a, b: 100 %25"
    commands = [line.split(" ", 1)[0] for line in lines]
    assert commands == ["::error"] * 4 + ["::warning"] * 2


def test_no_name_makes_a_command_of_its_own() -> None:
    written = github.write(result("x\r\n::stop-commands::y\n")).decode()
    assert all(
        line.startswith(("::error title=", "::warning title=")) for line in written.split("\n")[:-1]
    )
    assert "\r" not in written


def test_of_many_annotations_the_first_are_written() -> None:
    many = [Check("budget", f"p{number}", "", "failed", "2 s") for number in range(12)]
    assert github.write(Result(many, [])).count(b"::error ") == 10
