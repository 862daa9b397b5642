"""How much a recorded program is slowed down, and what the recorder itself costs.

A program works without end and counts what it has done; ten times a second that is read, and how
much CPU time it used for it. It is left alone and recorded in turn, in short windows: each one with
a recorder is compared with the two beside it without, so that a machine that slowly changes does
not matter. Other programs on the machine change how fast it gets on, but hardly how much CPU time a
unit of its work takes: that is compared, and the windows give a confidence interval. A case ends
when the interval is narrow enough to judge by, or when its time is up.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import mmap
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Row

WINDOW_S = 2.5
WHOLE_S = 20.0
CASE_S = 90.0
"""How long a case takes at most, if each of its windows is as long as planned."""
MIN_PAIRS = 8
GOAL = 0.02
_FAST = ("--rate", "100", "--max-overhead", "100%")
_BY_DEFAULT: tuple[str, ...] = ()
_RESAMPLES = 2000

# Each thread counts what it has done in a file that is mapped into memory: a thread of the program
# that wrote it down would wait for its interpreter's lock, seconds long among fifty.
_COUNTED = """
import mmap, sys, threading
threads = int(sys.argv[1])
file = open(sys.argv[2], "r+b")
done = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
"""
_CPU_BOUND = (
    _COUNTED
    + """
def work(number):
    while True:
        total = 0
        for i in range(20_000):
            total += i * i % 7
        done[number] += 1
for number in range(threads):
    threading.Thread(target=work, args=(number,)).start()
"""
)
# As many threads as asked for wait for requests; eight clients ask, in a process of their own.
_SERVED = (
    _COUNTED
    + """
import socket, subprocess
CLIENT = '''
import socket, sys, threading, time
server = "127.0.0.1", int(sys.argv[1])
end = time.monotonic() + 600
def ask():
    while time.monotonic() < end:
        try:
            with socket.create_connection(server) as connection:
                for _ in range(100):
                    connection.sendall(b"x")
                    if not connection.recv(1):
                        return
        except OSError:
            return  # the server is gone
for _ in range(8):
    threading.Thread(target=ask).start()
'''
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
def work(number):
    while True:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(1):
                total = 0
                for i in range(10_000):
                    total += i * i % 7
                connection.sendall(b"y")
                done[number] += 1
for number in range(threads):
    threading.Thread(target=work, args=(number,)).start()
