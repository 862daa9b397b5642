from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.replay import mends
from perfkit.analysis.session import Tables
from perfkit.stacks import Frame
from tests.analysis.build import S
from tests.analysis.replays import replay
from tests.analysis.sampled import Sample, tables

WORKER = Frame("_worker", "/usr/lib/python3.12/concurrent/futures/thread.py", 90)
IDLE = (WORKER, Frame("Condition.wait", "/usr/lib/python3.12/threading.py", 355))
MAIN = Frame("main", "/srv/app/main.py", 1)
PARSE = (WORKER, MAIN, Frame("parse", "/srv/app/main.py", 20))
SOCKET = (WORKER, MAIN, Frame("SyncStream.read", "/venv/httpcore/_backends/sync.py", 126))
READ = (WORKER, MAIN, Frame("read", "/srv/app/main.py", 30))


def built(spans: list[S], stacks: list[tuple[int, tuple[Frame, ...]]], end: int) -> Tables:
    """Return tables in which each stack stands until the next one."""
    ends = [at for at, _ in stacks[1:]] + [end]
    samples = [Sample(stack, at, to - at) for (at, stack), to in zip(stacks, ends, strict=True)]
    return tables(samples, spans=[one.row() for one in spans])


def served(number: int, start: int, end: int, trace: int | None = None) -> S:
    trace = number if trace is None else trace
    return S(number, start, end, trace=trace, kind="server", name="work", pid=1, thread_id=1)


def after(found: Tables, stays: float) -> list[int]:
    seen = mends.code_times(found, "parse", "/srv/app/main.py", own=False)
    return replay(found, *mends.freed(found, seen, [stays]))["after_ns"].to_list()


def test_what_was_not_seen_was_spent_like_what_was() -> None:
    # 80 of each 100 µs are spent in parse, but until 60 the stack from before the request stands.
    spans, stacks = [], []
    for number in range(12):
        at = 1_000_000 * number
        spans.append(served(number + 1, at, at + 100_000))
        stacks += [(at - 50_000, IDLE), (at + 60_000, PARSE), (at + 92_000, READ)]
    found = built(spans, stacks, 12_000_000)
    # Of 40 that were seen 32 were in it: so it goes, and a fifth of each request is left.
    assert after(found, 0.0) == pytest.approx([20_000] * 12, abs=3)
    assert after(found, 0.5) == pytest.approx([60_000] * 12, abs=3)


def test_a_few_stacks_say_nothing_of_what_was_not_seen() -> None:
    spans = [served(1, 0, 100)]
    found = built(spans, [(-50, IDLE), (60, PARSE), (92, READ)], 100)
    assert after(found, 0.0) == [100 - 32]


def calling(missed: int, early: int = 0, *, every: int = 1) -> Tables:
    """Return requests that spend 60 of 100 µs in parse and 40 in a call, all of it the callee's.

    Looks are 10 µs apart and `early` ns too early. Of every n-th request the profiler misses the
    first ones, and what stood before the request seems to go on.
    """
    spans, stacks = [], []
    for number in range(20):
        at = 1_000_000 * number
        trace = {"trace": number, "name": "call"}
        spans += [
            served(10 * number + 1, at, at + 100_000, trace=number),
            S(10 * number + 2, at + 60_000, at + 100_000, 10 * number + 1, **trace, kind="client",
              pid=1, thread_id=1),
            S(10 * number + 3, at + 60_000, at + 100_000, 10 * number + 2, **trace, kind="server",
              service="other", pid=2, thread_id=1),
        ]  # fmt: skip
        first = 0 if number % every else missed
        looks = [(at + 10_000 * step, PARSE if step < 6 else SOCKET) for step in range(first, 10)]
        stacks += [(moment - early, stack) for moment, stack in [*looks, (at + 100_000, IDLE)]]
    return built(spans, stacks, 20_000_000)


def test_more_waiting_seen_than_calls_lasted_is_chance_until_proven() -> None:
    # Of 60 µs one look is missed: 40 of the 90 that are seen are the call, which spans say is 40.
    assert sum(after(calling(1), 0.0)) / 20 == pytest.approx(40_000, rel=0.01)
    # With four missed, 40 of 60 are seen to wait: some of that may well be in no call.
    assert sum(after(calling(4), 0.0)) / 20 > 50_000


@pytest.mark.parametrize("early", [0, 3_000, 6_000, 9_000])
@pytest.mark.parametrize("missed", [0, 3])
def test_stacks_that_stand_off_the_spans_of_calls_say_as_much(early: int, missed: int) -> None:
    ends = after(calling(missed, early, every=2), 0.0)
    assert sum(ends) / 20 == pytest.approx(40_000, rel=0.25 if missed else 0.15)


def slow(
    spans: list[S], stacks: list[tuple[int, tuple[Frame, ...]]], end: int, stays: float
) -> list[float]:
    """Add everything up, one stack and one request at a time."""
    lengths = sorted(
        to - at for (at, _), to in zip(stacks, [at for at, _ in stacks[1:]] + [end], strict=True)
    )
    positive = [length for length in lengths if length > 0]
    early = positive[int(0.1 * (len(positive) - 1))] // 2
    own = fresh = hits = seen = 0.0
    gone = []
    for span in spans:
        assert span.end is not None
        own += span.end - span.start
        mine = 0
        for number, (at, stack) in enumerate(stacks):
            to = stacks[number + 1][0] if number + 1 < len(stacks) else end
            if stack == PARSE:
                mine += max(0, min(to - early, span.end) - max(at - early, span.start))
            length = max(0, min(to, span.end) - at)
            if span.start <= at < span.end and stack != IDLE and length:
                fresh += length
                hits += stack == PARSE
                seen += length if stack == PARSE else 0
        gone.append(mine)
    factor = 1.0
    if hits >= 10:
        whole = min(own, seen * min(4.0, max(1.0, own / fresh)))
        more = max(0.0, whole - sum(gone))
        if more:
            factor = 1 - (1 - stays) * more / (own - (1 - stays) * sum(gone))
    return [
        (span.end - span.start - (1 - stays) * mine) * factor
        for span, mine in zip(spans, gone, strict=True)
    ]


@given(
    requests=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60)), min_size=1, max_size=40),
    taken=st.lists(
        st.tuples(st.integers(1, 30), st.sampled_from([IDLE, PARSE, PARSE, READ])),
        min_size=1,
        max_size=120,
    ),
    stays=st.sampled_from([0.0, 0.25, 1.0]),
)
def test_agrees_with_a_plain_sum(
    requests: list[tuple[int, int]],
    taken: list[tuple[int, tuple[Frame, ...]]],
    stays: float,
) -> None:
    spans, at = [], 0
    for number, (pause, length) in enumerate(requests, 1):
        at += pause * 1000
        spans.append(served(number, at, at + length * 1000))
        at += length * 1000
    stacks, at = [], 0
    for length, stack in taken:
        stacks.append((at, stack))
        at += length * 1000
    found = built(spans, stacks, at)
    assert after(found, stays) == pytest.approx(slow(spans, stacks, at, stays), abs=2)
