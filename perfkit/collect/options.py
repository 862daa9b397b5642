"""What to record, and what of that is refused before anything begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from perfkit.collect import access, runtimes
from perfkit.collect.limits import Limits, refuse_without_metrics, refuse_without_spans
from perfkit.collect.sampling import Wishes
from perfkit.errors import UsageError


@dataclass(frozen=True)
class Options:
    """What to record, and where to."""

    output: Path
    pid: int | None = None
    command: tuple[str, ...] = ()
    otlp: tuple[str, int] | None = None
    """Where to listen for OTLP over HTTP; port 0 lets the system choose."""
    otlp_grpc: tuple[str, int] | None = None
    """Where to listen for OTLP over gRPC."""
    otlp_token: str | None = field(default=None, repr=False)
    """What senders of OTLP must bring as bearer token."""
    stacks: bool = True
    metrics: bool = True
    duration_ns: int | None = None
    wishes: Wishes = field(default_factory=Wishes)
    """How stacks are to be sampled."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """How received spans are sampled: see `CaptureInfo.sampling`."""
    limits: Limits = field(default_factory=Limits)
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables to set for the command."""
    instrument: bool = False
    """Start the command with OpenTelemetry in it; receives on a port of loopback without `otlp`."""

    @property
    def receives(self) -> bool:
        """Whether there is to be a receiver of OTLP."""
        return bool(self.otlp or self.otlp_grpc or self.instrument)

    def without_stacks(self) -> str | None:
        """Say why no stacks are recorded although they are wanted: spans alone say much, too."""
        if self.pid is None or not (self.stacks and self.receives):
            return None
        return runtimes.no_stacks(self.pid)

    def check(self) -> None:
        """Raise UsageError or RecordError for what cannot be recorded, before anything begins."""
        self.wishes.check()
        if self.command and self.pid is not None:
            raise UsageError("give either --pid or a command after --, not both")
        if self.instrument and not self.command:
            raise UsageError(
                "--instrument needs a program to start",
                hint="give it after --: perfkit record --instrument -- python server.py",
            )
        if self.pid is None and not self.command and not self.receives:
            raise UsageError(
                "nothing to record",
                hint="give --pid PID, or a command after --, or --otlp to receive spans",
            )
        if not self.receives:
            refuse_without_spans(self.limits, self.sampling)
        if not self.metrics:
            refuse_without_metrics(self.limits)
        if self.pid is not None:
            access.require_process(self.pid)
        if self.stacks and (self.pid is not None or self.command) and not self.without_stacks():
            access.require_py_spy()
            if self.pid is not None and not access.may_attach(self.pid):
                raise access.no_permission(self.pid)
