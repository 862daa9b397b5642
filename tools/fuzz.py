"""Coverage-guided fuzzing of one importer: `python -m tools.fuzz IMPORTER [SECONDS]`.

Needs atheris (`pip install atheris`), which is no dependency: it has no wheels for every Python.
The corpus begins with the samples of the tests; what crashes is written to `crash-*` in the working
directory and belongs into `tests/importers/crashes/IMPORTER/`, where a test reads it for ever.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

SAMPLES = Path(__file__).resolve().parent.parent / "tests" / "importers" / "samples"
_DEFAULT_SECONDS = 60
_MAX_INPUT_BYTES = 64 << 10


def main(arguments: list[str]) -> None:
    """Fuzz until a crash or until the time is over."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris (it has wheels for some Pythons)")
    with atheris.instrument_imports(include=["perfkit.importers", "perfkit.formats"]):
        from perfkit.errors import PerfkitError
        from perfkit.importers import IMPORTERS, by_name, import_files
        from perfkit.importers.base import Source
        from tests.importers.memory import MemoryWriter
    if not arguments:
        sys.exit(f"usage: python -m tools.fuzz IMPORTER [SECONDS]; {[i.NAME for i in IMPORTERS]}")
    importer = by_name(arguments[0])
    seconds = int(arguments[1]) if len(arguments) > 1 else _DEFAULT_SECONDS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input"

        def one(data: bytes) -> None:
            path.write_bytes(data)
            for keep_going in (False, True):
                with contextlib.suppress(PerfkitError):
                    import_files([path], MemoryWriter(), format=importer.NAME,
                                 started_at_ns=10**18, keep_going=keep_going)  # fmt: skip

        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for sample in map(Source, SAMPLES.iterdir()):
            if importer.sniff(sample.head(), sample.path):
                (corpus / sample.name).write_bytes(sample.read())  # decompressed
        known = SAMPLES.parent / "crashes" / importer.NAME
        for crash in known.iterdir() if known.exists() else ():
            shutil.copy(crash, corpus)
        options = [f"-max_total_time={seconds}", f"-max_len={_MAX_INPUT_BYTES}", "-timeout=20"]
        atheris.Setup([sys.argv[0], str(corpus), *options], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
