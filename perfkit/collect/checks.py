"""What `perfkit doctor` looks at: can this machine record, and can it record that process."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perfkit.collect import processes
from perfkit.collect.access import (
    RecorderLock,
    container_fix,
    explain,
    has_ptrace_capability,
    is_filtered,
    may_attach,
    no_permission,
    ptrace_scope,
    py_spy,
    require_process,
    scope_fix,
)
from perfkit.collect.gil import Gil
from perfkit.collect.sampling import Wishes, choose
from perfkit.collect.threads import watchable_threads
from perfkit.errors import RecordError
from perfkit.units import size

_LOW_SPACE_BYTES = 1 << 30
_LOOKS = 5
"""So often py-spy tries to read the stacks of a busy process, of which some looks fail."""
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_SLOW_CLOCKS = ("hpet", "acpi_pm", "pit", "jiffies")


@dataclass(frozen=True)
class Check:
    """One thing that must hold for a recording; `fix` says what to do when it does not."""

    name: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    fix: str | None = None


def machine_checks() -> list[Check]:
    """Check what recording needs of this machine, whatever the process."""
    checks = [_py_spy_check()]
    scope = ptrace_scope()
    capable = has_ptrace_capability()
    if capable:
        how = "root" if os.geteuid() == 0 else "CAP_SYS_PTRACE"
        checks.append(Check("ptrace", "ok", f"{how}: any process of this machine can be recorded"))
    elif not scope:
        checks.append(Check("ptrace", "ok", "your own processes can be recorded"))
    elif scope == 1:
        detail = "kernel.yama.ptrace_scope is 1: only what perfkit starts itself can be recorded"
        checks.append(Check("ptrace", "warning", detail, scope_fix(1)))
    else:
        detail = f"kernel.yama.ptrace_scope is {scope}"
        checks.append(Check("ptrace", "failed", detail, scope_fix(scope)))
    if is_filtered():
        detail = "a seccomp filter forbids process_vm_readv"
        checks.append(Check("seccomp", "failed", detail, container_fix()))
    return [*checks, clock_check(), pressure_check()]


def _py_spy_check() -> Check:
    path = py_spy()
    if path is None:
        return Check("py-spy", "failed", "not installed", "pip install py-spy")
    try:
        done = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Check("py-spy", "failed", f"{path}: {error}", "pip install --force-reinstall py-spy")
    return Check("py-spy", "ok", f"{done.stdout.strip()} ({path})")


def process_checks(pid: int) -> list[Check]:
    """Check whether one process can be recorded. The last check really reads its stacks."""
    try:
        require_process(pid)
    except RecordError as error:
        return [Check("process", "failed", error.message, error.hint)]
    command = " ".join(processes.command_line(pid))[:100] or processes.name(pid)
    checks = [Check("process", "ok", f"{pid}: {command}")]
    members = [member for member in processes.tree(pid) if processes.is_python(member)]
    if not may_attach(pid):
        refusal = no_permission(pid)
        return [*checks, Check("permission", "failed", refusal.message, refusal.hint)]
    checks.append(Check("permission", "ok", "its memory can be read"))
    checks += _rivals(pid)
    checks += [_python_check(member) for member in members or [pid]]
    return [*checks, *_sampling_checks(members)]


def _rivals(pid: int) -> list[Check]:
    """Check that nobody else looks into the process."""
    tracer = processes.tracer(pid)
    if tracer:
        detail = f"process {tracer} ({processes.name(tracer)}) traces it"
        return [Check("debugger", "failed", detail, f"end it: kill {tracer}")]
    try:
        RecorderLock(pid).release()
    except RecordError as error:
        return [Check("recorder", "failed", error.message, error.hint)]
    return []


def _sampling_checks(members: list[int]) -> list[Check]:
    """Say how the processes would be sampled, and what of them cannot be seen."""
    if not members:
        return []
    threads = sum(len(processes.threads(member)) for member in members)
    settings = choose(
        threads=threads,
        cores=len(os.sched_getaffinity(0)),
        subprocesses=len(members) > 1,
        wishes=Wishes(),
    )
    how = (
        f"threads: {threads}, processes: {len(members)}, samples of each a second: {settings.rate}"
    )
    checks = [Check("sampling", "ok", f"{how}; {'; '.join(settings.reasons)}")]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if threads > watchable_threads(limit):
        detail = f"of {threads} threads only {watchable_threads(limit)} can be told running or idle"
        checks.append(Check("files", "warning", detail, f"ulimit -n {4 * threads}"))
    unseen = [member for member in members if not _sees_gil(member)]
    if unseen:
        detail = f"who holds the interpreter's lock (GIL) of {unseen[0]} cannot be seen"
        fix = "nothing to mend: all else is recorded (CPython 3.11 or later has it)"
        checks.append(Check("gil", "warning", detail, fix))
    return checks


def _sees_gil(pid: int) -> bool:
    lock = Gil.find(pid)
    if lock is not None:
        lock.close()
    return lock is not None


def _python_check(pid: int) -> Check:
    path = py_spy()
    if path is None:
        return Check("python", "failed", "not checked: py-spy is missing", "pip install py-spy")
    try:
        done = _dump(path, pid)
    except (OSError, subprocess.SubprocessError) as error:
        return Check("python", "failed", f"py-spy dump: {error}", None)
    if done.returncode:
        refusal = explain(pid, done.stderr + done.stdout)
        return Check("python", "failed", refusal.message, refusal.hint)
    match = re.search(r"^Python v(\d+)\.(\d+)\S*", done.stdout, re.MULTILINE)
    if match is None:
        return Check("python", "warning", f"{pid}: py-spy says no version")
    version = match[0].removeprefix("Python v")
    if (int(match[1]), int(match[2])) >= (3, 14):
        # https://github.com/benfred/py-spy/issues/852 and 855
        detail = (
            f"{pid}: Python {version}: py-spy 0.4.3 has open problems with thread names and lag"
        )
        return Check("python", "warning", detail, "watch lag and errors under capture health")
    return Check("python", "ok", f"{pid}: Python {version}")


def _dump(path: Path, pid: int) -> subprocess.CompletedProcess[str]:
    """Look at the stacks once; again where they changed while they were read, as busy ones do."""
    for _ in range(_LOOKS):
        done = subprocess.run(
            [str(path), "dump", "--nonblocking", "--pid", str(pid)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=False,
        )
        if done.returncode == 0 or not may_attach(pid):
            break
    return done


def endpoint_check(host: str, port: int, name: str = "otlp") -> Check:
    """Check whether the OTLP receiver could listen there; `name` is that of the option."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        reason = error.strerror or str(error)
        fix = f"see who uses it: ss -ltnp 'sport = :{port}'; or choose another: --{name} {host}:0"
        return Check(name, "warning", f"cannot listen on {host}:{port}: {reason}", fix)
    return Check(name, "ok", f"{host}:{port} is free")


