"""Importers: files that other tools wrote, to a capture.

`IMPORTERS` is the list of all formats, in the order in which they are asked whether a file is
theirs: the narrow ones first.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perfkit import cycles, units
from perfkit.capture import CaptureWriter
from perfkit.errors import InputError, UnknownFormat, UsageError
from perfkit.importers import (
    access_log,
    austin,
    beginnings,
    chrome_trace,
    collapsed,
    cprofile,
    cpuprofile,
    datadog,
    gateway_db,
    inputs,
    jaeger_json,
    jmeter,
    k6,
    locust,
    mapped,
    not_read,
    openmetrics,
    otlp_frames,
    otlp_json,
    otlp_protobuf,
    perf_script,
    pg_stat_statements,
    postgresql,
    postgresql_log,
    pprof,
    prometheus_json,
    psutil_csv,
    psutil_jsonl,
    pyinstrument,
    pyspy_chrometrace,
    repeats,
    request_records,
    sentry,
    skywalking,
    speedscope,
    xray,
    zipkin,
)
from perfkit.importers.base import Importer, Source
from perfkit.scratch import Scratch

IMPORTERS: tuple[Importer, ...] = (
    gateway_db,
    pyspy_chrometrace,
    chrome_trace,
    jaeger_json,
    otlp_json,
    zipkin,
    xray,
    datadog,
    sentry,
    skywalking,
    request_records,
    psutil_jsonl,
    prometheus_json,
    k6,
    speedscope,
    cpuprofile,
    pyinstrument,
    austin,
    pg_stat_statements,
    locust,
    jmeter,
    psutil_csv,
    postgresql_log,
    access_log,
    openmetrics,
    perf_script,
    collapsed,
    cprofile,
    otlp_frames,
    pprof,
    otlp_protobuf,
)

READ_TOGETHER: dict[str, Callable[[Sequence[Source], CaptureWriter], int]] = {
    jaeger_json.NAME: jaeger_json.read_together,
}
"""Formats of which many small files come, often one for each trace: those are read as one. Returns
how many of them were read; the one after those is damaged, and has to be read alone."""
_TOGETHER_BYTES = 8 << 20

MAX_NOTES = 50
_NAMED_PLACES = 5
_MAX_REASON = 100

Progress = Callable[[str, float], None]
"""Hears the name of the file at hand, and which share of all bytes has been read, 0 to 1."""


def by_name(name: str) -> Importer:
    """Return the importer of a format. Raises UsageError when there is none of that name."""
    for importer in IMPORTERS:
        if name == importer.NAME:
            return importer
    raise UsageError(f"no format is called {name}", hint=f"known formats: {known_formats()}")


def known_formats() -> str:
    """List the names of all formats."""
    return ", ".join(importer.NAME for importer in IMPORTERS)


def detect(source: Source) -> Importer:
    """Return the importer of a file, recognised by its content. Raises UnknownFormat."""
    head = source.head()
    for importer in IMPORTERS:
        if importer.sniff(head, source.path):
            return importer
    raise not_read.refusal(source, known_formats())


def import_files(
    paths: Iterable[Path],
    writer: CaptureWriter,
    *,
    format: str | None = None,
    started_at_ns: int | None = None,
    progress: Progress | None = None,
    keep_going: bool = False,
    mapping: mapped.Mapping | None = None,
    databases: Sequence[str] = (),
) -> None:
    """Read files, and all files inside directories, patterns and archives, into one capture.

    `-` is standard input. A content that comes twice is read once. Files of unknown format inside
    a directory are left out and counted as lost; elsewhere they raise UnknownFormat. Raises
    InputError, naming the file, when one cannot be read or when all of them together hold nothing.
    `mapping` reads the files that have its columns, whatever else they could be. With `keep_going`
    damaged records are passed over, where the format has records, and counted by reason; of a file
    that is damaged otherwise what was read is kept, and the next one is read. `databases` are URLs
    of live ones.
    """
    importer = by_name(format) if format is not None else None
    _forget_this_machine(writer)
    with Scratch() as temporary, cycles.rarely_sought():
        files = inputs.expand(paths, temporary)
        run = _Run(writer, importer, started_at_ns, progress, keep_going, _total(files), mapping,
                   alone=len(files) == 1)  # fmt: skip
        if not run.alone:
            run.contents = beginnings.Contents(files, run.reads)
        try:
            for one in files:
                run.read_all(one, temporary)
        finally:
            run.read_waiting()
    for url in databases:
        postgresql.read(url, writer)
    _note_double_records(writer)
    writer.flush()
    if len(writer.info.sources) > 1:
        _drop_coarser(writer)
        _drop_repeats(writer)
    _note_repeats(writer)
    if not any(writer.info.rows.values()):
        raise _nothing(writer, files, len(databases), run.problems)


def _total(files: list[inputs.Input]) -> int:
    return max(1, sum(one.bytes for one in files))


@dataclass
class _Run:
    """One import of several files."""

    writer: CaptureWriter
    importer: Importer | None
    started_at_ns: int | None
    progress: Progress | None
    keep_going: bool
    total_bytes: int
    mapping: mapped.Mapping | None = None
    alone: bool = False
    """Whether there is one file only, so that none can be a copy of it."""
    contents: beginnings.Contents | None = None
    """Among which are files that are the beginning of another."""
    done_bytes: int = 0
    seen: inputs.Seen = field(default_factory=inputs.Seen)
    problems: list[str] = field(default_factory=list)
    """Why files could not be read whole: the first place of each."""
    waiting: list[Source] = field(default_factory=list)
    """Small files of one format that are to be read together."""
    waiting_for: Importer | None = None
    waiting_bytes: int = 0

    def read_all(self, one: inputs.Input, temporary: Path) -> None:
        """Read a file, or the files in it when it is an archive."""
        with self._damage_of("file that is damaged"):
            content = inputs.small_content(one)
            if content is not None:
                self._read_one(one, one, content, lasting=True)
            else:
                for member in inputs.unpacked(one, temporary):
                    with self._damage_of("file that is damaged"):
                        content = inputs.small_content(member)
                        self._read_one(member, one, content, lasting=member is one)
        self.done_bytes += one.bytes

    @contextlib.contextmanager
    def _damage_of(self, what: str) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            if not self.keep_going:
                raise
            self.problems.append(error.message)
            self._leave_out(what, "what was read before is kept", error.message)

    def _read_one(
        self,
        member: inputs.Input,
        whole: inputs.Input,
        content: bytes | None,
        *,
        lasting: bool,
    ) -> None:
        def on_share(share: float) -> None:
            if self.progress is not None:
                done = self.done_bytes + share * whole.bytes
                self.progress(member.label, min(1.0, done / self.total_bytes))

        if lasting:
            on_share(0)
        source = Source(
            member.path,
            self.started_at_ns,
            member.label,
            on_share if lasting else None,
            _PassedOver(self.writer, self.problems) if self.keep_going else None,
            content,
        )
        longer = self._longer(member, lasting=lasting)
        if longer is not None and self._reads_too(longer, source):
            note = f"not imported, {longer.label} begins with all of it: {source.name}"
            self._leave_out("file", "the beginning of another", note)
            return
        try:
            found, mapping = self._reader(source)
        except UnknownFormat as error:
            if member.named and self.mapping is not None:
                mapped.read(source, self.writer, self.mapping)  # says which column is not there
            if member.named:
                raise
            reason = error.message.removeprefix(f"{source}: ").partition(";")[0]
            self._leave_out("file", reason, f"not imported, {reason}: {source.name}")
            return
        if not (self.alone and lasting) and self.seen.is_copy(source, lasting=lasting):
            self._leave_out("file", "a copy of another", f"not imported, a copy: {source.name}")
            return
        if found is not None and source.content is not None and found.NAME in READ_TOGETHER:
            self._wait(source, found)
            return
        self.read_waiting()
        if found is not None:
            self._read(found, source)
        elif mapping is not None:
            _read(mapped.NAME, lambda: mapped.read(source, self.writer, mapping), source,
                  self.writer)  # fmt: skip

    def _reader(self, source: Source) -> tuple[Importer | None, mapped.Mapping | None]:
        """Return the importer of a file, or the mapping that reads it. Raises UnknownFormat."""
        if self.mapping is not None and mapped.fits(source, self.mapping):
            return self.importer, self.mapping
        return self.importer or detect(source), None

    def reads(self, one: inputs.Input) -> bool:
        """Whether a file is of a known format, or has the columns of the mapping."""
        try:
            return bool(self._reader(Source(one.path, label=one.label)))
        except InputError:
            return False

    def _longer(self, member: inputs.Input, *, lasting: bool) -> inputs.Input | None:
        """Return a file that begins with all of another, or of one from an archive."""
        if self.contents is None:
            return None
        if lasting:
            return self.contents.longer(member)
        return self.contents.longer_than_member(member)

    def _reads_too(self, longer: inputs.Input, source: Source) -> bool:
        """Whether a file that begins with all of another is read, and as the other would be."""
        try:
            reader = self._reader(Source(longer.path, label=longer.label))
        except InputError:
            return False
        try:
            return self._reader(source) == reader
        except UnknownFormat:  # of the other there is too little to say
            return True

    def _wait(self, source: Source, importer: Importer) -> None:
        """Read a file with those that come before and after it."""
        if self.waiting_for is not importer or self.waiting_bytes > _TOGETHER_BYTES:
            self.read_waiting()
        self.waiting_for = importer
        self.waiting.append(source)
        self.waiting_bytes += source.size_bytes

    def read_waiting(self) -> None:
        """Read the files that wait; one that cannot be read with the others is read alone."""
        importer, waiting = self.waiting_for, self.waiting
        self.waiting, self.waiting_bytes = [], 0
        if importer is None or not waiting:
            return
        name, read_together = importer.NAME, READ_TOGETHER[importer.NAME]
        while waiting:
            done = read_together(waiting, self.writer) if len(waiting) > 1 else 0
            for source in waiting[:done]:
                _say_source(self.writer, name, source)
            for source in waiting[done : done + 1]:
                with self._damage_of("file that is damaged"):
                    self._read(importer, source)
            waiting = waiting[done + 1 :]

    def _read(self, importer: Importer, source: Source) -> None:
        _read(importer.NAME, lambda: importer.read(source, self.writer), source, self.writer)

    def _leave_out(self, what: str, reason: str, note: str) -> None:
        self.writer.lose(what, 1, reason)
        if len(self.writer.info.notes) < MAX_NOTES:
            self.writer.note(note)


@dataclass
class _PassedOver:
    """Counts the damaged records of a file by reason, and names the first places."""

    writer: CaptureWriter
    problems: list[str]
    """Hears of the first of them: it is what is said when nothing can be kept."""
    named: int = 0

    def __call__(self, error: InputError) -> None:
        message = error.message.removeprefix(f"{error.where}: ")
        reason = re.sub(r"\d+", "N", message.partition(":")[0])[:_MAX_REASON]
        self.writer.lose("damaged record", 1, reason)
        if not self.named:
            self.problems.append(error.message)
        self.named += 1
        if self.named <= _NAMED_PLACES and len(self.writer.info.notes) < MAX_NOTES:
            self.writer.note(f"passed over: {error.message}")


# Formats of spans -> who recorded them.
_RECORDERS = {
    "otlp-protobuf": "OpenTelemetry",
    "otlp-json": "OpenTelemetry",
    "otlp-frames": "OpenTelemetry",
    "jaeger-json": "Jaeger",
    "zipkin-json": "Zipkin",
    "xray-json": "X-Ray",
    "datadog-json": "Datadog",
    "sentry-json": "Sentry",
    "skywalking-json": "SkyWalking",
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


def _note_repeats(writer: CaptureWriter) -> None:
    found = repeats.count(writer.written("spans"))
    if found:
        total = units.number(writer.info.rows["spans"])
        writer.note(
            f"{units.number(found)} of {total} spans are there already, with the same ids, service "
            "and start: they came more than once, say in a file and in a copy of it that is "
            "compressed; analyses count each once, queries of the table spans see all"
        )


def _drop_coarser(writer: CaptureWriter) -> None:
    total = units.number(writer.info.rows.get("spans", 0))
    found, dropped = repeats.drop_coarser(writer) if writer.info.rows.get("spans") else (0, False)
    if found:
        writer.note(
            f"{units.number(found)} of {total} spans came in another format too, whose times are "
            f"finer: {'those are kept' if dropped else 'they count twice; import them apart'}"
        )


def _drop_repeats(writer: CaptureWriter) -> None:
    for table in repeats.SURE:
        total = writer.info.rows.get(table, 0)
        found = repeats.drop(writer, table) if total else 0
        if found:
            writer.note(
                f"{units.number(found)} of {units.number(total)} {table} came more than once, with "
                "the same time and the same of all else, say in another format: each is kept once"
            )


def _forget_this_machine(writer: CaptureWriter) -> None:
    """The data may come from anywhere: this machine's name, cores and clock say nothing of it."""
    info = writer.info
    info.host, info.system, info.cores, info.anchors, info.git_commit = "", "", 0, {}, None


