"""The messages of pprof's profile.proto that perfkit writes, made at run time.

Names and numbers are those of
https://github.com/google/pprof/blob/main/proto/profile.proto (Apache-2.0).
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "perfkit.pprof"
_TYPES = descriptor_pb2.FieldDescriptorProto

# Message -> field, number, type, repeated.
_MESSAGES: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "ValueType": (("type", 1, "int64", False), ("unit", 2, "int64", False)),
    "Sample": (("location_id", 1, "uint64", True), ("value", 2, "int64", True)),
    "Line": (("function_id", 1, "uint64", False), ("line", 2, "int64", False)),
    "Location": (("id", 1, "uint64", False), ("line", 4, "Line", True)),
    "Function": (
        ("id", 1, "uint64", False),
        ("name", 2, "int64", False),
        ("system_name", 3, "int64", False),
        ("filename", 4, "int64", False),
        ("start_line", 5, "int64", False),
    ),
    "Profile": (
        ("sample_type", 1, "ValueType", True),
        ("sample", 2, "Sample", True),
        ("location", 4, "Location", True),
        ("function", 5, "Function", True),
        ("string_table", 6, "string", True),
        ("time_nanos", 9, "int64", False),
        ("duration_nanos", 10, "int64", False),
        ("comment", 13, "int64", True),
        ("default_sample_type", 14, "int64", False),
    ),
}
_SCALARS = {
    "int64": _TYPES.TYPE_INT64,
    "uint64": _TYPES.TYPE_UINT64,
    "string": _TYPES.TYPE_STRING,
}


def _profile_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="perfkit/pprof.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            one = message.field.add(
                name=field,
                number=number,
                label=_TYPES.LABEL_REPEATED if repeated else _TYPES.LABEL_OPTIONAL,
                type=_SCALARS.get(kind, _TYPES.TYPE_MESSAGE),
            )
            if kind not in _SCALARS:
                one.type_name = f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Profile"))


Profile: Any = _profile_class()
