"""Any CSV, JSON lines or Parquet of spans, samples or metrics, by a mapping of its columns.

A mapping is `target=Column[:unit]`, several with commas between: the targets are columns of the
tables `spans`, `samples` and `metrics` (docs/tables.md), and which of them are there says which
table it is. A target with a dot is the name of a metric that has a column of its own, or of an
attribute of spans. Times and values of metrics may have a unit.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from perfkit import ids, model, units
from perfkit.capture import CaptureWriter
from perfkit.errors import InputError, UsageError
from perfkit.formats.collapsed import Collapsed
from perfkit.formats.spans import MAX_DURATION_NS, MAX_TIME_NS, MIN_TIME_NS
from perfkit.importers import column_files, psutil_jsonl
from perfkit.importers.base import Source

NAME = "mapped"

_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_SCALES: dict[str, tuple[float, str]] = {
    "%": (0.01, "1"),
    "1": (1, "1"),
    **{name: (factor / 10**9, "s") for name, factor in _UNITS.items()},
    "B": (1, "By"),
    "kB": (10**3, "By"),
    "MB": (10**6, "By"),
    "GB": (10**9, "By"),
    "KiB": (1 << 10, "By"),
    "MiB": (1 << 20, "By"),
    "GiB": (1 << 30, "By"),
}
"""Units of values of metrics: the factor to the unit that is stored, and that one."""
_STORED_UNITS = {metric.name: metric.unit for metric in psutil_jsonl.METRICS.values()}
_IDS = ("trace_id", "span_id", "parent_id")
_PLAIN = {
    "spans": tuple(
        name
        for name in model.SPANS.schema
        if not name.startswith("trace_") and name not in (*_IDS, "start_ns", "duration_ns")
    ),
    "samples": ("count", "pid", "tid", "thread_name", "state"),
    "metrics": ("name", "unit", "value", "count", "kind", "service", "instance", "attributes"),
}
_TIMES = {
    "spans": ("start_ns", "end_ns", "duration_ns"),
    "samples": ("ts_ns", "duration_ns"),
    "metrics": ("ts_ns",),
}
_NEEDED = {
    "spans": ("trace_id", "span_id", "start_ns"),
    "samples": ("stack",),
    "metrics": ("ts_ns",),
}

_ITEM = re.compile(r"\s*([\w.]+)\s*=\s*(.+?)\s*")


@dataclass(frozen=True)
class Mapping:
    """Which column of a file becomes which of a table; `units` are factors of times to ns."""

    table: str
    columns: dict[str, str]
    units: dict[str, int]
    scales: dict[str, tuple[float, str]]
    """Factors of values of metrics whose unit is said, and the unit that they then have."""


def parse(text: str) -> Mapping:
    """Read a mapping. Raises UsageError that says what is wrong and what there is."""
    columns: dict[str, str] = {}
    factors: dict[str, int] = {}
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise UsageError(f"--map: {item!r} is not TARGET=COLUMN or TARGET=COLUMN:UNIT")
        target, column = match[1], match[2]
        name, _, unit = column.rpartition(":")
        if name and target.endswith("_ns"):
            if unit not in _UNITS:
                raise UsageError(f"--map: no unit {unit!r}", hint=f"units: {', '.join(_UNITS)}")
            column, factors[target] = name, _UNITS[unit]
        if target in columns:
            raise UsageError(f"--map: {target} is there twice")
        columns[target] = column
    table = _table(columns)
    known = {*_PLAIN[table], *_TIMES[table], *_NEEDED[table], *(_IDS if table == "spans" else ())}
    for target in columns:
        if target not in known and not (table != "samples" and "." in target):
            raise UsageError(
                f"--map: {target} is nothing that {table} have",
                hint=f"targets of {table}: {', '.join(sorted(known))}",
            )
    missing = [name for name in _NEEDED[table] if name not in columns]
    if missing:
        raise UsageError(f"--map: {table} need {', '.join(missing)}")
    single = [target for target in columns if "." in target]
    if single and "attributes" in columns:
        raise UsageError(f"--map: {single[0]} beside attributes, which are whole objects")
    scales = _scales(columns) if table == "metrics" else {}
    if "value" in scales and "unit" in columns:
        raise UsageError("--map: a unit behind the column of value, and a column of units")
    return Mapping(table, columns, factors, scales)


def _scales(columns: dict[str, str]) -> dict[str, tuple[float, str]]:
    """Take the units from behind the columns of values; what is none belongs to the name."""
    scales: dict[str, tuple[float, str]] = {}
    for target, column in columns.items():
        name, _, unit = column.rpartition(":")
        if name and unit in _SCALES and (target == "value" or "." in target):
            columns[target], scales[target] = name, _SCALES[unit]
    return scales


def _table(columns: dict[str, str]) -> str:
    if "stack" in columns:
        return "samples"
    if "start_ns" in columns or "trace_id" in columns or "span_id" in columns:
        return "spans"
    if "value" in columns or any("." in target for target in columns):
        return "metrics"
    raise UsageError(
        "--map: neither spans (trace_id, span_id, start_ns …), nor samples (stack …), nor metrics "
        "(ts_ns, name, value …)"
    )


def fits(source: Source, mapping: Mapping) -> bool:
    """Whether a file is CSV, JSON lines or Parquet and has all columns of the mapping."""
    needed = [mapping.columns[target] for target in _NEEDED[mapping.table]]
    return column_files.has(source, mapping.columns.values(), needed)


def read(source: Source, writer: CaptureWriter, mapping: Mapping) -> None:
    """Read all rows, in batches of columns."""
    with tempfile.TemporaryDirectory(prefix="perfkit-import-") as folder:
        path = source.path
        if source.compressed:
            path = Path(folder) / "unpacked"
            with path.open("wb") as file:
                try:
                    file.writelines(source.chunks())
                except InputError as error:  # what it gave until then may be enough
                    source.pass_over(error)
        reader = {"spans": _spans, "samples": _samples, "metrics": _metrics}[mapping.table]
        decimal_comma = column_files.has_decimal_comma(source)
        for batch in column_files.batches(source, path, mapping.columns):
            plain = _with_points(mapping, batch) if decimal_comma else batch
            reader(source, writer, mapping, plain)
    _say_left_out(source, writer, mapping)


def _with_points(mapping: Mapping, batch: pl.DataFrame) -> pl.DataFrame:
    """Return rows in which 12,5 is 12.5 where a number is wanted."""
    schema = model.BY_NAME[mapping.table].schema
    numbers = [
        name
        for name, dtype in batch.schema.items()
        if dtype == pl.String
        and (name in _TIMES[mapping.table] or (schema[name].is_numeric() if name in schema
             else mapping.table == "metrics"))
    ]  # fmt: skip
    return batch.with_columns(pl.col(numbers).str.replace(r"^\s*([-+]?\d+),(\d+)\s*$", "$1.$2"))


def _say_left_out(source: Source, writer: CaptureWriter, mapping: Mapping) -> None:
    mapped = tuple(f"{name}." for name in mapping.columns.values())
    names = column_files.names(source)
    left = pl.Series([name for name in names if not f"{name}.".startswith(mapped)])
    if len(left):
        writer.note(
            f"{source.name}: columns that are not mapped were left out: {_some(left)}; in spans "
            "NAME.WITH.DOT=COLUMN keeps one as an attribute"
        )


def _some(words: pl.Series) -> str:
    shown = ", ".join(repr(word[:_SHOWN_LENGTH]) for word in words.head(_SHOWN_WORDS))
    more = len(words) - _SHOWN_WORDS
    return f"{shown} and {more} more" if more > 0 else shown


def _ns(batch: pl.DataFrame, mapping: Mapping, target: str) -> pl.Expr:
    """Return a time or a length in ns; null for what is none."""
    column, dtype = pl.col(target), batch.schema[target]
    if isinstance(dtype, pl.Datetime):
        return (
            column.dt.timestamp("us") * 1000
            if dtype.time_unit != "ns"
            else column.dt.timestamp("ns")
        )
    if isinstance(dtype, pl.Duration):
        return column.dt.total_nanoseconds()
    factor = mapping.units.get(target, 1)
    whole = column.cast(pl.Int64, strict=False)
    limit = 2**63 // factor - 1
    exact = pl.when(whole.abs() <= limit).then(whole * factor)
    rounded = (column.cast(pl.Float64, strict=False) * factor).round()
    number = pl.when(rounded.abs() < 2**62).then(rounded).cast(pl.Int64, strict=False)
    if dtype.is_float():
        return number
    if dtype != pl.String:
        return exact
    text = column.str.to_datetime(time_unit="ns", time_zone="UTC", strict=False)
    return pl.coalesce(exact, number, text.dt.timestamp("ns"))


def _plausible(source: Source, mapping: Mapping, target: str, times: pl.Series) -> None:
    """Raise when times are not wall-clock times, which is a wrong unit most likely."""
    middle = times.drop_nulls().median()
    if isinstance(middle, (int, float)) and not MIN_TIME_NS <= middle < MAX_TIME_NS:
        raise InputError(
            f"{target} from {mapping.columns[target]} gives times such as "
            f"{units.timestamp(int(max(0, min(middle, MAX_TIME_NS))))}, which is not plausible",
            where=str(source),
            hint=f"say its unit: {target}={mapping.columns[target]}:ms, or s, us, ns",
        )


def _plain(mapping: Mapping) -> list[pl.Expr]:
    schema = model.BY_NAME[mapping.table].schema
    return [
        pl.col(name).cast(schema[name], strict=False)
        for name in _PLAIN[mapping.table]
        if name in mapping.columns
    ]


def _attributes(mapping: Mapping, batch: pl.DataFrame) -> list[pl.Expr]:
    """Return one JSON object of the columns that are single attributes, without what is nothing."""
    members = [
        pl.when(value.is_not_null()).then(
            pl.struct(value.alias(name)).struct.json_encode().str.strip_prefix("{").str.head(-1)
        )
        for name in sorted(mapping.columns)
        if "." in name
        for value in (_jsonable(name, batch.schema[name]),)
    ]
    if not members:
        return []
    joined = pl.concat_str(members, separator=",", ignore_nulls=True)
    return [pl.when(joined != "").then(pl.lit("{") + joined + "}").alias("attributes")]


def _jsonable(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype.is_float():
        return pl.when(column.is_finite()).then(column)
    if dtype.is_integer() or dtype == pl.Boolean or isinstance(dtype, (pl.List, pl.Struct)):
        return column
    return column.cast(pl.String, strict=False)


def _spans(source: Source, writer: CaptureWriter, mapping: Mapping, batch: pl.DataFrame) -> None:
    times = [
        _ns(batch, mapping, name).alias(f"@{name}")
        for name in _TIMES["spans"]
        if name in mapping.columns
    ]
    frame = batch.with_columns(times)
    _plausible(source, mapping, "start_ns", frame["@start_ns"])
    _count_unreadable(writer, frame)
    length = pl.lit(None, dtype=pl.Int64)
    if "@duration_ns" in frame.columns:
        length = pl.col("@duration_ns")
    elif "@end_ns" in frame.columns:
        length = pl.col("@end_ns") - pl.col("@start_ns")
    frame = frame.with_columns(length.alias("@length"))
    frame = _identified(frame, mapping)
    defaults = {
        "service": pl.lit("unknown_service"),
        "kind": pl.lit("unspecified"),
        "status": pl.lit("unset"),
        "name": pl.lit(""),
        "adjusted_count": pl.lit(1.0),
        "parent_inferred": pl.lit(value=False),
    }
    columns = [*_plain(mapping), *_attributes(mapping, batch)]
    chosen = frame.select(
        "trace_hi", "trace_lo", "@span", "@parent", pl.col("@start_ns").alias("start_ns"),
        pl.col("@length").alias("duration_ns"), *columns,
    ).rename({"@span": "span_id", "@parent": "parent_id"})  # fmt: skip
    chosen = chosen.with_columns(
        value.alias(name) if name not in chosen.columns else pl.col(name).fill_null(value)
        for name, value in defaults.items()
    )
    chosen = chosen.with_columns(
        _among("kind", model.KINDS), _status(), pl.col("status").alias("@word")
    )
    if "http_status" in chosen.columns:
        chosen = chosen.with_columns(_judged())
    start, span = pl.col("start_ns"), pl.col("span_id")
    good = {
        "span without ids": span.is_not_null() & pl.col("trace_lo").is_not_null(),
        "span without a plausible start time": start.is_between(0, MAX_TIME_NS - 1),
        "span with an implausible duration": pl.col("duration_ns").is_null()
        | pl.col("duration_ns").is_between(0, MAX_DURATION_NS),
    }
    kept = _sifted(writer, chosen, good)
    # A failed HTTP status says more than a word that is not known.
    _say_unknown(source, writer, kept.filter(pl.col("status") == "unset")["@word"])
    writer.append("spans", kept.drop("@word"))


def _count_unreadable(writer: CaptureWriter, frame: pl.DataFrame) -> None:
    """Count the lengths that are no numbers: their spans seem not to have ended."""
    for name in ("end_ns", "duration_ns"):
        if frame.schema.get(name) == pl.String:
            said = pl.col(name).str.strip_chars().str.len_bytes() > 0
            bad = frame.filter(said & pl.col(f"@{name}").is_null()).height
            if bad:
                writer.lose("length of a span", bad, f"{name} is no number, left unknown")


def _identified(frame: pl.DataFrame, mapping: Mapping) -> pl.DataFrame:
    """Add the ids as integers: computed once for each text."""
    traces = frame["trace_id"].cast(pl.String).unique().drop_nulls()
    pairs = [ids.trace_id_from_text(text) if text else (None, None) for text in traces]
    table = pl.DataFrame(
        {
            "trace_id": traces,
            "trace_hi": pl.Series([pair[0] for pair in pairs], dtype=pl.Int64),
            "trace_lo": pl.Series([pair[1] for pair in pairs], dtype=pl.Int64),
        }
    )
    frame = frame.with_columns(pl.col("trace_id").cast(pl.String))
    frame = frame.join(table, on="trace_id", how="left", maintain_order="left")
    for target, name in (("span_id", "@span"), ("parent_id", "@parent")):
        if target not in mapping.columns:
            frame = frame.with_columns(pl.lit(None, dtype=pl.Int64).alias(name))
            continue
        texts = frame[target].cast(pl.String)
        found = texts.unique().drop_nulls()
        numbers = pl.Series([ids.span_id_from_text(text) for text in found], dtype=pl.Int64)
        known = pl.DataFrame({"@text": found, name: numbers})
        frame = frame.with_columns(texts.alias("@text"))
        frame = frame.join(known, on="@text", how="left", maintain_order="left").drop("@text")
    return frame


def _among(name: str, values: tuple[str, ...]) -> pl.Expr:
    text = pl.col(name).str.to_lowercase().str.strip_prefix("span_kind_")
    return pl.when(text.is_in(values)).then(text).otherwise(pl.lit(values[0])).alias(name)


_BAD = ("error", "err", "failed", "failure")
_GOOD = ("ok", "success")
_UNSET = ("", "unset")
_SHOWN_WORDS = 5
_SHOWN_LENGTH = 30


def _word() -> pl.Expr:
    return pl.col("status").str.to_lowercase().str.strip_prefix("status_code_")


def _say_unknown(source: Source, writer: CaptureWriter, words: pl.Series) -> None:
    """Count the statuses that are no known word, and name some: a failure may be among them."""
    unknown = ~_word().is_in([*_BAD, *_GOOD, *_UNSET])
    found = words.alias("status").to_frame().filter(unknown)["status"]
    if not found.len():
        return
    if "status of a span" not in {loss.what for loss in writer.info.lost}:
        some = _some(found.unique(maintain_order=True))
        writer.note(
            f"{source.name}: status {some} is not known and left unset, so failures may not be "
            f"counted; known are {', '.join((*_GOOD, *_BAD, 'unset'))}"
        )
    writer.lose("status of a span", found.len(), "not a known word, left unset")


def _status() -> pl.Expr:
    text = _word()
    bad = text.is_in(_BAD)
    good = text.is_in(_GOOD)
    failed = pl.when(bad).then(pl.lit("error"))
    return failed.when(good).then(pl.lit("ok")).otherwise(pl.lit("unset")).alias("status")


def _judged() -> pl.Expr:
    """Return the status, which is a failure too where HTTP's says so, as in `semconv.status`."""
    code = pl.col("http_status")
    calls = pl.col("kind").is_in(["client", "producer"])
    failed = (code >= 500) | ((code >= 400) & calls)
    return pl.when(failed).then(pl.lit("error")).otherwise("status").alias("status")


