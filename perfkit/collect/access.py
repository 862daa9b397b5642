"""May this machine's py-spy look into that process, and if not: why, and what mends it.

Used before recording and to explain py-spy's errors; `checks.py` asks the same for the doctor.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import re
import shutil
import socket
import sysconfig
from functools import cache
from pathlib import Path
from typing import Literal

from perfkit.collect import processes
from perfkit.errors import RecordError

_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
_CAP_SYS_PTRACE = 1 << 19
CAPABILITY = "SYS_PTRACE"

AS_ROOT = 'run as root: sudo env "PATH=$PATH" perfkit record …'
KUBERNETES_FIX = (
    "without a restart: kubectl debug -it POD --image=IMAGE-WITH-PERFKIT --target=CONTAINER "
    "--profile=general; or add to the container that runs perfkit: "
    'securityContext: {capabilities: {add: ["SYS_PTRACE"]}}, '
    "and where that is a sidecar, to the pod: shareProcessNamespace: true"
)
DOCKER_FIX = f"start the container with: docker run --cap-add {CAPABILITY} …"


def py_spy() -> Path | None:
    """Find the py-spy that was installed with perfkit, or else the one on the PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "py-spy"
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which("py-spy")
    return Path(found) if found else None


def require_py_spy() -> str:
    """Return the path of py-spy. Raises RecordError when it is not installed."""
    path = py_spy()
    if path is None:
        raise RecordError(
            "py-spy is not installed",
            hint="pip install py-spy, or record without stacks: --no-stacks",
        )
    return str(path)


def ptrace_scope() -> int | None:
    """Return Yama's ptrace_scope, 0 to 3; null when the kernel has no Yama."""
    try:
        return int(_YAMA.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def has_ptrace_capability() -> bool:
    """Whether this process has CAP_SYS_PTRACE in effect."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return bool(match and int(match[1], 16) & _CAP_SYS_PTRACE)


def container() -> Literal["kubernetes", "docker", None]:
    """Say in what kind of container perfkit itself runs, if in any."""
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return "docker"
    return None


def may_attach(pid: int) -> bool:
    """Whether the kernel lets us read the memory of a process.

    Opening /proc/PID/mem asks the kernel the same question (PTRACE_MODE_ATTACH, Yama included) that
    py-spy's `process_vm_readv` and `ptrace` will ask, and touches nothing.
    """
    if is_filtered():
        return False
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))
    except OSError:
        return False
    return True


@cache
def is_filtered() -> bool:
    """Whether a seccomp filter, as old container runtimes have one, forbids `process_vm_readv`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "process_vm_readv"):
        return False
    # Reading nothing from ourselves is always allowed, except by a filter.
    ctypes.set_errno(0)
    libc.process_vm_readv(os.getpid(), None, 0, None, 0, 0)
    return ctypes.get_errno() == errno.EPERM


def no_permission(pid: int) -> RecordError:
    """Explain why the kernel does not let us look into a process, and what mends it."""
    who = f"process {pid} ({processes.name(pid) or 'unknown'})"
    reason, fix = _why_refused(pid)
    return RecordError(f"no permission to look into {who}: {reason}", hint=fix)


def _why_refused(pid: int) -> tuple[str, str]:
    scope = ptrace_scope()
    if is_filtered():
        return "a seccomp filter forbids process_vm_readv", container_fix()
    if scope == 3:
        return "kernel.yama.ptrace_scope is 3", scope_fix(3)
    if has_ptrace_capability():
        return "a security policy (SELinux, AppArmor) forbids it", "see: sudo dmesg | tail"
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        owner = os.geteuid()
    if owner != os.geteuid():
        fix = AS_ROOT + (f", or as that user: sudo -u {_user(owner)} …" if owner else "")
        fix += f"; this is a container, so also: {container_fix()}" if container() else ""
        return f"it belongs to user {_user(owner)}, and you are {_user(os.geteuid())}", fix
    if scope:
        return f"kernel.yama.ptrace_scope is {scope}", scope_fix(scope)
    if container():
        return f"this container lacks the capability {CAPABILITY}", container_fix()
    return "it has raised privileges or is not dumpable", AS_ROOT


