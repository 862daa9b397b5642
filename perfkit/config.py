"""The configuration file `perfkit.yaml`: defaults for the options of each command.

The file maps a command to its options, named as on the command line without the dashes::

    record:
      rate: 50
      duration: 1m
    report:
      title: Shop, production

It is looked for in the working directory and upwards. An option given on the command line wins.
`schema` gives the JSON Schema, with which an editor completes and checks the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfkit.errors import UsageError

FILE_NAME = "perfkit.yaml"
_MAX_BYTES = 1 << 20

Scalar = str | int | float | bool
Options = Mapping[str, Mapping[str, Any]]
"""Command -> option -> JSON Schema of its value."""


@dataclass(frozen=True)
class Config:
    """What a configuration file says, and where it lies; empty when there is none."""

    path: Path | None = None
    values: Mapping[str, Mapping[str, Scalar | list[Scalar]]] = field(default_factory=dict)


def find(start: Path) -> Path | None:
    """Return the nearest `perfkit.yaml` in `start` or a folder above it."""
    for folder in (start, *start.parents):
        candidate = folder / FILE_NAME
        if candidate.is_file():
            return candidate
    return None


def load(path: Path, options: Options) -> Config:
    """Read and check a configuration file. Raises UsageError naming file, key and a guess."""
    import yaml

    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{path}: larger than {_MAX_BYTES} bytes, surely no configuration")
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: not valid YAML: {reason}") from error
    if raw is None:
        return Config(path)
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: must map commands to their options")
    for command, section in raw.items():
        _known(path, command, options, "command")
        if not isinstance(section, dict):
            raise UsageError(f"{path}: {command} must map options to values")
        for option, value in section.items():
            _known(path, option, options[command], f"option of {command}")
            if not _fits(value, options[command][option]):
                expected = options[command][option].get("type", "one of the choices")
                raise UsageError(f"{path}: {command}.{option} is {value!r}, expected {expected}")
    return Config(path, raw)


def _known(path: Path, name: object, among: Mapping[str, Any], what: str) -> None:
    if name in among:
        return
    close = difflib.get_close_matches(str(name), among, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(among))}"
    raise UsageError(f"{path}: unknown {what} {name!r}", hint=hint)


def _fits(value: object, schema: Mapping[str, Any]) -> bool:
    if "enum" in schema:
        return value in schema["enum"]
    kinds = {"string": (str, int, float), "integer": int, "number": (int, float), "boolean": bool}
    if schema.get("type") == "array":
        return isinstance(value, list) and all(_fits(one, schema["items"]) for one in value)
    if isinstance(value, bool) and schema["type"] != "boolean":
        return False
    return isinstance(value, kinds[schema["type"]])  # type: ignore[arg-type]


def schema(options: Options) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the configuration file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": FILE_NAME,
        "type": "object",
        "additionalProperties": False,
        "properties": {
            command: {
                "type": "object",
                "additionalProperties": False,
                "properties": {name: dict(value) for name, value in values.items()},
            }
            for command, values in options.items()
        },
    }