def _samples(source: Source, writer: CaptureWriter, mapping: Mapping, batch: pl.DataFrame) -> None:
    parser = Collapsed(writer.stacks)
    texts = batch["stack"]
    if isinstance(texts.dtype, pl.List):
        texts = texts.list.join(";")
    texts = texts.cast(pl.String)
    found = texts.unique().drop_nulls()
    stacks = [
        writer.stacks.intern([parser.frame(one) for one in text.split(";") if one])
        if text.strip(";")
        else None
        for text in found
    ]
    known = pl.DataFrame({"stack": found, "stack_id": pl.Series(stacks, dtype=pl.Int64)})
    times = [_ns(batch, mapping, name) for name in _TIMES["samples"] if name in mapping.columns]
    frame = batch.with_columns(*times, texts.alias("stack"))
    frame = frame.join(known, on="stack", how="left", maintain_order="left")
    if "ts_ns" in mapping.columns:
        _plausible(source, mapping, "ts_ns", frame["ts_ns"])
    chosen = frame.select(
        "stack_id", *(n for n in _TIMES["samples"] if n in mapping.columns), *_plain(mapping)
    )
    if "count" not in chosen.columns:
        chosen = chosen.with_columns(pl.lit(1, dtype=pl.Int64).alias("count"))
    good = {
        "sample without a stack": pl.col("stack_id").is_not_null(),
        "sample with an implausible count": pl.col("count").is_between(1, 2**53),
    }
    if "ts_ns" in mapping.columns:
        good["sample without a plausible time"] = pl.col("ts_ns").is_between(0, MAX_TIME_NS - 1)
    writer.append("samples", _sifted(writer, chosen, good))


