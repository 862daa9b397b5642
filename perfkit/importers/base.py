"""What an importer is. Each importer is one module of this package, listed in `IMPORTERS`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from perfkit.capture import CaptureWriter


class Importer(Protocol):
    """A module that reads the files of one format."""

    NAME: str
    """Short name for messages and `--format`, e.g. `jaeger-json`."""

    @staticmethod
    def sniff(head: bytes, path: Path) -> bool:
        """Whether a file with these first 64 KiB (decompressed) is of this format."""

    @staticmethod
    def read(path: Path, writer: CaptureWriter) -> None:
        """Read a whole file into a capture. Raises InputError naming file and place."""
