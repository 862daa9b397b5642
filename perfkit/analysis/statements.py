"""Database statements without their values, so that calls of one query are counted together."""

from __future__ import annotations

import json
import logging
import re

import polars as pl
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from perfkit.semconv import template_path

_DIALECTS = {
    "postgresql": "postgres",
    "postgres": "postgres",
    "cockroachdb": "postgres",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
    "mssql": "tsql",
    "microsoft.sql_server": "tsql",
    "oracle": "oracle",
    "oracle.db": "oracle",
    "clickhouse": "clickhouse",
    "snowflake": "snowflake",
    "redshift": "redshift",
    "aws.redshift": "redshift",
    "bigquery": "bigquery",
    "gcp.bigquery": "bigquery",
    "trino": "trino",
    "duckdb": "duckdb",
    "hive": "hive",
    "databricks": "databricks",
}
_KEY_VALUE = frozenset({"redis", "valkey", "memcached"})
_DOCUMENT = frozenset({"mongodb", "couchbase", "couchdb", "dynamodb", "aws.dynamodb"})
_SEARCH = frozenset({"elasticsearch", "opensearch"})

_MAX_PARSED = 2_000
"""Distinct texts that are parsed. Beyond, literals are first stripped by pattern, in columns."""
_MAX_TEXT = 20_000
_MAX_RESULT = 4_000

_QUOTED = r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`"
_PARAMETER = re.compile(
    rf"({_QUOTED})|%\(\w+\)s|%s|\$\w+(?![\w$])|\?\d+|(?<![:\w]):[A-Za-z_]\w*|(?<![@\w])@[A-Za-z_]\w*"
)
_COMMENT = re.compile(rf"({_QUOTED})|/\*.*?(?:\*/|$)|--[^\n]*", re.DOTALL)
_STRING = r"'(?:[^']|'')*'"
_NUMBER = r"([^\w$:@?.\"`]|^)[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\b"
_LIST = re.compile(r"\(\s*\?(?:\s*,\s*\?)+\s*\)")
_ROWS = re.compile(r"(\(\?\))(?:\s*,\s*\(\?\))+")
_TRANSACTION = frozenset({"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "START"})
_KEEPING = (exp.Interval, exp.JSONPath, exp.JSONPathKey, exp.DataType, exp.DataTypeParam)
_PARSED = (exp.Query, exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Create, exp.Drop)


def normalise_all(distinct: pl.DataFrame) -> pl.Series:
    """Normalise each row of `db_system`, `db_statement` (and of `name`, used where it is null).

    Rows come most frequent first; when there are very many, only the first are parsed.
    """
    text = distinct.select(pl.coalesce("db_statement", "name").fill_null("").str.head(_MAX_TEXT))
    systems = distinct["db_system"].fill_null("")
    texts = text.to_series()
    if texts.len() > _MAX_PARSED:
        texts = texts.str.replace_all(_STRING, "''").str.replace_all(_NUMBER, "${1}0")
    cache: dict[tuple[str, str], str] = {}
    result = []
    for pair in zip(systems, texts, strict=True):
        known = cache.get(pair)
        if known is None:
            known = cache[pair] = normalise(*pair, parse=len(cache) < _MAX_PARSED)
        result.append(known)
    return pl.Series("statement", result, dtype=pl.String)


def normalise(system: str, text: str, *, parse: bool = True) -> str:
    """Return a statement with placeholders for its values.

    SQL is rewritten by sqlglot in the dialect of the product; what it cannot parse is stripped by
    pattern. Other stores are named by their command.
    """
    system = system.lower()
    text = text.strip()
    if system in _KEY_VALUE:
        return _commands(text)
    if system in _DOCUMENT:
        return _document_command(text)
    if system in _SEARCH:
        return template_path(text)[:_MAX_RESULT]
    first = text.partition(" ")[0].rstrip(";").upper()
    if first in _TRANSACTION:
        return first
    parsed = _parsed(_DIALECTS.get(system), text) if parse else None
    return (parsed or _stripped(text))[:_MAX_RESULT]


def _parsed(dialect: str | None, text: str) -> str | None:
    # A number stands for any parameter: every dialect can parse it wherever a value may be.
    text = _PARAMETER.sub(lambda match: match[1] or "0", text)
    logger = logging.getLogger("sqlglot")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # what it cannot parse is expected here
    try:
        statements = sqlglot.parse(text, read=dialect)
        if not statements or not all(isinstance(part, _PARSED) for part in statements):
            return None
        return "; ".join(
            _without_values(part).sql(dialect, comments=False) for part in statements if part
        )
    except (SqlglotError, RecursionError, ValueError, AttributeError, TypeError):
        return None
    finally:
        logger.setLevel(level)


def _without_values(statement: exp.Expr) -> exp.Expr:
    for rows in list(statement.find_all(exp.Values)):
        del rows.expressions[1:]
    for value in list(statement.find_all(exp.Literal, exp.Placeholder, exp.Parameter)):
        outer = value.parent if isinstance(value.parent, exp.Neg) else value
        # `INTERVAL '1 day'` and `JSON_EXTRACT(a, '$.b')` say what is asked for.
        if not isinstance(outer.parent, _KEEPING):
            outer.replace(exp.var("?"))
    for membership in list(statement.find_all(exp.In)):
        members = membership.expressions
        if members and all(isinstance(member, exp.Var) for member in members):
            membership.set("expressions", [exp.var("?")])
    return statement


def _stripped(text: str) -> str:
    text = _COMMENT.sub(lambda match: match[1] or " ", text)
    text = _PARAMETER.sub(lambda match: match[1] or "?", text)
    text = re.sub(_STRING, "?", text)
    text = re.sub(_NUMBER, r"\1?", text)
    text = _LIST.sub("(?)", " ".join(text.split()))
    return _ROWS.sub(r"\1", text)


def _commands(text: str) -> str:
    """Return the command words of a pipeline, one a line as Redis instrumentations write it."""
    words = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    commands = [word[0].upper() + (" ?" if len(word) > 1 else "") for word in words]
    distinct = [one for at, one in enumerate(commands) if at == 0 or one != commands[at - 1]]
    return "; ".join(distinct[:10])


def _document_command(text: str) -> str:
    """Return command and collection: of `{"find": "users", …}` or of `find users …`."""
    if text.startswith("{"):
        try:
            command = json.loads(text)
        except (ValueError, RecursionError):
            return _stripped(text)[:_MAX_RESULT]
        if isinstance(command, dict) and command:
            verb, target = next(iter(command.items()))
            return f"{verb} {target}" if isinstance(target, str) else str(verb)
    return " ".join(text.split()[:2])
