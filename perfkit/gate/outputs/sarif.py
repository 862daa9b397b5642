"""SARIF 2.1.0, for code scanning: one result for each check that did not pass.

A slow endpoint has no line of code. Results are at the file that sets the limits, or at
perfkit.yaml where there is none, because readers (GitHub) drop results without a place; the
endpoint is their logical location.
"""

from __future__ import annotations

from typing import Any

from perfkit import __version__
from perfkit.gate.outputs.data import to_bytes
from perfkit.gate.result import Check, Result

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_LEVELS = {"failed": "error", "error": "error", "unstable": "warning"}
_OF_SEVERITY = {"high": "error", "medium": "warning", "low": "note", "info": "note"}
_RULES = {
    "budget": ("A budget is not kept", "A figure of the recorded runs is beyond its limit."),
    "regression": (
        "Slower than the baseline",
        "A figure is worse than in the baseline, beyond the noise between runs.",
    ),
}


def write(result: Result, exit_code: int, config: str = "perfkit.yaml") -> bytes:
    """Return the result as SARIF; `config` is the file that the results point at."""
    checks = result.of("failed", "error", "unstable")
    rules = list(dict.fromkeys(_rule_id(check) for check in checks))
    log = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "perfkit",
                        "version": __version__,
                        "rules": [
                            _rule(rule, [one for one in checks if _rule_id(one) == rule])
                            for rule in rules
                        ],
                    }
                },
                "automationDetails": {"id": "perfkit/check/"},
                "invocations": [
                    {
                        "executionSuccessful": result.verdict != "error",
                        "exitCode": exit_code,
                        "toolExecutionNotifications": [
                            {"level": "warning", "message": {"text": _clean(warning)}}
                            for warning in result.warnings
                        ],
                    }
                ],
                "results": [_result(check, rules, config) for check in checks],
            }
        ],
    }
    return to_bytes(log)


def _rule_id(check: Check) -> str:
    return check.name if check.kind == "rule" else f"perfkit/{check.kind}"


def _rule(rule: str, checks: list[Check]) -> dict[str, Any]:
    one = checks[0]
    title, description = _RULES.get(one.kind, (one.message.split(". ")[0], one.message))
    text = one.help or description
    return {
        "id": rule,
        "name": "".join(part.capitalize() for part in rule.replace(".", "-").split("-")),
        "shortDescription": {"text": _sentence(title)},
        "fullDescription": {"text": _sentence(description)},
        "help": {"text": _sentence(text)},
        "defaultConfiguration": {"level": _level(one)},
    }


def _level(check: Check) -> str:
    if check.state == "failed" and check.severity:
        return _OF_SEVERITY[check.severity]
    return _LEVELS[check.state]


def _result(check: Check, rules: list[str], config: str) -> dict[str, Any]:
    about = f"{check.name} [{check.thing}]" if check.thing else check.name
    place: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": config},
            "region": {"startLine": 1},
        }
    }
    if check.thing:
        place["logicalLocations"] = [{"name": _clean(check.thing), "kind": "resource"}]
    return {
        "ruleId": _rule_id(check),
        "ruleIndex": rules.index(_rule_id(check)),
        "level": _level(check),
        "message": {"text": _sentence(f"{about}: {check.message}")},
        "locations": [place],
        "partialFingerprints": {"perfkit/v1": check.fingerprint},
    }


def _sentence(text: str) -> str:
    clean = _clean(text).strip()
    return clean if clean.endswith((".", "!", "?")) else clean + "."


def _clean(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
