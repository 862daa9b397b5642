"""What /proc says about a process and those below it. Nothing here needs permission to attach."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache

_PYTHON_NAME = re.compile(r"(?:^|/)(?:python|pypy)[\d.]*t?(?:-dbg)?(?: \(deleted\))?$")
_STOPS = frozenset(
    str(int(number)) for number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
)
_TITLE = re.compile(r"[\w.+-]+")
_NODE = ("-r", "--require", "--import", "--loader", "--experimental-loader", "--env-file", "-C")
_VALUED = {
    **dict.fromkeys(("node", "nodejs"), _NODE),
    "java": ("-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-modules"),
}
"""Program -> its options whose value is a word of its own."""
_CODE = ("-e", "--eval", "-p", "--print", "-pe")
"""Options of Node.js that code follows: it names nothing, and may hold what nobody is to read."""
_LONGEST_NAME = 40
_EXEC_LOOKS = 20
_PYTHON_LIBRARY = re.compile(rb"/libpython\d[\d.]*[a-z]*\.so")


def exists(pid: int) -> bool:
    """Whether there is a process with this id that has not ended (a zombie has)."""
    return state(pid) not in (None, "Z", "X")


def state(pid: int) -> str | None:
    """Return the one-letter state (`R`, `S`, `T` …); null when there is no such process."""
    fields = _stat(pid)
    return fields[0] if fields else None


def stopped(pid: int) -> bool:
    """Whether SIGSTOP or the terminal keeps a process stopped, also while it is traced."""
    fields = _stat(pid)
    # A tracer hides the state; what its parent would be told of the stop is still there.
    if fields is None:
        return False
    return fields[0] == "T" or (fields[0] == "t" and fields[49] in _STOPS)


def started_ticks(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot: with the pid it is unique."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def parent(pid: int) -> int | None:
    """Return the process that started this one, or took it over; null when it is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state (the third) on."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in parentheses and may contain anything, spaces and parentheses too.
    return text[text.rindex(b")") + 2 :].decode("ascii").split()


def cpu_ns(pid: int) -> int | None:
    """Return how long a process has run, those of its threads with it that have ended."""
    try:
        # The clock of another process, as clock_getcpuclockid(3) names it.
        return time.clock_gettime_ns(~pid << 3 | 2)
    except OSError:
        return None


def threads(pid: int) -> list[int]:
    """Return the thread ids of a process; none when it is gone."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def tree(root: int) -> list[int]:
    """Return the process and all its living descendants, parents first."""
    found = [root]
    try:
        for pid in found:
            found.extend(_children(pid))
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return _tree_by_parents(root)
    return found


def _tree_by_parents(root: int) -> list[int]:
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))):
            below.setdefault(int(fields[1]), []).append(int(name))
    found = [root]
    for pid in found:
        found.extend(below.get(pid, ()))
    return found


def _children(pid: int) -> Iterable[int]:
    for tid in threads(pid):
        try:
            with open(f"/proc/{pid}/task/{tid}/children", "rb") as file:
                yield from map(int, file.read().split())
        except ProcessLookupError:
            continue
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/task/{tid}/stat"):
                raise


def is_python(pid: int) -> bool:
    """Whether a process looks like CPython. False also when we may not look or it is gone."""
    ticks = started_ticks(pid)
    return ticks is not None and _runs_python(pid, ticks, _executable(pid))


def _executable(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


@lru_cache(maxsize=4096)
def _runs_python(pid: int, _ticks: int, executable: str) -> bool:
    if _PYTHON_NAME.search(executable):
        return True
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            return _PYTHON_LIBRARY.search(file.read()) is not None
    except OSError:
        return False


def name(pid: int) -> str:
    """Return the name of a process for messages; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def command_line(pid: int) -> list[str]:
    """Return the command line of a process; empty when it is gone or a kernel thread."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            text = file.read()
    except OSError:
        return []
    return [part.decode("utf-8", "replace") for part in text.split(b"\0")[:-1]]


def instance(pid: int) -> str:
    """Return what metrics call a process: `gunicorn (pid 7)`, or `pid 7` where it has no name."""
    for _ in range(_EXEC_LOOKS):
        command = command_line(pid)
        if command or not exists(pid):
            break
        time.sleep(0.001)  # amid its exec a process has no command line yet
    called = program(command) or name(pid)
    written = "".join(char if char.isprintable() else " " for char in called)[
        :_LONGEST_NAME
    ].strip()
    return f"{written} (pid {pid})" if written else f"pid {pid}"


def program(command: Sequence[str]) -> str:
    """Return what people call the program of a command line: of Python its module or script, of
    Node.js its script, of Java its archive or class.
    """
    if not command or not command[0]:
        return ""
    rest = list(command[1:])
    valued = _VALUED.get(os.path.basename(command[0]))
    if valued is not None:
        return _argument(rest, valued) or os.path.basename(command[0])
    if not _PYTHON_NAME.search(command[0]):
        # Some write a sentence where the command was: "gunicorn: worker [shop]".
        title = _TITLE.match(os.path.basename(command[0].split()[0]))
        return title[0] if title else ""
    while rest:
        option = rest.pop(0)
        if option in ("-m", "-c"):
            return _python_module(option, rest)
        if option in ("-X", "-W", "--check-hash-based-pycs"):
            del rest[:1]
        elif not option.startswith("-"):
            return _script(option)
    return os.path.basename(command[0])


def _argument(words: Sequence[str], valued: Collection[str]) -> str:
    """Return the file name of the first word that is no option, nor the value of one."""
    skip = False
    for word in words:
        if not skip and word in _CODE and word not in valued:
            return ""
        if not skip and not word.startswith("-"):
            return os.path.basename(word)
        skip = not skip and word in valued
    return ""


def _python_module(option: str, rest: Sequence[str]) -> str:
    if option == "-m":
        return rest[0] if rest else ""
    code = rest[0] if rest else ""
    return "multiprocessing" if code.startswith("from multiprocessing") else "python -c"


def _script(path: str) -> str:
    """Return a script's name, or that of the package whose `__main__.py` it is."""
    folder, file = os.path.split(path)
    return os.path.basename(folder) if file == "__main__.py" and folder else file


def tracer(pid: int) -> int:
    """Return the process that traces this one (a debugger, strace); 0 for none."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("TracerPid:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def resident_bytes(pid: int) -> int:
    """Return the memory of a process; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


class StopGuard:
    """Continues processes that a recorder left stopped, but not those that somebody stopped.

    The kernel does not say who sent a SIGSTOP. A recorder that pauses a process traces it, which is
    another state, and leaves it stopped only by ending badly: what is stopped while the recorder
    works is so by somebody else.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._by_others: set[int] = set()
        self.see(pids, working=lambda: True)

    def see(self, pids: Iterable[int], working: Callable[[], bool]) -> None:
        """Note who is stopped now, unless the recorder is not `working` any more afterwards."""
        found = {pid for pid in pids if stopped(pid)}
        if working():
            self._by_others = found

    def release(self, pids: Iterable[int]) -> list[int]:
        """Continue every stopped process of `pids` that nobody else stopped; returns those."""
        left = [pid for pid in pids if pid not in self._by_others and state(pid) == "T"]
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGCONT)
        return left
