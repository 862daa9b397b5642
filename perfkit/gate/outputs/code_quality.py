"""GitLab's Code Quality report: one issue for each check that did not pass.

https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
"""

from __future__ import annotations

from perfkit.gate.outputs.data import to_bytes
from perfkit.gate.result import Check, Result

_OF_SEVERITY = {"high": "critical", "medium": "major", "low": "minor", "info": "info"}
_OF_STATE = {"failed": "major", "error": "blocker", "unstable": "info"}


def write(result: Result, config: str = "perfkit.yaml") -> bytes:
    """Return the report; its issues are at the first line of `config`."""
    return to_bytes(
        [
            {
                "type": "issue",
                "check_name": check.name,
                "description": _about(check),
                "categories": ["Performance"],
                "severity": _severity(check),
                "fingerprint": check.fingerprint,
                "location": {"path": config, "lines": {"begin": 1}},
            }
            for check in result.of("failed", "error", "unstable")
        ]
    )


def _about(check: Check) -> str:
    about = f"{check.name} [{check.thing}]" if check.thing else check.name
    text = f"{about}: {check.message}" + (" (unstable)" if check.state == "unstable" else "")
    return "".join(char if char.isprintable() else " " for char in text)


def _severity(check: Check) -> str:
    if check.state == "failed" and check.severity:
        return _OF_SEVERITY[check.severity]
    return _OF_STATE[check.state]
