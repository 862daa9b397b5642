"""What a recording costs the program that it watches, while it runs; and what follows from that.

Recording harms a program in two ways that can be seen from outside:

- It takes CPU time that the program wanted: of the time that the recorder ran, that in which all
  other cores were busy and somebody waited for its own. How often that was follows from how much
  of the cores' time, without the recorder's, others used; as if the cores were busy independently
  of each other. Of what others ran, the program's share stands for its share of the loss. (`make
  bench` compares this with the measured loss: 1 to 3 times as much.)
  It is no more than the program can have waited for the recorder. The kernel says for how long its
  threads waited for a core although they could run (the second number of
  /proc/PID/task/TID/schedstat), but not who had it, and threads that hand a lock to each other wait
  for moments on an idle machine too; so the recorder is charged with its share of what ran beside
  the program. Where a quota limits the program and perfkit together, all that perfkit used would
  have gone to the program.
- A blocking py-spy pauses it, for about as long as py-spy itself runs.

Not seen are caches and memory bandwidth, which are shared; `make bench` measures what they do.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perfkit.collect.sampling import Limit
from perfkit.units import percent

WINDOW_S = 4.0
# Below a tenth of a core a program has nearly all of its time to wait in: a millisecond of CPU
# more or less says nothing of it.
_MIN_RAN_RATIO = 0.1
# The rate is lowered when the cost is clearly above the budget, to below what would just do, so
# that it need not be lowered again at once; raised again when far less than that was used.
_TOLERANCE = 1.1
_AIM = 0.8
_EASY = 0.3


@dataclass(frozen=True)
class Use:
    """CPU time so far, in ns, at one moment."""

    at_ns: int
    spy_ns: int
    """Of py-spy."""
    own_ns: int
    """Of perfkit itself."""
    ran_ns: int
    """Of the program's threads."""
    waited_ns: int
    """For how long they waited for a core."""
    busy_ns: int
    """Of everything on the cores that the program may use; of the program and the recorder alone
    where a quota limits both together."""
    cores: int
    """How many cores the program may use; 0 where a quota limits it and the recorder together."""

    def since(self, before: Use) -> Use:
        """Return what was used between two moments; `at_ns` is the time between them."""
        return Use(
            self.at_ns - before.at_ns,
            max(0, self.spy_ns - before.spy_ns),
            self.own_ns - before.own_ns,
            self.ran_ns - before.ran_ns,
            self.waited_ns - before.waited_ns,
            self.busy_ns - before.busy_ns,
            self.cores,
        )

    def overhead(self, *, blocking: bool, spy_alone: bool = False) -> float:
        """Return the share of the program's speed that recording cost it, 0 to 1: an estimate.

        With `spy_alone` only what py-spy cost: that of it which a lower rate can save.
        """
        recorder_ns = self.spy_ns if spy_alone else self.spy_ns + self.own_ns
        # The clocks are not read at one instant, so that more may have run than cores were busy.
        others_ns = max(self.busy_ns - self.spy_ns - self.own_ns, self.ran_ns, 1)
        beside_ns = max(self.busy_ns - self.ran_ns, self.spy_ns + self.own_ns, 1)
        waited_for_it_ns = self.waited_ns * recorder_ns / beside_ns
        wanted_ratio = self._busy_ratio(others_ns, self.spy_ns + self.own_ns)
        taken_ns = min(wanted_ratio * recorder_ns * self.ran_ns / others_ns, waited_for_it_ns)
        wanted_ns = max(self.ran_ns + taken_ns, _MIN_RAN_RATIO * self.at_ns, 1)
        paused_ratio = self.spy_ns / max(self.at_ns, 1) if blocking else 0.0
        return min(1.0, max(taken_ns / wanted_ns, paused_ratio))

    def _busy_ratio(self, others_ns: int, recorder_ns: int) -> float:
        """Return for which share of the recorder's time others would have had work for its core."""
        left_ns = max(self.cores * self.at_ns - recorder_ns, 1)
        return min(1.0, others_ns / left_ns) ** self.cores


def cpu_ns(pid: int) -> int:
    """Return the CPU time of a process, of all its threads that were and are; 0 when it is gone."""
    try:
        # The clock id of a process as clock_getcpuclockid(3) makes it: CPUCLOCK_SCHED is 2.
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return 0


def cores_busy_ns(pid: int) -> tuple[int, int]:
    """Return for how long the cores that a process may use were not idle, and how many they are."""
    try:
        try:
            cores = os.sched_getaffinity(pid)
        except ProcessLookupError:  # it has ended: most likely it could use what we may
            cores = os.sched_getaffinity(0)
        with open("/proc/stat", encoding="ascii") as file:
            lines = [line.split() for line in file if line.startswith("cpu") and line[3] != " "]
    except OSError:
        return 0, 0
    tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
    # user, nice, system, idle, iowait, irq, softirq, steal; then guests, who count as users as well
    busy_ns = sum(
        tick_ns * sum(int(ticks) for n, ticks in enumerate(fields[1:9]) if n not in (3, 4))
        for fields in lines
        if int(fields[0][3:]) in cores
    )
    return busy_ns, len(cores)


