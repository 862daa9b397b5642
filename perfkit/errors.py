"""Every error that perfkit raises on purpose.

The tree::

    PerfkitError            exit code 1; the message says what, where, what to do
    ├── UsageError          exit code 2: the command or configuration asks for the impossible
    ├── InputError          a file or a message from outside cannot be read
    │   └── UnknownFormat   no importer recognises the file
    ├── CaptureError        a capture is missing, damaged, or of another format version
    ├── RecordError         a live process cannot be recorded: gone, no permission, port in use
    ├── RuleError           a rule file is wrong
    └── GateFailed          exit code 3: the CI gate failed

A message is one line. `hint` says what to do about it and is printed on a line of its own.
"""

from __future__ import annotations

import errno
import re


class PerfkitError(Exception):
    """Base of all errors that the user sees as one line instead of a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PerfkitError):
    """The command line or the configuration asks for something that cannot be."""

    exit_code = 2


class InputError(PerfkitError):
    """Data from outside cannot be read. `where` names the file and, when known, the offset.

    `part` is what could not be read, where who raises it has no more than that of the file.
    """

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        part: bytes | None = None,
    ) -> None:
        super().__init__(f"{where}: {message}" if where else message, hint=hint)
        self.where = where
        self.part = part


class UnknownFormat(InputError):
    """No importer recognises the content of a file."""


class CaptureError(PerfkitError):
    """A capture is missing, damaged, or written by another format version."""


class RecordError(PerfkitError):
    """A live process cannot be recorded."""


class RuleError(PerfkitError):
    """A rule file is wrong; the message names file, line and column."""


class GateFailed(PerfkitError):
    """The CI gate failed."""

    exit_code = 3


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says when a disk, or a user's share of it, is full or a file may not grow."""
_SYSTEM_ERROR = re.compile(r"([^:\n]*) \(os error (\d+)\)")


def system_error(error: Exception, path: object = None) -> OSError | None:
    """Return what the system refused, as on a full disk, where Polars says it in a text only.

    In the midst of a Parquet file's head it does not say what it was.
    """
    where = () if path is None else (str(path),)
    found = _SYSTEM_ERROR.search(str(error))
    if found is not None:
        return OSError(int(found[2]), found[1].strip(), *where)
    if "transport error" in str(error):
        return OSError(errno.EIO, "cannot be written, or read, to its end (a full disk?)", *where)
    return None