def stopped(pid: int) -> str:
    """Say that a process is stopped, and how it goes on."""
    who = f"process {pid} ({processes.name(pid) or 'unknown'})"
    return f"{who} is stopped and does nothing until: kill -CONT {pid}"


def container_fix() -> str:
    """Say what gives a container the right to look into processes."""
    return KUBERNETES_FIX if container() == "kubernetes" else DOCKER_FIX


def scope_fix(scope: int) -> str:
    """Say what mends a restrictive ptrace_scope."""
    if scope == 1:
        return (
            "start the program through perfkit: perfkit record -- CMD, "
            f"or allow it until the next boot: sudo sysctl kernel.yama.ptrace_scope=0, or {AS_ROOT}"
        )
    if scope == 2:
        return AS_ROOT
    return "set kernel.yama.ptrace_scope=0 in /etc/sysctl.d/ and boot again: 3 cannot be undone"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def require_process(pid: int) -> None:
    """Raise RecordError when there is no such process or it has ended."""
    if processes.exists(pid):
        return
    if processes.state(pid) is not None:
        raise RecordError(
            f"process {pid} has ended and waits to be collected by its parent (zombie)",
            hint="find the process that serves: pgrep -af python",
        )
    raise RecordError(f"no process {pid}", hint="find the right one: pgrep -af python")


def explain(pid: int, output: str) -> RecordError:
    """Turn what py-spy said when it failed into one line and what to do."""
    if not processes.exists(pid):
        return RecordError(f"process {pid} ended", hint="find the right one: pgrep -af python")
    lowered = output.lower()
    if "permission denied" in lowered or "operation not permitted" in lowered:
        other = processes.tracer(pid)
        if other:
            return RecordError(
                f"process {pid} is being traced by process {other} ({processes.name(other)})",
                hint="end that debugger first",
            )
        return no_permission(pid)
    if "failed to suspend" in lowered and processes.state(pid) == "T":
        return RecordError(
            f"{stopped(pid)}; py-spy cannot pause it",
            hint=f"kill -CONT {pid}, or record without pausing it: --nonblocking",
        )
    command = " ".join(processes.command_line(pid))[:80] or processes.name(pid)
    if "unsupported version" in lowered:
        return RecordError(
            f"py-spy does not know the Python version of process {pid} ({command})",
            hint="update it: pip install --upgrade py-spy, or record with --no-stacks",
        )
    if not is_python_tree(pid):
        return RecordError(
            f"process {pid} ({command}) does not run Python",
            hint="find the right one: pgrep -af python; or record what its OpenTelemetry says, "
            "whatever its language: --otlp",
        )
    return RecordError(
        f"py-spy cannot read process {pid} ({command}): {_first_error(output)}",
        hint=f"look at: perfkit doctor --pid {pid}; or record without stacks: --no-stacks",
    )


def is_python_tree(pid: int) -> bool:
    """Whether a process or one of its descendants looks like Python."""
    return any(processes.is_python(member) for member in processes.tree(pid))


def _first_error(output: str) -> str:
    for line in output.splitlines():
        if line.startswith("Error:"):
            return line.removeprefix("Error:").strip()
    return output.strip().splitlines()[0] if output.strip() else "no reason given"


class RecorderLock:
    """At most one recorder a process: two of them make both lose samples.

    A socket in Linux' abstract namespace: taken by one bind, and free again as soon as its owner
    dies. The name tells processes apart by id, start time and pid namespace.
    """

    def __init__(self, pid: int) -> None:
        try:
            namespace = os.readlink("/proc/self/ns/pid")
        except OSError:
            namespace = ""
        name = f"\0perfkit-recorder:{namespace}:{pid}:{processes.started_ticks(pid)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(name)
        except OSError:
            self._socket.close()
            raise RecordError(
                f"process {pid} is already being recorded by another perfkit",
                hint="wait for it to end, or stop it with ^C",
            ) from None

    def release(self) -> None:
        """Let others record the process."""
        self._socket.close()
