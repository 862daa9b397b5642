"""OpenTelemetry attribute names, present and past: which one wins for endpoint, tool, peer.

`PROMOTED` is the table. Within a row the first attribute that is present wins: the present name of
the semantic conventions first, then its predecessors, then names that widespread libraries use.
Sources: https://opentelemetry.io/docs/specs/semconv/ (HTTP 1.23 and before, database 1.28 and
before, RPC, messaging, GenAI and MCP), and the MCP gateway's own names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, MutableMapping
from typing import Final

Value = object
"""An attribute value: str, bool, int, float, bytes, list or dict."""

PROMOTED: Final[Mapping[str, tuple[str, ...]]] = {
    "http_method": ("http.request.method", "http.method"),
    "http_status": ("http.response.status_code", "http.status_code"),
    "tool": ("gen_ai.tool.name", "mcp.tool.name", "tool.name"),
    "tool_arguments": (
        *("gen_ai.tool.call.arguments", "gen_ai.tool.input"),
        *("mcp.tool.arguments", "tool.arguments"),
    ),
    "db_system": ("db.system.name", "db.system"),
    "db_statement": ("db.query.text", "db.statement"),
    "db_rows": ("db.response.returned_rows",),
    "thread_id": ("thread.id",),
    "pid": ("process.pid",),
}
"""Column of `spans` -> attributes that fill it, best first. They leave the JSON rest."""

ROUTE = ("http.route",)
PATH = ("url.path", "http.target", "url.full", "http.url")
URL = ("url.full", "http.url")
PEER_NAME = ("peer.service", "service.peer.name")
PEER_HOST = ("server.address", "net.peer.name", "network.peer.address", "net.sock.peer.addr")
PEER_PORT = ("server.port", "net.peer.port", "network.peer.port", "net.sock.peer.port")
CALLER_PORT = ("client.port", *PEER_PORT[1:])
"""On the span of one who is called: the caller's port, drawn for each connection."""
DB_NAMESPACE = ("db.namespace", "db.name")
DB_OPERATION = ("db.operation.name", "db.operation")
DB_COLLECTION = ("db.collection.name", "db.mongodb.collection")
MESSAGING_DESTINATION = ("messaging.destination.name", "messaging.destination")
JOB = (
    *("celery.task_name", "messaging.sidekiq.job_class"),
    *("remoulade.actor_name", "messaging.bullmq.job.name"),
)
"""What a worker does with a message. Many kinds of jobs share a queue, as many routes do a port."""
INSTANCE = ("service.instance.id", "k8s.pod.name", "container.id", "host.name", "hostname")

OPEN_NS = "perfkit.open_ns"
"""How long a span had been open when it was sent without an end."""
AWAITS = "perfkit.awaits."
"""Where its task waited then: `function`, `file`, `line` of the program, and the `call` in it."""

RPC_METHOD, RPC_SERVICE = "rpc.method", "rpc.service"
MESSAGING_OPERATION = ("messaging.operation.name", "messaging.operation")
FAILURE = ("success", "error", "error.type")
RPC_STATUS = (
    *("rpc.response.status_code", "rpc.status_code", "rpc.grpc.status_code"),
    *("rpc.connect_rpc.error_code", "grpc.status_code"),
)
JSONRPC_ERROR = "rpc.jsonrpc.error_code"
GRAPHQL_ERRORS = (
    *("graphql.error.count", "graphql.errors.count"),
    *("graphql.response.errors.count", "hive.graphql.error.count"),
)
"""How many errors are in the body of an answer of GraphQL, whose HTTP status is 200 all the same.
No convention has a name for it; these are of Hot Chocolate, Grafbase, Hive and programs' own."""
SAMPLE_RATE = ("SampleRate", "sampling.rate")
SAMPLE_PROBABILITY = ("sampling.probability", "sampler.param")

SEMANTIC: Final[frozenset[str]] = frozenset(
    (
        *(name for names in PROMOTED.values() for name in names),
        *(*ROUTE, *PATH, *PEER_NAME, *PEER_HOST, *PEER_PORT, *DB_NAMESPACE),
        *(*DB_OPERATION, *DB_COLLECTION),
        *(*MESSAGING_DESTINATION, *MESSAGING_OPERATION, *JOB, RPC_METHOD, RPC_SERVICE),
        *(*FAILURE, *RPC_STATUS, JSONRPC_ERROR, *GRAPHQL_ERRORS),
        *(*SAMPLE_RATE, *SAMPLE_PROBABILITY, "sampler.type"),
    )
)
"""Every attribute that this module looks at: the others cannot change what it answers."""

