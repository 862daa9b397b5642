"""Who may record whom: refusals in one line, with what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perfkit.collect import access, checks, processes
from perfkit.collect.access import RecorderLock, explain, no_permission, require_process
from perfkit.errors import RecordError

SLEEP = [sys.executable, "-c", "print('ready', flush=True); import time; time.sleep(60)"]


@pytest.fixture
def python() -> Iterator[int]:
    """Give a Python process that sleeps."""
    process = subprocess.Popen(SLEEP, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def other() -> Iterator[int]:
    """Give a process that is not Python."""
    process = subprocess.Popen(["sleep", "60"])
    while processes.name(process.pid) != "sleep":
        time.sleep(0.01)
    yield process.pid
    process.kill()
    process.wait()


def free_pid() -> int:
    """Return the id of no process."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def one_line(error: RecordError, *parts: str) -> None:
    assert "\n" not in error.message
    assert error.hint
    for part in parts:
        assert part in f"{error.message} / {error.hint}"


def test_no_such_process() -> None:
    with pytest.raises(RecordError) as caught:
        require_process(free_pid())
    one_line(caught.value, "no process", "pgrep")


def test_a_zombie_has_ended() -> None:
    process = subprocess.Popen(["true"])
    while processes.state(process.pid) != "Z":
        time.sleep(0.01)
    with pytest.raises(RecordError) as caught:
        require_process(process.pid)
    one_line(caught.value, "ended", "zombie")
    process.wait()


def test_python_is_told_from_other_programs(python: int, other: int) -> None:
    assert processes.is_python(python)
    assert not processes.is_python(other)
    assert not processes.is_python(free_pid())
    one_line(explain(other, "Error: Failed to find python version from target process"), "Python")
    assert "sleep 60" in explain(other, "Error: x").message


@pytest.mark.parametrize(
    ("output", "part"),
    [
        ("Error: Unsupported version of Python: 3.99", "does not know the Python version"),
        ("Error: Something else\nStack backtrace:\n 0: main", "Something else"),
        ("", "no reason given"),
    ],
)
def test_what_py_spy_says_becomes_one_line(python: int, output: str, part: str) -> None:
    one_line(explain(python, output), part)


def test_a_process_that_ended_meanwhile_is_called_so() -> None:
    one_line(explain(free_pid(), "Error: No such file or directory (os error 2)"), "ended")


