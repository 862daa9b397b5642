"""What PostgreSQL's log says of a statement: its duration, its text, its plan, its parameters.

In the languages that PostgreSQL 15 speaks (`lc_messages`); plans are English in all of them.
"""

from __future__ import annotations

import html
import json
import re
from typing import Literal, NamedTuple

# `duration: 1.234 ms  statement: …`, as po/*.po of PostgreSQL translate it.
_UNITS = r"(?:ms|мс|ミリ秒|მწმს?s?)"
_STATEMENT = (
    r"(?:statement|Anweisung|sentencia|instruction|istruzione|文|გამოსახულება|ოპერატორი|명령 구문"
    r"|оператор|sats|语句|陳述式)"
)
_EXECUTE = (
    r"(?:execute|Ausführen|ejecutar|exécute|esecuzione di|実行|გაშვება|쿼리실행|выполнение|kör"
    r"|виконувати|执行|取り出し実行|자료뽑기|выборка из|виконати витягнення з)"
)
_NAME = r"[^:'()\n]{1,200}"  # also `fetch from`
_DURATION = re.compile(
    rf"[^\d:\n]{{2,30}}:? ?(?P<ms>\d{{1,12}}\.\d{{1,9}}) {_UNITS}(?P<rest>[ ,].*)?", re.DOTALL
)
_WORDED = re.compile(
    rf"(?:{_STATEMENT} ?:|(?P<execute>{_EXECUTE}){_NAME}:) (?P<query>.*)", re.DOTALL
)
_PLAN = re.compile(r"plan:\s*(.*)", re.DOTALL)
# The text of a statement ends before the root of its plan, or the values of its parameters.
_TEXT_QUERY = re.compile(
    r"Query Text: (.*?)\n(?=Query Parameters: |[A-Z(][^\n]*\(cost=|[A-Z][^\n]*\n?\Z)", re.DOTALL
)
_QUOTED_QUERY = re.compile(r'"?Query Text"?: ("(?:[^"\\]|\\.)*+")')
_XML_QUERY = re.compile(r"<Query-Text>([^<]*+)</Query-Text>")
_PARAMETERS = re.compile(r"[^\d:\n]{2,30} ?: (\$1 = .*)", re.DOTALL)
_PARAMETER = re.compile(r"\$(\d{1,5}) = (?:'((?:[^']|'')*+)'|(NULL)|\(([^()\n]{0,40})\))")
_MAX_PARAMETERS = 32
_MAX_VALUE = 200
_QUERY_WITHIN = 1 << 20


class Message(NamedTuple):
    """What an entry says of a statement."""

    kind: Literal["announced", "ended", "plan", "untold"]
    """`announced` is its text before it runs (`log_statement`); `untold` parsing and binding."""
    ms: str = ""
    """Its duration, as it stands there."""
    query: str | None = None
    """Null of one that ended where its text was announced, or is not logged at all."""
    plan: str | None = None
    executed: bool = False
    """Whether it was prepared: then its plan comes behind it."""


def parse(text: str) -> Message | None:
    """Read the text of an entry; null when it is of something else."""
    duration = _DURATION.fullmatch(text)
    if duration is None:
        said = _WORDED.fullmatch(text)
        return said and Message("announced", "", said["query"], None, bool(said["execute"]))
    ms, rest = duration["ms"], (duration["rest"] or "").lstrip(" ,")
    if not rest:
        return Message("ended", ms)
    if plan := _PLAN.fullmatch(rest):
        return Message("plan", ms, _query_of(plan[1]), plan[1])
    if said := _WORDED.fullmatch(rest):
        return Message("ended", ms, said["query"], None, bool(said["execute"]))
    return Message("untold", ms)


def _query_of(plan: str) -> str:
    """Return the statement in a plan, whose format is text, JSON, YAML or XML."""
    plain = _TEXT_QUERY.match(plan)
    if plain and not plain[1].startswith('"'):
        return plain[1]
    if quoted := _QUOTED_QUERY.search(plan[:_QUERY_WITHIN]):
        try:
            return str(json.loads(quoted[1]))
        except ValueError:
            return quoted[1]
    if found := _XML_QUERY.search(plan):
        return html.unescape(found[1])
    return plain[1] if plain else ""


def parameters(detail: str) -> dict[str, str]:
    """Return the values of the parameters, by number: `parameters: $1 = '42', $2 = NULL`."""
    found = _PARAMETERS.fullmatch(detail)
    if found is None:
        return {}
    values: dict[str, str] = {}
    for match in _PARAMETER.finditer(found[1]):
        if len(values) == _MAX_PARAMETERS:
            break
        value = match[2].replace("''", "'") if match[2] is not None else match[3] or match[4] or ""
        values.setdefault(match[1], value[:_MAX_VALUE])
    return values
