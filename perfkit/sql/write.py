"""Checked SQL written for Polars, with the parameters of a rule as literals."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sqlglot import Dialect, exp

from perfkit.sql.width import widen

Value = str | int | float | bool

_COMPUTES = re.compile(r"[-+*]|SUM|ABS|POW")
"""What is in SQL that may have to be widened."""


class Engine(Dialect):
    """Polars' SQL, as far as it matters here: nulls sort last, and first with DESC."""

    NULL_ORDERING = "nulls_are_large"


def sql(tree: exp.Expr, params: Mapping[str, Value]) -> str:
    """Regenerate SQL for Polars, with parameters as literals, whose integers do not wrap."""
    return both_sql(tree, params)[1]


def both_sql(tree: exp.Expr, params: Mapping[str, Value]) -> tuple[str, str]:
    """Return SQL for Polars as it is written, which has the types of the result, and as it runs.

    Parameters become literals and decimals floats: Polars reads `0.5` as a fixed-point decimal,
    which rounds what is computed with it. What runs is widened, since its integers would wrap.
    """
    bound = _bound(tree, params)
    # Nodes that the guard lets pass are not changed by writing them, so that once is copied enough.
    plain = bound.sql(dialect=Engine, comments=False, copy=False)
    if not _COMPUTES.search(plain):
        return plain, plain
    return plain, widen(bound).sql(dialect=Engine, comments=False, copy=False)


def _bound(node: exp.Expr, params: Mapping[str, Value]) -> exp.Expr:
    """Return a copy of a checked tree with its parameters' values.

    It has no places in the text, which would take half of the time of copying.
    """
    if isinstance(node, exp.Placeholder):
        return literal(params[node.name])
    if isinstance(node, exp.Literal) and not node.is_string and "." in node.this:
        return literal(float(node.this))
    return type(node)(**{name: _bound_part(part, params) for name, part in node.args.items()})


def _bound_part(part: object, params: Mapping[str, Value]) -> object:
    if isinstance(part, exp.Expr):
        return _bound(part, params)
    return [_bound_part(one, params) for one in part] if isinstance(part, list) else part


def literal(value: Value) -> exp.Expr:
    """Return a value as a literal of SQL."""
    if isinstance(value, bool):
        return exp.Boolean(this=value)
    if isinstance(value, str):
        return exp.Literal.string(value)
    if isinstance(value, int):
        return exp.Literal.number(value) if value >= 0 else exp.Neg(this=literal(-value))
    if value < 0:
        return exp.Neg(this=literal(-value))
    text = repr(value)
    return exp.Literal.number(text if "e" in text else text + "e0")
