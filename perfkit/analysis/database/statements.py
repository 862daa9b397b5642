"""Database statements without their values, so that calls of one query are counted together."""

from __future__ import annotations

import json
import re
from typing import Any

import polars as pl
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from perfkit.semconv import template_path
from perfkit.sql.quiet import quiet_parser

DIALECTS = {
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
CHECKOUT = (
    r"(?i)^connect$|pool\.connect$|pool.*(?:acquire|check.?out|wait)"
    r"|(?:acquire|check.?out).*connection|(?:^|\.)getConnection$"
)
"""Names of spans that take a connection from a pool: `connect` of SQLAlchemy, `pg-pool.connect` of
Node.js, `getConnection` of a DataSource of Java."""
_KEY_VALUE = frozenset({"redis", "valkey", "memcached"})
_DOCUMENT = frozenset({"mongodb", "couchbase", "couchdb", "dynamodb", "aws.dynamodb"})
_COMMANDS = (
    *("find", "aggregate", "count", "distinct", "insert", "update", "delete", "findAndModify"),
    *("getMore", "bulkWrite", "mapReduce", "create", "drop", "createIndexes"),
)
"""Of MongoDB; in what some instrumentations record, the command is not the first member."""
_METHOD = re.compile(r"(?:db\.)?([\w.$-]+)\.([A-Za-z]+)\(")
"""As in MongoDB's shell, and as Prisma writes it."""
_LIKE_SQL = re.compile(
    r"(?is)select\s.+\sfrom\s|(?:insert|upsert)\s+into\s|update\s.+\sset\s|delete\s+from\s"
)
"""Couchbase's SQL++ and DynamoDB's PartiQL."""
_SEARCH = frozenset({"elasticsearch", "opensearch"})

_STRINGS_IN_DOUBLE_QUOTES = frozenset({"mysql", "mariadb", "bigquery", "gcp.bigquery"})

_MAX_PARSED = 1_000
"""Statements that are parsed, and their characters in all: sqlglot takes some 5 µs a character."""
_MAX_PARSED_CHARACTERS = 400_000
_MAX_TEXT = 20_000
_MAX_PARSED_TEXT = 10_000
_MAX_BRACKETS = 100
"""Subscripts cost sqlglot time with the square of their number."""
_MAX_RESULT = 4_000

_QUOTED = r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|\$\$[\s\S]*?\$\$"
_UUID = r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"
"""Cassandra has them without quotes."""
PARAMETER = re.compile(
    rf"({_QUOTED})|{_UUID}|%\(\w+\)s|%s|\$\w+(?![\w$])|\?\d+|(?<![:\w]):[A-Za-z_]\w*"
    r"|(?<=[\s(,=<>]):\d+|(?<![@\w])@[A-Za-z_]\w*"
)
_COMMENT = re.compile(rf"({_QUOTED})|/\*.*?(?:\*/|$)|--[^\n]*", re.DOTALL)
_STRING = r"'(?:[^']|'')*'|\$\$[\s\S]*?\$\$"
_STRING_CUT = r"'[^']*$"
_NUMBER = r"([^\w$:@?.\"`]|^)[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\b"
_LIST = re.compile(r"\(\s*\?(?:\s*,\s*\?)+\s*\)")
_ROWS = re.compile(r"(\(\?\))(?:\s*,\s*\(\?\))+")
_TRANSACTION = frozenset({"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "START"})
_KEEPING = (exp.Interval, exp.JSONPath, exp.JSONPathKey, exp.DataType, exp.DataTypeParam)
_WRITTEN = (
    *(exp.Literal, exp.Placeholder, exp.Parameter, exp.National, exp.RawString, exp.ByteString),
    *(exp.UnicodeString, exp.HexString, exp.BitString),
)
"""How values are written: as `1`, `'a'`, `?`, `N'a'`, `$$a$$`, `E'a'`, `U&'a'`, `0xa`, `b'1'`."""
UNPARSABLE = (SqlglotError, RecursionError, ValueError, AttributeError, TypeError)
"""What sqlglot raises at texts that are no statement that it knows."""
_PARSED = (exp.Query, exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Create, exp.Drop)

# One pass from left to right, as a lexer does it: what is in quotes is no comment, and the other
# way round. Names and names in quotes stay (group 1); comments, strings and numbers are values.
_NAMES = r"`[^`]*`|[A-Za-z_$@:%?][\w$]*"
_IN_DOUBLE_QUOTES = r"\"[^\"]*\""
_VALUES = r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
_PIECES = rf"(?s){_UUID}|({_IN_DOUBLE_QUOTES}|{_NAMES})|{_VALUES}"
_PIECES_WITH_STRINGS = rf"(?s){_UUID}|({_NAMES})|{_IN_DOUBLE_QUOTES}|{_VALUES}"
_VALUE = "\ufdd0"
"""Stands for a value in a key; no text has it, for Unicode says that it is no character."""
_SAYS_MORE = r"(?i)\\'|\$\$|\binterval\b|->|json|\b(?:var)?char\s*\(|numeric|decimal|\x{fdd0}"
"""Where values are kept, or quotes are not as `_PIECES` has them: then the text is the key."""


def normalise_all(distinct: pl.DataFrame) -> pl.Series:
    """Normalise each row of `db_system`, `db_statement` (and of `name`, used where it is null).

    Rows come most frequent first. Texts that differ in nothing but values are parsed once; when
    there is too much to parse, values of the rest are taken out by pattern.
    """
    said = pl.when(pl.col("db_statement").str.contains(r"\S")).then("db_statement")
    text = pl.coalesce(said, "name").fill_null("").str.head(_MAX_TEXT + 1)
    texts = distinct.select(system=pl.col("db_system").fill_null("").str.to_lowercase(), text=text)
    keyed = texts.with_columns(key=_keys(texts))
    different = keyed.unique(["system", "key"], keep="first", maintain_order=True)
    parsed = characters = 0
    statements = []
    for system, one in different.select("system", "text").iter_rows():
        parse = parsed < _MAX_PARSED and characters + len(one) <= _MAX_PARSED_CHARACTERS
        parsed, characters = parsed + parse, characters + parse * len(one)
        statements.append(normalise(system, one, parse=parse))
    named = different.with_columns(statement=pl.Series(statements, dtype=pl.String))
    return keyed.join(
        named.select("system", "key", "statement"), on=["system", "key"], maintain_order="left"
    )["statement"]


def _keys(texts: pl.DataFrame) -> pl.Series:
    """Return what is the same for texts that differ in nothing but values."""
    text, system = pl.col("text"), pl.col("system")
    named = "${1}" + _VALUE
    values = (
        pl.when(system.is_in(_STRINGS_IN_DOUBLE_QUOTES))
        .then(text.str.replace_all(_PIECES_WITH_STRINGS, named))
        .otherwise(text.str.replace_all(_PIECES, named))
        .str.replace_all(r"\s+", " ")
    )
    # What is left of a string that was cut; not of a name with an apostrophe.
    values = values.str.replace("'[^'\"`]*$", "'")
    # A list of values has as many as happen to be asked for.
    values = values.str.replace_all(f"{_VALUE}(?: ?, ?{_VALUE})+", _VALUE)
    rows = rf"(\( ?{_VALUE} ?\))(?: ?, ?\( ?{_VALUE} ?\))+"
    whole = text.str.contains(_SAYS_MORE) | system.is_in([*_KEY_VALUE, *_DOCUMENT, *_SEARCH])
    return texts.select(
        pl.when(whole).then(text).otherwise(values.str.replace_all(rows, "${1}"))
    ).to_series()


def normalise(system: str, text: str, *, parse: bool = True) -> str:
    """Return a statement with placeholders for its values.

    SQL is rewritten by sqlglot in the dialect of the product; what it cannot parse, and what is so
    long that it would take its time, is stripped by pattern. Other stores are named by their
    command. A text that is cut ends with an ellipsis.
    """
    name = _name(system.lower(), text[:_MAX_TEXT].strip(), parse, len(text) > _MAX_TEXT)
    return name if len(name) <= _MAX_RESULT else name[:_MAX_RESULT] + "…"


def _name(system: str, text: str, parse: bool, cut: bool) -> str:
    if system in _KEY_VALUE:
        return _commands(text)
    if system in _DOCUMENT and not _LIKE_SQL.match(text):
        return _document_command(text)
    if system in _SEARCH:
        return _search(text)
    first = text.partition(" ")[0].rstrip(";").upper()
    if first in _TRANSACTION:
        return first
    strings = system in _STRINGS_IN_DOUBLE_QUOTES
    if cut:
        return _cut(text, strings=strings)
    parsed = _parsed(DIALECTS.get(system), text) if parse and is_quickly_parsed(text) else None
    return parsed or _stripped(text, strings=strings)


def is_quickly_parsed(text: str) -> bool:
    """Whether sqlglot takes no more than milliseconds for a statement, whatever it says."""
    return len(text) <= _MAX_PARSED_TEXT and text.count("[") <= _MAX_BRACKETS


def _cut(text: str, *, strings: bool) -> str:
    """Return a statement that was cut, without the string, word, list or row that it ends in."""
    if text.count("'") % 2:
        text = text[: text.rindex("'")]
    return re.sub(r"[\w.]*$", "", _stripped(text, strings=strings)).rstrip(" ,(?") + " …"


def _parsed(dialect: str | None, text: str) -> str | None:
    # A number stands for any parameter: every dialect can parse it wherever a value may be.
    text = PARAMETER.sub(lambda match: match[1] or "0", text)
    try:
        with quiet_parser():
            statements = sqlglot.parse(text, read=dialect)
        if not statements or not all(isinstance(part, _PARSED) for part in statements):
            return None
        return "; ".join(
            _without_values(part).sql(dialect, comments=False) for part in statements if part
        )
    except UNPARSABLE:
        return None


def _without_values(statement: exp.Expr) -> exp.Expr:
    for rows in list(statement.find_all(exp.Values)):
        del rows.expressions[1:]
    for value in list(statement.find_all(*_WRITTEN)):
        outer = value.parent if isinstance(value.parent, exp.Neg) else value
        # `INTERVAL '1 day'` and `JSON_EXTRACT(a, '$.b')` say what is asked for.
        if not isinstance(outer.parent, _KEEPING):
            outer.replace(exp.var("?"))
    for membership in list(statement.find_all(exp.In, exp.Array)):
        members = membership.expressions
        if members and all(isinstance(member, exp.Var) for member in members):
            membership.set("expressions", [exp.var("?")])
    return statement


def _stripped(text: str, *, strings: bool = False) -> str:
    """Take values out by pattern; `strings` says that double quotes hold strings, not names."""
    text = _COMMENT.sub(lambda match: match[1] or " ", text)
    text = PARAMETER.sub(lambda match: match[1] or "?", text)
    text = re.sub(_STRING_CUT, "? …", re.sub(_STRING, "?", text))
    if strings:
        text = re.sub(r'"[^"]*"', "?", text)
    text = re.sub(_NUMBER, r"\1?", text)
    text = _LIST.sub("(?)", " ".join(text.split()))
    return _ROWS.sub(r"\1", text)


def _commands(text: str) -> str:
    """Return the command words of a pipeline, one a line as Redis instrumentations write it."""
    words = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    commands = [word[0].upper() + (" ?" if len(word) > 1 else "") for word in words]
    distinct = [one for at, one in enumerate(commands) if at == 0 or one != commands[at - 1]]
    return "; ".join(distinct[:10])


def _search(text: str) -> str:
    """Return method and path without ids, and the body without its values."""
    path, brace, body = text.partition("{")
    named = template_path(path.strip())
    if not brace:
        return named
    try:
        shape = json.dumps(_shape(json.loads(brace + body)), separators=(",", ":"))
    except (ValueError, RecursionError):
        shape = _stripped(brace + body)
    return f"{named} {shape}".strip()


def _shape(value: Any) -> Any:
    """Return JSON with `?` for its values; a list is that of its first element."""
    if isinstance(value, dict):
        return {key: _shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_shape(value[0])] if value else []
    return "?"


def _document_command(text: str) -> str:
    """Return command and collection: of `{"find": "users", …}`, `users.find(…)`, `find users …`."""
    if text.startswith("{"):
        try:
            command = json.loads(text)
        except (ValueError, RecursionError):
            return _stripped(text)
        if isinstance(command, dict) and command:
            first = next(iter(command))
            verb = next((name for name in _COMMANDS if isinstance(command.get(name), str)), first)
            target = command[verb]
            return f"{verb} {target}" if isinstance(target, str) else str(verb)
    method = _METHOD.match(text)
    return f"{method[2]} {method[1]}" if method else " ".join(text.split()[:2])
