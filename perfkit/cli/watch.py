"""Looking at something again and again: rewritten in place on a terminal, in turn in a pipe."""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout

import click

from perfkit.errors import CaptureError
from perfkit.units import duration, timestamp

_SHARE = 4
"""Looking takes at most one part in so many of a core's time: the rest is the program's."""
_MOST_FAILURES = 5
_HOME, _REST_OF_LINE, _BELOW, _ALL = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"


def watch(look: Callable[[], bool], every_s: float) -> None:
    """Call `look`, which prints and says whether to go on, every so many seconds or less often.

    On a terminal what it prints is cut to the screen; the last look is printed in full. Raises what
    `look` raises; a capture that changes under its hands gets some more tries.
    """
    on_terminal = sys.stdout.isatty()
    click.get_current_context().color = on_terminal
    failures = 0
    if on_terminal:
        sys.stdout.write(_ALL)
    try:
        while True:
            began = time.monotonic()
            try:
                lines, goes_on = _looked(look)
                failures = 0
            except (CaptureError, OSError) as error:
                # A ring drops its oldest parts, a writer compacts: the next look finds it done.
                failures += 1
                if failures == _MOST_FAILURES or _is_absent(error):
                    raise
                time.sleep(every_s)
                continue
            took_s = time.monotonic() - began
            pause_s = max(every_s, _SHARE * took_s)
            _print(lines, pause_s, goes_on, on_terminal)
            if not goes_on:
                return
            time.sleep(max(0.0, pause_s - took_s))
    except KeyboardInterrupt:
        sys.stdout.write("\n")


def _is_absent(error: Exception) -> bool:
    return isinstance(error, CaptureError) and "no such capture" in error.message


def _looked(look: Callable[[], bool]) -> tuple[list[str], bool]:
    buffer = io.StringIO()
    with redirect_stdout(buffer):
        goes_on = look()
    return buffer.getvalue().rstrip("\n").split("\n"), goes_on


def _cut(line: str, columns: int) -> str:
    plain = click.unstyle(line)
    return line if len(plain) <= columns else plain[:columns]


def _print(lines: list[str], pause_s: float, goes_on: bool, on_terminal: bool) -> None:
    if not on_terminal:
        if goes_on:
            lines = [f"--- {timestamp(time.time_ns())}", *lines, ""]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        return
    if goes_on:
        columns, rows = shutil.get_terminal_size((80, 24))
        # A line that is too long would take two, and push the first off the screen.
        shown = [_cut(line, columns) for line in lines[: rows - 1]]
        hidden = len(lines) - len(shown)
        more = f"; {hidden} lines more without --watch" if hidden else ""
        every = duration(round(pause_s * 1e9))
        shown.append(
            _cut(f"{timestamp(time.time_ns())[11:19]}, every {every}; ^C to end{more}", columns)
        )
        text = "".join(f"{line}{_REST_OF_LINE}\n" for line in shown).rstrip("\n")
        sys.stdout.write(f"{_HOME}{text}{_BELOW}")
    else:
        sys.stdout.write(f"{_HOME}{_BELOW}" + "\n".join(lines) + "\n")
    sys.stdout.flush()