_INTEGER_COLUMNS = frozenset({"http_status", "db_rows", "thread_id", "pid"})
_INT32_COLUMNS = frozenset({"http_status"})
_SERVING_KINDS = frozenset({"server", "consumer"})
_CALLING_KINDS = frozenset({"client", "producer"})
_GRPC_SUCCESS = frozenset({"0", "ok"})
_GRPC_CALLER_AT_FAULT = frozenset(
    (
        *("1", "cancelled", "canceled", "3", "invalid_argument", "5", "not_found"),
        *("6", "already_exists", "7", "permission_denied", "8", "resource_exhausted"),
        *("9", "failed_precondition", "10", "aborted", "11", "out_of_range"),
        *("16", "unauthenticated"),
    )
)
"""What is an error to who calls, not of the server that answers so: the table in
https://opentelemetry.io/docs/specs/semconv/rpc/grpc/ (Connect has the same names)."""

_ID_SEGMENT = re.compile(
    r"^(?:\d+"  # 42
    r"|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"  # a UUID
    r"|(?=[^/]*\d)[0-9a-fA-F]{10,}"  # a hash or an object id
    r"|(?=[^/]*\d)(?=[^/]*[A-Za-z])[A-Za-z0-9_-]{20,}"  # a token
    r"|[^/]*%[0-9a-fA-F]{2}[^/]*"  # text that had to be escaped: somebody's words, no route
    r")$"
)


def first(attributes: Mapping[str, Value], names: tuple[str, ...]) -> Value | None:
    """Return the value of the first of `names` that is present and not empty."""
    for name in names:
        value = attributes.get(name)
        if value is not None and value != "":
            return value
    return None


def template_path(path: str) -> str:
    """Turn a raw path into a low-cardinality one: `/users/42?x=1` -> `/users/{id}`."""
    path = path.split("?", 1)[0].split("#", 1)[0]
    if "://" in path:
        path = "/" + path.split("://", 1)[1].partition("/")[2]
    return "/".join("{id}" if _ID_SEGMENT.match(part) else part for part in path.split("/"))


def endpoint(attributes: Mapping[str, Value], kind: str) -> str | None:
    """Return the endpoint that a span serves, or null when it serves none.

    HTTP: method and route (a templated path when no route is known). RPC: service and method.
    Messaging: operation and kind of job, or destination where that is not known.
    """
    if kind in _CALLING_KINDS:
        return None
    method = first(attributes, PROMOTED["http_method"])
    route = first(attributes, ROUTE)
    if route is not None or method is not None:
        if kind not in _SERVING_KINDS and route is None:
            return None
        path = str(route) if route is not None else _templated(attributes)
        return f"{method} {path}" if method is not None else path
    rpc_method = attributes.get(RPC_METHOD)
    if rpc_method:
        service = attributes.get(RPC_SERVICE)
        return f"{service}/{rpc_method}" if service else str(rpc_method)
    work = first(attributes, (*JOB, *MESSAGING_DESTINATION))
    if work is not None and kind == "consumer":
        operation = first(attributes, MESSAGING_OPERATION)
        return f"{operation or 'process'} {work}"
    return None


def _templated(attributes: Mapping[str, Value]) -> str:
    path = first(attributes, PATH)
    return template_path(str(path)) if path is not None else "(no route)"


def said_by_address(value: Value) -> tuple[str, str]:
    """Return all that an address (`PATH`) says: the path of an endpoint, and host and port."""
    said = value is not None and value != ""
    return (f"/{template_path(str(value))}" if said else "", _authority(value))


def peer(attributes: Mapping[str, Value], kind: str) -> str | None:
    """Return whom a span calls: a service, `host:port`, or `system/database`; null for no call."""
    if kind not in _CALLING_KINDS and first(attributes, PROMOTED["db_system"]) is None:
        return None
    name = first(attributes, PEER_NAME)
    if name is not None:
        return str(name)
    host = first(attributes, PEER_HOST)
    if host is not None:
        port = first(attributes, PEER_PORT)
        return f"{host}:{port}" if port is not None else str(host)
    # Clients that write the older attributes, as those of Python do by default, say no host else.
    address = _authority(first(attributes, URL))
    if address:
        return address
    system = first(attributes, PROMOTED["db_system"])
    if system is not None:
        namespace = first(attributes, DB_NAMESPACE)
        return f"{system}/{namespace}" if namespace is not None else str(system)
    destination = first(attributes, MESSAGING_DESTINATION)
    return str(destination) if destination is not None else None


def _authority(url: Value | None) -> str:
    """Return host and port of a URL, without a user's name and password; "" where there is none."""
    if not isinstance(url, str) or "://" not in url:
        return ""
    authority = re.split(r"[/?#]", url.split("://", 1)[1], maxsplit=1)[0]
    return authority.rpartition("@")[2]


