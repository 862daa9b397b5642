from __future__ import annotations

from pathlib import Path

import pytest

from perfkit.formats.collapsed import Collapsed
from perfkit.stacks import StackTable
from tests.formats.test_chrometrace import paths_of

SAMPLES = Path(__file__).resolve().parent.parent / "importers" / "samples"


@pytest.mark.parametrize(
    ("line", "count", "owner", "path"),
    [
        ("main;work 3", 3, (None, None, None), [("main", "", None), ("work", "", None)]),
        ("f (a b.py:12) 7", 7, (None, None, None), [("f", "a b.py", 12)]),
        ("f (x) (lib.so) 1", 1, (None, None, None), [("f (x)", "lib.so", None)]),
        ("a;;b  2 ", 2, (None, None, None), [("a", "", None), ("b", "", None)]),
        (
            "thread (12): Main;Thread;f (<string>:1) 4",
            *(4, (None, 12, "Main")),
            [("Thread", "", None), ("f", "<string>", 1)],
        ),
        (
            'process 1:"sh -c \'a;b\'";process 22:"py "x"";thread (0x7F);<module> (t.py:8) 9',
            *(9, (22, 127, None)),
            [("<module>", "t.py", 8)],
        ),
        ('process 1:"x";thread (5): M 3', 3, (1, 5, "M"), [("(no Python frames)", "", None)]),
        (
            "thread pool;work 1",
            1,
            (None, None, None),
            [("thread pool", "", None), ("work", "", None)],
        ),
    ],
)
def test_a_line(
    line: str,
    count: int,
    owner: tuple[int | None, int | None, str | None],
    path: list[tuple[str, str, int | None]],
) -> None:
    stacks = StackTable()
    collapsed = Collapsed(stacks)
    assert collapsed.add(line)
    rows = collapsed.finish().tables["samples"]
    assert rows["count"] == [count]
    assert (rows["pid"][0], rows["tid"][0], rows["thread_name"][0]) == owner
    assert paths_of(stacks)[rows["stack_id"][0]] == tuple(path)
    assert collapsed.finish().tables == {}


@pytest.mark.parametrize("line", ["", "12", "main", "main;f", "main;f -3", "main;f 1.5", " 4"])
def test_no_line(line: str) -> None:
    assert not Collapsed(StackTable()).add(line)


def test_counts_of_a_real_file_add_up(shared_data: Path) -> None:
    for name, threads in (("pyspy-raw.txt", 1), ("pyspy-raw-threads.txt", 14)):
        text = (shared_data / "contextforge" / name).read_text()
        collapsed = Collapsed(StackTable())
        assert all(collapsed.add(line) for line in text.splitlines())
        rows = collapsed.finish().tables["samples"]
        assert sum(rows["count"]) == sum(int(line.rsplit(" ", 1)[1]) for line in text.splitlines())
        assert len(set(rows["tid"])) == threads
