"""The ledger: a YAML file beside the code, made to be committed and reviewed.

One entry a recommendation, by fingerprint, in a stable order and with every line of an entry of its
own, so that two branches that decide about different things merge without conflict. It is written
whole or not at all, and changes of two processes at once are made one after the other.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from perfkit.advice.entry import STATUSES, VERDICTS, Before, Entry, Measured, Stratum
from perfkit.capture import atomic_write
from perfkit.errors import RuleError, UsageError
from perfkit.rules import document, fields
from perfkit.rules.document import Node
from perfkit.rules.fields import Map

FILE_NAME = "perfkit-advice.yaml"
_VERSION = 1
_MAX_BYTES = 4 << 20
_FINGERPRINT = re.compile(r"[0-9a-f]{16}\Z")
_CONFLICT = re.compile(rb"^(<<<<<<<|\|\|\|\|\|\|\||=======|>>>>>>>)", re.MULTILINE)
_INTO: dict[bytes, Callable[..., tuple[list[bytes], ...]]] = {
    b"<" * 7: lambda ours, _: (ours,),
    b"|" * 7: lambda *_: (),
    b"=" * 7: lambda _, theirs: (theirs,),
    b">" * 7: lambda *both: both,
}
"""Which side the lines after a mark of git's are on."""
_HEAD = """\
# What was decided about perfkit's recommendations, and what came of it. Made to be committed.
# Change it with: perfkit advice accept | dismiss | done | reopen.  One entry stands for itself.
"""

Entries = dict[str, Entry]


def find(start: Path) -> Path:
    """Return the nearest ledger in `start` or above; where there is none, the one to be in it."""
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    return start / FILE_NAME


def load(path: Path) -> Entries:
    """Return the entries by fingerprint; none when there is no file.

    Raises UsageError with file, line and column when the file is no ledger.
    """
    if not path.exists():
        return {}
    raw = path.read_bytes()
    if conflict := _CONFLICT.search(raw):
        return _both_sides(path, raw, raw.count(b"\n", 0, conflict.start()) + 1)
    return _parse(path, raw)


def _parse(path: Path, raw: bytes) -> Entries:
    try:
        tree = document.parse(path, raw, _MAX_BYTES)
        top = Map(tree, "a ledger", ("version",), ("advice",))
        if top["version"].value != _VERSION:
            raise top["version"].place.error(f"version {top['version'].value}, known is {_VERSION}")
        return {name: _entry(name, node) for name, node in top.pairs("advice")}
    except RuleError as error:
        raise UsageError(error.message, hint=error.hint) from error


def _both_sides(path: Path, raw: bytes, line: int) -> Entries:
    """Return the entries of both sides of a merge that git left undone.

    That is so where both added an entry at one place, and git may even have joined lines of the
    two that happen to be equal: what each side wrote is only plain from the whole of that side.
    """
    unresolved = UsageError(
        f"{path}:{line}: a merge conflict is not resolved",
        hint="keep the lines of one side of each entry, and take the marks out",
    )
    marks = b"".join(mark[:1] for mark in _CONFLICT.findall(raw))
    if not re.fullmatch(rb"(<\|?=>)+", marks):
        raise unresolved
    try:
        one, other = (_parse(path, side) for side in _sides(raw))
    except UsageError as error:
        raise unresolved from error
    for name in sorted(one.keys() & other.keys()):
        if one[name] != other[name]:
            at = raw[: raw.index(name.encode())].count(b"\n") + 1
            raise UsageError(
                f"{path}:{at}: a merge conflict is not resolved: two decisions about {name}, "
                f"{one[name].status} by {one[name].by} and {other[name].status} by "
                f"{other[name].by}",
                hint=unresolved.hint,
            )
    return one | other


def _sides(raw: bytes) -> tuple[bytes, bytes]:
    """Return the two files that were merged, apart from what git could merge."""
    ours: list[bytes] = []
    theirs: list[bytes] = []
    into: tuple[list[bytes], ...] = (ours, theirs)
    for line in raw.splitlines(keepends=True):
        mark = _CONFLICT.match(line)
        if mark is None:
            for side in into:
                side.append(line)
        else:
            into = _INTO[mark[1]](ours, theirs)
    return b"".join(ours), b"".join(theirs)


def update(path: Path, change: Callable[[Entries], None]) -> Entries:
    """Let `change` edit the entries in place, and write them; returns what was written.

    Nobody else changes the file meanwhile. An error in `change` leaves the file as it was.
    """
    with _locked(path.parent):
        entries = load(path)
        change(entries)
        with atomic_write(path) as file:
            file.write(text(entries).encode("utf-8", "replace"))
    return entries


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: the file itself is replaced, so a lock on it would not last."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class _Dumper(yaml.SafeDumper):
    """Quotes all text that a reader of YAML might take for a number: YAML 1.1 and 1.2 differ."""


def _represented(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = '"' if not value.isprintable() else None if value[:1].isalpha() else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _represented)

