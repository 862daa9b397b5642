"""How much a recorded program is slowed down, and what the recorder itself costs.

A program works without end and writes down, ten times a second, how much it has done and how much
CPU time it used for that. It is left alone and recorded in turn, in short windows: each one with a
recorder is compared with the two beside it without, so that a machine that slowly changes does not
matter. Other programs on the machine change how fast it gets on, but hardly how much CPU time a
unit of its work takes: that is compared, and the windows give a confidence interval. A case ends
when the interval is narrow enough to judge by, or when its time is up.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Row

WINDOW_S = 2.5
CASE_S = 90.0
"""How long a case takes at most, if each of its windows is as long as planned."""
MIN_PAIRS = 8
GOAL = 0.02
_RATE = 100
_RESAMPLES = 2000

# Both write rows "monotonic ns, units done, CPU ns used" to standard output.
_LOG = """
import sys, threading, time
threads, done = int(sys.argv[1]), [0] * 1000
def log():
    while True:
        print(time.monotonic_ns(), sum(done), time.process_time_ns(), flush=True)
        time.sleep(0.1)
"""
_CPU_BOUND = (
    _LOG
    + """
def work(number):
    while True:
        total = 0
        for i in range(20_000):
            total += i * i % 7
        done[number] += 1
for number in range(threads):
    threading.Thread(target=work, args=(number,), daemon=True).start()
log()
"""
)
# As many threads as asked for wait for requests; eight clients ask, in a process of their own.
_SERVED = (
    _LOG
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
    threading.Thread(target=work, args=(number,), daemon=True).start()
client = subprocess.Popen([sys.executable, "-c", CLIENT, str(listener.getsockname()[1])])
log()
"""
)


@dataclass
class _Progress:
    """What a program wrote down: when, how much it had done, with how much CPU."""

    times_ns: list[int]
    units: list[int]
    cpu_ns: list[int]

    @classmethod
    def read(cls, path: Path) -> _Progress:
        rows = [line.split() for line in path.read_text().splitlines()]
        columns = zip(*(map(int, row) for row in rows if len(row) == 3), strict=True)
        times, units, cpu = map(list, columns)
        return cls(times, units, cpu)

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
    rate: float
    """Looks of py-spy a second that succeeded."""
    samples: int
    bytes: int


def _record(pid: int, path: Path) -> _Recorded:
    command = [sys.executable, "-m", "perfkit.cli", "record", "--pid", str(pid), "-o", str(path)]
    command += ["--rate", str(_RATE), "--max-overhead", "100%", "--no-subprocesses"]
    done = subprocess.run(
        [*command, "--duration", f"{WINDOW_S + 0.5}s"], capture_output=True, text=True, check=False
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
        source["stacks_read"] / source["settings"][0]["threads"] / cost["duration_ns"] * 1e9,
        info["rows"]["samples"],
        size,
    )


@contextlib.contextmanager
def _running(text: str, threads: int, log: Path) -> Iterator[int]:
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", text, str(threads)], stdout=file)
        try:
            while log.stat().st_size < 200:
                time.sleep(0.05)
            yield process.pid
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
    """What each window with a recorder was, and how it compares with the two beside it."""

    recorded: list[_Recorded]
    cpu_ratios: list[float]
    wall_ratios: list[float]

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


def _pairs(text: str, threads: int) -> _Pairs:
    found = _Pairs([], [], [])
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with _running(text, threads, log) as pid:
            end = time.monotonic() + CASE_S
            before_ns = _alone()
            while len(found.recorded) < MIN_PAIRS or (time.monotonic() < end and not found.narrow):
                number = len(found.recorded)
                recorded = _record(pid, Path(folder) / f"{number}.perfkit")
                after_ns = _alone()
                progress = _Progress.read(log)
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
                found.recorded.append(recorded)
                found.cpu_ratios.append(beside[0] / cpu - 1)
                found.wall_ratios.append(beside[1] / wall - 1)
                before_ns = after_ns
    return found


def _case(name: str, text: str, threads: int) -> list[Row]:
    pairs = _pairs(text, threads)
    cpu_ratios, wall_ratios, found = pairs.cpu_ratios, pairs.wall_ratios, pairs.recorded
    middle, low, high = _interval(cpu_ratios)
    wall, wall_low, wall_high = _interval(wall_ratios)
    own = statistics.median(each.own_cores for each in found)
    spy = statistics.median(each.spy_cores for each in found)
    title = f"{name}, {threads} threads, {_RATE} Hz"
    return [
        Row(
            f"{title}: CPU time for a unit of its work",
            f"{middle:+.1%} (95 %: {low:+.1%} to {high:+.1%}; {len(found)} windows)",
            f"the same program alone, in turn; wall time {wall:+.0%} "
            f"({wall_low:+.0%} to {wall_high:+.0%}) beside whatever else ran",
            f"{1 + middle:.3f}×",
            f"< {GOAL:.0%}",
            True if high < GOAL else False if low > GOAL else None,
        ),
        Row(
            f"{title}: perfkit's own CPU",
            f"{own:.1%} of a core",
            f"py-spy {spy:.0%} of a core for "
            f"{statistics.median(each.rate for each in found):.0f} looks a second",
            f"{own / spy:.2f}×",
            f"< {GOAL:.0%} of a core",
            own < GOAL,
        ),
        Row(
            f"{title}: bytes a sample",
            f"{sum(each.bytes for each in found) / sum(each.samples for each in found):.0f} B",
            f"{WINDOW_S:.1f} s captures, with their stacks and frames",
            "",
            "no goal",
            None,
        ),
    ]


def rows() -> list[Row]:
    """Record each program with few and with many threads."""
    return [
        row
        for name, text in (("CPU-bound program", _CPU_BOUND), ("served program", _SERVED))
        for threads in (4, 50)
        for row in _case(name, text, threads)
    ]
