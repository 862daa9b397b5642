"""Exporters: a capture in the formats of other tools. `EXPORTERS` lists every one of them."""

from __future__ import annotations

from perfkit.exporters import (
    chrome,
    collapsed,
    csv,
    otlp_json,
    pprof,
    speedscope,
    svg,
    xlsx,
)
from perfkit.exporters.base import Exporter

EXPORTERS: tuple[Exporter, ...] = (
    speedscope,
    collapsed,
    pprof,
    chrome,
    otlp_json,
    csv,
    xlsx,
    svg,
)


def by_name(name: str) -> Exporter:
    """Return the exporter of a format; the command line offers only those there are."""
    return next(exporter for exporter in EXPORTERS if name == exporter.NAME)
