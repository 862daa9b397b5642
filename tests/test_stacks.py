from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit import model
from perfkit.parts import conform
from perfkit.stacks import Frame, StackTable, category, module

FRAMES = st.builds(
    Frame,
    st.text(max_size=3),
    st.sampled_from(["", "/srv/a.py", "/usr/lib/python3.11/json/decoder.py"]),
    st.one_of(st.none(), st.integers(0, 3)),
)


@pytest.mark.parametrize(
    ("frame", "expected_category", "expected_module"),
    [
        (Frame("f", "/srv/app/views.py", 3), "app", "app.views"),
        (Frame("f", "views.py", 3), "app", "views"),
        (Frame("f", "/v/lib/python3.11/site-packages/sqla/pool.py"), "library", "sqla.pool"),
        (Frame("f", "/v/lib/python3.11/site-packages/click/__init__.py"), "library", "click"),
        (Frame("f", "/usr/lib/python3/dist-packages/yaml/reader.py"), "library", "yaml.reader"),
        (Frame("f", r"C:\v\Lib\site-packages\anyio\to.py"), "library", "anyio.to"),
        (Frame("f", "/usr/local/lib/python3.11/threading.py"), "stdlib", "threading"),
        (Frame("f", "/usr/lib64/python3.13t/asyncio/events.py"), "stdlib", "asyncio.events"),
        (Frame("f", "<frozen importlib._bootstrap>"), "stdlib", "importlib._bootstrap"),
        (Frame("f", "/v/lib/python3.11/site-packages/x/_c.abi3.so"), "native", "x/_c.abi3.so"),
        (Frame("read", "/usr/lib/x86_64-linux-gnu/libc.so.6"), "native", "libc.so.6"),
        (Frame("main", ""), "native", ""),
        (Frame("thread (12): Main", ""), "thread", ""),
        (Frame('process 12:"x"', ""), "thread", ""),
        (Frame("<module>", "<string>"), "app", "<string>"),
    ],
)  # fmt: skip
def test_category_and_module(frame: Frame, expected_category: str, expected_module: str) -> None:
    assert (category(frame), module(frame)) == (expected_category, expected_module)


@given(st.lists(st.lists(FRAMES, min_size=1, max_size=5), max_size=12))
def test_every_stack_can_be_walked_back(paths: list[list[Frame]]) -> None:
    table = StackTable()
    interned = [table.intern(path) for path in paths]
    stacks, frames = table.take_new()
    conform(model.STACKS, stacks)
    conform(model.FRAMES, frames)
    assert len(set(stacks["stack_id"])) == len(stacks["stack_id"])
    located = dict(
        zip(
            frames["frame_id"],
            map(Frame, frames["function"], frames["file"], frames["line"]),
            strict=True,
        )
    )
    rows = {
        stack_id: (parent, located[frame], depth)
        for stack_id, parent, frame, depth in zip(
            *(stacks[name] for name in ("stack_id", "parent_id", "frame_id", "depth")), strict=True
        )
    }
    for path, stack_id in zip(paths, interned, strict=True):
        walked: list[Frame] = []
        at: object = stack_id
        while at is not None:
            parent, frame, depth = rows[at]
            walked.append(frame)
            assert depth == len(path) - len(walked)
            at = parent
        assert walked[::-1] == path
    # Ids are of the content: another table, another order, the same ids; equal paths, one id.
    assert [StackTable().intern(path) for path in paths] == interned
    assert len({tuple(path) for path in paths}) == len(set(interned))
    assert table.take_new() == ({name: [] for name in stacks}, {name: [] for name in frames})


def test_a_stack_has_a_frame() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        StackTable().intern([])
