"""`perfkit.open`: what a notebook uses, and the notebook of the documentation itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import polars as pl
import pytest

import perfkit
from perfkit.analysis import DERIVED
from perfkit.errors import CaptureError, InputError, UsageError
from perfkit.model import BY_NAME
from tests.exporters import shop
from tests.report.build import write_capture

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("api") / "slow.perfkit")


def test_importing_perfkit_loads_nothing_heavy() -> None:
    code = (
        "import sys, perfkit; perfkit.open\n"
        "print(sorted({'polars', 'pandas', 'plotly', 'numpy', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_table_is_lazy_polars_and_pandas(path: Path) -> None:
    capture = perfkit.open(path)
    assert set(capture.tables) == {*BY_NAME, *(one.name for one in DERIVED)}
    for name, columns in capture.tables.items():
        lazy = capture.table(name)
        assert isinstance(lazy, pl.LazyFrame)
        assert set(lazy.collect_schema().names()) == set(columns)
        frame, pandas = capture.frame(name), capture.to_pandas(name)
        assert isinstance(pandas, pd.DataFrame)
        assert (list(pandas.columns), len(pandas)) == (frame.columns, frame.height)


def test_pandas_keeps_ids_exact_where_some_are_missing(tmp_path: Path) -> None:
    from tests.analysis.build import S, write

    large = 2**63 - 3
    written = write(
        tmp_path / "a.perfkit", [S(large, 10**18, 10**18 + 5), S(2, 10**18, None, large)]
    )
    spans = perfkit.open(written).to_pandas("spans").set_index("span_id")
    assert spans.parent_id[2] == large
    assert spans.parent_id[large] is pd.NA
    assert spans.start_ns.dtype == np.int64


def test_filters_and_sql(path: Path) -> None:
    whole = perfkit.open(str(path))
    some = perfkit.open(path, endpoint="/tools/invoke", min_duration_ns=100_000_000)
    assert repr(some) == (
        f"perfkit.open({str(path)!r}, endpoint='/tools/invoke', min_duration_ns=100000000)"
    )
    count = "SELECT COUNT(*) AS n FROM requests WHERE entry"
    assert some.query(count).item() == 40
    assert whole.query(count).item() == 60
    with pytest.raises(UsageError, match="READ_CSV is not a table"):
        whole.query("SELECT * FROM read_csv('/etc/passwd')")


def test_findings_are_objects(path: Path) -> None:
    found = perfkit.open(path).findings()
    assert found
    assert all(one.title and one.message and one.fingerprint for one in found)
    assert found[0].priority > 0


def test_what_is_not_there_is_said(path: Path, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no such capture"):
        perfkit.open(tmp_path / "none.perfkit")
    with pytest.raises(UsageError, match="unknown filter endpont") as error:
        perfkit.open(path, endpont="/a")
    assert error.value.hint == "did you mean endpoint?"
    capture = perfkit.open(path)
    for wrong in (
        lambda: capture.table("span"),
        lambda: capture.figure("pie"),
        lambda: capture.figure("flame", view="all"),
    ):
        with pytest.raises(UsageError):
            wrong()
    with pytest.raises(InputError, match="nothing to draw"):
        perfkit.open(path, service="nobody").figure("heatmap")


@pytest.mark.parametrize("view", ["running", "code", "critical-path", "requests"])
def test_a_flame_figure_adds_up(tmp_path: Path, view: str) -> None:
    capture = perfkit.open(shop.write(tmp_path / "hostile.perfkit", hostile=True))
    figure = capture.figure("flame", view=view)
    assert isinstance(figure, go.Figure)
    (chart,) = figure.data
    values = dict(zip(chart.ids, chart.values, strict=True))
    below: dict[str, int] = {}
    for name, parent in zip(chart.ids, chart.parents, strict=True):
        below[parent] = below.get(parent, 0) + values[name]
    # Plotly draws nothing at all when children weigh more than their parent.
    assert all(below[parent] <= values[parent] for parent in below if parent)
    assert below["all"] == values["all"]
    assert not any("<" in label for label in chart.labels)


def test_a_large_flame_figure_says_what_it_leaves_out(tmp_path: Path) -> None:
    lines = "\n".join(f"main;f{number} {number + 1}" for number in range(1500))
    (tmp_path / "stacks.txt").write_text(lines)
    from perfkit.capture import CaptureWriter
    from perfkit.importers import import_files

    with CaptureWriter(tmp_path / "a.perfkit") as writer:
        import_files([tmp_path / "stacks.txt"], writer)
    figure = perfkit.open(tmp_path / "a.perfkit").figure()
    assert len(figure.data[0].ids) == 1001
    assert "501 are left out" in figure.layout.title.text


def test_the_heatmap_counts_every_request(path: Path) -> None:
    (chart,) = perfkit.open(path).figure("heatmap").data
    assert np.nansum(np.array(chart.z, dtype=float)) == 60


def test_the_report_is_written(path: Path, tmp_path: Path) -> None:
    target = perfkit.open(path).report(tmp_path / "slow.html")
    assert target.read_text().startswith("<!doctype html>")


def test_the_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells are run one after the other as Python, without Jupyter around them."""
    monkeypatch.chdir(path.parent)
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells):
        assert cell["outputs"] == [], "clear the outputs before you commit"
        exec(compile(cell["source"], f"cell {number}", "exec"), names)
    assert names["findings"]
    assert isinstance(names["flame"], go.Figure)
    assert names["slow"].frame("requests").height < names["capture"].frame("requests").height
