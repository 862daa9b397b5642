"""How fast the command line starts, and the rules are loaded."""

from __future__ import annotations

import statistics
import sys

from bench.measure import Row, isolated, median_wall
from perfkit.rules import load

_RUNS = 7
_RULES_GOAL_S = 0.3


def all_rules() -> int:
    """Load and check the shipped rules; return how many they are."""
    return len(load.load_rules())


def rows() -> list[Row]:
    """Compare `perfkit --help` with importing click, which it cannot do without; load the rules."""
    own = median_wall([sys.executable, "-m", "perfkit.cli", "--help"])
    click = median_wall([sys.executable, "-c", "import click"])
    loading = [isolated(all_rules) for _ in range(_RUNS)]
    rules_s = statistics.median(one.cpu_s for one in loading)
    return [
        Row(
            "`perfkit --help`",
            f"{own * 1000:.0f} ms",
            f"`python -c 'import click'` {click * 1000:.0f} ms",
            f"{own / click:.2f}×",
            "≤ 2×",
            own / click <= 2,
        ),
        Row(
            f"loading and checking {loading[0].value} rules, without the imports",
            f"{rules_s * 1000:.0f} ms of CPU",
            "the limit of the design",
            f"{rules_s / _RULES_GOAL_S:.2f}×",
            f"< {_RULES_GOAL_S * 1000:.0f} ms",
            rules_s < _RULES_GOAL_S,
        ),
    ]
