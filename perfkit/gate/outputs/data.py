"""The result as JSON, and its schema (docs/check.schema.json)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, get_args

from perfkit import __version__
from perfkit.gate.result import EXIT_CODES, STATES, Check, Kind, Result, Source, Verdict

VERSION = 1
_TEXT = {"type": "string"}
_NUMBER = {"type": ["number", "null"]}
_COUNT = {"type": ["integer", "null"]}
_TEXT_OR_NULL = {"type": ["string", "null"]}

_CHECK: dict[str, dict[str, Any]] = {
    "kind": {"enum": list(get_args(Kind))},
    "name": {**_TEXT, "description": "A budget's text, a rule's id, or which figure regressed."},
    "thing": {**_TEXT, "description": "Endpoint, tool or finding; empty for all requests."},
    "state": {"enum": list(STATES)},
    "message": {**_TEXT, "description": "One sentence with the figures in it."},
    "measure": {**_TEXT, "description": "Which figure; its name says the unit."},
    "value": {**_NUMBER, "description": "Median (budget) or geometric mean over the runs."},
    "limit": {**_NUMBER, "description": "Of a budget, in the unit of the value."},
    "before": {**_NUMBER, "description": "The value of the baseline."},
    "change": {**_NUMBER, "description": "0.1 is a tenth more; a difference if not relative."},
    "low": {**_NUMBER, "description": "Lower end of the confidence interval of the change."},
    "high": {**_NUMBER, "description": "Upper end of it."},
    "relative": {"type": ["boolean", "null"]},
    "p": {**_NUMBER, "description": "Two-sided p of no change, corrected by Holm's method."},
    "detectable": {**_NUMBER, "description": "A change that is found in 95 of 100 cases."},
    "runs": {**_COUNT, "description": "Runs in which the figure or finding is."},
    "runs_before": {**_COUNT, "description": "The same of the baseline."},
    "severity": {**_TEXT, "description": "Of a rule's finding."},
    "help": {**_TEXT, "description": "What to do about it."},
    "key": {**_TEXT, "description": "Of a rule's finding: names and values that tell it apart."},
    "fingerprint": {**_TEXT, "description": "The same for the same check in every run."},
}

_SOURCE: dict[str, dict[str, Any]] = {
    "name": _TEXT,
    "id": _TEXT,
    "commit": _TEXT_OR_NULL,
    "branch": _TEXT_OR_NULL,
    "started_ns": {**_COUNT, "description": "Unix time in ns."},
}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what `perfkit check --json` writes."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "perfkit check --json",
        **_object(
            {
                "version": {"const": VERSION, "description": "Of this format."},
                "perfkit_version": _TEXT,
                "verdict": {"enum": list(get_args(Verdict))},
                "exit_code": {"type": "integer"},
                "counts": _object({state: {"type": "integer"} for state in STATES}),
                "tested": {"type": "integer", "description": "Figures compared with a baseline."},
                "confirmed_by": {
                    "type": "integer",
                    "description": "Runs that were recorded again.",
                },
                "checks": {"type": "array", "items": _object(_CHECK)},
                "runs": {"type": "array", "items": _object(_SOURCE)},
                "baseline": {"type": "array", "items": _object(_SOURCE)},
                "warnings": {"type": "array", "items": _TEXT},
                "cause": {"type": "array", "items": _TEXT},
            }
        ),
    }


def data(result: Result, exit_code: int | None = None) -> dict[str, Any]:
    """Return the result as what the schema describes."""
    return {
        "version": VERSION,
        "perfkit_version": __version__,
        "verdict": result.verdict,
        "exit_code": EXIT_CODES[result.verdict] if exit_code is None else exit_code,
        "counts": {state: len(result.of(state)) for state in STATES},
        "tested": result.tested,
        "confirmed_by": result.confirmed_by,
        "checks": [_check(check) for check in result.of(*STATES)],
        "runs": _sources(result.runs),
        "baseline": _sources(result.baseline),
        "warnings": list(result.warnings),
        "cause": list(result.cause),
    }


def _check(check: Check) -> dict[str, Any]:
    return {**asdict(check), "fingerprint": check.fingerprint}


def _sources(sources: Sequence[Source]) -> list[dict[str, Any]]:
    return [asdict(source) for source in sources]


def to_bytes(value: Any) -> bytes:
    """Return JSON as UTF-8; what is no text any more is replaced."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "replace")


def write(result: Result, exit_code: int | None = None) -> bytes:
    """Return the result as JSON."""
    return to_bytes(data(result, exit_code))
