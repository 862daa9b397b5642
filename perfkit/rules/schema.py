"""The JSON Schema of a rule file, with which an editor completes and checks it.

It says what can be said about the form; whether SQL, columns and texts fit together, only
`perfkit rules lint` knows.
"""

from __future__ import annotations

from typing import Any

from perfkit.analysis.replay import mends
from perfkit.rules import fields, load, messages, what_if
from perfkit.rules.model import EFFORTS, IMPACT_COLUMNS, SEVERITIES, STATUSES
from perfkit.rules.software import NAMES

_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_SLOTS = (
    f"Text with {{column:spec}}; specs: {', '.join(messages.SPECS)}. "
    "A part in [[ … ]] is left out when one of its values is missing."
)
_MESSAGE = {**_TEXT, "description": _SLOTS}
_NAME = "^[a-z][a-z0-9_]*$"


def _sql(description: str) -> dict[str, Any]:
    return {"type": ["string", "number", "boolean"], "description": description}


def _list(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


def _map(required: tuple[str, ...], properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
        **more,
    }


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one rule file."""
    tables = sorted(load.known_tables())
    properties: dict[str, Any] = {
        "id": {
            "type": "string",
            "pattern": load.ID_PATTERN,
            "description": "group.name, as the file",
        },
        "title": {**_TEXT, "description": "The problem that the rule looks for, in a few words"},
        "category": {**_TEXT, "description": "The group: database, pools, python …"},
        "status": {"enum": list(STATUSES)},
        "requires": {
            "type": "object",
            "propertyNames": {"enum": tables},
            "additionalProperties": _list(_TEXT),
            "description": "Tables and columns without which the rule is not applicable",
        },
        "params": {
            "type": "object",
            "propertyNames": {"pattern": _NAME},
            "additionalProperties": _param(),
        },
        "query": {
            **_TEXT,
            "description": "One SELECT with ORDER BY: one row is one suspicion. :name is a "
            f"parameter. Tables: {', '.join(tables)}",
        },
        "derive": {
            "type": "object",
            "propertyNames": {"pattern": _NAME},
            "additionalProperties": _sql("SQL expression over the columns so far"),
            "required": ["confidence"],
            "description": "More columns; confidence (0 to 1) must be one of them",
        },
        "what_if": _what_if(),
        "risk": _MESSAGE,
        "severity": _list(
            _map(
                ("is",),
                {"when": _sql("SQL condition"), "is": {"enum": list(SEVERITIES)}},
            ),
            minItems=1,
            description="The first line that holds decides; the last has no condition. "
            f"May use {' and '.join(IMPACT_COLUMNS)}",
        ),
        "key": _list(_TEXT, description="Columns by which the finding is recognised later"),
        "headline": {**_MESSAGE, "description": f"What to do, as an order. {_SLOTS}"},
        "message": {**_MESSAGE, "description": f"What was seen, in numbers. {_SLOTS}"},
        "why": _MESSAGE,
        "fix": _fix(),
        "false_positives": _list(_TEXT),
        "references": _list(
            _map(("title", "url"), {"title": _TEXT, "url": {**_TEXT, "pattern": "^https://"}})
        ),
        "tests": _list(_test(tables)),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A perfkit rule",
        **_map(load.REQUIRED, properties),
    }


def _param() -> dict[str, Any]:
    return _map(
        ("default", "unit", "source"),
        {
            "default": {"type": ["number", "string"]},
            "unit": {"enum": list(fields.UNITS)},
            "source": {**_TEXT, "description": "Where the number comes from; ours: house"},
        },
    )


def _what_if() -> dict[str, Any]:
    subjects = {
        "rows": {
            **_TEXT,
            "description": "SELECT finding, row: the spans that the fix changes; with lifetime, "
            "also the columns by which calls are equal",
        },
        "times": {
            **_TEXT,
            "description": f"SELECT finding, {', '.join(mends.TIMES)}: times on threads that "
            "the fix frees",
        },
        "code": {
            "enum": list(what_if.CODE),
            "description": "The time of the finding's function and file, in all or by itself",
        },
    }
    return _map(
        (),
        {
            **subjects,
            "factor_low": _sql("What stays of the own time at best, 0 to 1"),
            "factor_high": _sql("What stays of the own time at worst, 0 to 1"),
            "lifetime": _sql("How long a cache keeps an answer, in ns; the rows are its calls"),
            "places": _sql("How many places the rows would wait for, as connections of a pool"),
            "places_now": _sql("How many there are; taken from what is used at once if not given"),
            **{name: {"type": "boolean"} for name in what_if.FLAGS},
        },
    )


def _fix() -> dict[str, Any]:
    setting = _map(
        ("software", "name", "value"),
        {
            "software": {"enum": list(NAMES)},
            "name": _TEXT,
            "value": _MESSAGE,
            "when": _sql("SQL condition"),
        },
    )
    step = _map(("software", "step"), {"software": {"enum": list(NAMES)}, "step": _MESSAGE})
    return _map(
        ("summary", "effort", "steps", "verify"),
        {
            "summary": _MESSAGE,
            "effort": {"enum": list(EFFORTS)},
            "steps": _list({"anyOf": [_MESSAGE, step]}),
            "settings": _list(setting),
            "verify": _map(("metric", "expect"), {"metric": _MESSAGE, "expect": _MESSAGE}),
        },
    )


def _test(tables: list[str]) -> dict[str, Any]:
    finding = _map(
        ("severity",),
        {
            "severity": {"enum": list(SEVERITIES)},
            "says": _list(_TEXT),
            "key": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    )
    return _map(
        ("name", "tables", "expect"),
        {
            "name": _TEXT,
            "tables": {
                "type": "object",
                "propertyNames": {"enum": tables},
                "additionalProperties": _list({"type": "object"}),
            },
            "expect": {"anyOf": [{"enum": ["quiet", "not_applicable"]}, _list(finding)]},
        },
    )
