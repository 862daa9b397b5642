"""The messages of pprof's `profile.proto`, as far as they are read.

https://github.com/google/pprof/blob/main/proto/profile.proto. Described here, because no package
brings it; the parser is protobuf's own.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_INT64, _UINT64, _STRING, _MESSAGE = (
    *(_FIELD.TYPE_INT64, _FIELD.TYPE_UINT64, _FIELD.TYPE_STRING, _FIELD.TYPE_MESSAGE),
)
_REPEATED = {
    *("sample_type", "sample", "location", "function", "string_table", "location_id"),
    *("value", "label", "line"),
}
_MESSAGES: dict[str, dict[int, tuple[str, Any]]] = {
    "ValueType": {1: ("type", _INT64), 2: ("unit", _INT64)},
    "Label": {
        1: ("key", _INT64),
        2: ("str", _INT64),
        3: ("num", _INT64),
        4: ("num_unit", _INT64),
    },
    "Sample": {1: ("location_id", _UINT64), 2: ("value", _INT64), 3: ("label", "Label")},
    "Line": {1: ("function_id", _UINT64), 2: ("line", _INT64)},
    "Location": {1: ("id", _UINT64), 3: ("address", _UINT64), 4: ("line", "Line")},
    "Function": {
        1: ("id", _UINT64),
        2: ("name", _INT64),
        3: ("system_name", _INT64),
        4: ("filename", _INT64),
    },
    "Profile": {
        1: ("sample_type", "ValueType"),
        2: ("sample", "Sample"),
        4: ("location", "Location"),
        5: ("function", "Function"),
        6: ("string_table", _STRING),
        9: ("time_nanos", _INT64),
        10: ("duration_nanos", _INT64),
        11: ("period_type", "ValueType"),
        12: ("period", _INT64),
    },
}


def _described() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="perfkit/pprof.proto", package="perfkit.pprof", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in fields.items():
            many = field in _REPEATED and (name, field) != ("Line", "line")
            label = _FIELD.LABEL_REPEATED if many else _FIELD.LABEL_OPTIONAL
            one = message.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                one.type, one.type_name = _MESSAGE, f".perfkit.pprof.{kind}"
            else:
                one.type = kind
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_described())
Profile: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName("perfkit.pprof.Profile"))
"""The message class."""
