"""Coverage-guided fuzzing: `python -m tools.fuzz IMPORTER|archives|mapped [SECONDS]`.

Needs atheris (`pip install atheris`), which is no dependency: it has no wheels for every Python.
The corpus begins with the samples of the tests; what crashes is written to `crash-*` in the working
directory and belongs into `tests/importers/crashes/IMPORTER/`, where a test reads it for ever.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

SAMPLES = Path(__file__).resolve().parent.parent / "tests" / "importers" / "samples"
_DEFAULT_SECONDS = 60
_MAX_INPUT_BYTES = 64 << 10
_MAPPING = "trace_id=TraceID,span_id=SpanID,name=Name,start_ns=Start:ms,duration_ns=Took:ms"
_TABLE = "TraceID,SpanID,Name,Start,Took\n1,1,a,1795873366000,1.5\n1,2,b,1795873366001,0.5\n"


def main(arguments: list[str]) -> None:
    """Fuzz until a crash or until the time is over."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris (it has wheels for some Pythons)")
    with atheris.instrument_imports(
        include=["perfkit.importers", "perfkit.formats", "zipfile", "tarfile"]
    ):
        from perfkit.errors import PerfkitError
        from perfkit.importers import IMPORTERS, by_name, import_files, mapped
        from tests.importers.memory import MemoryWriter
    if not arguments:
        names = ", ".join(["archives", "mapped", *(one.NAME for one in IMPORTERS)])
        sys.exit(f"usage: python -m tools.fuzz IMPORTER [SECONDS]; one of {names}")
    what = arguments[0]
    seconds = int(arguments[1]) if len(arguments) > 1 else _DEFAULT_SECONDS
    special = what in ("archives", "mapped")
    mapping = mapped.parse(_MAPPING) if what == "mapped" else None
    format = None if special else by_name(what).NAME
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input"

        def one(data: bytes) -> None:
            path.write_bytes(data)
            for keep_going in (False, True):
                with contextlib.suppress(PerfkitError):
                    import_files([path], MemoryWriter(), format=format, mapping=mapping,
                                 started_at_ns=10**18, keep_going=keep_going)  # fmt: skip

        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(_seeds(what)):
            (corpus / f"{number}").write_bytes(seed)
        known = SAMPLES.parent / "crashes" / what
        for crash in known.iterdir() if known.exists() else ():
            shutil.copy(crash, corpus)
        options = [f"-max_total_time={seconds}", f"-max_len={_MAX_INPUT_BYTES}", "-timeout=20"]
        atheris.Setup([sys.argv[0], str(corpus), *options], one)
        atheris.Fuzz()


def _seeds(what: str) -> Iterator[bytes]:
    if what == "archives":
        yield from _archives()
    elif what == "mapped":
        yield from _tables()
    else:
        from perfkit.importers import by_name
        from perfkit.importers.base import Source

        for sample in map(Source, sorted(SAMPLES.iterdir())):
            if by_name(what).sniff(sample.head(), sample.path):
                yield sample.read()  # decompressed


def _archives() -> Iterator[bytes]:
    files = [SAMPLES / "otlp.pb", SAMPLES / "psutil.csv"]
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", packing) as archive:
            for file in files:
                archive.write(file, file.name)
        yield out.getvalue()
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode=mode, format=format) as tar:
                for file in files:
                    tar.add(file, f"{'long/' * 30}{file.name}")
            yield out.getvalue()


def _tables() -> Iterator[bytes]:
    import polars as pl

    yield _TABLE.encode()
    yield _TABLE.replace(",", ";").encode()
    frame = pl.read_csv(_TABLE.encode())
    yield frame.write_ndjson().encode()
    for compression in ("zstd", "uncompressed", "snappy"):
        out = io.BytesIO()
        frame.write_parquet(out, compression=compression)
        yield out.getvalue()


if __name__ == "__main__":
    main(sys.argv[1:])
