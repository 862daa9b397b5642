"""Chooses how py-spy samples, so that it does not harm what it watches."""

from __future__ import annotations

from dataclasses import dataclass

from perfkit.errors import UsageError

DEFAULT_RATE = 100
DEFAULT_MAX_OVERHEAD_RATIO = 0.02
_MIN_RATE = 5

# py-spy needs 0.3 to 0.7 ms of CPU for the stack of one thread. Measured, it keeps up with 600 to
# 1,000 stacks a second, about a third of a core. Where there are few cores, the program needs them
# itself, so less: these two figures are ours.
_STACKS_PER_SECOND = {1: 200, 2: 400}
_STACKS_PER_SECOND_MAX = 600


@dataclass(frozen=True)
class Wishes:
    """What the user asked for; where that is null, perfkit chooses."""

    rate: int | None = None
    """Samples of each thread a second, to begin with."""
    blocking: bool | None = None
    """Pause the program while its stacks are read."""
    native: bool = False
    """Also the C and C++ frames below the Python ones."""
    subprocesses: bool | None = None
    idle: bool = True
    """Keep the time in which threads waited."""
    gil: bool = True
    """Note which thread holds the interpreter's lock."""
    max_overhead_ratio: float = DEFAULT_MAX_OVERHEAD_RATIO
    """Share of the program's speed that recording may cost; see `overhead.py`."""

    def check(self) -> None:
        """Raise UsageError when they contradict each other."""
        if self.native and self.blocking is False:
            raise UsageError(
                "--native needs the program paused for each sample",
                hint="leave out --nonblocking, or --native",
            )


@dataclass(frozen=True)
class Settings:
    """How py-spy is run, and why so."""

    rate: int
    """Stacks of every thread, a second."""
    blocking: bool
    """Whether the program is paused while its stacks are read."""
    native: bool
    subprocesses: bool
    reasons: tuple[str, ...]

    def arguments(self) -> list[str]:
        """Return the settings as arguments of `py-spy record`."""
        flags = ["--rate", str(self.rate)]
        flags += [] if self.blocking else ["--nonblocking"]
        flags += ["--native"] if self.native else []
        return flags + (["--subprocesses"] if self.subprocesses else [])


@dataclass(frozen=True)
class Limit:
    """A rate that must not be passed, because of what was seen while recording."""

    rate: int
    why: str


def choose(
    *,
    threads: int,
    cores: int,
    subprocesses: bool,
    wishes: Wishes,
    limit: Limit | None = None,
) -> Settings:
    """Choose the settings for a program of `threads` threads (over all of its processes).

    The program is not paused unless the user wishes it: measured at 100 Hz, pausing costs the
    program 8 % with one thread, 23 % with four and half of its speed with nine, while reading
    without a pause costs nothing beside py-spy's own CPU, but misreads a few stacks of code that
    calls and returns within microseconds (up to 5 % of the time in a program that does only that;
    py-spy notices and drops most of those samples).
    """
    reasons: list[str] = []
    budget = _STACKS_PER_SECOND.get(cores, _STACKS_PER_SECOND_MAX)
    affordable = max(_MIN_RATE, budget // max(threads, 1))
    chosen = wishes.rate or min(DEFAULT_RATE, affordable)
    if limit is not None and limit.rate < chosen:
        chosen = limit.rate
        reasons.append(f"rate {chosen}/s: {limit.why}")
    elif wishes.rate is not None:
        reasons.append(f"rate {chosen}/s as asked for")
    elif chosen < DEFAULT_RATE:
        reasons.append(
            f"rate {chosen}/s: {threads} threads on {cores} cores, at most {budget} stacks a second"
        )
    if chosen * threads > _STACKS_PER_SECOND_MAX and chosen > _MIN_RATE:
        reasons.append(f"more than py-spy can keep up with for {threads} threads")
    blocking = bool(wishes.blocking) or wishes.native
    if not blocking:
        reasons.append("nonblocking: the program is never paused")
    elif wishes.native:
        reasons.append("with native frames, so the program is paused for every sample")
    else:
        reasons.append("blocking as asked for: the program is paused for every sample")
    if subprocesses:
        reasons.append("with the processes below it")
    return Settings(chosen, blocking, wishes.native, subprocesses, tuple(reasons))
