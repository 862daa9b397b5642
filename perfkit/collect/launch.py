"""The shim that turns itself into another program: `launch.py REPORT_FD OWNER MODE -- CMD…`.

Two things must be set in the new process itself, before it becomes CMD, and both survive `exec`:

`traced`   Yama's `ptrace_scope` 1, the default of Linux desktops, lets a process be inspected only
           by its ancestors. py-spy is started by perfkit and so is a sibling of CMD. With
           `prctl(PR_SET_PTRACER, OWNER)` CMD admits the process OWNER (perfkit), and Yama then
           admits OWNER's descendants (py-spy) as well. Processes that CMD forks do not inherit
           this. Source: prctl(2) and security/yama/yama_lsm.c, `ptracer_exception_found`.
`follows`  With `prctl(PR_SET_PDEATHSIG, SIGINT)` the kernel interrupts CMD (py-spy) when OWNER
           dies, even by SIGKILL: py-spy then writes what it has instead of sampling for ever.

A failing `exec` is reported through REPORT_FD, which closes by itself when `exec` succeeds: so the
starter knows the moment in which CMD began. Standard library only, run with `-I -S`: it costs about
20 ms and leaves the environment of CMD as it was.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_PTRACER = 0x59616D61  # "Yama"


def main(argv: list[str]) -> int:
    """Prepare this process and replace it by the command; returns only when that fails."""
    report_fd, owner, mode = int(argv[0]), int(argv[1]), argv[2]
    command = argv[4:]
    os.set_inheritable(report_fd, False)
    libc = ctypes.CDLL(None, use_errno=True)
    if mode == "traced":
        # Fails with EINVAL where the kernel has no Yama: then nothing needs to be admitted.
        libc.prctl(_PR_SET_PTRACER, ctypes.c_ulong(owner), 0, 0, 0)
    else:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != owner:  # the owner died before the kernel was told
            return 1
    for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them, and `exec` would keep that
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the user's own command
    except (OSError, ValueError) as error:  # ValueError: an empty name
        os.write(report_fd, str(getattr(error, "errno", errno.ENOENT)).encode())
        return 127
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