def disk_check(directory: Path) -> Check:
    """Check whether captures can be written to a directory, and how much."""
    if not os.access(directory, os.W_OK):
        fix = "choose another place: perfkit record -o DIRECTORY/slow.perfkit"
        return Check("disk", "failed", f"{directory} is not writable", fix)
    free = shutil.disk_usage(directory).free
    if free < _LOW_SPACE_BYTES:
        fix = "free some space, or write the capture elsewhere with -o"
        return Check("disk", "warning", f"only {size(free)} free in {directory}", fix)
    return Check("disk", "ok", f"{size(free)} free in {directory}")


class _Timex(ctypes.Structure):
    """The beginning of `struct timex` (adjtimex(2)), with room for the rest."""

    _fields_ = (("modes", ctypes.c_uint), ("rest", ctypes.c_char * 508))


def clock_check() -> Check:
    """Check whether the clock is kept right, so that spans of other hosts fit in."""
    source = _read(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource"))
    if source in _SLOW_CLOCKS:
        detail = f"the kernel's clock source is {source}: reading the time is slow for all programs"
        fix = (
            "echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource, "
            "if `dmesg | grep -i tsc` does not call it unstable"
        )
        return Check("clock", "warning", detail, fix)
    if not _is_synchronised():
        detail = "not synchronised: spans that other hosts send may be off"
        fix = "sudo timedatectl set-ntp true; of a container or virtual machine: on its host"
        return Check("clock", "warning", detail, fix)
    return Check("clock", "ok", f"synchronised{f', source {source}' if source else ''}")


def _is_synchronised() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return not hasattr(libc, "adjtimex") or libc.adjtimex(ctypes.byref(_Timex())) != _TIME_ERROR


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def pressure_check() -> Check:
    """Check whether the kernel measures pressure stall information."""
    try:
        Path("/proc/pressure/cpu").read_text(encoding="ascii")
    except OSError:
        fix = "boot the kernel with psi=1; everything else is recorded without it"
        return Check("pressure", "warning", "no /proc/pressure: waits for CPU are not seen", fix)
    return Check("pressure", "ok", "the kernel measures pressure (PSI)")