# Directions and invisible characters: who reviews the file must see what is in it. Such texts are
# in double quotes (see `_represented`), where YAML takes the escape for the character.
_HIDDEN = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def text(entries: Mapping[str, Entry]) -> str:
    """Return the file's text: the same entries give the same text."""
    if not entries:
        return f"{_HEAD}version: {_VERSION}\nadvice: {{}}\n"
    parts = [_HEAD + f"version: {_VERSION}\nadvice:\n"]
    for name in sorted(entries):
        body = yaml.dump(
            {name: _as_data(entries[name])},
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            width=100,
        )
        body = _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", body)
        parts.append("".join(f"  {line}\n" for line in body.rstrip("\n").split("\n")))
    return "".join(parts)


def _as_data(entry: Entry) -> dict[str, Any]:
    data: dict[str, Any] = {
        "rule": entry.rule,
        "title": entry.title,
        "status": entry.status,
        "by": entry.by,
        "at": _moment(entry.at_ns),
        "reason": entry.reason,
        "until": entry.until,
        "predicted_ns": list(entry.predicted_ns) if entry.predicted_ns else None,
        "endpoints": list(entry.endpoints),
        "tools": list(entry.tools),
    }
    if entry.before is not None:
        data["before"] = {
            "capture": entry.before.capture,
            "at": _moment(entry.before.at_ns),
            "requests": [_plain(vars(one)) for one in entry.before.strata],
        }
    data["measured"] = [
        _plain({**vars(one), "at_ns": None, "at": _moment(one.at_ns)}) for one in entry.measured
    ]
    return _plain(data)


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value not in (None, "", [])}


def _moment(at_ns: int) -> str:
    return f"{dt.datetime.fromtimestamp(at_ns // 10**9, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _entry(name: str, node: Node) -> Entry:
    if not _FINGERPRINT.match(name):
        raise node.place.error(f"{name!r} is no fingerprint of 16 hexadecimal digits")
    optional = ("reason", "until", "predicted_ns", "endpoints", "tools", "before", "measured")
    top = Map(node, "an entry", ("rule", "title", "status", "by", "at"), optional)
    until = top.text("until") if "until" in top else ""
    if until:
        day(until, top["until"])
    return Entry(
        fingerprint=name,
        rule=top.text("rule"),
        title=top.text("title"),
        status=top.choice("status", STATUSES),
        by=top.text("by"),
        at_ns=_parsed(top["at"]),
        reason=top.text("reason") if "reason" in top else "",
        until=until,
        predicted_ns=_pair(top["predicted_ns"]) if "predicted_ns" in top else None,
        endpoints=tuple(fields.text(one, "an endpoint") for one in top.items("endpoints")),
        tools=tuple(fields.text(one, "a tool") for one in top.items("tools")),
        before=_before(top["before"]) if "before" in top else None,
        measured=tuple(_measured(one) for one in top.items("measured")),
    )


def _before(node: Node) -> Before:
    top = Map(node, "before", ("capture", "at", "requests"))
    strata = tuple(_stratum(one) for one in top.items("requests"))
    return Before(top.text("capture"), _parsed(top["at"]), strata)


def _stratum(node: Node) -> Stratum:
    top = Map(node, "requests", ("requests", "mean_ns", "blocks"), ("endpoint", "tool", "error_ns"))
    return Stratum(
        endpoint=top.text("endpoint") if "endpoint" in top else "",
        tool=top.text("tool") if "tool" in top else "",
        requests=_whole(top["requests"]),
        mean_ns=_whole(top["mean_ns"]),
        error_ns=_whole(top["error_ns"]) if "error_ns" in top else None,
        blocks=_whole(top["blocks"]),
    )


def _measured(node: Node) -> Measured:
    amounts = ("saved_ns", "saved_low_ns", "saved_high_ns")
    top = Map(node, "measured", ("capture", "at", "verdict"), (*amounts, "requests", "why"))
    saved, low, high = (_whole(top[name]) if name in top else None for name in amounts)
    return Measured(
        capture=top.text("capture"),
        at_ns=_parsed(top["at"]),
        verdict=top.choice("verdict", VERDICTS),
        saved_ns=saved,
        saved_low_ns=low,
        saved_high_ns=high,
        requests=_whole(top["requests"]) if "requests" in top else 0,
        why=top.text("why") if "why" in top else "",
    )


def _pair(node: Node) -> tuple[int, int]:
    amounts = [_whole(one) for one in fields.items(node, "predicted_ns")]
    if len(amounts) != 2:
        raise node.place.error("predicted_ns must be two numbers, at least and at most")
    return amounts[0], amounts[1]


def _whole(node: Node) -> int:
    if isinstance(node.value, bool) or not isinstance(node.value, int):
        raise node.place.error("must be a whole number")
    return node.value


def _parsed(node: Node) -> int:
    try:
        moment = dt.datetime.strptime(str(node.value), "%Y-%m-%dT%H:%M:%SZ")
    except ValueError as error:
        raise node.place.error("must be a time like 2026-11-28T10:00:00Z") from error
    return int(moment.replace(tzinfo=dt.UTC).timestamp()) * 10**9


def day(written: str, node: Node | None = None) -> dt.date:
    """Return a day written as 2027-01-31. Raises UsageError, or RuleError with the node's place."""
    try:
        return dt.date.fromisoformat(written)
    except ValueError as error:
        message = f"{written!r} is not a day like 2027-01-31"
        raise (node.place.error(message) if node else UsageError(message)) from error
