"""The import rules of the architecture: who may import whom, and which library belongs where."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "perfkit"

# A unit may import units of lower layers, and itself. Units of one layer never import each other,
# except within the first two layers, which are small and plain.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset(
        {
            "errors",
            "units",
            "resources",
            "config",
            "masking",
            "scratch",
            "ending",
            "cycles",
            "freed",
        }
    ),
    frozenset({"model", "semconv", "ids", "stacks", "batch", "journal", "manifest", "long_values"}),
    frozenset({"formats", "sql"}),
    frozenset(
        {
            *("capture", "bodies", "compact", "engine", "tail_sampling", "layout", "merge_parts"),
            *("redaction", "remote", "parts", "replacement"),
        }
    ),
    frozenset({"collect", "importers", "exporters", "analysis"}),
    frozenset({"rules"}),
    frozenset({"advice", "alert", "report", "gate"}),
    frozenset({"api"}),
    frozenset({"cli", "pytest_plugin"}),
    frozenset({"__main__"}),
)
FREE_WITHIN = (0, 1, 3)
STANDALONE = frozenset({"demo", "otel", "otel_metrics"})
OWNERS = {
    "click": {"cli"},
    "yaml": {"rules", "advice", "config"},
    "jinja2": {"report"},
    "plotly": {"report", "api"},
}


def layer_of(unit: str) -> int:
    for number, units in enumerate(LAYERS):
        if unit in units:
            return number
    raise AssertionError(f"perfkit/{unit} is in no layer: add it to LAYERS")


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """Yield (dotted name, at top level, line) of every import in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import absolutely"
            base = node.module or ""
            for alias in node.names:
                yield f"{base}.{alias.name}", id(node) in top, node.lineno


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_layers(path: Path) -> None:
    unit = unit_of(path)
    for name, top_level, line in imports(path):
        parts = name.split(".")
        where = f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        if parts[0] == "perfkit":
            if len(parts) < 2 or parts[1] == "__version__":
                continue
            target = parts[1]
            if unit in STANDALONE:
                assert target == unit, f"{where}: {unit} stands alone"
            elif target != unit:
                if target == "demo":
                    assert unit == "cli", f"{where}: only its command starts the demo"
                    continue
                assert target not in STANDALONE, f"{where}: only users import {target}"
                mine, theirs = layer_of(unit), layer_of(target)
                allowed = theirs < mine or (theirs == mine and mine in FREE_WITHIN)
                assert allowed, f"{where}: against the layers"
        elif parts[0] in OWNERS and unit not in STANDALONE:
            assert unit in OWNERS[parts[0]], f"{where}: only {OWNERS[parts[0]]} may"
        elif parts[0] == "pandas":
            assert not top_level, f"{where}: pandas is imported inside the function that needs it"


# Within the analysis: a folder imports only folders that stand before it here.
ANALYSIS = (
    "vector",
    "statistics",
    "spans",
    "code",
    "database",
    "series",
    "waits",
    "comparison",
    "replay",
)


def test_the_folders_of_the_analysis_stand_in_order() -> None:
    folder = PACKAGE / "analysis"
    assert {path.parent.name for path in folder.glob("*/__init__.py")} == set(ANALYSIS)
    for path in folder.glob("*/*.py"):
        for name, _, line in imports(path):
            parts = name.split(".")
            if parts[:2] == ["perfkit", "analysis"] and len(parts) > 2 and parts[2] in ANALYSIS:
                allowed = ANALYSIS.index(parts[2]) <= ANALYSIS.index(path.parent.name)
                assert allowed, f"{path.relative_to(folder)}:{line} imports {name}"


def test_every_unit_has_a_layer() -> None:
    for path in MODULES:
        unit = unit_of(path)
        assert unit in STANDALONE or layer_of(unit) >= 0


def test_the_command_line_starts_without_heavy_libraries() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from perfkit.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'polars', 'pandas', 'plotly', 'jinja2', 'numpy', 'sqlglot', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
