"""One recording: everything that runs while a capture is made, and how it begins and ends.

Stacks, metrics and received spans go to one journal folder inside the capture, on one clock; a
worker process turns the journal into Parquet meanwhile. Nothing waits in memory for the end.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from perfkit.collect import access, processes
from perfkit.collect.command import Command
from perfkit.collect.instrument import Instrumentation
from perfkit.collect.limits import LimitWatch
from perfkit.collect.options import Options
from perfkit.collect.resources.sampler import ResourceSampler
from perfkit.collect.sources import describe_resources, describe_stacks, describe_stops
from perfkit.collect.stacks import SEGMENT_S, StackRecorder
from perfkit.collect.status import Reason, Status, Summary
from perfkit.collect.store import Store
from perfkit.collect.threads import ThreadWatcher

if TYPE_CHECKING:
    from perfkit.collect.otlp import Receiver

_POLL_S = 0.1
_SPACE_CHECK_S = 1.0
# The batch exporters of OpenTelemetry's SDKs hold spans for up to this long.
_EXPORT_DELAY_S = 5.0

_COMMAND_GOES_ON = ("frozen", "trigger", "size limit", "span limit")
"""The recording has enough; the program that it watches is not to suffer from that."""


class Recording:
    """Records until its duration is over, the program ends, or it is interrupted.

    `start`, then `wait`, then always `stop`. `interrupt` may be called from a signal handler.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._interrupts = 0
        self._frozen = False
        self._undo = contextlib.ExitStack()
        self._lock: access.RecorderLock | None = None
        self._store: Store | None = None
        self._instrumentation: Instrumentation | None = None
        self._command: Command | None = None
        self._receiver: Receiver | None = None
        self._watcher: ThreadWatcher | None = None
        self._stacks: StackRecorder | None = None
        self._without_stacks: str | None = None
        self._resources: ResourceSampler | None = None
        self._limits: LimitWatch | None = None
        self._began_ns = time.monotonic_ns()

    @property
    def endpoints(self) -> list[str]:
        """URLs of the OTLP receiver; none without one."""
        return self._receiver.endpoints if self._receiver else []

    @property
    def is_open(self) -> bool:
        """Whether other machines can send OTLP, and nobody asks them for a token."""
        receiver = self._receiver
        return receiver is not None and not receiver.is_loopback and receiver.token is None

    @property
    def problem(self) -> str | None:
        """Why no stacks are recorded although they were asked for, or nothing happens at all."""
        if self._without_stacks:
            return self._without_stacks
        if self._stacks is not None and self._stacks.problem:
            return self._stacks.problem
        stopped = self._watcher.stopped if self._watcher else ()
        return access.stopped(min(stopped)) if stopped else None

    @property
    def hint(self) -> str | None:
        """What the program lacks to give spans, as far as known before it runs."""
        return self._instrumentation.hint if self._instrumentation else None

    @property
    def settings(self) -> str:
        """How stacks are being sampled, and why so, as text; empty when they are not."""
        active = self._stacks.active if self._stacks else None
        return f"{active.rate} samples/s, " + "; ".join(active.reasons) if active else ""

    def start(self) -> None:
        """Begin to record.

        Raises UsageError, RecordError or CaptureError, and then leaves nothing behind.
        """
        self._options.check()
        with contextlib.ExitStack() as undo:
            self._begin(undo)
            self._undo = undo.pop_all()

    def _begin(self, undo: contextlib.ExitStack) -> None:
        options = self._options
        if options.pid is not None:
            self._lock = access.RecorderLock(options.pid)
            undo.callback(self._lock.release)
        if options.instrument:
            self._instrumentation = Instrumentation(options.command, options.env)
            undo.callback(self._instrumentation.close)
        self._store = store = Store(options.output, dict(options.sampling))
        undo.callback(store.discard)
        if options.receives:
            # Loads protobuf: not for those who do not ask for it.
            from perfkit.collect.otlp import Receiver

            http = options.otlp
            if options.instrument and http is None:
                http = ("127.0.0.1", 0)
            self._receiver = Receiver(
                http, store.spool, grpc=options.otlp_grpc, token=options.otlp_token
            )
            undo.callback(self._receiver.close)
        intake = self._receiver.intake if self._receiver else None
        self._limits = limits = LimitWatch(options.limits, store, intake)
        self._began_ns = time.monotonic_ns()
        store.info.anchors = {"wall_ns": time.time_ns(), "monotonic_ns": self._began_ns}
        root = options.pid
        if options.command:
            exporter = self._receiver.environment() if self._receiver else {}
            env = dict(options.env)
            if self._instrumentation is not None:
                headers = exporter.get("OTEL_EXPORTER_OTLP_HEADERS", "")
                env |= self._instrumentation.environment(self.endpoints[0], headers)
            self._command = Command(options.command, env, exporter)
            undo.callback(self._command.kill)
            root = self._command.pid
        if root is not None:
            self._without_stacks = options.without_stacks()
            stacks = options.stacks and not self._without_stacks
            self._watcher = ThreadWatcher(root, gil=stacks and options.wishes.gil)
            self._watcher.start()
            undo.callback(self._watcher.stop)
            if stacks:
                self._record_stacks(root, store, self._watcher)
        if options.metrics:
            watcher = self._watcher
            self._resources = ResourceSampler(
                (lambda: watcher.members) if watcher else list, root, limits.put_metrics
            )
            self._resources.start()
        store.save_info()

    def _record_stacks(self, root: int, store: Store, watcher: ThreadWatcher) -> None:
        options = self._options
        # One segment, when it is hardly longer than a segment anyway.
        short = options.duration_ns is not None and options.duration_ns < 1.5e9 * SEGMENT_S
        self._stacks = StackRecorder(
            root,
            store.journal,
            watcher,
            command=options.command or processes.command_line(root),
            wishes=options.wishes,
            segment_s=2 * SEGMENT_S if short else SEGMENT_S,
            keep_open=[store.lock_fd],
            on_segment=store.compactor.submit,
        )
        if options.pid is not None:
            self._stacks.attach()
        self._stacks.start()

    def interrupt(self) -> None:
        """End the recording; a second time, also give up what py-spy has not yet written."""
        # Only sets flags: a signal handler must take no lock.
        self._interrupts += 1

    def freeze(self) -> None:
        """End the recording and let the command run on; may be called from a signal handler."""
        self._frozen = True

    def status(self) -> Status:
        """Say how it is doing."""
        stacks, intake = self._stacks, self._receiver.intake if self._receiver else None
        active = stacks.active if stacks else None
        return Status(
            elapsed_ns=time.monotonic_ns() - self._began_ns,
            received={"spans": 0, **intake.received} if intake else {},
            refused=intake.refused.total() if intake else 0,
            postponed=intake.postponed.total() if intake else 0,
            threads=self._watcher.thread_count if self._watcher else 0,
            rate=active.rate if active else None,
            samples=stacks.samples if stacks else 0,
            p95_ns=intake.latency.quantile(0.95) if intake else None,
            size_bytes=self._required_store.size_bytes(),
            backlog_bytes=self._required_store.compactor.backlog_bytes(),
            max_lag_ns=stacks.lag_ns if stacks else 0,
            lost=sum(count for what, count, _ in stacks.lost if what == "segments of stacks")
            if stacks
            else 0,
        )

    def wait(self, tick: Callable[[], None] = lambda: None) -> Reason:
        """Wait until the recording is over; calls `tick` about ten times a second."""
        duration_ns = self._options.duration_ns
        reason: Reason | None = None
        next_space_check = 0.0
        while reason is None:
            # A short sleep, not an event: events and signal handlers deadlock.
            time.sleep(_POLL_S)
            tick()
            if time.monotonic() >= next_space_check:
                next_space_check = time.monotonic() + _SPACE_CHECK_S
                reason = "disk full" if self._required_store.problem() else self._enough()
            if self._interrupts:
                reason = "interrupted"
            elif self._frozen:
                reason = "frozen"
            elif self._command is not None and not self._command.running:
                reason = "command ended"
            elif self._options.pid is not None and not processes.exists(self._options.pid):
                reason = "process ended"
            elif duration_ns is not None and time.monotonic_ns() - self._began_ns >= duration_ns:
                reason = "duration"
        return reason

    def _enough(self) -> Reason | None:
        return self._limits.reached() if self._limits is not None else None

    def wait_for_command(self) -> int | None:
        """Wait for a command that outlives the recording; returns its exit status."""
        if self._command is None:
            return None
        while self._command.running:
            time.sleep(_POLL_S)
            if self._interrupts:
                self._command.end(interrupted=True)
        return self._command.exit_status

    def stop(self, reason: Reason = "interrupted") -> Summary:
        """End everything in order and finish the capture; must follow a `start` that succeeded.

        The receiver listens until the command has ended, because exporters send their last spans
        then; for a program that goes on, until its exporters have sent what they hold.
        """
        self._undo.pop_all()
        store = self._required_store
        ended_ns = time.monotonic_ns()
        if self._stacks is not None:
            self._stacks.request_stop()
            while not self._stacks.wait(_POLL_S):
                if self._interrupts >= 2:
                    self._stacks.abandon()
        if self._command is not None and reason not in _COMMAND_GOES_ON:
            self._command.end(interrupted=reason == "interrupted")
        elif reason in ("duration", "frozen", "trigger"):
            self._wait_for_exporters()
        if self._resources is not None:
            self._resources.stop()
        if self._watcher is not None:
            self._watcher.stop()
        if self._receiver is not None:
            self._receiver.close()
        self._describe(store)
        store.close()
        if self._instrumentation is not None:
            self._instrumentation.close()
        if self._lock is not None:
            self._lock.release()
        return Summary(
            path=store.path,
            reason=reason,
            duration_ns=ended_ns - self._began_ns,
            info=store.info,
            exit_status=self._command.exit_status if self._command else None,
        )

    def _wait_for_exporters(self) -> None:
        if self._receiver is None or not self._receiver.intake.received:
            return
        deadline = time.monotonic() + _EXPORT_DELAY_S
        while time.monotonic() < deadline and not self._interrupts:
            time.sleep(_POLL_S)

    @property
    def _required_store(self) -> Store:
        if self._store is None:
            raise RuntimeError("the recording has not been started")
        return self._store

    def _describe(self, store: Store) -> None:
        """Write into the capture what was recorded, how, and what was lost."""
        info = store.info
        if self._limits is not None and self._limits.happened:
            info.note(f"Recording ended by its trigger: {self._limits.happened}.")
        if self._stacks is not None:
            describe_stacks(info, self._stacks)
        if self._without_stacks:
            info.note(f"{self._without_stacks[0].upper()}{self._without_stacks[1:]}.")
        if self._watcher is not None:
            describe_stops(info, self._watcher)
        if self._resources is not None:
            describe_resources(info, self._resources)
        if self._receiver is not None:
            self._receiver.describe(info)
        if self._instrumentation is not None:
            self._instrumentation.describe(info)
        elif self._command is not None and self._command.has_own_endpoint:
            info.note(
                "OTEL_EXPORTER_OTLP_ENDPOINT was already set for the command and was left alone."
            )