def _read(name: str, read: Callable[[], None], source: Source, writer: CaptureWriter) -> None:
    try:
        read()
    except InputError as error:
        raise source.located(error) from error
    except MemoryError as error:
        raise InputError(
            f"as {name} it does not fit into the memory",
            where=str(source),
            hint="import it where there is more memory, or parts of it",
        ) from error
    _say_source(writer, name, source)


def _say_source(writer: CaptureWriter, name: str, source: Source) -> None:
    writer.info.sources.append({"name": "import", "format": name, "file": source.name})


def _nothing(
    writer: CaptureWriter, files: list[inputs.Input], databases: int, problems: list[str]
) -> InputError:
    if len(files) == 1 and problems and not databases:
        said = next((problem for problem in problems if "can be kept" in problem), None)
        return InputError(said or f"{problems[0]}; nothing of it can be kept")
    where = files[0].label if len(files) == 1 else f"{len(files)} files"
    if databases:
        where = "the database" if not files else f"{where} and the database"
    reasons = "; ".join(f"{loss.count} {loss.what}: {loss.why}" for loss in writer.info.lost[:3])
    return InputError(
        f"nothing in it that perfkit can use{f' ({reasons})' if reasons else ''}",
        where=where,
        hint=None if reasons else f"known formats: {known_formats()}",
    )
