"""Protobuf classes of OTLP's messages whose descriptors are changed, so that less is decoded.

A nested message and a bytes field look the same on the wire, so what is nested can be left encoded.
Text of spans, resources and scopes is bytes, too: senders in C, Go or Java do not check theirs.

What is a list of messages in one descriptor may be one message in another, whose fields are lists:
a parser joins what comes several times. So the fields of all spans become columns, without a loop.
Sixteen bytes of an id look like two numbers of a packed list, and written again a list of numbers
is packed: one after the other.
https://protobuf.dev/programming-guides/encoding/#last-one-wins, #packed
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

ATTRIBUTE = ".opentelemetry.proto.common.v1.KeyValue"
RESOURCE = ".opentelemetry.proto.resource.v1.Resource"
SCOPE = ".opentelemetry.proto.common.v1.InstrumentationScope"
_SPAN = ".opentelemetry.proto.trace.v1.Span"
_TRACES = ".opentelemetry.proto.trace.v1.TracesData"
_ENCODED = frozenset({ATTRIBUTE, RESOURCE, SCOPE})
_WITH_ATTRIBUTES = ("InstrumentationScope", "Resource")
_DOWN_TO_SPANS = ("TracesData", "ResourceSpans", "ScopeSpans", "Span")
COLUMNS = ("trace_id", "span_id", "kind", "start_time_unix_nano", "end_time_unix_nano")
"""Fields of a span that `column_class` makes columns."""

_File = descriptor_pb2.FileDescriptorProto
_Field = descriptor_pb2.FieldDescriptorProto


@cache
def message_class(full_name: str, *, spans_too: bool = False) -> type[Message]:
    """Return the class of a message of traces or metrics.

    Attributes, resources and scopes stay encoded, and with `spans_too` spans.
    """
    traces = _File.FromString(trace_pb2.DESCRIPTOR.serialized_pb)
    metrics = _File.FromString(metrics_pb2.DESCRIPTOR.serialized_pb)
    for message in traces.message_type:
        _keep_encoded(message, _ENCODED | {_SPAN} if spans_too else _ENCODED, text=True)
    for message in metrics.message_type:
        _keep_encoded(message, _ENCODED, text=False)
    return _class("." + full_name, traces, metrics)


@cache
def header_class(full_name: str) -> type[Message]:
    """Return the class of ATTRIBUTE, or of RESOURCE or SCOPE with attributes still encoded."""
    return _class(full_name)


@cache
def column_class() -> type[Message]:
    """Return TracesData of one span that is all spans of a request; `COLUMNS` are lists of numbers.

    A trace's id is two numbers.
    """

    def change(field: descriptor_pb2.FieldDescriptorProto) -> None:
        field.label = _Field.LABEL_REPEATED
        if field.type == _Field.TYPE_BYTES:
            field.type = _Field.TYPE_FIXED64

    return _all_spans_in_one(_TRACES, change)


@cache
def packed_class() -> type[Message]:
    """Return the same span, of which `COLUMNS` are bytes: their numbers, packed."""

    def change(field: descriptor_pb2.FieldDescriptorProto) -> None:
        field.type = _Field.TYPE_BYTES
        field.ClearField("type_name")

    return _all_spans_in_one(_SPAN, change)


def _all_spans_in_one(
    full_name: str, change: Callable[[descriptor_pb2.FieldDescriptorProto], None]
) -> type[Message]:
    file = _File.FromString(trace_pb2.DESCRIPTOR.serialized_pb)
    for message in file.message_type:
        _keep_encoded(message, frozenset({ATTRIBUTE}), text=True)
        for field in message.field if message.name in _DOWN_TO_SPANS else ():
            field.label = _Field.LABEL_OPTIONAL
            if message.name == "Span" and field.name in COLUMNS:
                change(field)
    return _class(full_name, file)


def _class(full_name: str, *changed: descriptor_pb2.FileDescriptorProto) -> type[Message]:
    """Make the class of a message from files that were changed, and from what they need."""
    common = _File.FromString(common_pb2.DESCRIPTOR.serialized_pb)
    resource = _File.FromString(resource_pb2.DESCRIPTOR.serialized_pb)
    for message in (*common.message_type, *resource.message_type):
        encoded = {ATTRIBUTE} if message.name in _WITH_ATTRIBUTES else set()
        _keep_encoded(message, frozenset(encoded), text=True)
    pool = descriptor_pool.DescriptorPool()
    for file in (common, resource, *changed):
        pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(full_name[1:]))


def _keep_encoded(
    message: descriptor_pb2.DescriptorProto, kept: frozenset[str], *, text: bool
) -> None:
    """Make fields of some types bytes, and with `text` those of text."""
    for field in message.field:
        if field.type_name in kept or (text and field.type == _Field.TYPE_STRING):
            field.type = _Field.TYPE_BYTES
            field.ClearField("type_name")
    for nested in message.nested_type:
        _keep_encoded(nested, kept, text=text)
