"""The parts of a tree of SQL."""

from __future__ import annotations

from sqlglot import exp


def children(node: exp.Expr) -> list[exp.Expr]:
    """Return the parts of a part of SQL, in order."""
    found: list[exp.Expr] = []
    for value in node.args.values():
        if isinstance(value, exp.Expr):
            found.append(value)
        elif isinstance(value, list):
            found += [each for each in value if isinstance(each, exp.Expr)]
    return found
