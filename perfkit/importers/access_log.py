"""Access logs of nginx and Apache with request times, as spans of requests.

The combined format, with the time behind it: nginx's `$request_time` (seconds with a fraction) or
Apache's `%D` (whole µs); also named, as `rt=0.123` or `request_time=0.123`. Or JSON lines of the
usual variables. nginx writes when a request ended, Apache when it began; both to the second only,
unless nginx's `$msec` says more.
"""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from perfkit import ids
from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats import times
from perfkit.importers import json_stream, tables
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import SpanRows, from_process, scaled
from perfkit.semconv import Value

NAME = "access-log"
FORMAT = Format(
    title="nginx, Apache and Caddy access logs with request times",
    made_by="nginx `log_format` with `$request_time`; Apache `LogFormat` with `%D`; JSON lines; "
    "Caddy's `log`",
    recognised_by="the combined format with a number behind it, or JSON with `request_time` or of "
    "`http.log.access`",
    gives="spans of requests",
    lacks="what happened inside; starts finer than a second, mostly; service, route",
    tried="nginx 1.22.1, Apache 2.4.71",
)

_LINE = re.compile(
    # Debian's vhost_combined has the server first.
    r"(?:(?P<server>\S{1,200}):\d{1,5} (?=[^\s-]\S* \S+ [^\[\n]{1,200} \[))?"
    r"(?P<client>\S{1,200}) \S{1,200} [^\[\n]{1,200} \[(?P<time>[^\]\n]{10,40})\] "
    r'"(?P<request>(?:[^"\\\n]|\\.)*+)" (?P<status>\d{3}) (?P<bytes>\d+|-)(?P<rest>[^\n]*)'
)
_NAMED = re.compile(r"\b(?:rt|request_time|reqtime)=\"?(\d+(?:\.\d+)?)")
# nginx writes a time for each server that it tried: `0.000, 0.014`, `0.002 : 0.010`, `-, 0.003`.
_TIMES = r"(?:-|\d{1,9}\.\d{1,6})(?:(?:, | : )(?:-|\d{1,9}\.\d{1,6})){0,50}"
_UPSTREAM = re.compile(rf"\b(?:urt|upstream_response_time)=\"?({_TIMES})")
_ONE_TIME = re.compile(r"\d{1,9}\.\d{1,6}")
_BOTH = re.compile(r"(?<!\S)\d{1,9}/(\d{1,15})(?!\S)")  # Apache's %T/%D
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"')
_PLAIN = re.compile(r"(?<![\w.:/-])(\d{1,15}(?:\.\d{1,6})?)(?![\w.:/-])")
_JSON_KEYS = ("request_time", "request_time_s", "request_time_ms", "duration_ms", "response_time")
_FRACTION = re.compile(r"\.(\d{1,9})(?= )")
_MAX_LINE = 64 << 10
_JSON_HEAD = re.compile(
    rb'\s*\{[^\n]*"(?:request_time|response_time|duration_ms|http\.log\.access)[^\n]*\}', re.DOTALL
)


class _Request(NamedTuple):
    end_ns: int | None
    start_ns: int | None
    duration_ns: int | None
    method: str | None
    target: str | None
    status: int | None
    attributes: dict[str, Value]
    whole_us: bool = False
    """Whether the duration is a whole number without a unit."""


def sniff(head: bytes, path: Path) -> bool:
    """Recognise the first line."""
    del path
    line = head.split(b"\n", 1)[0]
    if line.lstrip()[:1] == b"{":
        return _JSON_HEAD.match(line) is not None and (
            b'"status"' in line and (b'"request"' in line or b'"uri"' in line
                                     or b'"request_uri"' in line)
        )  # fmt: skip
    match = _LINE.fullmatch(line.decode("utf-8", "replace").strip()[:_MAX_LINE])
    return match is not None


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all requests."""
    timed = 0
    coarse = 0
    whole_us = 0
    with SpanRows(source, writer) as rows:
        for number, (place, line) in enumerate(json_stream.lines(source)):
            text = line.decode("utf-8", "replace").strip()
            try:
                request = _json(line, place) if text.startswith("{") else _parse(text, place)
            except InputError as error:
                source.pass_over(error)
                continue
            if request.duration_ns is None:
                rows.reject("request without its time; add $request_time or %D to the log format")
                continue
            timed += 1
            whole_us += request.whole_us
            start_ns = request.start_ns
            if start_ns is None and request.end_ns is not None:
                start_ns = request.end_ns - request.duration_ns
            coarse += (request.end_ns or request.start_ns or 1) % 10**9 == 0
            _add(rows, request, start_ns, f"{source.content_name} {number}")
    if timed and coarse == timed:
        writer.note(
            f"{source.name} has times to the second: when a request began is known no better, so "
            "concurrency and order within a second mean nothing; nginx's $msec says more"
        )
    if whole_us:
        writer.note(
            f"{source.name}: the whole numbers behind its lines are taken as µs (Apache's %D); if "
            "they are %T (s) or %{ms}T (ms), log %D instead"
        )


def _parse(text: str, place: str) -> _Request:
    match = _LINE.fullmatch(text) if len(text) < _MAX_LINE else None
    if match is None:
        raise InputError("no line of an access log in the combined format", where=place)
    logged_ns = _logged(match["time"])
    method, _, rest = match["request"].partition(" ")
    target = rest.rpartition(" ")[0] or rest
    # Referer and agent are quoted, and so are many values of one's own.
    named = _NAMED.search(match["rest"])
    unquoted = _QUOTED.sub(" ", match["rest"])
    numbers = _PLAIN.findall(_BOTH.sub(r" \1 ", unquoted))
    duration_ns, ended, exact_ns, whole_us = None, True, None, False
    if named is not None:
        duration_ns = scaled(named[1], 10**9)
    for number in numbers:
        whole = "." not in number
        if not whole and len(number.partition(".")[0]) >= 10:
            exact_ns = scaled(number, 10**9)  # nginx's $msec, the end
        elif duration_ns is None:
            # Apache's %D is whole µs; nginx's $request_time has three digits.
            duration_ns = scaled(number, 1000 if whole else 10**9)
            ended, whole_us = not whole, whole
    attributes: dict[str, Value] = {"client.address": match["client"]}
    if match["bytes"] != "-":
        attributes["http.response.body.size"] = int(match["bytes"][:18])
    if upstream := _UPSTREAM.search(match["rest"]):
        attributes["nginx.upstream_response_time"] = _upstream_s(upstream[1])
    status = int(match["status"])
    end_ns = exact_ns or (logged_ns if ended else None)
    start_ns = None if ended or exact_ns else logged_ns
    if match["server"]:
        attributes["server.address"] = match["server"]
    # What has no target is no request line.
    good = method.isalpha() and len(method) < 20 and target
    return _Request(end_ns, start_ns, duration_ns, method if good else None, target or None, status,
                    attributes, whole_us)  # fmt: skip


def _upstream_s(value: object) -> float | None:
    """Add up the times of all servers that were tried; null when none was."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        return float(value)
    found = _ONE_TIME.findall(value) if isinstance(value, str) and len(value) < _MAX_LINE else []
    return round(sum(map(float, found)), 6) if found else None


