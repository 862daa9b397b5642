"""The filter `--where`: an SQL predicate over the columns of `requests`, parsed and made anew.

What is executed is the SQL that sqlglot writes from the checked tree, never the user's text.
"""

from __future__ import annotations

import polars as pl
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from perfkit.errors import UsageError

_HINT = "write for example: --where \"duration_ns > 1e9 AND endpoint LIKE '%/tools%'\""
_DIALECT = "postgres"

_ALLOWED: tuple[type[exp.Expression], ...] = (
    *(exp.And, exp.Or, exp.Not, exp.Paren),
    *(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Between, exp.In, exp.Is),
    *(exp.Like, exp.ILike, exp.Escape),
    *(exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg),
    *(exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null),
    *(exp.Abs, exp.Lower, exp.Upper, exp.Length, exp.Coalesce),
)
_PREDICATES = (
    *(exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE),
    *(exp.Between, exp.In, exp.Is, exp.Like, exp.ILike, exp.Column, exp.Boolean),
)


def holding(requests: pl.DataFrame, text: str) -> pl.DataFrame:
    """Return the requests for which the predicate holds. Raises UsageError."""
    predicate = parse_predicate(text)
    try:
        holds = requests.sql(f"SELECT ({predicate}) AS holds FROM self")["holds"]  # noqa: S608
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--where {text!r}: {reason}", hint=_HINT) from error
    if holds.dtype != pl.Boolean:
        raise UsageError(f"--where {text!r}: not true or false for a request", hint=_HINT)
    return requests.filter(holds)


def parse_predicate(text: str) -> str:
    """Return the predicate as checked SQL. Raises UsageError when it is anything else."""
    from perfkit.analysis.spans.requests import COLUMNS

    try:
        parsed = sqlglot.parse_one(text, read=_DIALECT)
    except (SqlglotError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"--where {text!r}: not an SQL predicate ({reason})", hint=_HINT
        ) from error
    for node in parsed.walk():
        if not isinstance(node, _ALLOWED):
            raise UsageError(
                f"--where {text!r}: {node.sql(_DIALECT)!r} is not allowed there", hint=_HINT
            )
        if isinstance(node, exp.Column) and (node.table or node.name not in COLUMNS):
            known = ", ".join(COLUMNS)
            raise UsageError(
                f"--where {text!r}: no column {node.sql(_DIALECT)!r}",
                hint=f"columns of a request: {known}",
            )
        if isinstance(node, exp.In) and (node.args.get("query") or node.args.get("unnest")):
            raise UsageError(f"--where {text!r}: no subqueries", hint=_HINT)
    if not isinstance(parsed.unnest(), _PREDICATES):
        raise UsageError(f"--where {text!r}: not true or false for a request", hint=_HINT)
    return parsed.sql(_DIALECT)
