"""sqlglot without what it logs: callers say that a statement cannot be parsed, or expect it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_parser() -> Iterator[None]:
    """Keep sqlglot's warnings off stderr."""
    logger = logging.getLogger("sqlglot")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
