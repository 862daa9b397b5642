"""Chooses how py-spy samples, so that it does not harm what it watches."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_RATE = 100
_MIN_RATE = 5

# py-spy needs 0.3 to 0.7 ms of CPU for the stack of one thread. Measured, it keeps up with 600 to
# 1,000 stacks a second, about a third of a core. Where there are few cores, the program needs them
# itself, so less: these two figures are ours.
_STACKS_PER_SECOND = {1: 200, 2: 400}
_STACKS_PER_SECOND_MAX = 600


@dataclass(frozen=True)
class Settings:
    """How py-spy is run, and why so."""

    rate: int
    """Stacks of every thread, a second."""
    blocking: bool
    """Whether the program is paused while its stacks are read."""
    subprocesses: bool
    reasons: tuple[str, ...]

    def arguments(self) -> list[str]:
        """Return the settings as arguments of `py-spy record`."""
        flags = ["--rate", str(self.rate)]
        flags += [] if self.blocking else ["--nonblocking"]
        return flags + (["--subprocesses"] if self.subprocesses else [])


def choose(
    *,
    threads: int,
    cores: int,
    subprocesses: bool,
    rate: int | None = None,
    blocking: bool = False,
    slowdown: int = 1,
) -> Settings:
    """Choose the settings for a program of `threads` threads (over all of its processes).

    `rate` is what the user asked for; `slowdown` divides what we would choose, after py-spy could
    not keep up. The program is not paused unless `blocking`: measured at 100 Hz, pausing costs the
    program 8 % with one thread, 23 % with four and half of its speed with nine, while reading
    without a pause costs nothing beside py-spy's own CPU, but misreads a few stacks of code that
    calls and returns within microseconds (up to 5 % of the time in a program that does only that;
    py-spy notices and drops most of those samples).
    """
    reasons: list[str] = []
    budget = _STACKS_PER_SECOND.get(cores, _STACKS_PER_SECOND_MAX)
    affordable = max(_MIN_RATE, budget // max(threads, 1))
    if rate is not None:
        chosen = rate
        reasons.append(f"rate {rate}/s as asked for")
        if rate * threads > _STACKS_PER_SECOND_MAX:
            reasons.append(f"more than py-spy can keep up with for {threads} threads")
    else:
        chosen = max(_MIN_RATE, min(DEFAULT_RATE, affordable) // slowdown)
        if affordable < DEFAULT_RATE:
            reasons.append(
                f"rate {chosen}/s: {threads} threads on {cores} cores, "
                f"at most {budget} stacks a second"
            )
        if slowdown > 1:
            reasons.append(f"rate divided by {slowdown} because py-spy could not keep up")
    reasons.append(
        "blocking as asked for: the program is paused for every sample"
        if blocking
        else "nonblocking: the program is never paused"
    )
    if subprocesses:
        reasons.append("with the processes below it")
    return Settings(chosen, blocking, subprocesses, tuple(reasons))
