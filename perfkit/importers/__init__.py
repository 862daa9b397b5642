"""Importers: files that other tools wrote, to a capture.

`IMPORTERS` is the list of all formats, in the order in which they are asked whether a file is
theirs: the narrow ones first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from perfkit.capture import SUFFIX, CaptureWriter
from perfkit.errors import InputError, UnknownFormat, UsageError
from perfkit.importers import (
    collapsed,
    gateway_db,
    jaeger_json,
    otlp_json,
    otlp_protobuf,
    psutil_jsonl,
    pyspy_chrometrace,
    request_records,
)
from perfkit.importers.base import Importer, Source

IMPORTERS: tuple[Importer, ...] = (
    gateway_db,
    pyspy_chrometrace,
    jaeger_json,
    otlp_json,
    request_records,
    psutil_jsonl,
    collapsed,
    otlp_protobuf,
)

MAX_NOTES = 50
_SQLITE_SIDECARS = ("-wal", "-shm", "-journal")

Progress = Callable[[str], None]


def by_name(name: str) -> Importer:
    """Return the importer of a format. Raises UsageError when there is none of that name."""
    for importer in IMPORTERS:
        if name == importer.NAME:
            return importer
    raise UsageError(f"no format is called {name}", hint=f"known formats: {known_formats()}")


def known_formats() -> str:
    """List the names of all formats."""
    return ", ".join(importer.NAME for importer in IMPORTERS)


def detect(path: Path) -> Importer:
    """Return the importer of a file, recognised by its content. Raises UnknownFormat."""
    head = Source(path).head()
    for importer in IMPORTERS:
        if importer.sniff(head, path):
            return importer
    raise UnknownFormat(
        "empty file" if not head else "its format is not recognised",
        where=str(path),
        hint=f"known formats: {known_formats()}; name one with --format if it is one of them",
    )


def import_files(
    paths: Iterable[Path],
    writer: CaptureWriter,
    *,
    format: str | None = None,
    started_at_ns: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Read files, and all files inside directories, into one capture.

    A file that is given twice is read once. Files of unknown format inside a directory are left
    out and counted as lost; elsewhere they raise UnknownFormat. Raises InputError, naming the file,
    when one cannot be read or when all of them together hold nothing.
    """
    importer = by_name(format) if format is not None else None
    _forget_this_machine(writer)
    files = list(_files(paths))
    for number, (path, listed) in enumerate(files, 1):
        if progress is not None:
            progress(f"{number} of {len(files)}: {path.name}")
        try:
            found = importer or detect(path)
        except UnknownFormat as error:
            if listed:
                raise
            reason = error.message.removeprefix(f"{path}: ")
            writer.lose("file", 1, reason)
            if len(writer.info.notes) < MAX_NOTES:
                writer.note(f"not imported, {reason}: {path.name}")
            continue
        _read(found, Source(path, started_at_ns), writer)
    _note_double_records(writer)
    writer.flush()
    if not any(writer.info.rows.values()):
        raise _nothing(writer, files)


# Formats of spans -> who recorded them.
_RECORDERS = {
    "otlp-protobuf": "OpenTelemetry",
    "otlp-json": "OpenTelemetry",
    "jaeger-json": "Jaeger",
    "mcp-gateway-db": "the gateway's database",
    "request-records": "request records",
}


def _note_double_records(writer: CaptureWriter) -> None:
    formats = [source.get("format") for source in writer.info.sources]
    recorders = sorted({_RECORDERS[name] for name in formats if name in _RECORDERS})
    if len(recorders) > 1:
        writer.note(
            f"spans come from {' and '.join(recorders)}: a request that more than one of them "
            "recorded is counted more than once; keep one with --service, or import them apart"
        )


def _forget_this_machine(writer: CaptureWriter) -> None:
    """The data may come from anywhere: this machine's name, cores and clock say nothing of it."""
    info = writer.info
    info.host, info.system, info.cores, info.anchors, info.git_commit = "", "", 0, {}, None


def _read(importer: Importer, source: Source, writer: CaptureWriter) -> None:
    try:
        importer.read(source, writer)
    except InputError as error:
        if error.where is not None:
            raise
        raise InputError(error.message, where=str(source.path), hint=error.hint) from error
    writer.info.sources.append(
        {"name": "import", "format": importer.NAME, "file": source.path.name}
    )


def _files(paths: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield each file once, and whether the caller named it himself."""
    seen: set[tuple[int, int]] = set()
    for path in paths:
        if not path.exists():
            raise InputError("no such file", where=str(path))
        listed = not path.is_dir()
        for file in [path] if listed else _walk(path):
            if not listed and not file.is_file():
                continue
            stat = file.stat()
            if (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                yield file, listed


def _walk(directory: Path) -> Iterator[Path]:
    """Yield the files below a directory in order, without hidden ones and captures."""
    for folder, subfolders, names in os.walk(directory):
        subfolders[:] = sorted(
            name for name in subfolders if name[0] != "." and not name.endswith(SUFFIX)
        )
        for name in sorted(names):
            sidecar = any(
                name.endswith(ending) and name.removesuffix(ending) in names
                for ending in _SQLITE_SIDECARS
            )
            if name[0] != "." and not sidecar:
                yield Path(folder) / name


def _nothing(writer: CaptureWriter, files: list[tuple[Path, bool]]) -> InputError:
    where = str(files[0][0]) if len(files) == 1 else f"{len(files)} files"
    reasons = "; ".join(f"{loss.count} {loss.what}: {loss.why}" for loss in writer.info.lost[:3])
    return InputError(
        f"nothing in it that perfkit can use{f' ({reasons})' if reasons else ''}",
        where=where,
        hint=f"known formats: {known_formats()}",
    )
