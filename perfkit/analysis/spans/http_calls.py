"""The table `http_calls`: HTTP requests made or served, by address, with what they carried."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.spans.ids import Ids, Traces, numbers
from perfkit.analysis.vector.percentiles import codes

_URL = ("url.full", "http.url", "url", "http.target", "url.path")
_QUERY = ("url.query", "http.query")
_SENT = (
    "http.request.body.size",
    "http.request_content_length",
    "http.request.header.content-length",
)
_RECEIVED = (
    "http.response.body.size",
    "http.response_content_length",
    "http.response.header.content-length",
    "http.response_transfer_size",
)
_DECODED = ("http.decoded_response_content_length", "http.response_content_length_uncompressed")
_ENCODING = ("http.response.header.content-encoding",)
_TYPE = ("http.response.header.content-type",)
_VERSION = ("network.protocol.version", "http.flavor")
_RESENT = ("http.request.resend_count", "http.resend_count")
_SENT_AT = ("http.request.request_start",)
_PREFETCH = ("http.request.prefetch",)
_DISPOSITION = ("http.response.header.content-disposition", "content-disposition")
# https://opentelemetry.io/docs/specs/semconv/http/ and before; those of browsers' timings as the
# Sentry SDK names them.

_KEYS = (
    *(*_URL, *_QUERY, *_SENT, *_RECEIVED, *_DECODED, *_ENCODING, *_TYPE, *_VERSION),
    *(*_RESENT, *_SENT_AT, *_PREFETCH, *_DISPOSITION),
)

_METHOD = r"^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS)\b"

_SEGMENTS = (
    # Applied twice, because neighbours share their slash.
    r"/(?:\d+(?:[.-][^/]*)?|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    r"|[^/]*-\d+|[0-9a-fA-F]{10,}|[A-Za-z0-9_-]{32,}|[^/]*%[0-9a-fA-F]{2}[^/]*)(/|$)"
)
_SITE = r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*"
_EPHEMERAL = (
    # From 32768 on the kernel gives out ports (Linux: ip_local_port_range): another one each run.
    r"^([A-Za-z][A-Za-z0-9+.-]*://(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+\])):"
    r"(?:3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[4-6]\d{4})$"
)
_NAMED = r"^((?:[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*)?/[^?#]+)/[^/?#]+(\?.*)?$"
_FILE = r"\.[A-Za-z][A-Za-z0-9]{1,5}/?$"


def compute(tables: Tables) -> pl.DataFrame:
    """Return one row an HTTP request that a span of an entry makes or serves."""
    calls = (
        _recorded(tables)
        .lazy()
        .with_columns(method=pl.coalesce("http_method", pl.col("name").str.extract(_METHOD)))
        .filter(pl.col("method").is_not_null())
        .collect()
    )
    attributes = _Attributes.of(calls["attributes"])
    found = (
        calls.lazy()
        .with_columns(
            url=_address(attributes),
            request_bytes=attributes.number(_SENT),
            response_bytes=attributes.number(_RECEIVED),
            decoded_bytes=attributes.number(_DECODED),
            encoding=attributes.text(_ENCODING),
            content_type=attributes.text(_TYPE),
            http_version=attributes.text(_VERSION),
            resend_count=attributes.number(_RESENT),
            prefetch=attributes.any(_PREFETCH).eq("true").fill_null(False),
            attached=attributes.text(_DISPOSITION)
            .str.contains(r"(?i)^attachment")
            .fill_null(False),
            queued_ns=_queued(attributes),
        )
        .drop("attributes")
        .collect()
    )
    # Most addresses are asked for more than once, and templates take longest.
    code, urls = codes(found, ["url"])
    addresses: pl.DataFrame = _addresses(urls)[code]
    return found.hstack(addresses).select(*COLUMNS)


def _recorded(tables: Tables) -> pl.DataFrame:
    """Return the spans of entries that may be HTTP requests, with what was recorded of each."""
    spans = (
        tables.columns("tree", *_OF_TREE)
        .lazy()
        .filter(
            _may_be_http(),
            pl.col("entry_row").is_not_null(),
            ~pl.col("duplicate"),
        )
        .select(*_ID, "row", "entry_row", "parent_row", "kind", "name", "start_ns", "skew_ns")
        .collect()
    )
    recorded = (
        tables["spans"].filter(_may_be_http()).select(*_ID, "http_method", "attributes").collect()
    )
    traces = Traces.of(spans)
    place = Ids.of(recorded).find(traces, traces.span_key(numbers(spans["span_id"])))
    known = place >= 0
    of_spans: pl.DataFrame = recorded.select("http_method", "attributes")[place[known]]
    return spans.filter(pl.Series(known)).hstack(of_spans)


def _may_be_http() -> pl.Expr:
    kind = pl.col("kind")
    return ((kind == "client") | (kind == "server")) & pl.col("db_system").is_null()


def _addresses(urls: pl.DataFrame) -> pl.DataFrame:
    """Return what is said of each URL."""
    path = pl.col("url").str.strip_prefix(pl.col("site")).str.split_exact("?", 1)
    return (
        urls.lazy()
        .with_columns(site=pl.col("url").str.extract(_SITE, 0).fill_null(""))
        .with_columns(path=path.struct.field("field_0"), query=path.struct.field("field_1"))
        .select(
            address=pl.concat_str(
                pl.col("site").str.replace(_EPHEMERAL, "${1}:{port}"),
                _template(pl.col("path")),
                _without_values(pl.col("query")),
            ),
            url_hash=pl.col("url").hash(seed=0).reinterpret(signed=True),
            file=pl.col("path").str.extract(_FILE, 0).str.strip_chars("./").str.to_lowercase(),
        )
        .with_columns(family=pl.col("address").str.replace(_NAMED, "${1}/{name}${2}"))
        .collect()
    )


_ID = ("trace_hi", "trace_lo", "span_id")
_OF_TREE = (
    *(*_ID, "row", "entry_row", "parent_row", "kind", "db_system", "duplicate"),
    *("name", "start_ns", "skew_ns"),
)


class _Attributes(NamedTuple):
    """Values of attributes as they stand in the JSON text."""

    recorded: frozenset[str]
    """The keys that occur at all; looking for all others in each text would take longest."""

    @classmethod
    def of(cls, texts: pl.Series) -> _Attributes:
        """Look once which of the keys occur."""
        quoted = [f'"{key}"' for key in _KEYS]
        found = texts.str.extract_many(quoted).explode().drop_nulls().unique()
        return cls(frozenset(key.strip('"') for key in found))

    def any(self, keys: tuple[str, ...]) -> pl.Expr:
        """Return a scalar; of a list its first item."""
        values = [_value(key) for key in keys if key in self.recorded]
        return pl.coalesce(*values, pl.lit(None, dtype=pl.String))

    def text(self, keys: tuple[str, ...]) -> pl.Expr:
        """Return a text without its quotes."""
        return self.any(keys).str.strip_chars('"')

    def number(self, keys: tuple[str, ...]) -> pl.Expr:
        """Return a whole number; null where there is none."""
        plain = self.text(keys).str.replace_all("_", "", literal=True)
        return plain.cast(pl.Float64, strict=False).round().cast(pl.Int64, strict=False)


def _value(key: str) -> pl.Expr:
    escaped = key.replace(".", r"\.")
    pattern = rf'"{escaped}"\s*:\s*\[?\s*("(?:[^"\\]|\\.)*"|[^",\[\]{{}}\s]+)'
    return pl.col("attributes").str.extract(pattern)


def _address(attributes: _Attributes) -> pl.Expr:
    """Return the URL as recorded, with its query; from the span's name when none was."""
    named = pl.col("name").str.extract(r"^[A-Z]+\s+(\S+)")
    recorded = pl.coalesce(attributes.text(_URL), named)
    query = attributes.text(_QUERY).str.strip_prefix("?")
    lacks = ~recorded.str.contains("?", literal=True) & (query.str.len_bytes() > 0)
    return pl.when(lacks).then(pl.concat_str(recorded, pl.lit("?"), query)).otherwise(recorded)