client = subprocess.Popen([sys.executable, "-c", CLIENT, str(listener.getsockname()[1])])
"""
)


class _Progress(threading.Thread):
    """Looks ten times a second how much a program has done, and with how much CPU time."""

    def __init__(self, pid: int, counts: memoryview) -> None:
        super().__init__(daemon=True)
        self.times_ns: list[int] = []
        self.units: list[int] = []
        self.cpu_ns: list[int] = []
        self._clock = ~pid << 3 | 2  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of Linux
        self._counts = counts
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.1):
            self.cpu_ns.append(time.clock_gettime_ns(self._clock))
            self.units.append(sum(self._counts))
            self.times_ns.append(time.monotonic_ns())

    def end(self) -> None:
        self._ended.set()
        self.join()

    def between(self, begin_ns: int, end_ns: int) -> tuple[float, float]:
        """Return CPU time and wall time for each unit, in ns."""
        first = bisect.bisect_left(self.times_ns, begin_ns)
        last = bisect.bisect_right(self.times_ns, end_ns) - 1
        units = self.units[last] - self.units[first]
        if last <= first or units <= 0:
            raise RuntimeError("the program did nothing in a window: is the machine overloaded?")
        cpu_ns = self.cpu_ns[last] - self.cpu_ns[first]
        return cpu_ns / units, (self.times_ns[last] - self.times_ns[first]) / units


@dataclass
class _Recorded:
    """One window with a recorder, on the monotonic clock, and what the recorder said of itself."""

    begin_ns: int
    end_ns: int
    spy_cores: float
    own_cores: float
    charged_ratio: float
    """What the recorder believes to have cost the program, as a share of its speed."""
    rate: float
    """Looks of py-spy a second that succeeded."""
    samples: int
    bytes: int


def _record(pid: int, options: tuple[str, ...], path: Path, seconds: float) -> _Recorded:
    command = [sys.executable, "-m", "perfkit.cli", "record", "--pid", str(pid), "-o", str(path)]
    command += [*options, "--no-subprocesses"]
    done = subprocess.run(
        [*command, "--duration", f"{seconds}s"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"perfkit record failed: {done.stderr}")
    info = json.loads((path / "capture.json").read_text())
    (source,) = (each for each in info["sources"] if each["name"] == "py-spy")
    (cost,) = source["cost"]
    anchors = info["anchors"]
    begin = source["settings"][0]["since_ns"] - anchors["wall_ns"] + anchors["monotonic_ns"]
    size = sum(
        part.stat().st_size
        for table in ("samples", "stacks", "frames")
        for part in (path / table).iterdir()
    )
    return _Recorded(
        begin,
        begin + cost["duration_ns"],
        cost["py_spy_cpu_ns"] / cost["duration_ns"],
        cost["perfkit_cpu_ns"] / cost["duration_ns"],
        cost["mean_ratio"],
        source["stacks_read"] / source["settings"][0]["threads"] / cost["duration_ns"] * 1e9,
        info["rows"]["samples"],
        size,
    )


@contextlib.contextmanager
def _running(text: str, threads: int, folder: Path) -> Iterator[tuple[int, _Progress]]:
    path = folder / "counts"
    path.write_bytes(bytes(8 * threads))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        process = subprocess.Popen([sys.executable, "-c", text, str(threads), str(path)])
        with memoryview(shared).cast("q") as counts:
            progress = _Progress(process.pid, counts)
            try:
                while len(list(Path(f"/proc/{process.pid}/task").iterdir())) <= threads:
                    time.sleep(0.05)
                progress.start()
                yield process.pid, progress
                progress.end()
            finally:
                process.kill()
                process.wait()


def _interval(ratios: list[float]) -> tuple[float, float, float]:
    """Return the median and its 95 % confidence interval (percentile bootstrap, seeded)."""
    source = random.Random(1)
    medians = sorted(
        statistics.median(source.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLES)
    )
    low, high = medians[_RESAMPLES // 40], medians[-_RESAMPLES // 40]
    return statistics.median(ratios), low, high


@dataclass(frozen=True)
class _Pairs:
    """A recorded program, and its windows with a recorder compared with those without."""

    whole: _Recorded
    """A recording as long as one that somebody makes: what the recorder itself costs."""
    cpu_ratios: list[float]
    """Of each window with a recorder to the mean of the two beside it, less one."""
    wall_ratios: list[float]
    charged_ratios: list[float]
    """What the recorder said of each window, as a share of the time of a unit alone."""

    @property
    def narrow(self) -> bool:
        """Whether the interval of the CPU time is within the goal on either side of its middle."""
        middle, low, high = _interval(self.cpu_ratios)
        return max(high - middle, middle - low) < GOAL


def _alone() -> int:
    """Leave the program alone for a window; returns when that began."""
    begin_ns = time.monotonic_ns()
    time.sleep(WINDOW_S)
    return begin_ns


def _pairs(text: str, threads: int, options: tuple[str, ...]) -> _Pairs:
    with (
        tempfile.TemporaryDirectory() as folder,
        _running(text, threads, Path(folder)) as (pid, progress),
    ):
        found = _Pairs(_record(pid, options, Path(folder) / "whole.perfkit", WHOLE_S), [], [], [])
        end = time.monotonic() + CASE_S
        before_ns = _alone()
        while len(found.cpu_ratios) < MIN_PAIRS or (time.monotonic() < end and not found.narrow):
            number = len(found.cpu_ratios)
            recorded = _record(pid, options, Path(folder) / f"{number}.perfkit", WINDOW_S + 0.5)
            after_ns = _alone()
            beside = progress.between(recorded.begin_ns, recorded.end_ns)
            cpu, wall = (
                statistics.mean(times)
                for times in zip(
                    *(
                        progress.between(begin_ns, begin_ns + int(WINDOW_S * 1e9))
                        for begin_ns in (before_ns, after_ns)
                    ),
                    strict=True,
                )
            )
            found.cpu_ratios.append(beside[0] / cpu - 1)
            found.wall_ratios.append(beside[1] / wall - 1)
            found.charged_ratios.append(1 / (1 - recorded.charged_ratio) - 1)
            before_ns = after_ns
    return found


def _case(name: str, text: str, threads: int, options: tuple[str, ...]) -> list[Row]:
    pairs = _pairs(text, threads, options)
    cpu_ratios, wall_ratios, whole = pairs.cpu_ratios, pairs.wall_ratios, pairs.whole
    middle, low, high = _interval(cpu_ratios)
    wall, wall_low, wall_high = _interval(wall_ratios)
    charged = statistics.median(pairs.charged_ratios)
    own, spy = whole.own_cores, whole.spy_cores
    how = "100 Hz" if options == _FAST else "by default"
    title = f"{name}, {threads} threads, {how}"
    return [
        Row(
            f"{title}: CPU time for a unit of its work",
            f"{middle:+.1%} (95 %: {low:+.1%} to {high:+.1%}; {len(cpu_ratios)} windows)",
            f"the same program alone, in turn; wall time {wall:+.0%} "
            f"({wall_low:+.0%} to {wall_high:+.0%}) beside whatever else ran",
            f"{1 + middle:.3f}×",
            f"< {GOAL:.0%}",
            True if high < GOAL else False if low > GOAL else None,
        ),
        Row(
            f"{title}: what `--max-overhead` charges",
            f"{charged:+.1%} time for a unit of work",
            f"measured {wall:+.1%} (95 %: {wall_low:+.1%} to {wall_high:+.1%})",
            f"{charged - wall:+.1%}",
            "what is measured, or more",
            charged >= wall_low,
        ),
        Row(
            f"{title}: perfkit's own CPU",
            f"{own:.1%} of a core",
            f"py-spy {spy:.0%} of a core for {whole.rate:.0f} looks a second, in {WHOLE_S:.0f} s",
            f"{own / spy:.2f}×",
            f"< {GOAL:.0%} of a core",
            own < GOAL,
        ),
        Row(
            f"{title}: bytes a sample",
            f"{whole.bytes / whole.samples:.0f} B",
            f"a capture of {WHOLE_S:.0f} s, with its stacks and frames",
            "",
            "no goal",
            None,
        ),
    ]


def rows() -> list[Row]:
    """Record each program with few and with many threads, and many as perfkit would by itself."""
    return [
        row
        for name, text in (("CPU-bound program", _CPU_BOUND), ("served program", _SERVED))
        for threads, options in ((4, _FAST), (50, _FAST), (50, _BY_DEFAULT))
        for row in _case(name, text, threads, options)
    ]
