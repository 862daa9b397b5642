"""A capture as it may leave the company: values, literals, hosts and paths are replaced.

It is done to the captured tables, before anything is computed from them, so that no figure, message
or chart can hold what was taken out. What is replaced becomes a *pseudonym*, an HMAC under a key
that is made for this one use and kept nowhere: equal values stay equal, so that the analysis of
repeated queries, caches and shared traits stays right, and nobody can look a value up.

Names that tell what is slow stay: services, endpoints, tools, spans, functions and metrics. Ids,
addresses and quoted text within them do not.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import polars as pl

from perfkit import model
from perfkit.capture import Capture
from perfkit.errors import UsageError

_KEPT = re.compile(
    r"perfkit\.|cpu\.|gc\.|jvm\.|cpython\.|system\.|process\.(?:cpu|memory|runtime|context|paging)"
    r"|db\.(?:system|operation|client|response)|pool\.|state$"
    r"|http\.(?:request\.method|method|response\.status_code|status_code|route|flavor|scheme)$"
    r"|rpc\.|messaging\.(?:system|operation)|network\.(?:protocol|transport|type|io)|net\.transport"
    r"|error(?:\.type)?$|exception\.type$|success$|otel\.|telemetry\.|service\.(?:name|version)$"
    r"|gen_ai\.(?:system|operation|usage|request\.model|response\.model|tool\.name)"
    r"|mcp\.(?:method|tool\.name)|thread\.|code\.(?:function|lineno|namespace)"
    r"|deployment\.environment|sampl(?:er|ing)\.|SampleRate$|span\.kind$|url\.scheme$"
)
"""Attributes whose values are from a short public list, or that the analysis counts with."""

_HOSTS = re.compile(
    r"(?:host|server|peer|client|source|destination|net)\.?(?:\w+\.)?(?:name|address|addr|domain|ip)$"
    r"|hostname$|k8s\.|container\.|instance\.id$|peer\.service$|cloud\."
)
_URLS = re.compile(r"(?:url|uri|target|path|referer|referrer|origin)(?:\.\w+)?$")
_SYSTEMS_OF_DOUBLE_QUOTES = ("postgresql", "postgres", "sqlite", "oracle", "mssql", "cockroachdb")
"""Where double quotes hold names; elsewhere (MySQL, or not known) they hold values."""

_WITHOUT_SQL = (
    "redis",
    "valkey",
    "memcached",
    "mongodb",
    "elasticsearch",
    "opensearch",
    "dynamodb",
)

_COMMENT = re.compile(r"/\*.*?\*/|--[^\n]*", re.S)
_LITERAL = re.compile(
    r"(?P<kept>\b(?:LIMIT|OFFSET|TOP|FIRST|NEXT)\s+\d+)"
    r"|(?P<text>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|'(?:[^'\\]|''|\\.)*(?:'|\Z))"
    r"|(?P<double>\"(?:[^\"\\]|\"\"|\\.)*(?:\"|\Z))"
    r"|(?P<number>(?<![\w$@:?%])-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?!\w))",
    re.S | re.I,
)
_WORDS_OF_COMMANDS = re.compile(r"\A\s*([A-Za-z]{1,20})\b(.*)", re.S)
_SQL = re.compile(
    r"\A\s*(?:select|insert|update|delete|with|merge|replace|create|alter|drop|begin|commit|rollback"
    r"|set|explain|values|call|exec|truncate|savepoint|release|pragma|show|\()",
    re.I,
)
_IDS = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.-]+"  # e-mail
    r"|\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"  # a UUID
    r"|\b(?:\d{1,3}\.){3}\d{1,3}\b|\b(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}\b"  # addresses
    r"|\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{12,}\b|\b\d{3,}\b"  # hashes and numbers
    r"|'[^']{1,200}'|\"[^\"]{1,200}\""
)
_PATH = re.compile(r"(?<![\w:/.])(?:~|[A-Za-z]:)?(?:[\\/][\w.@+ -]+){2,}[\\/]?")
_LIBRARIES = re.compile(r".*?((?:site|dist)-packages[\\/]|lib[\\/]python[\d.]+[\\/])", re.S)

Text = Callable[[str], str]


@dataclass(frozen=True)
class Rules:
    """What stays and what goes beyond the defaults."""

    keep: tuple[str, ...] = ()
    """Attributes whose values stay; `*` stands for anything."""
    patterns: tuple[str, ...] = ()
    """Regular expressions: what they find goes, in any text."""

    def compiled(self) -> list[re.Pattern[str]]:
        """Return the patterns. Raises UsageError for one that is none."""
        found = []
        for pattern in self.patterns:
            try:
                found.append(re.compile(pattern))
            except re.error as error:
                raise UsageError(f"not a regular expression: {pattern!r} ({error})") from error
        return found


def redacted(capture: Capture, rules: Rules, key: bytes | None = None) -> Capture:
    """Return the capture with what could tell of people, machines and data replaced.

    Raises UsageError for a broken pattern.
    """
    return _Redacted(capture, _Pseudonyms(rules, key or secrets.token_bytes(32), capture))


class _Redacted(Capture):
    """A capture whose tables are redacted when they are first read; each stays in memory."""

    def __init__(self, capture: Capture, names: _Pseudonyms) -> None:
        super().__init__(capture.path, names.info(capture.info))
        self.living = capture.living
        self._capture = capture
        self._names = names
        self._read: dict[str, pl.LazyFrame] = {}

    @property
    def is_plain(self) -> bool:
        """Never: its rows are not those of its parts."""
        return False

    def restricted(self, wanted: Any) -> Capture:
        """Return the capture with only those spans that may belong to what is wanted."""
        restricted = copy.copy(self)
        restricted._capture, restricted._read = self._capture.restricted(wanted), {}
        return restricted

    def table(self, name: str) -> pl.LazyFrame:
        """Return a captured table, redacted."""
        if name not in self._read:
            self._read[name] = self._names.table(name, self._capture.table(name)).lazy()
        return self._read[name]


@dataclass
class _Pseudonyms:
    """Replaces text; the same text by the same."""

    rules: Rules
    key: bytes
    capture: Capture
    patterns: list[re.Pattern[str]] = field(init=False)
    services: frozenset[str] = field(init=False)
    hosts: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.patterns = self.rules.compiled()
        found = self.capture.table("spans").select(pl.col("service").unique()).collect()
        self.services = frozenset(found["service"].drop_nulls())
        if self.capture.info.host:
            self.host(self.capture.info.host)

    # ---- pieces of text ----

    def hidden(self, text: str) -> str:
        """Return the pseudonym of a value: `~` and eight letters."""
        digest = hmac.new(self.key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        return "~" + "".join(chr(97 + byte % 26) for byte in digest[:8])

    def number(self, text: str) -> str:
        """Return another number for a number, so that SQL stays SQL."""
        digest = hmac.new(self.key, text.encode(), hashlib.sha256).digest()
        return str(10**14 + int.from_bytes(digest[:6], "big") % 10**14)

    def host(self, text: str) -> str:
        """Return `host-1` for a host, `host-1:5432` for one with a port; services keep theirs."""
        if text in self.services or not text:
            return text
        name, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal():
            name, colon, port = text, "", ""
        if name in self.services or name in ("localhost", "127.0.0.1", "::1"):
            return text
        return f"{self.hosts.setdefault(name, f'host-{len(self.hosts) + 1}')}{colon}{port}"

    def instance(self, text: str) -> str:
        """Return a replica's name: `pid 77` and `gunicorn (pid 77)` stay, a host does not."""
        if named := re.fullmatch(r"(.+) (\(pid \d{1,10}\))", text):
            return f"{self.name(named[1])} {named[2]}"
        return text if re.fullmatch(r"(?:pid )?\d{1,10}", text) else self.host(text)

    def name(self, text: str) -> str:
        """Return a name without ids, addresses, quoted text, hosts and what a pattern finds."""
        for pattern in self.patterns:
            text = pattern.sub(lambda found: self.hidden(found.group()), text)
        for host, alias in self.hosts.items():
            if len(host) > 2 and host in text:
                text = re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", alias, text)
        return _IDS.sub(lambda found: self.hidden(found.group()), text)

    def file(self, text: str) -> str:
        """Return a path from its library's folder on, or its file's name alone."""
        library = _LIBRARIES.match(text)
        if library:
            return text[library.start(1) :]
        folder, slash, name = text.replace("\\", "/").rpartition("/")
        return self.name(f"{self.hidden(folder)}/{name}" if slash and folder else text)

    def words(self, text: str) -> str:
        """Return a sentence or a setting without paths, hosts and ids."""
        return self.name(_PATH.sub(lambda found: self.hidden(found.group()), text))

    def url(self, text: str) -> str:
        """Return an address of the same shape: host, words of its path, names of parameters."""
        head, mark, query = text.partition("?")
        scheme, sep, rest = head.rpartition("://")
        if sep:
            authority, slash, path = rest.partition("/")
            rest = self.host(authority.rpartition("@")[2]) + slash + self._segments(path)
        else:
            rest = self._segments(rest)
        pairs = (pair.partition("=") for pair in query.split("&"))
        asked = "&".join(f"{self.name(key)}{eq}{self.hidden(v)}" if eq else self.hidden(key)
                         for key, eq, v in pairs)  # fmt: skip
        return f"{scheme}{sep}{rest}{mark}{asked if mark else ''}"

    def _segments(self, path: str) -> str:
        word = re.compile(r"\{?[A-Za-z][A-Za-z_-]{0,30}\}?|v\d{1,2}|")
        return self.name(
            "/".join(
                part if word.fullmatch(part) else self.hidden(part) for part in path.split("/")
            )
        )

    def statement(self, text: str, system: str | None) -> str:
        """Return a query with other values in it; of what is no SQL only the command."""
        if (system or "").lower() in _WITHOUT_SQL or not _SQL.match(text):
            found = _WORDS_OF_COMMANDS.match(text)
            return f"{found[1]} {self.hidden(found[2])}" if found else self.hidden(text)
        names = (system or "").lower() in _SYSTEMS_OF_DOUBLE_QUOTES

        def other(found: re.Match[str]) -> str:
            if found["kept"] or (found["double"] and names):
                return found.group()
            if found["number"]:
                return self.number(found.group())
            return f"'{self.hidden(found.group())}'"

        text = _LITERAL.sub(other, _COMMENT.sub(" ", text))
        for pattern in self.patterns:
            text = pattern.sub(lambda found: self.hidden(found.group()), text)
        return text

    # ---- attributes ----

    def attributes(self, text: str) -> str:
        """Return a JSON object with other values, those of well-known attributes aside."""
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            return json.dumps({"redacted": self.hidden(text)})
        made = {self.name(key): self._value(key, value) for key, value in content.items()}
        return json.dumps(made, ensure_ascii=False)

    def _value(self, key: str, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if _KEPT.match(key) or any(fnmatchcase(key, kept) for kept in self.rules.keep):
            return self.name(value) if isinstance(value, str) and self.patterns else value
        if isinstance(value, str):
            if _HOSTS.search(key):
                return self.host(value)
            return self.url(value) if _URLS.search(key) else self.hidden(value)
        return self.arguments(value)

    def arguments(self, value: Any) -> Any:
        """Return JSON of any shape with other values in it."""
        if isinstance(value, dict):
            return {self.name(key): self.arguments(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.arguments(item) for item in value]
        return value if value is None or isinstance(value, bool) else self.hidden(str(value))

    def call(self, text: str) -> str:
        """Return the arguments of a call, as recorded: JSON, or any text."""
        try:
            return json.dumps(self.arguments(json.loads(text)), ensure_ascii=False)
        except (ValueError, RecursionError):
            return self.hidden(text)

    # ---- tables ----

    def table(self, name: str, rows: pl.LazyFrame) -> pl.DataFrame:
        """Return a captured table with each distinct text replaced once."""
        frame = rows.collect()
        if name == "spans":
            frame = self._statements(frame)
        for column, replace in self._of(name).items():
            frame = frame.with_columns(_replaced(frame[column], replace))
        return frame.select(list(model.BY_NAME[name].schema))

    def _of(self, table: str) -> dict[str, Text]:
        columns: dict[str, dict[str, Text]] = {
            "spans": {
                **dict.fromkeys(("service", "scope", "name", "endpoint", "tool"), self.name),
                "instance": self.instance,
                "peer": self.host,
                "status_message": self.hidden,
                "tool_arguments": self.call,
                "attributes": self.attributes,
                "resource": self.attributes,
            },
            "span_events": {"name": self.name, "attributes": self.attributes},
            "span_links": {"attributes": self.attributes},
            "samples": {"thread_name": self.name},
            "frames": {"file": self.file},
            "metrics": {
                "service": self.name,
                "instance": self.instance,
                "attributes": self.attributes,
            },
        }
        return columns.get(table, {})

    def _statements(self, spans: pl.DataFrame) -> pl.DataFrame:
        both = spans.select("db_system", "db_statement").unique().drop_nulls("db_statement")
        other = [self.statement(text, system) for system, text in both.iter_rows()]
        made = both.with_columns(other=pl.Series(other, dtype=pl.String))
        on = ["db_system", "db_statement"]
        joined = spans.join(made, on=on, how="left", nulls_equal=True, maintain_order="left")
        return joined.with_columns(db_statement="other").drop("other")

    def info(self, info: Any) -> Any:
        """Return what the capture says of itself, redacted."""
        made = copy.deepcopy(info)
        made.host = self.host(info.host)
        made.command = info.command[:1] and [self.file(info.command[0]), "~"]
        made.git_commit = None
        made.sources = [self._setting(source) for source in info.sources]
        made.notes = [self.words(note) for note in info.notes]
        for loss in made.lost:
            loss.why = self.words(loss.why)
        return made

    def _setting(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._setting(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._setting(item) for item in value]
        return self.words(value) if isinstance(value, str) else value


def _replaced(column: pl.Series, replace: Text) -> pl.Series:
    known = column.drop_nulls().unique()
    if known.is_empty():
        return column
    return column.replace_strict(
        known, pl.Series([replace(text) for text in known], dtype=pl.String), default=None
    )
