"""`perfkit query`: SQL over every table of a capture, captured and derived."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit.cli import query_output, text
from perfkit.cli.options import (
    CapturePath,
    engine_option,
    filter_options,
    make_filters,
    open_tables,
)
from perfkit.cli.query_examples import EXAMPLES
from perfkit.errors import UsageError

if TYPE_CHECKING:
    from perfkit.analysis.session import Tables

_LIST = "*"
"""Value of an option that was given without one: list what there is."""


@click.command(
    epilog="Example: perfkit query slow.perfkit "
    '"SELECT endpoint, p95_ns FROM endpoints ORDER BY p95_ns DESC LIMIT 5"'
)
@click.argument("capture", type=CapturePath())
@click.argument("sql", required=False)
@click.option(
    "--tables",
    "described",
    metavar="[NAME]",
    is_flag=False,
    flag_value=_LIST,
    help="List the tables, or the columns of table NAME.",
)
@click.option(
    "--example",
    metavar="[NAME]",
    is_flag=False,
    flag_value=_LIST,
    help="List the ready-made questions, or ask question NAME.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(query_output.FORMATS)),
    default="table",
    show_default=True,
    help="How to write the result; a table is for people and rounds.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File to write instead of stdout."
)
@filter_options
@engine_option
def command(
    capture: Path,
    sql: str | None,
    described: str | None,
    example: str | None,
    form: str,
    output: Path | None,
    engine: str,
    **filters: Any,
) -> None:
    """Run SQL over the tables of CAPTURE, captured and derived; only those it names are computed.

    SQL is one SELECT, with or without WITH; `-` reads it from standard input. It is checked before
    it runs, and can read nothing but the tables.
    """
    if [sql, described, example].count(None) != 2:
        raise UsageError(
            "give one of: a SELECT, --tables, --example",
            hint=f"see what there is: perfkit query {capture} --tables",
        )
    if example == _LIST:
        _list_examples()
        return
    tables = open_tables(capture, make_filters(filters), engine)
    if described is not None:
        _describe(tables, described)
        return
    if example is not None:
        sql = _example(example)
        for line in sql.splitlines():
            click.echo(f"  {line}", err=True)
    elif sql == "-":
        sql = sys.stdin.read()
    from perfkit.analysis.ask import ask

    query_output.write(ask(tables, sql or ""), form, output)


def _describe(tables: Tables, name: str) -> None:
    """Print all tables, or the columns of one."""
    import polars as pl

    from perfkit import model
    from perfkit.analysis.ask import columns
    from perfkit.analysis.session import derived_tables
    from perfkit.sql.scopes import unknown

    derived = derived_tables()
    if name == _LIST:
        text.heading("Captured: one row is")
        for table in model.TABLES:
            rows = tables[table.name].select(pl.len()).collect().item()
            _entry(table.name, f"{table.row} ({rows:,} rows)")
        text.heading("Derived when asked for: one row is")
        for one in derived.values():
            _entry(one.name, one.row)
    elif name in model.BY_NAME:
        for column in model.BY_NAME[name].columns:
            _entry(column.name, f"{column.doc} ({column.dtype})")
    elif name in derived:
        for column_name, doc in derived[name].columns.items():
            _entry(column_name, doc)
    else:
        message, hint = unknown("table", name, columns())
        raise UsageError(message, hint=hint)


def _entry(name: str, meaning: str) -> None:
    text.definition(name, meaning.replace("`", ""))


def _list_examples() -> None:
    for name, example in EXAMPLES.items():
        text.definition(name, example.question)


def _example(name: str) -> str:
    if name not in EXAMPLES:
        raise UsageError(f"there is no example {name!r}", hint=f"known: {', '.join(EXAMPLES)}")
    return EXAMPLES[name].sql