def _metrics(source: Source, writer: CaptureWriter, mapping: Mapping, batch: pl.DataFrame) -> None:
    frame = batch.with_columns(_ns(batch, mapping, "ts_ns"))
    _plausible(source, mapping, "ts_ns", frame["ts_ns"])
    wide = [target for target in mapping.columns if "." in target]
    parts = [("value", None)] if "value" in mapping.columns else []
    for column, name in [*parts, *((target, target) for target in wide)]:
        plain = [one for one in _plain(mapping) if one.meta.output_name() not in ("value", "name")]
        factor, unit = mapping.scales.get(column, (1, _STORED_UNITS.get(name or "", "1")))
        value = (pl.col(column).cast(pl.Float64, strict=False) * factor).alias("value")
        named = pl.lit(name) if name else pl.col("name").cast(pl.String)
        chosen = frame.select("ts_ns", value, named.alias("name"), *plain)
        for key, default in (("unit", unit), ("kind", "gauge")):
            if key not in chosen.columns:
                chosen = chosen.with_columns(pl.lit(default).alias(key))
        good = {
            "metric without a plausible time": pl.col("ts_ns").is_between(0, MAX_TIME_NS - 1),
            "metric that is no finite number": pl.col("value").is_finite(),
            "metric without a name": pl.col("name").is_not_null(),
        }
        kept = _sifted(writer, chosen, good)
        if column not in mapping.scales:
            _say_share(source, writer, mapping.columns[column], name, kept["value"])
        writer.append("metrics", kept)


def _say_share(
    source: Source, writer: CaptureWriter, column: str, name: str | None, values: pl.Series
) -> None:
    """Say it where a share of 1 is beyond that: what was written is per cent most likely."""
    highest = values.max()
    if name and name.endswith(".utilization") and isinstance(highest, float) and highest > 1:
        writer.note(
            f"{source.name}: {column} is taken as a share of 1, as {name} is, and goes beyond 1; "
            f"if it is per cent, say {name}={column}:%"
        )


def _sifted(writer: CaptureWriter, frame: pl.DataFrame, good: dict[str, pl.Expr]) -> pl.DataFrame:
    """Keep the good rows, and count the others under the first reason that they give."""
    for reason, condition in good.items():
        kept = frame.filter(condition.fill_null(value=False))
        if kept.height < frame.height:
            writer.lose("rejected", frame.height - kept.height, reason)
        frame = kept
    return frame