def _template(path: pl.Expr) -> pl.Expr:
    once = path.str.replace_all(_SEGMENTS, "/{id}$1")
    return once.str.replace_all(_SEGMENTS, "/{id}$1")


def _without_values(query: pl.Expr) -> pl.Expr:
    # The same names in another order, and one name several times, ask for the same.
    names = query.str.replace_all(r"=[^&]*", "=*").str.split("&").list.unique().list.sort()
    names = names.list.join("&")
    return pl.when(query.is_null() | (query == "")).then(pl.lit("")).otherwise("?" + names)


def _queued(attributes: _Attributes) -> pl.Expr:
    """Return how long after the span's start its request was sent; browsers record that moment."""
    sent_ns = attributes.text(_SENT_AT).cast(pl.Float64, strict=False) * 1e9
    began_ns = pl.col("start_ns") - pl.col("skew_ns")
    waited = (sent_ns - began_ns).round().cast(pl.Int64, strict=False)
    return pl.when(waited >= 0).then(waited)


COLUMNS = {
    "row": "the span, as in `tree`",
    "entry_row": "the entry that it belongs to",
    "parent_row": "the span that it is under; null at roots",
    "kind": "`client` when it is made, `server` when it is served",
    "method": "HTTP method",
    "address": "URL (or path) with `{id}` for what looks like one, `{port}` for one from 32768 on "
    "of an IP address or localhost, and without the values of its query; null when none was "
    "recorded",
    "family": "the address with `{name}` for the last part of its path, unless that is the first",
    "url_hash": "hash of the URL as recorded; null likewise",
    "file": "extension when the path ends in a file, in lower case, e.g. `css`",
    "request_bytes": "size of the body sent, as transferred; null where it is not recorded",
    "response_bytes": "size of the body received, as transferred; null likewise",
    "decoded_bytes": "size of the body received after decompression; null likewise",
    "encoding": "content encoding of the response, e.g. `gzip`; null likewise",
    "content_type": "content type of the response; null likewise",
    "http_version": "protocol version, e.g. `1.1`; null likewise",
    "resend_count": "which repetition of a request this is; null likewise",
    "prefetch": "a browser asked ahead of need",
    "attached": "the answer is a file to download (`Content-Disposition: attachment`)",
    "queued_ns": "time from the span's start until the request was sent; null likewise",
}

DERIVED = Derived(
    "http_calls", "one HTTP request, made or served", ("spans", "tree"), compute, COLUMNS
)
