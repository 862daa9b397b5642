"""perfkit in Python: a capture's tables, findings and figures, for notebooks and scripts.

    import perfkit

    capture = perfkit.open("slow.perfkit", endpoint="/tools/invoke")
    capture.frame("endpoints")            # a Polars DataFrame
    capture.findings()[0].message
    capture.figure("flame").show()

docs/python-api.md says more. All errors are children of `perfkit.errors.PerfkitError`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfkit.analysis.ask import ask, columns
from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from perfkit.analysis.sharded import open_tables
from perfkit.capture import Capture as StoredCapture
from perfkit.errors import UsageError
from perfkit.manifest import CaptureInfo
from perfkit.rules.model import Finding
from perfkit.sql.scopes import unknown

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import polars as pl


class Capture:
    """One capture, or the population of its requests that passes filters.

    What is computed is kept, so asking twice costs once.
    """

    def __init__(self, path: Path, tables: Tables) -> None:
        self.path = path
        self._tables = tables

    @classmethod
    def open(cls, path: str | Path, **filters: Any) -> Capture:
        """Open the capture at `path`; filters are the fields of `perfkit.analysis.filters.Filters`.

        Times are Unix ns and lengths ns: `since_ns=…`, `min_duration_ns=500_000_000`. Raises
        CaptureError for what is no capture, UsageError for a filter that does not exist.
        """
        known = Filters.__dataclass_fields__
        for name in filters:
            if name not in known:
                message, hint = unknown("filter", name, known)
                raise UsageError(message, hint=hint)
        where = Path(path)
        return cls(where, open_tables(StoredCapture.open(where), Filters(**filters), "auto"))

    def __repr__(self) -> str:
        chosen = {name: value for name, value in vars(self._tables.filters).items() if value}
        only = "".join(f", {name}={value!r}" for name, value in chosen.items())
        return f"perfkit.open({str(self.path)!r}{only})"

    @property
    def info(self) -> CaptureInfo:
        """Who made it, when and how, and what was lost and why."""
        return self._tables.capture.info

    @property
    def tables(self) -> dict[str, list[str]]:
        """Return every table, captured and derived, and its columns. docs/tables.md explains."""
        return {name: list(names) for name, names in columns().items()}

    def table(self, name: str) -> pl.LazyFrame:
        """Return a table as a Polars LazyFrame. Raises UsageError when there is none."""
        if name not in self._tables:
            message, hint = unknown("table", name, dict.fromkeys(self._tables))
            raise UsageError(message, hint=hint)
        return self._tables[name]

    def frame(self, name: str) -> pl.DataFrame:
        """Return a table as a Polars DataFrame. Raises UsageError when there is none."""
        return self.table(name).collect()

    def to_pandas(self, name: str) -> pd.DataFrame:
        """Return a table as a pandas DataFrame. Raises UsageError when there is none."""
        from perfkit.exporters.flat import to_pandas

        return to_pandas(self.frame(name))

    def query(self, sql: str) -> pl.DataFrame:
        """Return the result of one SELECT over the tables. Raises UsageError for bad SQL."""
        return ask(self._tables, sql)

    def findings(self, *, rules: str | Path | None = None) -> list[Finding]:
        """Return what the rules find, the most important first.

        `rules` is a folder of rules of your own, beside the shipped ones. What people decided in a
        ledger is not looked at.
        """
        from perfkit.rules.choose import Choice, choose
        from perfkit.rules.evaluate import findings, run

        folders = (Path(rules),) if rules is not None else ()
        return findings(run(choose(Choice(folders)), self._tables))

    def figure(self, kind: str = "flame", *, view: str | None = None) -> go.Figure:
        """Return a Plotly figure: `flame`, of a view as in `perfkit export`, or `heatmap`.

        `heatmap` is how long requests took over time. Raises UsageError for another kind,
        InputError when the capture has nothing to draw.
        """
        from perfkit.report import figures

        return figures.figure(self._tables, kind, view)

    def report(self, path: str | Path) -> Path:
        """Write the HTML report. Raises OSError."""
        from perfkit.capture import atomic_write
        from perfkit.report.render import build
        from perfkit.rules.choose import choose
        from perfkit.rules.evaluate import run

        page = build(self._tables, run(choose(), self._tables), title=self.path.stem, followed=[])
        target = Path(path)
        with atomic_write(target) as file:
            file.write(page.html.encode("utf-8", "replace"))
        return target
