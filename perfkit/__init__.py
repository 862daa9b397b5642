"""perfkit turns "it is slow" into one file that says why and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from perfkit.api import Capture

__version__ = "0.1.0"


def open(path: str | Path, **filters: Any) -> Capture:
    """Open a capture for Python and notebooks; see `perfkit.api.Capture` and docs/python-api.md.

    Filters are those of the commands: `perfkit.open("slow.perfkit", endpoint="/search")`. Raises
    CaptureError when there is no capture, UsageError for a filter that does not exist.
    """
    # Loaded on use: `import perfkit` and the command line stay light.
    from perfkit.api import Capture

    return Capture.open(path, **filters)
