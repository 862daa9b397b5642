"""Entries of PostgreSQL's log, in its three shapes: stderr with any prefix, csvlog, jsonlog.

An entry of stderr is its prefix (`log_line_prefix`, which is free), its severity and its text;
lines that begin with a tab go on with the entry before. In the others fields have places or names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from perfkit.errors import InputError
from perfkit.formats import times, zones
from perfkit.importers import json_stream
from perfkit.importers.base import Source
from perfkit.importers.rows import scaled

UNDATED = "entry without a time; log_line_prefix needs %m (or %t, %n)"
UNKNOWN_ZONE = (
    "entry in a time zone whose name is not that of one only; name yours with TZ=Area/City, or set "
    "log_timezone to UTC"
)

_MAX_ENTRY = 1 << 20
_MAX_HEAD = 1000
# Two blanks stand behind the colon of a severity, in every language; the French have one before it.
_STDERR = re.compile(
    r"(?P<prefix>[^\n]{0,500}?)(?<![^\W_])(?P<severity>[^\W_]{2,20}) ?:  (?P<text>.*)", re.DOTALL
)
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d{1,6})? ([A-Z]{1,5}|[+-]\d\d(?::?\d\d)?)(?![A-Za-z])"
)
_EPOCH = re.compile(r"(?<![\w.])(\d{9,11}\.\d{3})(?![\w.])")  # %n
_SESSION = re.compile(r"(?<![\w.])[0-9a-f]{7,9}\.([0-9a-f]{1,8})(?![\w.])")  # %c
_PID = re.compile(r"\[(\d{1,10})\]|\bpid[=: ](\d{1,10})\b")
_BARE = re.compile(r"(?<![\w.:/@=(-])(\d{2,8})(?![\w.:/@)-])")
_USER_AT = re.compile(r"([^\s@\[\]:|,<>]{1,64})@([^\s@\[\]:|,<>]{1,64})")
_USER = re.compile(r"\bu(?:ser)?=([^\s,|]{1,64})")
_DATABASE = re.compile(r"\b(?:d|db|database)=([^\s,|]{1,64})")
# What syslog puts before each line, also of those that go on.
_SYSLOG = re.compile(r"[^\n]{10,200}? \w[^\s\[]{0,60}\[\d{1,10}\]: \[\d{1,10}-(\d{1,10})\] ?")
_SYSLOG_TAB = "#011"

_CSV_FIELD = re.compile(r'(?:"((?:[^"]|"")*+)"|([^",]*+))(,|\Z)')
_CSV_FEWEST = 23  # of PostgreSQL 9; later ones have more behind them
_CSV_NAMES = {
    0: "timestamp",
    1: "user",
    2: "dbname",
    3: "pid",
    4: "remote_host",
    13: "message",
    14: "detail",
    22: "application_name",
    25: "query_id",
}
_WANTED = frozenset(_CSV_NAMES.values())
_CSV_HEAD = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [A-Z+\d:-]{1,6},"
    r'(?:"(?:[^"\n]|"")*+")?,(?:"(?:[^"\n]|"")*+")?,\d*,(?:"[^"\n]*")?,[0-9a-f]+\.[0-9a-f]+,\d+,'
)
_JSON_SNIFFED = re.compile(rb'\{"timestamp":"[^"\n]{19,40}",[^\n]*"error_severity":"[A-Z]')
_AFTER_LEVEL = b":  "
_STDERR_SNIFFED = re.compile(
    rb"^(?P<prefix>[^\n]{0,500}?)[^\s:]{2,40} ?:  [^\d\n]{3,60} ?: ?\d{1,12}\.\d{3} "
    rb"(?:ms|\xd0\xbc\xd1\x81|\xe3\x83\x9f|\xe1\x83\x9b)",
    re.M,
)


@dataclass
class Entry:
    """One entry of the log."""

    end_ns: int
    """When it was written."""
    text: str
    place: str
    pid: int | None = None
    user: str | None = None
    database: str | None = None
    application: str | None = None
    client: str | None = None
    query_id: str | None = None
    detail: str | None = None
    coarse: bool = False
    """Whether its time is to the second only."""


class Unusable(Exception):
    """Why an entry cannot be used."""


def sniff(head: bytes) -> bool:
    """Whether a file begins as one of the three, with a logged duration where that is not sure."""
    start = head.removeprefix(b"\xef\xbb\xbf")
    if _JSON_SNIFFED.match(start) or _is_csv(start):
        return True
    # In other files, binary ones above all, the pattern is tried at every byte for nothing.
    likely = start[:1] != b"{" and _AFTER_LEVEL in start
    return likely and _STDERR_SNIFFED.search(start) is not None


def _is_csv(head: bytes) -> bool:
    line = head.split(b"\n", 1)[0][:_MAX_HEAD]
    return _CSV_HEAD.match(line.decode("utf-8", "replace")) is not None


def read(source: Source) -> Iterator[Entry | Unusable]:
    """Yield all entries, and why others cannot be used."""
    head = source.head().removeprefix(b"\xef\xbb\xbf")
    if head.lstrip()[:1] == b"{":
        yield from _json(source)
    elif _is_csv(head):
        yield from _csv(source)
    else:
        yield from _stderr(source)


def _json(source: Source) -> Iterator[Entry | Unusable]:
    decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
    for place, line in json_stream.lines(source):
        try:
            fields = {
                name: msgspec.json.decode(raw, type=str | int)
                for name, raw in decoder.decode(line).items()
                if name in _WANTED
            }
        except json_stream.BAD_JSON as error:
            source.pass_over(json_stream.refuse("an entry of jsonlog", place, error))
            continue
        yield _made({name: str(value) for name, value in fields.items()}, place)


def _csv(source: Source) -> Iterator[Entry | Unusable]:
    for place, record in _csv_records(source):
        fields = [
            (match[1] or "").replace('""', '"') or match[2] or ""
            for match in _CSV_FIELD.finditer(record)
        ]
        length = sum(len(match[0]) for match in _CSV_FIELD.finditer(record))
        if len(fields) < _CSV_FEWEST or length != len(record):
            source.pass_over(InputError("cut off, or no record of csvlog", where=place))
            continue
        yield _made({name: fields[at] for at, name in _CSV_NAMES.items() if at < len(fields)
                     and fields[at]}, place)  # fmt: skip


def _csv_records(source: Source) -> Iterator[tuple[str, str]]:
    """Yield (place, record): lines are joined until every quote is closed.

    After a damage the next line that begins like a record is one.
    """
    lines: list[str] = []
    first, size, is_open = 0, 0, False
    for number, raw in source.lines():
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8", "replace")
        if is_open and (size > _MAX_ENTRY or _CSV_HEAD.match(text)):
            is_open = False
        if not is_open:
            if lines:
                yield f"{source}, line {first}", "\n".join(lines)
            first, lines, size = number, [], 0
        lines.append(text)
        size += len(text)
        is_open ^= text.count('"') % 2 == 1
    if lines:
        yield f"{source}, line {first}", "\n".join(lines)


def _made(fields: dict[str, str], place: str) -> Entry | Unusable:
    """Make an entry of the fields of csvlog or jsonlog, by their names in the latter."""
    try:
        end_ns, coarse = _time(fields.get("timestamp", ""))
    except Unusable as error:
        return error
    return Entry(
        end_ns,
        fields.get("message", ""),
        place,
        pid=scaled(fields.get("pid"), 1),
        user=fields.get("user"),
        database=fields.get("dbname"),
        application=fields.get("application_name"),
        client=_host(fields.get("remote_host")),
        query_id=fields.get("query_id") if fields.get("query_id") != "0" else None,
        detail=fields.get("detail"),
        coarse=coarse,
    )


def _host(text: str | None) -> str | None:
    """Return an address without the port that csvlog has behind it."""
    host, colon, port = (text or "").rpartition(":")
    return (host if colon and port.isdigit() else text) or None


def _stderr(source: Source) -> Iterator[Entry | Unusable]:
    for place, text in _stderr_texts(source):
        found = _STDERR.fullmatch(text)
        if found is None:
            yield Unusable("line that is no entry of a log")
            continue
        prefix = found["prefix"]
        try:
            end_ns, coarse = _time(prefix)
        except Unusable as error:
            yield error
            continue
        at = _USER_AT.search(prefix)
        user, database = _USER.search(prefix), _DATABASE.search(prefix)
        yield Entry(
            end_ns,
            found["text"],
            place,
            pid=_pid(prefix),
            user=_known(user[1] if user else at[1] if at else None),
            database=_known(database[1] if database else at[2] if at else None),
            coarse=coarse,
        )


def _known(name: str | None) -> str | None:
    return None if name in ("[unknown]", "") else name


def _stderr_texts(source: Source) -> Iterator[tuple[str, str]]:
    """Yield (place, text) of each entry, with all its lines."""
    lines: list[str] = []
    first, size = 0, 0
    for number, raw in source.lines():
        text = raw.decode("utf-8", "replace")
        goes_on = text.startswith(("\t", " "))
        if syslog := _SYSLOG.match(text):
            goes_on = syslog[1] != "1"
            text = text[syslog.end() :].replace(_SYSLOG_TAB, "\t")
        if goes_on and lines:
            size += len(text)
            if size < _MAX_ENTRY:
                lines.append(text.removeprefix("\t"))
            continue
        if lines:
            yield f"{source}, line {first}", "\n".join(lines)
        first, lines, size = number, [text[:_MAX_ENTRY]], 0
    if lines:
        yield f"{source}, line {first}", "\n".join(lines)


def _time(prefix: str) -> tuple[int, bool]:
    """Return the time in a prefix, and whether it is to the second only; or raise Unusable."""
    found = list(_TIME.finditer(prefix))
    if not found:
        if epoch := _EPOCH.search(prefix):
            end_ns = scaled(epoch[1], 10**9)
            assert end_ns is not None
            return end_ns, False
        raise Unusable(UNDATED)
    # %s, when the session began, has no fraction, as %t.
    best = next((one for one in found if one[2]), found[0])
    east_s = zones.offset_s(best[3], int(best[1][:4]))
    if east_s is None:
        raise Unusable(UNKNOWN_ZONE)
    local_ns = times.from_text(f"{best[1]}{best[2] or ''}")
    if local_ns is None or local_ns < east_s * 10**9:
        raise Unusable("entry without a plausible time")
    return local_ns - east_s * 10**9, best[2] is None


def _pid(prefix: str) -> int | None:
    if session := _SESSION.search(prefix):
        return int(session[1], 16)
    if found := _PID.search(prefix):
        return int(found[1] or found[2])
    rest = _EPOCH.sub(" ", _TIME.sub(" ", prefix))
    bare = _BARE.findall(rest)
    return int(bare[0]) if len(bare) == 1 else None
