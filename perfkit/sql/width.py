"""Integer arithmetic that does not wrap: it is computed in 128 bits, or in floating point.

Polars computes in the type of the columns and wraps without a word: the square of 3.04 s in ns is
more than 64 bits, and 3 - 5 is 4294967294 where both are counts. So an operand of `+`, `-`, `*`,
SUM, ABS and of a sign becomes Int128, by adding a zero of that type, which leaves floats floats.
Where the result might take more than 127 bits, whatever the values (a sum of products, a product
of three), and for POW, the operands become Float64, which is exact to 2^53.
"""

from __future__ import annotations

import polars as pl
from sqlglot import exp

from perfkit.sql.nodes import children

_COLUMN_BITS = 63
"""Of a column of any integer type up to Int64; tables have no UInt64."""
_WIDEST_BITS = 127
_ROWS_BITS = 32
"""Polars counts rows in 32 bits."""
_EXACT = 2.0**53

_INT128, _DOUBLE = (exp.DataType.build(name) for name in ("INT128", "DOUBLE"))
_FLOATS = (exp.Div, exp.Avg, exp.Median, exp.Stddev, exp.Corr, exp.Sqrt, exp.Ln, exp.Exp)


def widen(tree: exp.Expr) -> exp.Expr:
    """Change a tree without parameters so that its integer arithmetic cannot wrap; return it."""
    root = exp.Paren(this=tree)
    _widen_node(tree)
    widened: exp.Expr = root.this
    widened.pop()
    return widened


def _widen_node(node: exp.Expr) -> int:
    """Widen the operands of a node; return the bits of its result, 0 for floating point."""
    each = [_widen_node(part) for part in children(node)]
    most = max(each, default=0)
    if isinstance(node, exp.Column):
        return _COLUMN_BITS
    if isinstance(node, exp.Literal):
        number = not node.is_string and node.this.isdigit()
        return int(node.this).bit_length() + 1 if number else 0
    if isinstance(node, exp.Cast):
        return _COLUMN_BITS if node.to.is_type("BIGINT") else 0
    if isinstance(node, exp.Pow):
        _cast(node.this)
        return 0
    if isinstance(node, exp.Count | exp.Length | exp.ArraySize | exp.Predicate):
        return _COLUMN_BITS
    if isinstance(node, _FLOATS):
        return 0
    if isinstance(node, exp.Sum):
        operand = node.this.expressions[0] if isinstance(node.this, exp.Distinct) else node.this
        return _operands([operand], max(most, 1) + _ROWS_BITS)
    if isinstance(node, exp.Mul):
        return _operands([node.this], sum(each), node.expression) if all(each) else 0
    if isinstance(node, exp.Add | exp.Sub):
        return _operands([node.this], most + 1, node.expression) if all(each) else 0
    if isinstance(node, exp.Abs) or (
        isinstance(node, exp.Neg) and not isinstance(node.this, exp.Literal)
    ):
        return _operands([node.this], most + 1) if most else 0
    return most if most or each else _COLUMN_BITS


def _operands(nodes: list[exp.Expr], bits: int, other: exp.Expr | None = None) -> int:
    if bits <= _WIDEST_BITS:
        for node in nodes:
            moved = _moved(node)
            zero = _cast_to(_INT128, exp.Literal.number(0))
            moved.replace(exp.paren(exp.Add(this=exp.paren(node, copy=False), expression=zero)))
        return bits
    for node in [*nodes, *([other] if other is not None else [])]:
        _cast(node)
    return 0


def _cast(node: exp.Expr) -> None:
    _moved(node).replace(_cast_to(_DOUBLE, node))


def _cast_to(type_: exp.DataType, node: exp.Expr) -> exp.Cast:
    return exp.Cast(this=node, to=type_.copy())


def _moved(node: exp.Expr) -> exp.Expr:
    """Put a placeholder where the node is, and return it."""
    held = exp.Null()
    node.replace(held)
    return held


def narrow(frame: pl.DataFrame, plain: pl.Schema) -> pl.DataFrame:
    """Return integers in the types in which Polars would have computed them, where they fit.

    Else in Int64, and where that is too narrow, in Float64.
    """
    return frame.with_columns(
        _narrowed(column, plain[name])
        for name, column in zip(frame.columns, frame.get_columns(), strict=True)
        if column.dtype != plain[name]
    )


def _narrowed(column: pl.Series, plain: pl.DataType) -> pl.Series:
    if isinstance(plain, pl.List) and isinstance(column.dtype, pl.List):
        inner = _narrowed(column.explode(), plain.inner)  # type: ignore[arg-type]
        return column.cast(pl.List(inner.dtype))
    if not plain.is_integer():
        return column
    if column.dtype.is_float():
        most = column.abs().max()
        if most is not None and not most < _EXACT:  # type: ignore[operator]
            return column
        return column.round().cast(plain if _fits(column, plain) else pl.Int64)
    for dtype in (plain, pl.Int64()):
        if dtype != pl.Int128 and _fits(column, dtype):
            return column.cast(dtype)
    return column.cast(pl.Float64)


def _fits(column: pl.Series, dtype: pl.DataType) -> bool:
    return column.cast(dtype, strict=False).null_count() == column.null_count()
