"""SQL over every table, captured and derived: checked, then run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from perfkit import model
from perfkit.analysis.session import Tables, derived_tables
from perfkit.errors import PerfkitError, UsageError, system_error
from perfkit.sql.execute import Limits, TooMuch, reason
from perfkit.sql.guard import check_query
from perfkit.sql.scopes import GuardError

_SECONDS = 300.0


def ask(tables: Tables, sql: str) -> pl.DataFrame:
    """Return the result of a SELECT. Raises UsageError for SQL that may not or cannot run."""
    try:
        query = check_query(sql, columns(), stars=True)
    except GuardError as error:
        where = f"line {error.line}, column {error.column}"
        raise UsageError(f"SQL, {where}: {error}", hint=error.hint) from error
    try:
        return tables.answer(query, {}, Limits(seconds=_SECONDS))
    except TooMuch as error:
        raise PerfkitError(f"SQL: {error}", hint="narrow it down with WHERE or LIMIT") from error
    except pl.exceptions.PolarsError as error:
        raise system_error(error) or UsageError(f"SQL: {reason(error)}") from error


def columns() -> Mapping[str, Sequence[str]]:
    """Return the columns of every table."""
    captured = {name: list(table.schema) for name, table in model.BY_NAME.items()}
    derived = {name: list(table.columns) for name, table in derived_tables().items()}
    return captured | derived
