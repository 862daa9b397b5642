"""How a recording is doing, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perfkit.collect.limits import LimitReason
from perfkit.manifest import CaptureInfo

Reason = (
    Literal["duration", "interrupted", "command ended", "process ended", "disk full", "frozen"]
    | LimitReason
)
"""Why a recording ended."""


@dataclass(frozen=True)
class Status:
    """How a recording is doing."""

    elapsed_ns: int
    received: Mapping[str, int]
    """What came over OTLP: `spans`, `metrics`, `requests`, `bytes`; empty without a receiver."""
    refused: int
    """OTLP requests that were refused, and are lost."""
    postponed: int
    """OTLP requests whose sender was asked to come again later."""
    threads: int
    rate: int | None
    """Samples of each thread a second; null while no stacks are recorded."""
    samples: int
    """Stacks that were read in segments that have ended."""
    p95_ns: int | None
    """Of the requests that came so far, within 2 %; null before the first."""
    size_bytes: int
    """What was written: parts, and the journal."""
    backlog_bytes: int
    """What waits to be compacted."""
    max_lag_ns: int
    lost: int
    """Segments of stacks that were lost."""


@dataclass(frozen=True)
class Summary:
    """What came of a recording."""

    path: Path
    reason: Reason
    duration_ns: int
    info: CaptureInfo
    exit_status: int | None
    """Of the command, 128 + N when signal N ended it; null without one and when we stopped it."""
