"""Tables for other programs: ids in hexadecimal, one value a cell, no formulas."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

IDS = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "linked_")
    for name in ("trace_hi", "trace_lo", "span_id", "parent_id")
)
"""Columns that are hexadecimal wherever people and other tools see them."""

_FORMULA = r"^[=+\-@\t\r]"
"""How a text begins that a spreadsheet takes for a formula.
https://owasp.org/www-community/attacks/CSV_Injection"""


def hexadecimal(frame: pl.DataFrame) -> pl.DataFrame:
    """Write ids as 16 hex digits. A tree's `parent_id`, a row number, beside `node_id` stays."""
    import numpy as np
    import polars as pl

    if "node_id" in frame.columns:
        return frame
    columns = []
    for name in frame.columns:
        if name in IDS and frame[name].dtype == pl.Int64:
            ids = frame[name]
            digits = ids.fill_null(0).to_numpy().astype(">i8").tobytes().hex().encode("ascii")
            text = pl.Series(name, np.frombuffer(digits, dtype="S16").astype("U16"), pl.String)
            columns.append(text.set(ids.is_null(), None))
    return frame.with_columns(columns)


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the table with hexadecimal ids, and lists as one text, their values between `; `."""
    import polars as pl
    import polars.selectors as cs

    return hexadecimal(frame).with_columns(cs.list().cast(pl.List(pl.String)).list.join("; "))


def harmless(frame: pl.DataFrame) -> pl.DataFrame:
    """Put an apostrophe before each text, and each heading, that a spreadsheet would run."""
    import re

    import polars as pl
    import polars.selectors as cs

    marked = frame.with_columns(
        pl.when(cs.string().str.contains(_FORMULA))
        .then(pl.lit("'") + cs.string())
        .otherwise(cs.string())
        .name.keep()
    )
    return marked.rename({name: f"'{name}" for name in frame.columns if re.match(_FORMULA, name)})


def to_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    """Return the frame as pandas has it; integers and truths with nulls stay what they are.

    Polars' own way needs pyarrow.
    """
    import pandas as pd

    return pd.DataFrame({column.name: _pandas_column(column) for column in frame})


def _pandas_column(values: pl.Series) -> object:
    import pandas as pd
    import polars as pl

    if values.null_count():
        if values.dtype.is_integer():
            return pd.array(values.to_list(), dtype="Int64")
        if values.dtype == pl.Boolean:
            return pd.array(values.to_list(), dtype="boolean")
    return values.to_numpy() if values.dtype.is_numeric() else values.to_list()
