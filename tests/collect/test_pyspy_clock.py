"""The moment at which py-spy's clock began, found in the memory of a process."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.collect import pyspy_clock
from perfkit.collect.pyspy import PySpy
from perfkit.collect.sampling import Settings
from perfkit.formats import chrometrace
from tests.collect.programs import PYTHON, script, skip_without_own_ptrace

SECOND = 10**9
KEEPS = """
import struct, sys
kept = bytearray(4096)
for place, moment in enumerate(map(int, sys.argv[1:])):
    struct.pack_into("=qI", kept, 64 * place, *divmod(moment, 10**9))
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def process_with(*moments: int) -> Iterator[int]:
    """Yield the pid of a process that has these moments in its memory."""
    command = [sys.executable, "-c", KEEPS, *map(str, moments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.stdin.close()


def test_the_earliest_moment_of_the_time_is_found_in_another_process() -> None:
    skip_without_own_ptrace()
    # Far beyond what clocks of this machine say, so that nothing else has it.
    base = 7_000_000_000 * SECOND
    with process_with(
        base + 900_000, base + 2 * SECOND, base + SECOND + 500_000, base + 499_999
    ) as pid:
        assert pyspy_clock.began_ns(pid, base + 500_000, base + 2 * SECOND) == base + 900_000
        assert (
            pyspy_clock.began_ns(pid, base + 900_001, base + 2 * SECOND) == base + SECOND + 500_000
        )
        assert pyspy_clock.began_ns(pid, base + 3 * SECOND, base + 5 * SECOND) is None


def test_of_a_process_that_is_gone_nothing_is_found() -> None:
    with process_with() as pid:
        pass
    assert pyspy_clock.began_ns(pid, 0, SECOND) is None


@given(
    words=st.lists(st.one_of(st.integers(0, 4), st.integers(0, 2**64 - 1)), max_size=40),
    since=st.integers(0, 3 * SECOND),
    length=st.integers(0, 2 * SECOND),
)
def test_moments_are_those_of_a_slow_search(words: list[int], since: int, length: int) -> None:
    data = struct.pack(f"={len(words)}Q", *words)
    slow = [
        words[place] * SECOND + rest
        for place in range(len(words) - 1)
        if 1 << 16 <= (rest := words[place + 1] & 0xFFFFFFFF) < SECOND
        and since <= words[place] * SECOND + rest <= since + length
    ]
    assert sorted(pyspy_clock._moments(data, since, since + length)) == sorted(slow)


@pytest.mark.real
@pytest.mark.parametrize("subprocesses", [False, True])
def test_a_change_is_seen_after_it_happened_and_before_long(
    tmp_path: Path, subprocesses: bool
) -> None:
    skip_without_own_ptrace()
    log = tmp_path / "log"
    program = """
        import sys, time
        def one(): time.sleep(0.05)
        def other(): time.sleep(0.05)
        with open(sys.argv[1], "w") as log:
            end = time.monotonic() + 8
            while time.monotonic() < end:
                print(time.monotonic_ns(), file=log); one()
                print(time.monotonic_ns(), file=log); other()
    """
    with subprocess.Popen([PYTHON, script(tmp_path, program), str(log)]) as process:
        time.sleep(0.5)
        spy = PySpy(process.pid, Settings(100, False, False, subprocesses, ()), tmp_path / "t", [])
        assert spy.wait_ready(15)
        time.sleep(5)
        spy.interrupt()
        assert spy.finish()
    assert spy.clock_began_ns is not None
    changes = [int(line) for line in log.read_text().split()]
    events = chrometrace.load((tmp_path / "t").read_bytes()).events
    seen = [
        spy.clock_began_ns + round(event.ts * 1000)
        for event in events
        if event.ph == "B" and event.name in ("one", "other")
    ]
    late = [at - max(change for change in changes if change <= at) for at in seen]
    # Looks are at random moments, 10 ms apart on average: of so many some come right after one.
    assert len(late) > 50
    assert min(late) < 3_000_000
    assert sorted(late)[len(late) // 2] < 25_000_000
