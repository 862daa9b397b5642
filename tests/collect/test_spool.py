"""The spool: durable before it returns, shared syncs, honest refusals."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from perfkit.collect import spool as module
from perfkit.collect.spool import Overloaded, Spool, SpoolFailed
from perfkit.journal import Full, Journal, Kind, Record, read_segment, segments


def record(text: str = "x") -> Record:
    return Record(Kind.METRICS_ROWS, False, text.encode())


def bodies(paths: list[Path]) -> list[str]:
    return [each.body.decode() for path in paths for each in read_segment(path)]


def test_what_is_put_is_synced_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = Journal.sync

    def sync(self: Journal) -> None:
        size = self.current_bytes
        real(self)
        synced.append(size)

    monkeypatch.setattr(Journal, "sync", sync)
    spool = Spool(tmp_path, on_segment=lambda _: None)
    spool.put(record("first"))
    assert max(synced) == 16 + len("first")
    spool.close()


def test_many_threads_share_syncs_and_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[None] = []
    real = Journal.sync

    def slow(self: Journal) -> None:
        syncs.append(None)
        time.sleep(0.005)
        real(self)

    monkeypatch.setattr(Journal, "sync", slow)
    done: list[Path] = []
    spool = Spool(tmp_path, on_segment=done.append)

    def send(number: int) -> None:
        for place in range(20):
            spool.put(record(f"{number}.{place}"))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spool.close()
    assert sorted(bodies(done)) == sorted(f"{a}.{b}" for a in range(8) for b in range(20))
    assert len(syncs) < 160


def test_segments_are_handed_over_when_they_are_full_or_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SEGMENT_AGE_S", 0.0)
    done: list[Path] = []
    spool = Spool(tmp_path, on_segment=done.append)
    for text in ("one", "two", "three"):
        spool.put(record(text))
    spool.close()
    assert bodies(done) == ["one", "two", "three"]
    assert len(done) > 1


def test_a_closed_spool_refuses_and_leaves_no_empty_segment(tmp_path: Path) -> None:
    done: list[Path] = []
    spool = Spool(tmp_path, on_segment=done.append)
    spool.close()
    with pytest.raises(Overloaded):
        spool.put(record())
    assert done == []
    assert segments(tmp_path) == []


def test_a_backlog_refuses_what_is_not_urgent(tmp_path: Path) -> None:
    reasons: list[str | None] = ["the compaction cannot follow"]
    spool = Spool(tmp_path, on_segment=lambda _: None, overload=lambda: reasons[0])
    with pytest.raises(Overloaded, match="the compaction cannot follow"):
        spool.put(record())
    spool.put(record(), urgent=True)
    reasons[0] = None
    spool.put(record())
    spool.close()


@pytest.mark.parametrize("where", ["append_entry", "sync", "open_next"])
def test_a_full_disk_fails_everybody_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    spool = Spool(tmp_path, on_segment=lambda _: None)
    spool.put(record("durable"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if where == "open_next":
            patch.setattr(module, "_SEGMENT_AGE_S", 0.0)
        patch.setattr(Journal, where, full)
        with pytest.raises(SpoolFailed, match="No space"):
            spool.put(record("lost"))
        assert spool.failure is not None
        with pytest.raises(SpoolFailed):
            spool.put(record("lost too"), urgent=True)
    spool.close()
    assert "durable" in bodies(segments(tmp_path))


def put_for_ever(spool: Spool) -> None:
    for _ in range(1000):
        spool.put(record("more"))
        time.sleep(0.001)


def test_who_waits_is_told_when_a_segment_cannot_be_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SEGMENT_AGE_S", 0.0)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def fail(_: Path) -> None:
        raise RuntimeError("a bug")

    spool = Spool(tmp_path, on_segment=fail)
    spool.put(record("durable"))
    with pytest.raises(SpoolFailed, match="ended"):
        put_for_ever(spool)
    assert bodies(segments(tmp_path))[0] == "durable"


def test_others_append_while_a_full_segment_is_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finishing, go_on = threading.Event(), threading.Event()
    real = Full.finish

    def slowly(full: Full) -> Path:
        finishing.set()
        go_on.wait(20)
        return real(full)

    monkeypatch.setattr(Full, "finish", slowly)
    monkeypatch.setattr(module, "_SEGMENT_AGE_S", 0.0)
    spool = Spool(tmp_path, on_segment=lambda _: None)
    told: list[SpoolFailed | None] = []
    spool.submit(record("first"), told.append)
    spool.flush()
    assert finishing.wait(20)
    spool.submit(record("second"), told.append)  # does not wait
    assert told == []
    go_on.set()
    spool.close()
    assert told == [None, None]
    assert bodies(segments(tmp_path)) == ["first", "second"]
