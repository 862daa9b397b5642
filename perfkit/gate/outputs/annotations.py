"""Workflow commands of GitHub: what failed stands at the top of the job's page.

A job shows ten errors and ten warnings of a step, so the worst ten of each are written. Format:
https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

from perfkit.gate.result import Check, Result, State

_COMMANDS: dict[State, str] = {"failed": "error", "error": "error", "unstable": "warning"}
_MOST = 10


def write(result: Result) -> bytes:
    """Return a line for each check that did not pass."""
    lines: list[str] = []
    for command in ("error", "warning"):
        states = [state for state, name in _COMMANDS.items() if name == command]
        lines += [_line(command, check) for check in result.of(*states)[:_MOST]]
    return "".join(lines).encode("utf-8", "replace")


def _line(command: str, check: Check) -> str:
    # A rule's message begins with its title, and its thing is a key that nobody reads.
    name = check.name if check.kind == "rule" else f"{check.name} {check.thing}".strip()
    title = _escaped(f"perfkit: {name}").replace(":", "%3A").replace(",", "%2C")
    text = f"{check.message} {check.help}".strip()
    return f"::{command} title={title}::{_escaped(text)}\n"


def _escaped(text: str) -> str:
    """A line end would begin a command of whoever named an endpoint."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
