"""Writes man pages from the commands' own help: `python -m tools.manpages FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from perfkit import __version__
from perfkit.cli.main import COMMANDS, main

EXIT_STATUS = ((0, "Well."), (1, "An error."), (2, "Wrong usage."), (3, "The gate failed."))


def pages() -> dict[str, str]:
    """Return file name -> content of every page."""
    root = main.make_context("perfkit", [], resilient_parsing=True)
    written = {"perfkit.1": page(main, root)}
    for name in COMMANDS:
        command = main.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root)
        written[f"perfkit-{name}.1"] = page(command, context)
        if isinstance(command, click.Group):
            for sub_name, sub in command.commands.items():
                below = click.Context(sub, info_name=sub_name, parent=context)
                written[f"perfkit-{name}-{sub_name}.1"] = page(sub, below)
    return written


def page(command: click.Command, context: click.Context) -> str:
    """Return the page of a command."""
    title = context.command_path.replace(" ", "-")
    lines = [
        f'.TH "{title.upper()}" "1" "" "perfkit {__version__}" "perfkit"',
        ".ad l",  # long words would tear gaps into adjusted lines
        ".SH NAME",
        f"{_plain(title)} \\- {_plain(command.get_short_help_str(200))}",
        ".SH SYNOPSIS",
        f".B {_plain(context.command_path)}",
        _plain(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
    ]
    options = [
        record for one in command.get_params(context) if (record := one.get_help_record(context))
    ]
    if options:
        lines.append(".SH OPTIONS")
        for names, meaning in options:
            lines += [".TP", f".B {_plain(names)}", _plain(meaning)]
    lines += _commands(command, context)
    if command.epilog:
        lines += [".SH EXAMPLE", _plain(command.epilog)]
    lines.append(".SH EXIT STATUS")
    for status, meaning in EXIT_STATUS:
        lines += [".TP", f".B {status}", meaning]
    return "\n".join(lines) + "\n"


def _commands(command: click.Command, context: click.Context) -> Iterator[str]:
    if not isinstance(command, click.Group):
        return
    yield ".SH COMMANDS"
    for name in command.list_commands(context):
        sub = command.get_command(context, name)
        assert sub is not None
        yield from (".TP", f".B {_plain(name)}", _plain(sub.get_short_help_str(200)))
    yield ".SH SEE ALSO"
    path = context.command_path.replace(" ", "-")
    names = [f"{_plain(path)}\\-{_plain(name)}(1)" for name in command.list_commands(context)]
    yield ", ".join(names)


def _paragraphs(text: str) -> Iterator[str]:
    """Yield a help text; a paragraph after click's mark \\b keeps its lines."""
    for paragraph in text.split("\n\n"):
        lines = [line.strip("\f") for line in paragraph.strip().split("\n")]
        yield ".PP"
        if lines[0].strip() == "\b":
            yield from (".nf", *(_plain(line) for line in lines[1:]), ".fi")
        else:
            yield _plain(" ".join(line.strip() for line in lines))


def _plain(text: str) -> str:
    """Return text in which roff sees no command."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("\b", "")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in pages().items():
        (folder / file).write_text(content, encoding="utf-8")
