"""A ring's stacks: every kept sample has its own, whenever it is killed, and the others go."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perfkit import compact
from perfkit.capture import Capture, CaptureWriter
from perfkit.collect import ring
from perfkit.collect.ring import Bounds, forget
from perfkit.compact import SegmentCompactor
from perfkit.journal import JOURNAL_DIR
from tests.test_compact import ME, event, stack_segment

S = 10**9
AGE_S = 80
ROOT = "thread (70): main"

Path_ = tuple[str, ...]
"""A call path, from the root to the leaf."""


@dataclass
class Clock:
    """The time that parts are written at, and that the ring looks at."""

    now_s: int = 1000

    def time_ns(self) -> int:
        return self.now_s * S


@dataclass
class Twin:
    """The slow and obvious ring: all samples that were ever written, and when."""

    samples: list[tuple[int, list[Path_]]] = field(default_factory=list)

    def kept(self, now_s: int) -> list[Path_]:
        return sorted(p for at_s, paths in self.samples if at_s >= now_s - AGE_S for p in paths)


def events(paths: list[Path_]) -> list[dict[str, object]]:
    """Return what py-spy writes of paths that follow each other, 10 ms each."""
    made = [event("B", ROOT, 0)]
    for number, path in enumerate(paths):
        made += [event("B", name, number * 10_000) for name in path]
        made += [event("E", name, (number + 1) * 10_000) for name in reversed(path)]
    return [*made, event("E", ROOT, len(paths) * 10_000)]


def read(path: Path) -> tuple[list[Path_], int]:
    """Return the call paths of all samples by following ids, and how many stacks there are."""
    capture = Capture.open(path)
    stacks = {row[0]: row for row in capture.table("stacks").collect().iter_rows()}
    frames = {row[0]: row for row in capture.table("frames").collect().iter_rows()}
    found = []
    for stack_id in capture.table("samples").collect()["stack_id"]:
        names = []
        here = stack_id
        while here is not None:
            _, parent, frame_id, _ = stacks[here]
            names.append(frames[frame_id][1])
            here = parent
        found.append(tuple(reversed(names)))
    return sorted(found), len(stacks)


@contextmanager
def recording(clock: Clock) -> Iterator[tuple[Path, SegmentCompactor]]:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring, "time", clock)
        patch.setattr(compact, "time", clock)
        path = Path(directory) / "x.perfkit"
        with CaptureWriter(path):
            pass
        (path / JOURNAL_DIR).mkdir()
        yield path, SegmentCompactor(path, ME)


call_paths = st.lists(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4).map(tuple), min_size=1, max_size=5
)
rounds = st.lists(st.tuples(st.integers(1, 40), call_paths), min_size=1, max_size=12)


@pytest.mark.real
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(rounds)
def test_kept_samples_have_their_stacks_and_no_others_stay_long(
    made: list[tuple[int, list[Path_]]],
) -> None:
    clock, twin = Clock(), Twin()
    with recording(clock) as (path, segments):
        for number, (wait_s, paths) in enumerate(made, 1):
            clock.now_s += wait_s
            # Two equal paths that touch are one sample.
            alone = [p for place, p in enumerate(paths) if place == 0 or paths[place - 1] != p]
            segments.compact(stack_segment(path, events(alone), number=number))
            twin.samples.append((clock.now_s, alone))
            forget(segments, Bounds(age_ns=AGE_S * S))
            found, count = read(path)
            assert found == twin.kept(clock.now_s)
            # A stack is at most as much older than the oldest sample as a generation is long; the
            # generation ends with the first segment after an eighth of the ring.
            waits = [wait for wait, _ in made[:number]]
            horizon_s = clock.now_s - AGE_S - AGE_S // 8 - max(waits)
            recent = [p for at_s, ps in twin.samples if at_s >= horizon_s for p in ps]
            assert count <= len({p[: n + 1] for p in recent for n in range(len(p))})


class Killed(BaseException):
    """Stands for SIGKILL."""


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(rounds, st.integers(0, 30))
def test_a_ring_that_is_killed_while_it_removes_lacks_no_stack(
    made: list[tuple[int, list[Path_]]], after: int
) -> None:
    clock = Clock()
    removed = 0
    unlink = Path.unlink

    def unlink_or_die(self: Path, missing_ok: bool = False) -> None:
        nonlocal removed
        if self.suffix == ".parquet":
            if removed >= after:
                raise Killed
            removed += 1
        unlink(self, missing_ok=missing_ok)

    with recording(clock) as (path, segments):
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Path, "unlink", unlink_or_die)
                for number, (wait_s, paths) in enumerate(made, 1):
                    clock.now_s += wait_s
                    segments.compact(stack_segment(path, events(paths), number=number))
                    forget(segments, Bounds(age_ns=AGE_S * S))
        except Killed:
            pass
        read(path)  # raises KeyError when a stack or a frame is missing


def test_a_bound_of_size_holds_for_stacks_that_are_never_seen_again(tmp_path: Path) -> None:
    clock = Clock()
    bounds = Bounds(age_ns=3600 * S, size_bytes=60_000)
    with recording(clock) as (path, segments):
        for number in range(1, 31):
            clock.now_s += 30
            paths: list[Path_] = [(f"f{number}", f"g{number}-{leaf}") for leaf in range(50)]
            segments.compact(stack_segment(path, events(paths), number=number))
            forget(segments, bounds)
        copy = tmp_path / "copy.perfkit"
        shutil.copytree(path, copy)
        found, count = read(copy)
        assert sum(part.size_bytes for part in segments.parts) <= 60_000
        assert 50 <= len(found) < 30 * 50
        assert count < 30 * 51
        assert ("f30", "g30-0") in found
