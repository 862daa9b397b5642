"""Writes what is generated from the code: pages and JSON schemas of docs/, the rules' checked SQL.

`python -m tools.reference [FOLDER]` writes them; a test fails when they no longer match the code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from perfkit import model
from perfkit.analysis import DERIVED
from perfkit.cli.main import COMMANDS, config_schema, main
from perfkit.collect.resources import catalogue
from perfkit.gate.outputs import data
from perfkit.importers import IMPORTERS
from perfkit.resources import data_dir
from perfkit.rules import known
from perfkit.rules.load import load_rules
from perfkit.rules.model import Rule
from perfkit.rules.schema import schema

DOCS = Path(__file__).resolve().parent.parent / "docs"
_HELP_WIDTH = 90


def tables_page() -> str:
    """Describe every captured and derived table."""
    lines = [
        "# The tables",
        "",
        "Generated from the code (`make reference`). A capture is a directory of Parquet files,",
        "one folder a table; DuckDB, pandas, Spark and Polars open it without perfkit. Times are",
        "integer nanoseconds since the Unix epoch; ids are signed 64-bit integers, written as",
        "hexadecimal at every edge.",
        "",
        "## Captured",
    ]
    for table in model.TABLES:
        lines += ["", f"### `{table.name}`", "", f"One row is {table.row}.", ""]
        lines += ["| column | type | meaning |", "|---|---|---|"]
        lines += [f"| `{c.name}` | {c.dtype} | {_cell(c.doc)} |" for c in table.columns]
    lines += ["", "## Derived", "", "Computed from the captured ones when asked for."]
    for derived in DERIVED:
        needs = ", ".join(f"`{name}`" for name in derived.needs)
        lines += ["", f"### `{derived.name}`", "", f"One row is {derived.row}. Reads {needs}.", ""]
        lines += ["| column | meaning |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(doc)} |" for name, doc in derived.columns.items()]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def metrics_page() -> str:
    """List every metric that perfkit measures itself."""
    lines = [
        "# The resource metrics",
        "",
        "Generated from the code (`make reference`). `perfkit record` reads these once a second",
        "from /proc and /sys into the table `metrics`, and more seldom only where that would take",
        "more than 0.5 % of a core (very many processes, threads or sockets). Rows of a process",
        "and of its control group have `PROGRAM (pid N)` as their instance, those of the machine",
        "its host name; those of the network are of the network namespace that the process is in.",
        "What the kernel does not say, or hides from the user who records, is left out.",
        "",
        "A `gauge` is the value as it is at that moment, a `counter` a sum that only grows: the",
        "table `metric_stats` makes a rate of it. Names follow OpenTelemetry's semantic",
        "conventions; those marked * are perfkit's own, because the conventions have none.",
        "",
        "| metric | unit | kind | attributes | meaning | source |",
        "|---|---|---|---|---|---|",
    ]
    for metric in catalogue.METRICS:
        own = " *" if catalogue.is_own(metric) else ""
        attributes = ", ".join(f"`{name}`" for name in metric.attributes)
        name = f"`{metric.name}`{own} | `{metric.unit}` | {metric.kind}"
        lines += [f"| {name} | {attributes} | {_cell(metric.doc)} | {metric.source} |"]
    return "\n".join(lines) + "\n"


def formats_page() -> str:
    """List every format that `perfkit import` reads."""
    lines = [
        "# The formats that perfkit imports",
        "",
        "Generated from the code (`make reference`); [import.md](import.md) says how to import.",
        "What a format lacks is null in the tables, or assumed and noted in the capture. *Tried*",
        "names the tools whose own output was read last; where there is none, the format was read",
        "from samples by its documentation, or from what others published.",
        "",
        "| format | name | made by | recognised by | gives | lacks | tried |",
        "|---|---|---|---|---|---|---|",
    ]
    for importer in IMPORTERS:
        one = importer.FORMAT
        cells = (one.title, f"`{importer.NAME}`", one.made_by, one.recognised_by, one.gives)
        lines += ["| " + " | ".join(_cell(text) for text in (*cells, one.lacks, one.tried)) + " |"]
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """Show the help of every command."""
    lines = ["# The commands", "", "Generated from the commands' own help (`make reference`)."]
    lines += ["Exit codes: 0 well; 1 error; 2 usage; 3 the gate failed."]
    root = main.make_context("perfkit", [], resilient_parsing=True)
    lines += _help(main, root, 2)
    for name in COMMANDS:
        command = main.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root)
        lines += _help(command, context, 2)
        if isinstance(command, click.Group):
            for sub_name, sub in command.commands.items():
                lines += _help(sub, click.Context(sub, info_name=sub_name, parent=context), 3)
    return "\n".join(lines) + "\n"


def rules_page() -> str:
    """Explain every shipped rule: what it needs, its numbers and their sources, when it errs."""
    rules = load_rules()
    groups = sorted({rule.path.parent.name for rule in rules})
    lines = ["# The shipped rules", "", "Generated from the rules themselves (`make reference`)."]
    lines += [f"{len(rules)} rules; a severity falls to the first line that holds. How to choose,"]
    lines += ["tune and write them: [rules.md](rules.md)."]
    for group in groups:
        lines += ["", f"## {group}"]
        for rule in rules:
            if rule.path.parent.name == group:
                lines += _rule(rule)
    return "\n".join(lines) + "\n"


def _rule(rule: Rule) -> list[str]:
    needs = ", ".join(f"`{table}`" for table in rule.requires)
    lines = ["", f"### `{rule.id}`", "", f"**{_cell(rule.title)}.** Needs {needs}.", ""]
    lines += [_cell(rule.why.plain()), ""]
    lines += ["| number | default | source |", "|---|---|---|"]
    for name, param in rule.params.items():
        shown = f"`{param.shown}`" if param.unit == "text" else param.shown
        lines += [f"| `{name}` | {_cell(shown)} | {_cell(param.source)} |"]
    ladder = [
        f"{step.severity} when `{step.when.tree.sql()}`" if step.when else step.severity
        for step in rule.severity
    ]
    lines += ["", f"Severity: {', else '.join(_cell(one) for one in ladder)}.", ""]
    lines += [f"The fix: {_cell(rule.fix.summary.plain())} Effort {rule.fix.effort}.", ""]
    lines += ["False positives: " + " ".join(_cell(one) for one in rule.false_positives), ""]
    lines += [f"- [{_cell(one['title'])}]({one['url']})" for one in rule.references]
    return lines


def _help(command: click.Command, context: click.Context, level: int) -> list[str]:
    context.terminal_width = _HELP_WIDTH
    context.max_content_width = _HELP_WIDTH
    text = command.get_help(context).rstrip()
    return ["", f"{'#' * level} `{context.command_path}`", "", "```", text, "```"]


def pages() -> dict[str, str]:
    """Return file name -> content of every generated page."""
    return {
        "tables.md": tables_page(),
        "metrics.md": metrics_page(),
        "formats.md": formats_page(),
        "commands.md": commands_page(),
        "perfkit.schema.json": _json(config_schema()),
        "rule.schema.json": _json(schema()),
        "check.schema.json": _json(data.schema()),
        "rule-list.md": rules_page(),
    }


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def written_rules() -> str:
    """Return the SQL of the shipped rules as the guard found it, an entry a line."""
    with known.nothing():
        kinds = known.entries(load_rules())
    lines = [
        ",\n".join(f"{_dense(one)}:{_dense(entry)}" for one, entry in found.items())
        for found in kinds.values()
    ]
    bodies = (f'"{kind}":{{\n{body}\n}}' for kind, body in zip(kinds, lines, strict=True))
    return "{" + ",\n".join(bodies) + "}\n"


def _dense(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def folder_of(page: str) -> Path:
    """Return where a generated file lies."""
    return data_dir("rules") if page == known.FILE else DOCS


if __name__ == "__main__":
    for page, content in {**pages(), known.FILE: written_rules()}.items():
        folder = Path(sys.argv[1]) if sys.argv[1:] else folder_of(page)
        (folder / page).write_text(content, encoding="utf-8")
