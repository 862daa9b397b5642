"""Some columns of a CSV, JSON lines or Parquet file, in batches; as text where it has no types."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import polars as pl

from perfkit.errors import InputError
from perfkit.importers import json_stream, tables
from perfkit.importers.base import MARK, Source

_SEPARATORS = ",;\t|"
_BATCH_ROWS = 250_000
_LOOKED_AT = 3
_HINT_OF_ENCODING = (
    "save it as UTF-8 (Excel: CSV UTF-8), or: iconv -f WINDOWS-1252 -t UTF-8 FILE > FILE.utf8"
)
_SMALLEST_SLICE = 1000
Result = TypeVar("Result")


def has(source: Source, columns: Collection[str], needed: Collection[str]) -> bool:
    """Whether a file is CSV, JSON lines or Parquet and has all columns.

    A line of JSON leaves out what is nothing: of those only what is `needed` must be there.
    """
    head = source.head()
    if head.startswith(b"PAR1") and not source.compressed:
        try:
            schema = _quietly(_parquet_schema(source), source)
        except InputError:
            return False
        return all(_column(schema, name) is not None for name in columns)
    if head.lstrip()[:1] == b"{":
        line = head.lstrip().split(b"\n", 1)[0]
        return all(
            f'"{name}"'.encode() in line
            or all(f'"{part}"'.encode() in line for part in name.split("."))
            for name in needed
        )
    return set(columns) <= set(_header(head))


def names(source: Source) -> list[str]:
    """Return the columns of a file, and the parts of those that are objects.

    Of JSON lines those of the first.
    """
    head = source.head()
    if head.startswith(b"PAR1"):
        schema = {} if source.compressed else _quietly(_parquet_schema(source), source)
        return list(_leaves({name: _nested(dtype) for name, dtype in schema.items()}))
    if head.lstrip()[:1] != b"{":
        return _header(head)
    try:
        line = msgspec.json.decode(head.lstrip().split(b"\n", 1)[0], type=dict[str, Any])
        return list(_leaves(line))
    except json_stream.BAD_JSON:
        return []


def _nested(dtype: Any) -> dict[str, Any] | None:
    return {one.name: _nested(one.dtype) for one in dtype.fields} if dtype == pl.Struct else None


def _leaves(columns: dict[str, Any]) -> Iterator[str]:
    for name, value in columns.items():
        if isinstance(value, dict) and value:
            yield from (f"{name}.{part}" for part in _leaves(value))
        else:
            yield name


def table_names(source: Source) -> list[str]:
    """Return the columns of what looks like CSV, JSON lines or Parquet; none of anything else."""
    head = source.head()
    if not head.startswith(b"PAR1") and head.lstrip()[:1] != b"{":
        lines = head.removeprefix(MARK).split(b"\n")
        separator = _separator(head).encode()
        counts = {line.count(separator) for line in lines[:_LOOKED_AT] if line.strip()}
        if len(lines) < _LOOKED_AT - 1 or len(counts) != 1 or not max(counts):
            return []
    try:
        found = names(source)
    except InputError:
        return []
    return found if all(name.isprintable() for name in found) else []


def _parquet_schema(source: Source) -> Callable[[], pl.Schema]:
    return lambda: pl.scan_parquet(source.path).collect_schema()


def _column(schema: pl.Schema, name: str) -> pl.Expr | None:
    """Return a column, or by `a.b` a part of one that is an object; null when it is not there."""
    if name in schema:
        return pl.col(name)
    first, *parts = name.split(".")
    found = pl.col(first)
    dtype: Any = schema.get(first)
    for part in parts:
        inner = {one.name: one.dtype for one in dtype.fields} if dtype == pl.Struct else {}
        if part not in inner:
            return None
        found, dtype = found.struct.field(part), inner[part]
    return found if parts else None


def _chosen(
    source: Source, frame: pl.LazyFrame, schema: pl.Schema, columns: Mapping[str, str]
) -> pl.LazyFrame:
    """Select columns under the names that are their keys. Raises InputError for one not there."""
    exprs = {key: _column(schema, name) for key, name in columns.items()}
    missing = sorted(columns[key] for key, one in exprs.items() if one is None)
    if missing:
        hint = f"it has: {', '.join(schema)[:300]}"
        raise source.error(f"no column {missing[0]}", hint=hint)
    return frame.select(one.alias(key) for key, one in exprs.items() if one is not None)


def batches(source: Source, path: Path, columns: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    """Yield columns under the names that are their keys in `columns`. Raises InputError."""
    parquet = source.head().startswith(b"PAR1")
    if source.on_damage is not None:
        yield from _slices(source, path, columns) if parquet else _one_by_one(source, columns)
        return
    found = _scanned(source, path, columns)
    while (batch := _quietly(lambda: next(found, None), source)) is not None:
        yield batch


def _scanned(source: Source, path: Path, columns: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    head = source.head()
    if head.startswith(b"PAR1"):
        frame = pl.scan_parquet(path)
    elif head.lstrip()[:1] == b"{":
        frame = pl.scan_ndjson(path, infer_schema_length=1000)
    else:
        frame = pl.scan_csv(path, infer_schema=False, separator=_separator(head))
    chosen = _chosen(source, frame, frame.collect_schema(), columns)
    yield from chosen.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True)


def _one_by_one(source: Source, columns: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    """Yield the same columns of lines that are read one at a time, and pass over damaged ones."""
    head = source.head()
    rows: list[dict[str, Any]] = []
    lines = (
        _objects(source)
        if head.lstrip()[:1] == b"{"
        else tables.rows(source, *columns.values(), separators=_separator(head))
    )
    schema = dict.fromkeys(columns, pl.String)
    for _, row in lines:
        values = {key: _value(row, name) for key, name in columns.items()}
        rows.append({key: None if one is None else str(one) for key, one in values.items()})
        if len(rows) >= _BATCH_ROWS:
            yield pl.DataFrame(rows, schema=schema)
            rows = []
    if rows:
        yield pl.DataFrame(rows, schema=schema)


def _value(row: Any, name: str) -> Any:
    if isinstance(row, dict) and name in row:
        return row[name]
    first, _, rest = name.partition(".")
    return _value(row.get(first), rest) if rest and isinstance(row, dict) else None


def _objects(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, line in json_stream.lines(source):
        try:
            yield place, msgspec.json.decode(line, type=dict[str, Any])
        except json_stream.BAD_JSON as error:
            source.pass_over(json_stream.refuse("a JSON object", place, error))


def _slices(source: Source, path: Path, columns: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    """Yield a Parquet file in pieces, and pass over those that cannot be read.

    What it holds is described at its end, so that of a file that is cut off nothing can be read.
    """
    frame = pl.scan_parquet(path)
    try:
        schema = _quietly(frame.collect_schema, source)
        rows = _quietly(lambda: frame.select(pl.len()).collect().item(), source)
    except InputError as error:
        raise source.error(
            f"{error.message.removeprefix(f'{source}: ')}; a Parquet file is described at its "
            "end, and without that nothing can be kept"
        ) from error
    chosen = _chosen(source, frame, schema, columns)
    todo = [(at, min(_BATCH_ROWS, rows - at)) for at in reversed(range(0, rows, _BATCH_ROWS))]
    while todo:
        at, count = todo.pop()
        try:
            yield _quietly(chosen.slice(at, count).collect, source)
        except InputError as error:
            if count > _SMALLEST_SLICE:
                half = count // 2
                todo += [(at + half, count - half), (at, half)]
                continue
            reason = error.message.removeprefix(f"{source}: ")
            source.pass_over(InputError(reason, where=f"{source}, rows {at} to {at + count - 1}"))


def _quietly(work: Callable[[], Result], source: Source) -> Result:
    """Run Polars over foreign data: whatever it raises, and its panics, become an InputError."""
    try:
        return work()
    except InputError:
        raise
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"
        if not panic and not isinstance(error, (pl.exceptions.PolarsError, OSError, ValueError)):
            raise
        reason = " ".join(str(error).split())[:200]
        hint = _HINT_OF_ENCODING if "utf-8" in reason.lower() else None
        raise InputError(f"cannot be read: {reason}", where=str(source), hint=hint) from error


def _header(head: bytes) -> list[str]:
    line = head.lstrip(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    return tables.header(line.replace(_separator(head).encode(), b","))


def has_decimal_comma(source: Source) -> bool:
    """Whether a comma may stand in a number: such CSV has semicolons between its columns."""
    head = source.head()
    is_csv = not head.startswith(b"PAR1") and head.lstrip()[:1] != b"{"
    return is_csv and _separator(head) == ";"


def _separator(head: bytes) -> str:
    line = head.split(b"\n", 1)[0]
    return max(_SEPARATORS, key=lambda one: line.count(one.encode()))
