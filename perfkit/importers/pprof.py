"""pprof: Go's profiles, and those of many other languages' profilers.

A profile is stacks with values. Of its values the one in units of time is taken, or the count; one
of memory only is refused. A stack stands for all its samples in the profile, so it has no time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perfkit.capture import CaptureWriter
from perfkit.formats.wire_fields import LENGTH, VARINT, first
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import SampleRows, an_id, scaled
from perfkit.stacks import Frame

NAME = "pprof"
FORMAT = Format(
    title="pprof",
    made_by="Go (`/debug/pprof/profile`), Parca, Pyroscope, `@datadog/pprof`, gperftools",
    recognised_by="the fields of `profile.proto`: value types, and stacks",
    gives="samples with lengths or counts",
    lacks="times of samples, mostly process and thread",
    tried="Go 1.19.8",
)

_NS = {"nanoseconds": 1, "microseconds": 1000, "milliseconds": 10**6, "seconds": 10**9}
# Of its outermost fields: the profilers write them in orders of their own.
_LISTS = (1, 2, 3, 4, 5, 6, 11)
_NUMBERS = (7, 8, 9, 10, 12, 14)
_VALUE_TYPE, _COMMENTS, _CONTENT = 1, 13, {2, 4, 5}
_MAX_VALUE_TYPE_BYTES = 12
_STRING, _LAST_FIELD = 6, 15
_THREAD_LABELS = ("thread_id", "thread id", "tid", "OS thread id")
_NAME_LABELS = ("thread_name", "thread name", "thread")
_BEYOND = 2**31


def sniff(head: bytes, path: Path) -> bool:
    """Recognise the outermost fields: value types (two small numbers), and what has stacks."""
    del path
    seen: set[int] = set()
    at = 0
    while (field := first(head, at, len(head))) is not None:
        number, wire_type = field.number, field.wire_type
        listed = number in _LISTS and wire_type == LENGTH
        if number == _VALUE_TYPE and not _is_value_type(head[field.value : field.end]):
            return False
        counted = number in _NUMBERS and wire_type == VARINT
        if not listed and not counted and number != _COMMENTS:
            return False
        seen.add(number)
        at = field.end
    return _VALUE_TYPE in seen and bool(seen & _CONTENT)


def _is_value_type(message: bytes) -> bool:
    at = 0
    while at < len(message):
        field = first(message, at, len(message))
        if field is None or field.number not in (1, 2) or field.wire_type != VARINT:
            return False
        at = field.end
    return 0 < len(message) < _MAX_VALUE_TYPE_BYTES


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all stacks."""
    from google.protobuf.message import DecodeError

    from perfkit.formats.pprof import Profile

    profile = Profile()
    content = source.read()
    try:
        profile.ParseFromString(content)
    except DecodeError as error:
        if source.on_damage is None:
            raise source.error(f"not a pprof profile: {error}") from error
        profile = _salvaged(source, content)
    names = profile.string_table

    def text(number: int) -> str:
        return names[number] if 0 <= number < len(names) else ""

    types = [(text(one.type), text(one.unit)) for one in profile.sample_type]
    at = next((n for n, (_, unit) in enumerate(types) if unit in _NS), None)
    counts = next((n for n, (_, unit) in enumerate(types) if unit == "count"), None)
    if types and not any(unit for _, unit in types):
        raise source.error("its names, which come last, are not there: nothing can be kept")
    if at is None and counts is None:
        units = ", ".join(f"{name} in {unit}" for name, unit in types)[:100] or "no values"
        raise source.error(f"a profile of {units}: there is no time and no count in it")
    if at is None and types and any(unit == "bytes" for _, unit in types):
        raise source.error("a profile of memory, which perfkit does not read")
    functions = {one.id: one for one in profile.function}
    frames = {one.id: _frames(one, functions, text) for one in profile.location}
    state = "running" if at is not None and types[at][0] == "cpu" else None
    factor = _NS[types[at][1]] if at is not None else 1
    with SampleRows(source, writer) as rows:
        for sample in profile.sample:
            values = sample.value
            if len(values) != len(types):
                rows.reject("sample with too few or too many values")
                continue
            path: list[Frame] = []
            for location in reversed(sample.location_id):
                path += frames.get(location) or [Frame("(unknown)")]
            labels = {text(one.key): text(one.str) or one.num for one in sample.label}
            count = values[counts] if counts is not None else 1
            duration_ns = scaled(values[at], factor) if at is not None else None
            if not count and not duration_ns:
                continue  # the other values of the profile are about it
            rows.add(
                writer.stacks.intern(path or [Frame("(unknown)")]),
                duration_ns=duration_ns,
                count=max(1, count),
                state=state,
                tid=next((i for key in _THREAD_LABELS if (i := _id(labels.get(key)))), None),
                thread_name=next((str(labels[key]) for key in _NAME_LABELS if key in labels), None),
            )
    writer.note(
        f"{source.name} has stacks with sums, without times: they are in no time range and in no "
        "request"
    )


def _salvaged(source: Source, content: bytes) -> Any:
    """Read one outermost field after the other, up to where no field follows."""
    from google.protobuf.message import DecodeError

    from perfkit.formats.pprof import Profile

    profile, at = Profile(), 0
    while at < len(content):
        field = first(content, at, len(content))
        if field is None or field.end > len(content) or field.number > _LAST_FIELD:
            source.pass_over(
                source.error(f"damaged: {len(content) - at} bytes are lost from there", offset=at)
            )
            break
        try:
            profile.MergeFromString(content[at : field.end])
        except DecodeError:
            source.pass_over(source.error("damaged field", offset=at))
            if field.number == _STRING:  # the others are told by their number
                profile.string_table.append("(damaged)")
        at = field.end
    if profile.sample and len(profile.string_table) <= 1:
        raise source.error(
            "its names, which come last, are not there: nothing can be kept", offset=at
        )
    return profile


def _id(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return an_id(int(value))
    return an_id(value)


def _frames(location: Any, functions: dict[int, Any], text: Any) -> list[Frame]:
    """Return the frames of a location from the caller in: several where calls were inlined."""
    found: list[Frame] = []
    for line in reversed(location.line):
        function = functions.get(line.function_id)
        if function is None:
            continue
        name = text(function.name) or text(function.system_name) or "(unknown)"
        number = line.line if 0 < line.line < _BEYOND else None
        found.append(Frame(name, text(function.filename), number))
    if not found and location.address:
        found.append(Frame(f"0x{location.address:x}"))
    return found
