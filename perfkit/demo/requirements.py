"""The packages of the extra `perfkit[demo]`: one clear line when they are missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def demo_extra() -> Iterator[None]:
    """End the process with one line if an import in this block fails for a missing package."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("perfkit"):
            raise
        print(
            f"the demo needs the package {error.name!r}: pip install 'perfkit[demo]'",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
