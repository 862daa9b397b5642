"""What an exporter is, and what it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Source:
    """The tables to export. Filters are applied already: what is in them is wanted."""

    name: str
    """Of the capture, for people."""
    tables: Mapping[str, pl.LazyFrame]
    view: str | None = None
    """Which tree to draw, one of `views.VIEWS`; null: what the exporter thinks best."""
    chosen: tuple[str, ...] = ()
    """Which tables to write, for formats of tables; none: what the exporter thinks best."""


class Exporter(Protocol):
    """One format. An exporter returns bytes and never opens a file."""

    NAME: str
    """As on the command line."""
    SUFFIX: str
    """Of a file of this format."""
    TITLE: str
    """What it is, in a few words."""
    VIEWS: tuple[str, ...]
    """The views it can draw; empty for a format that draws no tree."""
    TABLES: bool
    """Whether it writes tables as they are, which can be chosen."""

    def export(self, source: Source) -> Iterator[bytes]:
        """Yield the file in pieces. Raises InputError when there is nothing to export."""
        ...