def status(recorded: str, attributes: Mapping[str, Value], kind: str) -> str:
    """Return the effective status: a failure counts even when the recorded status hides it.

    Hidden failures: an HTTP 5xx (4xx too for a client), a status of gRPC or Connect that says the
    same, an error code of JSON-RPC, errors in an answer of GraphQL, the attribute `error`, and
    `success=false` as the MCP gateway writes it on spans whose status is OK.
    """
    if recorded == "error":
        return "error"
    if attributes.get("success") in (False, "false", "False"):
        return "error"
    if attributes.get("error") in (True, "true", "True", "1", 1):
        return "error"
    if attributes.get("error.type"):
        return "error"
    code = _integer(first(attributes, PROMOTED["http_status"]), "http_status")
    if code is not None and (code >= 500 or (code >= 400 and kind in _CALLING_KINDS)):
        return "error"
    if attributes.get(JSONRPC_ERROR) not in (None, "", 0, "0"):
        return "error"
    if any((_float(attributes.get(name)) or 0) > 0 for name in GRAPHQL_ERRORS):
        return "error"
    answer = first(attributes, RPC_STATUS)
    if answer is not None and _rpc_failed(str(answer).lower(), calls=kind in _CALLING_KINDS):
        return "error"
    return recorded


def _rpc_failed(code: str, *, calls: bool) -> bool:
    """Judge a status of gRPC or Connect, by number or name, or an error code of JSON-RPC."""
    return code not in _GRPC_SUCCESS and (calls or code not in _GRPC_CALLER_AT_FAULT)


def promote(attributes: MutableMapping[str, Value], kind: str) -> dict[str, Value | None]:
    """Take the promoted attributes out of `attributes` and return the columns that they fill.

    A value of the wrong type (a status code that is no number) stays in `attributes`.
    """
    columns: dict[str, Value | None] = {
        "endpoint": endpoint(attributes, kind),
        "peer": peer(attributes, kind),
    }
    for column, names in PROMOTED.items():
        columns[column] = None
        for name in names:
            value = attributes.get(name)
            if value is None or value == "":
                continue
            converted: Value | None
            if column in _INTEGER_COLUMNS:
                converted = _integer(value, column)
            else:
                converted = value if isinstance(value, str) else _text(value)
            if converted is not None:
                columns[column] = converted
                del attributes[name]
                break
    if columns["db_system"] == "mongodb":
        columns["db_statement"] = _with_command(columns["db_statement"], attributes)
    return columns


def _with_command(statement: Value | None, attributes: Mapping[str, Value]) -> Value | None:
    """Put command and collection before a statement that is a filter alone, as Node.js has it."""
    operation, collection = first(attributes, DB_OPERATION), first(attributes, DB_COLLECTION)
    if not isinstance(statement, str) or not statement.startswith("{"):
        return statement
    if operation is None or collection is None or f'"{operation}"' in statement:
        return statement
    return f"{operation} {collection} {statement}"


def adjusted_count(attributes: Mapping[str, Value], trace_state: str = "") -> float:
    """Return how many spans a sampled span stands for; 1 when nothing says that it was sampled.

    From the `th` of OpenTelemetry's trace state (consistent probability sampling), else from a
    sample rate (one in N) or a probability among the attributes. `sampler.param` is Jaeger's, and
    a probability only when `sampler.type` says so.
    """
    sampled = sampled_count(trace_state)
    if sampled is not None:
        return sampled
    rate = _float(first(attributes, SAMPLE_RATE))
    if rate is not None and rate >= 1:
        return rate
    for name in SAMPLE_PROBABILITY:
        if name == "sampler.param" and attributes.get("sampler.type") != "probabilistic":
            continue
        probability = _float(attributes.get(name))
        if probability is not None and 0 < probability <= 1:
            return 1 / probability
    return 1.0


def sampled_count(trace_state: str) -> float | None:
    """Return how many spans one stands for by the entry `ot` of a trace state; null if unsaid.

    `th` is a threshold of 56 bits: the part of ids that was dropped. `p` is what came before it:
    the probability is 2 to the minus p, and 63 means that it is not known.
    https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
    """
    count = None
    for vendor in trace_state.split(","):
        name, _, fields = vendor.strip().partition("=")
        if name != "ot":
            continue
        for field in fields.split(";"):
            key, _, digits = field.partition(":")
            if key == "th" and re.fullmatch(r"[0-9a-f]{1,14}", digits):
                return 2**56 / (2**56 - int(digits.ljust(14, "0"), 16))
            if key == "p" and re.fullmatch(r"[0-9]|[1-5][0-9]|6[0-2]", digits):
                count = 2.0 ** int(digits)
    return count


def instance(attributes: Mapping[str, Value]) -> str | None:
    """Return what tells one replica of a service from another, from resource attributes."""
    value = first(attributes, INSTANCE)
    if value is None:
        return None
    pid = first(attributes, PROMOTED["pid"])
    unique = "service.instance.id" in attributes or pid is None
    return str(value) if unique else f"{value}:{pid}"


def _float(value: Value | None) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _integer(value: Value, column: str) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = int(value)
    except (ValueError, OverflowError):
        return None
    limit = 2**31 if column in _INT32_COLUMNS else 2**63
    return number if -limit <= number < limit else None


def _text(value: Value) -> str:
    import json

    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
