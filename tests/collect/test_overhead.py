"""What recording costs is never said to be less than can be known, and the rate follows it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.collect.overhead import Governor, Use, cores_busy_ns, cpu_ns
from perfkit.collect.sampling import Limit

SECOND = 10**9
NS = st.integers(0, 100 * SECOND)


@given(
    at=st.integers(SECOND, 100 * SECOND),
    spy=NS,
    own=NS,
    ran=NS,
    waited=NS,
    busy=NS,
    cores=st.integers(0, 64),
)
def test_the_cost_is_between_nothing_and_what_the_recorder_used(
    at: int, spy: int, own: int, ran: int, waited: int, busy: int, cores: int
) -> None:
    use = Use(at, spy, own, ran, waited, busy, cores)
    cost = use.overhead(blocking=False)
    assert 0 <= cost <= 1
    assert use.overhead(blocking=False, spy_alone=True) <= cost
    assert use.overhead(blocking=True) >= cost
    # Without waiting nothing was taken; more waiting never makes it less.
    assert replace(use, waited_ns=0).overhead(blocking=False) == 0
    assert replace(use, waited_ns=waited + SECOND).overhead(blocking=False) >= cost
    # Were there more cores, more of them would have been free; a quota leaves none.
    assert replace(use, cores=cores + 1).overhead(blocking=False) <= cost or cores == 0
    assert replace(use, cores=0).overhead(blocking=False) >= cost


@pytest.mark.parametrize(
    ("use", "blocking", "cost"),
    [
        # A program that wants a core and shares it: it ran 9 s, the recorder 1 s meanwhile.
        (Use(10 * SECOND, SECOND, 0, 9 * SECOND, SECOND, 10 * SECOND, 1), False, 0.1),
        # It shares the core with another program: only half of what was used was its own.
        (Use(10 * SECOND, SECOND, 0, 9 * SECOND // 2, 5 * SECOND, 10 * SECOND, 1), False, 0.1),
        # It waited less than the recorder used.
        (Use(10 * SECOND, 5 * SECOND, 0, 9 * SECOND, SECOND, 14 * SECOND, 1), False, 0.1),
        # It waited for others mostly: of what ran beside it, the recorder was a tenth.
        (Use(10 * SECOND, SECOND, 0, 9 * SECOND, SECOND, 19 * SECOND, 2), False, 0.1 / 9.1),
        # Two cores, all busy: what the recorder used was missing.
        (Use(10 * SECOND, SECOND, 0, 19 * SECOND, 5 * SECOND, 20 * SECOND, 2), False, 1 / 20),
        # Others used half of what it left of two cores: both were busy a quarter of the time.
        (Use(10 * SECOND, 2 * SECOND, 0, 9 * SECOND, 9 * SECOND, 11 * SECOND, 2), False, 1 / 19),
        # Free cores: py-spy's half of a core is no cost.
        (Use(10 * SECOND, 5 * SECOND, 0, 10 * SECOND, 0, 15 * SECOND, 2), False, 0),
        # A quota for both together: all that the recorder used was missing.
        (Use(10 * SECOND, SECOND, 0, 4 * SECOND, 5 * SECOND, 5 * SECOND, 0), False, 0.2),
        # A pause is one even with free cores.
        (Use(10 * SECOND, 5 * SECOND, 0, 5 * SECOND, 0, 10 * SECOND, 2), True, 0.5),
        # A program that hardly runs: a ms of waiting is not half of its speed.
        (Use(10 * SECOND, SECOND, 0, SECOND // 1000, SECOND // 1000, SECOND, 0), False, 1e-3),
    ],
)
def test_cost_in_known_cases(use: Use, blocking: bool, cost: float) -> None:
    assert use.overhead(blocking=blocking) == pytest.approx(cost)


def test_a_program_that_has_ended_leaves_its_cores_countable() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as program:
        program.wait()
    busy_ns, cores = cores_busy_ns(program.pid)
    assert cores == len(os.sched_getaffinity(0))
    assert busy_ns > 0


class Machine:
    """A machine with one core, on which a program always wants to run; all time is simulated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost_per_sample_ns: int) -> None:
        self.now = self.spy = self.own = self.ran = self.waited = 0
        self.cost_per_sample_ns = cost_per_sample_ns
        self.governor = Governor(0.02, os.getpid(), lambda: (self.ran, self.waited))
        monkeypatch.setattr(self.governor, "_read", self.read)
        monkeypatch.setattr("perfkit.collect.overhead.time.monotonic_ns", lambda: self.now)
        self.governor.begin(1, blocking=False)

    def read(self) -> Use:
        busy = self.spy + self.own + self.ran
        return Use(self.now, self.spy, self.own, self.ran, self.waited, busy, 1)

    def run(self, seconds: int, rate: int, *, busy: bool = True) -> bool:
        """Let time pass; whether the governor wants another rate."""
        for _ in range(seconds):
            used = rate * self.cost_per_sample_ns
            self.now += SECOND
            self.spy += used
            if busy:
                self.ran += SECOND - used
                self.waited += used
            if self.governor.over_budget(rate):
                return True
        return False


def test_the_rate_is_lowered_until_the_cost_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, cost_per_sample_ns=2_000_000)
    assert not machine.run(3, 100), "one window is needed to judge"
    assert machine.run(2, 100)
    limit = machine.governor.limit
    assert limit is not None
    assert 5 <= limit.rate <= 10  # 10/s cost 2 %
    assert "20 % of the program's speed" in limit.why
    assert not machine.run(60, limit.rate)
    assert not machine.governor.exhausted
    machine.governor.end()
    cost = machine.governor.describe()
    assert cost["highest_ratio"] == pytest.approx(0.2)
    assert cost["program_ran_ns"] == machine.ran
    assert cost["py_spy_cpu_ns"] == machine.spy


def test_free_cores_leave_the_rate_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, cost_per_sample_ns=5_000_000)
    assert not machine.run(60, 100, busy=False)
    assert machine.governor.limit is None


def test_stacks_end_when_even_one_look_a_second_is_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, cost_per_sample_ns=100_000_000)
    assert machine.run(10, 5)
    assert machine.governor.limit is not None
    assert machine.governor.limit.rate == 1
    assert machine.run(10, 1)
    assert machine.governor.exhausted


def test_it_is_raised_again_when_it_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, cost_per_sample_ns=2_000_000)
    machine.governor.limit = Limit(8, "it was costly")
    machine.run(30, 8, busy=False)
    machine.governor.end()
    assert machine.governor.limit.rate == 16
    machine.governor.begin(1, blocking=False)
    machine.run(30, 8)
    machine.governor.end()
    assert machine.governor.limit.rate == 16


def test_perfkits_own_part_does_not_drive_the_rate_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, cost_per_sample_ns=1_000)
    for _ in range(10):
        machine.own += SECOND // 10
        machine.waited += SECOND // 10
        assert not machine.run(1, 10)
    assert machine.governor.highest_ratio > 0.02


def test_cpu_time_of_another_process() -> None:
    code = "print(1, flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            before = cpu_ns(process.pid)
            deadline = time.monotonic() + 60
            while cpu_ns(process.pid) < before + SECOND // 5:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            process.kill()
    assert cpu_ns(process.pid) == 0