def _logged(text: str) -> int | None:
    """Read `28/Nov/2026:13:47:13 +0000`, also with digits behind the second, or ISO 8601."""
    plain, fraction = text, "0"
    if found := _FRACTION.search(text):
        plain, fraction = text[: found.start()] + text[found.end() :], found[1]
    try:
        moment = dt.datetime.strptime(plain, "%d/%b/%Y:%H:%M:%S %z")
        return round(moment.timestamp()) * 10**9 + int(fraction.ljust(9, "0"))
    except (ValueError, OverflowError):
        return times.from_text(text)


def _json(line: bytes, place: str) -> _Request:
    try:
        row: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
    except json_stream.BAD_JSON as error:
        raise json_stream.refuse("a JSON object", place, error) from error
    if isinstance(row.get("request"), dict):
        row = _of_caddy(row)
    key = next((key for key in _JSON_KEYS if row.get(key) is not None), None)
    milliseconds = key is not None and key.endswith("_ms")
    duration_ns = scaled(row[key], 10**6 if milliseconds else 10**9) if key is not None else None
    end_ns = None
    text = str(row.get("msec") or row.get("timestamp") or row.get("ts") or "")
    seconds = tables.number(text)
    if seconds is not None:
        end_ns = scaled(text, 10**9) if seconds < 10**11 else times.from_number(seconds)
    for name in ("time_iso8601", "time", "@timestamp", "timestamp", "ts", "time_local"):
        if end_ns is None and isinstance(row.get(name), str):
            end_ns = _logged(row[name])
    parts = str(row.get("request") or "").split(" ")
    method = row.get("request_method") or row.get("method") or (parts[0] if parts[0] else None)
    target = row.get("request_uri") or row.get("uri") or (parts[1] if len(parts) > 1 else None)
    status = scaled(row.get("status"), 1)
    attributes: dict[str, Value] = {
        "client.address": row.get("remote_addr"),
        "nginx.upstream_response_time": _upstream_s(row.get("upstream_response_time")),
        "server.address": row.get("host") or row.get("server_name"),
    }
    return _Request(end_ns, None, duration_ns, str(method) if method else None,
                    str(target) if target else None, status, attributes)  # fmt: skip


def _of_caddy(row: dict[str, Any]) -> dict[str, Any]:
    """Return a line of Caddy's log as one of nginx: it has the request in an object of its own."""
    request = row["request"]
    names = {"request_method": "method", "request_uri": "uri", "host": "host"}
    return {
        **{name: request.get(key) for name, key in names.items()},
        "remote_addr": request.get("remote_ip"),
        "request_time": row.get("duration"),
        "ts": row.get("ts"),
        "status": row.get("status"),
    }


def _add(rows: SpanRows, request: _Request, start_ns: int | None, unique: str) -> None:
    path = (request.target or "").split("?", 1)[0]
    attributes: dict[str, Value] = {
        **request.attributes,
        "http.request.method": request.method,
        "url.path": path or None,
        "http.response.status_code": request.status,
    }
    # All that is said of it: logs of several servers have one name, and health checks in step.
    said = (start_ns, request.duration_ns, request.target, *attributes.values())
    unique = " ".join(map(str, (unique, *said)))
    trace, span_id = ids.trace_id_from_text(f"t {unique}"), ids.span_id_from_text(f"s {unique}")
    name = f"{request.method or ''} {path}".strip() or "request"
    rows.add(trace, span_id, None, name, start_ns, request.duration_ns, _SERVER, attributes,
             kind="server")  # fmt: skip


_SERVER = from_process("access-log")
