"""Frames and stacks: stable ids, categories, and interning.

Ids are hashes of content, so that two captures of the same program share them and merge by putting
their parts together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple


class Frame(NamedTuple):
    """One code location as a source names it."""

    function: str
    file: str = ""
    line: int | None = None


_LIBRARY = re.compile(r"[\\/](?:site|dist)-packages[\\/]")
_STDLIB = re.compile(r"[\\/]lib(?:64)?[\\/]python3(?:\.\d+)?t?[\\/]|^<frozen ", re.IGNORECASE)
_NATIVE = re.compile(r"\.(?:so(?:\.\d+)*|c|cc|cpp|cxx|h|hpp|rs|s|dylib|dll|pyd)$", re.IGNORECASE)
_THREAD = re.compile(r"^(?:thread|process) \(?\d")


def category(frame: Frame) -> str:
    """Return `app`, `library`, `stdlib`, `native` or `thread` for a frame, from its file's path."""
    if not frame.file:
        return "thread" if _THREAD.match(frame.function) else "native"
    if _NATIVE.search(frame.file):
        return "native"
    if _LIBRARY.search(frame.file):
        return "library"
    if _STDLIB.search(frame.file):
        return "stdlib"
    return "app"


def module(frame: Frame) -> str:
    """Guess the dotted module of a frame: its path below the library, or the file itself."""
    path = frame.file.replace("\\", "/")
    if not path:
        return ""
    for pattern in (_LIBRARY, _STDLIB):
        matches = list(pattern.finditer(path))
        if matches and not path.startswith("<"):
            path = path[matches[-1].end() :]
            break
    else:
        path = path.rsplit("/", 1)[-1] if _NATIVE.search(path) else "/".join(path.split("/")[-2:])
    if path.startswith("<frozen "):
        return path[len("<frozen ") :].rstrip(">")
    if path.endswith(".py"):
        path = path[:-3].removesuffix("/__init__")
        return path.strip("/").replace("/", ".")
    return path


def _hash(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


class StackTable:
    """Interns stacks. New rows for the tables `stacks` and `frames` collect until taken."""

    def __init__(self) -> None:
        self._frame_ids: dict[Frame, int] = {}
        self._stack_ids: dict[tuple[int | None, int], int] = {}
        self._known: dict[tuple[Frame, ...], int] = {}
        self._new_frames: list[tuple[int, Frame]] = []
        self._new_stacks: list[tuple[int, int | None, int, int]] = []

    def intern(self, frames: Iterable[Frame]) -> int:
        """Return the stack id of `frames`, given from the root to the leaf; at least one frame."""
        path = tuple(frames)
        known = self._known.get(path)
        if known is not None:
            return known
        if not path:
            raise ValueError("a stack has at least one frame")
        stack_id: int | None = None
        for depth, frame in enumerate(path):
            stack_id = self.child(stack_id, frame, depth)
        assert stack_id is not None
        self._known[path] = stack_id
        return stack_id

    def child(self, parent_id: int | None, frame: Frame, depth: int) -> int:
        """Return the id of the stack that has `frame` on top of `parent_id`."""
        frame_id = self._frame_id(frame)
        key = (parent_id, frame_id)
        stack_id = self._stack_ids.get(key)
        if stack_id is None:
            stack_id = _hash(f"{parent_id}>{frame_id}")
            self._stack_ids[key] = stack_id
            self._new_stacks.append((stack_id, parent_id, frame_id, depth))
        return stack_id

    def _frame_id(self, frame: Frame) -> int:
        frame_id = self._frame_ids.get(frame)
        if frame_id is None:
            frame_id = _hash(f"{frame.function}\0{frame.file}\0{frame.line}")
            self._frame_ids[frame] = frame_id
            self._new_frames.append((frame_id, frame))
        return frame_id

    def innermost(self) -> dict[int, int]:
        """Return the innermost frame's id of every stack so far, by its stack id."""
        return {stack_id: frame_id for (_, frame_id), stack_id in self._stack_ids.items()}

    def take_new(self) -> tuple[dict[str, list[object]], dict[str, list[object]]]:
        """Return and forget the new rows, as columns of `stacks` and of `frames`."""
        stacks, frames = self._new_stacks, self._new_frames
        self._new_stacks, self._new_frames = [], []
        return (
            {
                "stack_id": [row[0] for row in stacks],
                "parent_id": [row[1] for row in stacks],
                "frame_id": [row[2] for row in stacks],
                "depth": [row[3] for row in stacks],
            },
            {
                "frame_id": [frame_id for frame_id, _ in frames],
                "function": [frame.function for _, frame in frames],
                "file": [frame.file for _, frame in frames],
                "line": [frame.line for _, frame in frames],
                "module": [module(frame) for _, frame in frames],
                "category": [category(frame) for _, frame in frames],
            },
        )