@pytest.fixture
def powerless(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Pretend to be nobody special outside of any container, on a kernel without Yama."""
    monkeypatch.setattr(access, "has_ptrace_capability", lambda: False)
    monkeypatch.setattr(checks, "has_ptrace_capability", lambda: False)
    monkeypatch.setattr(access, "container", lambda: None)
    for module in (access, checks):
        monkeypatch.setattr(module, "ptrace_scope", lambda: None)
    return monkeypatch


@pytest.mark.parametrize(
    ("scope", "fix"),
    [(1, "sysctl kernel.yama.ptrace_scope=0"), (2, "sudo env"), (3, "boot again")],
)
def test_a_restrictive_kernel_is_named_with_what_mends_it(
    powerless: pytest.MonkeyPatch, python: int, scope: int, fix: str
) -> None:
    for module in (access, checks):
        powerless.setattr(module, "ptrace_scope", lambda: scope)
    one_line(no_permission(python), f"ptrace_scope is {scope}", fix)
    check = {check.name: check for check in checks.machine_checks()}["ptrace"]
    assert check.state == ("warning" if scope == 1 else "failed")
    assert fix in (check.fix or "")


def test_another_user_is_named(powerless: pytest.MonkeyPatch) -> None:
    powerless.setattr(os, "geteuid", lambda: 54321)
    error = no_permission(os.getpid())
    if os.getuid() == 54321:
        pytest.skip("we are that user")
    one_line(error, "belongs to user", "54321", "sudo")


@pytest.mark.parametrize(
    ("kind", "fix"), [("kubernetes", 'add: ["SYS_PTRACE"]'), ("docker", "--cap-add SYS_PTRACE")]
)
@pytest.mark.parametrize("filtered", [True, False])
def test_containers_get_the_snippet_that_mends_them(
    powerless: pytest.MonkeyPatch, python: int, kind: str, fix: str, filtered: bool
) -> None:
    powerless.setattr(access, "container", lambda: kind)
    for module in (access, checks):
        powerless.setattr(module, "is_filtered", lambda: filtered)
    one_line(no_permission(python), "seccomp" if filtered else "SYS_PTRACE", fix)
    failed = [check for check in checks.machine_checks() if check.state == "failed"]
    assert [fix in (check.fix or "") for check in failed] == ([True] if filtered else [])
    assert not (filtered and access.may_attach(python))


def test_a_process_has_one_recorder(python: int, other: int) -> None:
    lock = RecorderLock(python)
    with pytest.raises(RecordError) as caught:
        RecorderLock(python)
    one_line(caught.value, "already being recorded")
    RecorderLock(other).release()
    lock.release()
    RecorderLock(python).release()


def test_only_what_we_stopped_is_continued(python: int, other: int) -> None:
    os.kill(other, signal.SIGSTOP)
    while processes.state(other) != "T":
        time.sleep(0.01)
    guard = processes.StopGuard([python, other])
    os.kill(python, signal.SIGSTOP)
    while processes.state(python) != "T":
        time.sleep(0.01)
    guard.see([python, other], lambda: False)
    assert guard.release([python, other]) == [python], "a recorder that ended may have left it so"
    while processes.state(python) == "T":
        time.sleep(0.01)
    assert processes.state(other) == "T"
    os.kill(python, signal.SIGSTOP)
    while not processes.stopped(python):
        time.sleep(0.01)
    guard.see([python, other], lambda: True)
    assert guard.release([python, other]) == [], "stopped by somebody else, meanwhile"
    assert not processes.stopped(os.getpid())
    os.kill(python, signal.SIGCONT)


def test_the_tree_has_children_of_all_threads() -> None:
    code = (
        "import subprocess, sys, threading, time\n"
        "def child():\n"
        "    p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "    print(p.pid, flush=True); time.sleep(60)\n"
        "threading.Thread(target=child, daemon=True).start(); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert processes.tree(process.pid) == [process.pid, child]
        assert len(processes.threads(process.pid)) == 2
    finally:
        os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait()
        process.stdout.close()
    assert processes.tree(process.pid) == [process.pid]


def test_odd_process_names_are_parsed(tmp_path: Path) -> None:
    script = tmp_path / "a) R (b"
    script.write_text("#!/bin/sh\nsleep 60 & wait\n")
    script.chmod(0o755)
    process = subprocess.Popen([script], start_new_session=True)
    try:
        while processes.name(process.pid) != "a) R (b":
            time.sleep(0.01)
        assert processes.state(process.pid) in ("S", "R", "D")
        assert (processes.started_ticks(process.pid) or 0) > 0
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_checks_of_a_process(python: int, other: int) -> None:
    if not access.may_attach(python):
        pytest.skip("this machine does not let us look into our own child process")
    done = {check.name: check for check in checks.process_checks(python)}
    states = {name: check.state for name, check in done.items()}
    assert states == {"process": "ok", "permission": "ok", "python": "ok", "sampling": "ok"}
    detail = done["sampling"].detail
    assert detail.startswith("threads: 1, processes: 1, samples of each a second: 100;")
    failed = [check for check in checks.process_checks(other) if check.state == "failed"]
    assert ["does not run Python" in check.detail for check in failed] == [True]
    assert [check.state for check in checks.process_checks(free_pid())] == ["failed"]


def test_a_look_that_fails_is_no_refusal(
    python: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not access.may_attach(python):
        pytest.skip("this machine does not let us look into our own child process")
    fake = tmp_path / "py-spy"
    fake.write_text(
        f"#!/bin/sh\necho >> {tmp_path}/looks\n"
        f'if [ "$(wc -l < {tmp_path}/looks)" -lt 3 ]; then\n'
        "echo 'Error: Failed to get stack traces' >&2; exit 1; fi\n"
        "echo 'Python v3.11.7 (/usr/bin/python3)'\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(checks, "py_spy", lambda: fake)
    states = {check.name: check.state for check in checks.process_checks(python)}
    assert states["python"] == "ok"


def test_a_process_that_somebody_else_looks_into(
    python: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not access.may_attach(python):
        pytest.skip("this machine does not let us look into our own child process")
    lock = RecorderLock(python)
    taken = {check.name: check for check in checks.process_checks(python)}["recorder"]
    assert (taken.state, taken.fix) == ("failed", "wait for it to end, or stop it with ^C")
    lock.release()
    monkeypatch.setattr(processes, "tracer", lambda pid: os.getpid())
    traced = {check.name: check for check in checks.process_checks(python)}["debugger"]
    assert (traced.state, traced.fix) == ("failed", f"end it: kill {os.getpid()}")


def test_what_cannot_be_seen_of_a_process_is_said(
    python: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not access.may_attach(python):
        pytest.skip("this machine does not let us look into our own child process")
    monkeypatch.setattr("perfkit.collect.checks.Gil.find", lambda pid: None)
    monkeypatch.setattr(checks, "watchable_threads", lambda limit: 0)
    done = {check.name: check for check in checks.process_checks(python)}
    assert (done["gil"].state, done["files"].state) == ("warning", "warning")
    assert done["files"].fix == "ulimit -n 4"


@pytest.mark.parametrize(
    ("source", "synchronised", "state", "fix"),
    [
        ("tsc", True, "ok", None),
        ("tsc", False, "warning", "set-ntp"),
        ("hpet", True, "warning", "current_clocksource"),
    ],
)
def test_the_clock(
    monkeypatch: pytest.MonkeyPatch, source: str, synchronised: bool, state: str, fix: str | None
) -> None:
    monkeypatch.setattr(checks, "_read", lambda path: source)
    monkeypatch.setattr(checks, "_is_synchronised", lambda: synchronised)
    check = checks.clock_check()
    assert check.state == state
    assert (fix or "") in (check.fix or "")


def test_the_kernel_says_whether_the_clock_is_synchronised() -> None:
    assert checks._is_synchronised() in (True, False)


def test_in_kubernetes_the_fix_is_a_command_and_a_snippet(
    powerless: pytest.MonkeyPatch, python: int
) -> None:
    powerless.setattr(access, "container", lambda: "kubernetes")
    one_line(
        no_permission(python),
        "kubectl debug -it POD",
        "--profile=general",
        'securityContext: {capabilities: {add: ["SYS_PTRACE"]}}',
        "shareProcessNamespace: true",
    )


def test_checks_of_the_machine(tmp_path: Path) -> None:
    assert checks.machine_checks()[0].state == "ok", "py-spy comes with perfkit"
    assert checks.disk_check(tmp_path).state in ("ok", "warning")
    assert checks.disk_check(tmp_path / "absent").state == "failed"
    assert checks.endpoint_check("127.0.0.1", 0).state == "ok"
    grpc = checks.endpoint_check("192.0.2.1", 0, "otlp-grpc")
    assert (grpc.name, grpc.state) == ("otlp-grpc", "warning")
    assert "--otlp-grpc 192.0.2.1:0" in (grpc.fix or "")
    assert checks.pressure_check().name == "pressure"
