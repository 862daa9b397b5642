"""How fast the command line starts."""

from __future__ import annotations

import sys

from bench.measure import Row, median_wall


def rows() -> list[Row]:
    """Compare `perfkit --help` with importing click, which it cannot do without."""
    own = median_wall([sys.executable, "-m", "perfkit.cli", "--help"])
    click = median_wall([sys.executable, "-c", "import click"])
    return [
        Row(
            "`perfkit --help`",
            f"{own * 1000:.0f} ms",
            f"`python -c 'import click'` {click * 1000:.0f} ms",
            f"{own / click:.2f}×",
            "≤ 2×",
            own / click <= 2,
        )
    ]
