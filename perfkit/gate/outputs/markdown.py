"""A summary in Markdown, as GitHub shows it beside a job and in a comment."""

from __future__ import annotations

import re
from collections.abc import Sequence

from perfkit.gate.result import Check, Result, State

_TITLES = {
    "passed": "✅ Performance gate passed",
    "failed": "❌ Performance gate failed",
    "unstable": "⚠️ Performance gate: unstable, run again",
    "error": "⛔ Performance gate could not judge",
}
_MARKS: dict[State, str] = {"failed": "❌", "error": "⛔", "unstable": "⚠️", "passed": "✅"}
_COUNTED: dict[State, str] = {"error": "could not be judged"}
_SPECIAL = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>#|~!@$&"})
_LIVE = re.compile(r"(?i)(?<=@)|(?<=#)|(?<=:)(?=//)|(?<=\bwww)(?=\.)|(?<=\bGH)(?=-\d)")
_BREAK = "<!-- -->"
"""Parts a mention, an issue's number or an address, which GitHub and GitLab look for in what was
rendered, where a backslash is gone."""
_LIST = re.compile(r"^(\d{1,9}(?=[.)](?:\s|$))|(?=[-+=]))")
_MOST_PASSED = 50
_LONGEST = 600


def write(result: Result) -> bytes:
    """Return the result as Markdown."""
    counts = [
        f"{len(result.of(state))} {_COUNTED.get(state, state)}"
        for state in _MARKS
        if result.of(state)
    ]
    lines = [f"## {_TITLES[result.verdict]}", "", f"{', '.join(counts)}; {_of(result)}.", ""]
    told = result.of("failed", "error", "unstable")
    lines += _table(told)
    if result.cause:
        told_lines = (f"- {text(line)}" for line in result.cause)
        lines += ["**What changed, and what made it**", "", *told_lines, ""]
    advice = list(dict.fromkeys(check.help for check in told if check.help))
    if advice:
        lines += ["**What to do**", "", *(f"- {text(line)}" for line in advice), ""]
    if result.warnings:
        lines += ["**Mind**", "", *(f"- {text(warning)}" for warning in result.warnings), ""]
    passed = result.of("passed")
    if passed:
        lines += [f"<details><summary>{len(passed)} passed</summary>", ""]
        lines += _table(passed[:_MOST_PASSED])
        if len(passed) > _MOST_PASSED:
            lines += [f"… and {len(passed) - _MOST_PASSED} more", ""]
        lines += ["</details>", ""]
    return "\n".join(lines).encode("utf-8", "replace")


def _of(result: Result) -> str:
    words = f"{len(result.runs)} run{'s' if len(result.runs) != 1 else ''}"
    if result.confirmed_by:
        words += f" ({result.confirmed_by} of them recorded again to confirm)"
    if result.baseline:
        words += f" against {len(result.baseline)} of the baseline, {result.tested} figures tested"
    return words


def _table(checks: Sequence[Check]) -> list[str]:
    if not checks:
        return []
    lines = ["| | check | of | result |", "|---|---|---|---|"]
    lines += [
        f"| {_MARKS[check.state]} | {text(check.name)} | {text(check.thing)} "
        f"| {text(check.message)} |"
        for check in checks
    ]
    return [*lines, ""]


def text(words: str) -> str:
    """Return text that Markdown shows as it is: nothing in it is markup, a link or a mention."""
    line = " ".join("".join(char if char.isprintable() else " " for char in words).split())
    cut = line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
    marked = _LIST.sub(r"\1\\", cut.translate(_SPECIAL))
    return _LIVE.sub(_BREAK, marked)
