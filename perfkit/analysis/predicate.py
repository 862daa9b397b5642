"""The filter `--where`: an SQL predicate over the columns of `requests`, guarded like rules."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from sqlglot import exp

from perfkit.errors import UsageError
from perfkit.sql.guard import check_expression
from perfkit.sql.scopes import GuardError
from perfkit.sql.write import sql

_HINT = "write for example: --where \"duration_ns > 1e9 AND endpoint LIKE '%/tools%'\""

_PREDICATES = (
    *(exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE),
    *(exp.Between, exp.In, exp.Is, exp.Like, exp.ILike, exp.Column, exp.Boolean),
)


def holding(requests: pl.DataFrame, text: str) -> pl.DataFrame:
    """Return the requests for which the predicate holds. Raises UsageError."""
    predicate = parse_predicate(text, requests.columns)
    try:
        holds = requests.sql(f"SELECT ({predicate}) AS holds FROM self")["holds"]  # noqa: S608
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--where {text!r}: {reason}", hint=_HINT) from error
    if holds.dtype != pl.Boolean:
        raise UsageError(f"--where {text!r}: not true or false for a request", hint=_HINT)
    return requests.filter(holds)


def parse_predicate(text: str, columns: Sequence[str]) -> str:
    """Return the predicate as checked SQL. Raises UsageError when it is anything else."""
    try:
        checked = check_expression(text, columns, ())
    except GuardError as error:
        raise UsageError(f"--where {text!r}: {error}", hint=error.hint or _HINT) from error
    if not isinstance(checked.tree.unnest(), _PREDICATES):
        raise UsageError(f"--where {text!r}: not true or false for a request", hint=_HINT)
    return sql(checked.tree, {})
