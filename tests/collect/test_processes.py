"""What processes are called."""

from __future__ import annotations

import subprocess
import sys

import pytest

from perfkit.collect import processes


@pytest.mark.parametrize(
    ("command", "called"),
    [
        (["/venv/bin/python", "-m", "gunicorn", "shop.wsgi"], "gunicorn"),
        (["python3.12", "-X", "dev", "-u", "/srv/manage.py", "runserver"], "manage.py"),
        (["/usr/bin/python3", "/venv/bin/uvicorn", "app:app"], "uvicorn"),
        (["python", "/srv/shop/__main__.py"], "shop"),
        (["python", "-c", "import x"], "python -c"),
        (["python", "-c", "from multiprocessing.spawn import spawn_main"], "multiprocessing"),
        (["python", "-m"], ""),
        (["python"], "python"),
        (["gunicorn: worker [shop]"], "gunicorn"),
        (["/usr/sbin/nginx", "-g", "daemon off;"], "nginx"),
        (["node", "--cpu-prof", "-r", "./tracing.js", "/srv/edge.js", "9102"], "edge.js"),
        (["/usr/bin/node", "--require", "a/register"], "node"),
        (["node", "--trace-warnings", "-e", "connect('x/secret')", "a"], "node"),
        (["node", "server.js", "-p", "80"], "server.js"),
        (
            ["java", "-Xmx1g", "-cp", "a.jar:b.jar", "-javaagent:otel.jar", "-jar", "shop.jar"],
            "shop.jar",
        ),
        (["\x1b[2J"], ""),
        ([""], ""),
        ([], ""),
    ],
)
def test_a_program_is_called_what_people_call_it(command: list[str], called: str) -> None:
    assert processes.program(command) == called


def test_the_name_of_a_process_that_runs() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert processes.instance(process.pid) == f"python -c (pid {process.pid})"
        process.communicate(b"\n")
    assert processes.instance(process.pid) == f"pid {process.pid}"


def test_a_hostile_name_is_text_of_bounded_length(monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["python", "-m", "a\x1b[31m\n\u202e" + "x" * 500]
    monkeypatch.setattr(processes, "command_line", lambda pid: line)
    called = processes.instance(7)
    assert called.endswith(" (pid 7)")
    assert called.isprintable()
    assert len(called) < 60
