"""When threads ran: the log that the recorder writes. `threadstates.py` reads it.

The log is rows of three little-endian int64: time (monotonic ns), subject, value. The value is

* `busy_ns >= 0`: how long thread `subject` has run on a CPU since it began (the first number of
  /proc/PID/task/TID/schedstat). Points in which nothing changed are left out, so between two points
  of a thread nothing else is known;
* the same of a negative subject: for how long process `-subject` has run beyond what was read of
  its threads: in those that began and ended between two looks, and in others after their last;
* `DIED`: thread `subject` was gone;
* `POLLED`: from now on the threads of process `subject` are watched;
* `TICK`: a look at all watched threads was taken (`subject` is 0);
* `GIL_WATCHED`: from now on every look also says who holds the interpreter's lock (GIL) of process
  `subject`;
* `GIL_HELD`: at that look thread `subject` held it;
* `RUNS`, `SLEEPS`: what thread `subject` did at that very moment, of a thread that ran for a part
  of the time since the last look. One that mostly waits for a core is left out.
"""

from __future__ import annotations

from array import array

DIED, POLLED, TICK, GIL_WATCHED, GIL_HELD, RUNS, SLEEPS = -1, -2, -3, -4, -5, -6, -7
ROW_BYTES = 24


class ThreadLogWriter:
    """Collects rows of the log as bytes."""

    def __init__(self) -> None:
        self._rows = array("q")

    def add(self, time_ns: int, subject: int, value: int) -> None:
        """Add one row."""
        self._rows.extend((time_ns, subject, value))

    def take(self) -> bytes:
        """Return and forget the rows collected so far."""
        data, self._rows = self._rows.tobytes(), array("q")
        return data
