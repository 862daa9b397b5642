"""The part `what_if` of a rule file: what the fix changes, for the replay of the requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from perfkit.analysis.replay import mends
from perfkit.rules import fields
from perfkit.rules.document import Node
from perfkit.rules.fields import Map
from perfkit.rules.model import Code, Param, WhatIf
from perfkit.sql.checked import Query

SUBJECTS = ("rows", "times", "code")
VALUES = ("factor_low", "factor_high", "lifetime", "places_now", "places")
FLAGS = ("subtree", "between", "parallel", "loop")
CODE: tuple[Code, ...] = ("total", "self")

_FACTORS = frozenset(("factor_low", "factor_high"))
_ALLOWED = {
    "rows": (
        *(_FACTORS, _FACTORS | {"subtree"}, _FACTORS | {"between"}, _FACTORS | {"lifetime"}),
        *(frozenset({"parallel"}), frozenset({"places"}), frozenset({"places", "places_now"})),
    ),
    "times": (_FACTORS, _FACTORS | {"loop"}),
    "code": (_FACTORS,),
}
"""What each way of saying what is changed is given with."""


def read(
    node: Node,
    columns: Collection[str],
    params: Mapping[str, Param],
    tables: Mapping[str, tuple[str, ...]],
) -> WhatIf:
    """Return what a fix changes. Raises RuleError with the place of what is wrong."""
    top = Map(node, "what_if", (), (*SUBJECTS, *VALUES, *FLAGS))
    subjects = [name for name in SUBJECTS if name in top]
    if len(subjects) != 1:
        raise node.place.error("what_if needs exactly one of rows, times and code")
    values: dict[str, Any] = {
        name: fields.expression(top[name], columns, params) if name in top else None
        for name in VALUES
    }
    flags: dict[str, Any] = {name: top.flag(name) for name in FLAGS}
    given = {name for name in (*VALUES, *FLAGS) if values.get(name) or flags.get(name)}
    if given not in _ALLOWED[subjects[0]]:
        ways = (", ".join(sorted(one)) for one in _ALLOWED[subjects[0]])
        raise node.place.error(f"{subjects[0]} must be given with {'; or with '.join(ways)}")
    known = {**tables, "findings": ("finding", *columns)}
    rows = fields.query(top["rows"], known, params) if "rows" in top else None
    times = fields.query(top["times"], known, params) if "times" in top else None
    if rows:
        _check_columns(rows, top["rows"], ("finding", "row"), more="lifetime" in given)
    if times:
        _check_columns(times, top["times"], ("finding", *mends.TIMES))
    code = top.choice("code", CODE) if "code" in top else None
    if code and not {"function", "file"} <= set(columns):
        raise top["code"].place.error("code needs the columns function and file")
    return WhatIf(rows, times, code, **values, **flags)


def _check_columns(
    query: Query, node: Node, wanted: Collection[str], *, more: bool = False
) -> None:
    """Check what a query gives; with `more`, also the columns by which rows are equal."""
    given = set(query.columns)
    if (not given > set(wanted)) if more else (given != set(wanted)):
        rest = ", and those by which calls are equal" if more else ""
        raise node.place.error(f"the query of what_if must give {', '.join(wanted)}{rest}")