def share_quota(pid: int) -> bool:
    """Whether a control group limits the CPU of a process and of this one together."""
    ours, theirs = _cpu_groups("self"), _cpu_groups(str(pid))
    for controller in ours.keys() & theirs.keys():
        folder = Path("/sys/fs/cgroup", controller)
        common = Path(os.path.commonpath([ours[controller], theirs[controller]]))
        for group in (common, *common.parents):
            for name in ("cpu.max", "cpu.cfs_quota_us"):  # version 2, version 1
                with contextlib.suppress(OSError, IndexError):
                    quota = (folder / group.relative_to("/") / name).read_text(encoding="ascii")
                    if quota.split()[0].isdigit():
                        return True
    return False


def _cpu_groups(pid: str) -> dict[str, str]:
    """Return the control groups that may limit CPU, by the folder of their hierarchy."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    rows = [line.split(":", 2) for line in lines.splitlines()]
    return {
        controllers: path
        for _, controllers, path in rows
        if path.startswith("/") and (not controllers or "cpu" in controllers.split(","))
    }


class Governor:
    """Lowers the rate when recording costs the program more than the budget."""

    def __init__(
        self, budget_ratio: float, pid: int, program: Callable[[], tuple[int, int]]
    ) -> None:
        """`program` returns for how long its threads ran and waited for a core so far, in ns."""
        self._budget_ratio = budget_ratio
        self._pid = pid
        self._share_quota = share_quota(pid)
        self._program = program
        self._spy_pid: int | None = None
        self._spy_ns = 0
        self._blocking = False
        self._began = self._window = self._read()
        self.limit: Limit | None = None
        self.highest_ratio = 0.0
        """The highest overhead in any window."""
        self.total = Use(0, 0, 0, 0, 0, 0, 0)
        """What was used while py-spy sampled."""
        self.exhausted = False
        """Whether even one sample a second costs more than the budget."""

    def begin(self, spy_pid: int, *, blocking: bool) -> None:
        """A py-spy samples from now on; what it needed to start is not counted."""
        self._spy_pid, self._spy_ns = spy_pid, 0
        self._blocking = blocking
        self._began = self._window = self._read()

    def end(self) -> None:
        """It is about to end. Allows more again when it cost little."""
        used = self._read().since(self._began)
        self._add(used)
        self._began = self._window = self._read()
        if self.limit is not None and used.at_ns > 2e9 * WINDOW_S:
            cost = used.overhead(blocking=self._blocking)
            if cost < _EASY * self._budget_ratio:
                self.limit = Limit(2 * self.limit.rate, "raised again, as it costs little")

    def over_budget(self, rate: int) -> bool:
        """Look, once per window, whether `rate` is too much; then `limit` says what to do."""
        self._read_spy()
        if time.monotonic_ns() - self._window.at_ns < WINDOW_S * 1e9:
            return False
        now = self._read()
        used = now.since(self._window)
        self._window = now
        cost = used.overhead(blocking=self._blocking)
        self.highest_ratio = max(self.highest_ratio, cost)
        if cost <= _TOLERANCE * self._budget_ratio:
            return False
        spy_cost = used.overhead(blocking=self._blocking, spy_alone=True)
        # perfkit's own part does not depend on the rate; py-spy may have a quarter in any case.
        own_cost = max(0.0, cost - spy_cost)
        allowed = max(self._budget_ratio - own_cost, self._budget_ratio / 4)
        if spy_cost <= allowed:
            return False
        if rate == 1:
            self.exhausted = spy_cost > self._budget_ratio
            return self.exhausted
        lower = max(1, min(rate - 1, int(rate * _AIM * allowed / spy_cost)))
        self.limit = Limit(
            lower,
            f"{rate}/s cost up to {percent(cost)} of the program's speed, "
            f"more than {percent(self._budget_ratio)} (--max-overhead)",
        )
        return True

    def lagged(self, rate: int) -> None:
        """py-spy could not keep up with `rate`."""
        self.limit = Limit(max(1, rate // 2), "py-spy could not keep up with more")

    def describe(self) -> dict[str, int | float]:
        """Return what recording cost, for `capture.json`."""
        total = self.total
        return {
            "budget_ratio": self._budget_ratio,
            "mean_ratio": round(total.overhead(blocking=self._blocking), 4),
            "highest_ratio": round(self.highest_ratio, 4),
            "py_spy_cpu_ns": total.spy_ns,
            "perfkit_cpu_ns": total.own_ns,
            "program_ran_ns": total.ran_ns,
            "program_waited_ns": total.waited_ns,
            "cores_busy_ns": total.busy_ns,
            "duration_ns": total.at_ns,
        }

    def _add(self, used: Use) -> None:
        total = self.total
        self.total = Use(
            total.at_ns + used.at_ns,
            total.spy_ns + used.spy_ns,
            total.own_ns + used.own_ns,
            total.ran_ns + used.ran_ns,
            total.waited_ns + used.waited_ns,
            total.busy_ns + used.busy_ns,
            used.cores,
        )

    def _read_spy(self) -> int:
        if self._spy_pid is not None:
            # It may end by itself: then what was read last counts.
            self._spy_ns = max(self._spy_ns, cpu_ns(self._spy_pid))
        return self._spy_ns

    def _read(self) -> Use:
        ran_ns, waited_ns = self._program()
        spy_ns, own_ns = self._read_spy(), time.process_time_ns()
        busy_ns, cores = (
            (ran_ns + spy_ns + own_ns, 0) if self._share_quota else cores_busy_ns(self._pid)
        )
        return Use(time.monotonic_ns(), spy_ns, own_ns, ran_ns, waited_ns, busy_ns, cores)
