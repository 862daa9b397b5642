"""What `--instrument` finds out and sets, without a server; test_instrument_real.py has those."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from click.testing import CliRunner

from perfkit.cli.main import main
from perfkit.collect import probe
from perfkit.collect.instrument import (
    Instrumentation,
    django_settings,
    inspect,
    interpreter,
    service_name,
)
from perfkit.errors import RecordError, UsageError
from perfkit.manifest import CaptureInfo

PYTHON = sys.executable
SITE = Path(probe.__file__).with_name("zero_code")


def executable(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_the_python_of_a_command_is_found(tmp_path: Path) -> None:
    assert interpreter([PYTHON, "x.py"]) == PYTHON
    assert interpreter([executable(tmp_path / "a", f"#!{PYTHON} -u\nprint()\n")]) == PYTHON
    long = f"#!/bin/sh\n'''exec' \"{PYTHON}\" \"$0\" \"$@\"\n' '''\n"
    assert interpreter([executable(tmp_path / "b", long)]) == PYTHON
    env = interpreter([executable(tmp_path / "c", "#!/usr/bin/env -S python3 -u\n")])
    assert env is not None
    assert os.path.basename(env) == "python3"
    assert interpreter([executable(tmp_path / "d", "#!/bin/sh\nexec python\n")]) is None
    assert interpreter([executable(tmp_path / "e", "\x00\xff")]) is None
    assert interpreter(["no such command"]) is None


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python3", "-m", "shop.web", "--port", "1"], "shop.web"),
        (["/usr/bin/python3.12", "-u", "src/shop.py"], "shop"),
        (["python", "-c", "print()"], "python"),
        (["python"], "python"),
        (["/v/bin/uvicorn", "shop.web:app", "--port", "8000"], "shop.web"),
        (["gunicorn", "-b", "127.0.0.1:8000", "shop:create()"], "shop"),
        (["./serve.sh"], "serve.sh"),
    ],
)
def test_the_service_gets_a_name(command: list[str], name: str) -> None:
    assert service_name(command) == name


def test_the_settings_of_django_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert django_settings(["gunicorn", "shop.wsgi:application"]) is None
    (tmp_path / "manage.py").write_text(
        'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\n'
    )
    assert django_settings(["gunicorn", "shop.wsgi:application"]) == ("shop.settings", tmp_path)
    assert django_settings(["python", str(tmp_path / "manage.py"), "runserver"]) is not None


def test_what_is_missing_is_said_with_the_command_that_mends_it(tmp_path: Path) -> None:
    venv.create(tmp_path / "v", with_pip=False, symlinks=True)
    python = str(tmp_path / "v" / "bin" / "python")
    with pytest.raises(RecordError) as raised:
        inspect([python, "x.py"], {})
    assert "opentelemetry-distro" in str(raised.value)
    assert f"uv pip install --python {python} opentelemetry-distro" in str(raised.value.hint)


def test_a_python_that_does_not_run_is_said(tmp_path: Path) -> None:
    python = executable(tmp_path / "python3", "#!/bin/sh\nexit 3\n")
    with pytest.raises(RecordError, match="could not be asked"):
        inspect([python, "x.py"], {})


def test_our_own_environment_has_all_that_is_needed() -> None:
    found = inspect([PYTHON], os.environ)
    assert found is not None
    assert found.missing == []
    assert found.silent == []
    assert found.refused == []
    assert Instrumentation([PYTHON], {}).hint is None


def test_a_library_whose_version_is_not_instrumented_is_said(tmp_path: Path) -> None:
    info = tmp_path / "opentelemetry_instrumentation_requests-9.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: opentelemetry-instrumentation-requests\nVersion: 9.0\n"
        "Requires-Dist: requests<1,>=0.1; extra == 'instruments'\n"
    )
    made = Instrumentation([PYTHON], {"PYTHONPATH": str(tmp_path)})
    made.close()
    assert made.hint is not None
    assert made.hint.startswith("no spans from requests 2.")
    assert "(opentelemetry-instrumentation-requests takes requests<1,>=0.1)" in made.hint


def test_the_environment_points_at_the_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://elsewhere.invalid")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "key=secret")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "77")
    monkeypatch.setenv("PYTHONPATH", f"/a{os.pathsep}/b")
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    made = Instrumentation([PYTHON, "shop.py"], {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis"})
    env = made.environment("http://127.0.0.1:5")
    made.close()
    assert env["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == "http://127.0.0.1:5/v1/traces"
    assert env["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"] == "http://127.0.0.1:5/v1/metrics"
    assert env["OTEL_METRICS_EXEMPLAR_FILTER"] == "always_off"
    assert "secret" not in env["OTEL_EXPORTER_OTLP_TRACES_HEADERS"]
    assert env["OTEL_BSP_SCHEDULE_DELAY"] == "77"
    assert env["PYTHONPATH"].split(os.pathsep) == [str(SITE), "/a", "/b"]
    assert env["OTEL_SERVICE_NAME"] == "shop"
    # Django's instrumentation would put empty settings in place of those that come later.
    disabled = env["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"].split(",")
    assert disabled == ["redis", "system_metrics", "django"]


def test_only_our_modules_are_put_on_the_path_of_the_program() -> None:
    names = {path.name for path in SITE.iterdir() if path.suffix == ".py"}
    assert names == {"__init__.py", "perfkit_open_spans.py", "sitecustomize.py"}


def test_the_sitecustomize_that_ours_hides_is_run_too(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.theirs = 5\n")
    env = {"PYTHONPATH": f"{SITE}{os.pathsep}{tmp_path}"}
    done = subprocess.run(
        [PYTHON, "-c", "print(theirs)"], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "5"


def test_a_process_without_opentelemetry_runs_and_is_told_of(tmp_path: Path) -> None:
    made = Instrumentation(["./serve.sh"], {})
    env = made.environment("http://127.0.0.1:5")
    venv.create(tmp_path / "v", with_pip=False, symlinks=True)
    python = str(tmp_path / "v" / "bin" / "python")
    done = subprocess.run([python, "-c", "print(1)"], env=env, capture_output=True, check=True)
    assert done.stdout == b"1\n"
    assert done.stderr == b""
    info = CaptureInfo("test", 0)
    made.describe(info)
    made.close()
    (note,) = info.notes
    assert "No module named 'opentelemetry'" in note
    assert f"{python} -m pip install opentelemetry-distro" in note


def test_a_command_that_starts_no_python_is_told_of() -> None:
    made = Instrumentation(["true"], {})
    info = CaptureInfo("test", 0)
    made.describe(info)
    made.close()
    assert info.notes[0].startswith("Not instrumented: no Python")
    assert info.sources == [{"name": "opentelemetry-instrument", "processes": 0, "sdk": []}]


def test_a_broken_line_of_a_report_is_passed_over(tmp_path: Path) -> None:
    made = Instrumentation(["true"], {})
    path = Path(made.environment("http://127.0.0.1:5")["PERFKIT_INSTRUMENT_REPORT"])
    path.write_text(json.dumps({"pid": 1, "sdk": "1"}) + '\n{"pid": 2, "sd')
    assert [report["pid"] for report in made.reports()] == [1]
    made.close()
    assert not path.exists()
    assert made.reports() == []


def test_it_needs_a_command(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["record", "--instrument", "-o", str(tmp_path / "x.perfkit")])
    assert isinstance(done.exception, UsageError)
    assert "--instrument needs a program to start" in str(done.exception)
