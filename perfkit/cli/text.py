"""Tables and paragraphs for a terminal: they fit its width, and nothing foreign controls it."""

from __future__ import annotations

import shutil
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence

import click

from perfkit.masking import mask

_MIN_TEXT = 12
_MEANINGS = 24
"""Column in which definitions begin."""


def terminal_width() -> int:
    """Return the width to write for: that of the terminal, or 80 in a pipe."""
    return max(40, min(shutil.get_terminal_size((80, 24)).columns, 160))


def plain(text: object) -> str:
    """Return text on one line, without control characters and direction overrides.

    What looks like a token or a password is masked, as in the report: people paste what they see.
    """
    return " ".join(
        "".join(
            char if char.isprintable() and unicodedata.category(char) != "Cf" else " "
            for char in mask(str(text))
        ).split()
    )


def shorten(text: object, width: int) -> str:
    """Cut text to `width` columns in its middle, where names differ least."""
    line = plain(text)
    if len(line) <= width:
        return line
    tail = (width - 1) // 3
    return f"{line[: width - 1 - tail]}…{line[len(line) - tail :] if tail else ''}"


def heading(title: str) -> None:
    """Print the heading of a part."""
    click.echo()
    click.secho(title.upper(), bold=True)


def paragraph(text: str, *, indent: int = 0) -> None:
    """Print text folded to the width of the terminal."""
    margin = " " * indent
    for line in textwrap.wrap(
        plain(text),
        terminal_width(),
        initial_indent=margin,
        subsequent_indent=margin,
        break_on_hyphens=False,
    ):
        click.echo(line)


def folded(text: str, lead: int) -> list[str]:
    """Return the lines of a text that begins after `lead` characters and goes on after four."""
    lines = textwrap.wrap(
        plain(text),
        terminal_width(),
        initial_indent=" " * lead,
        subsequent_indent=" " * 4,
        break_on_hyphens=False,
    )
    return [line.strip() for line in lines] or [""]


def definition(name: str, meaning: str) -> None:
    """Print a name and beside it what it means, folded."""
    first, *rest = textwrap.wrap(
        plain(meaning), max(20, terminal_width() - _MEANINGS), break_on_hyphens=False
    ) or [""]
    beside = len(name) < _MEANINGS - 1
    click.echo(f"{name:{_MEANINGS}}{first}".rstrip() if beside else name)
    for line in rest if beside else [first, *rest]:
        click.echo(" " * _MEANINGS + line)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, least: int = _MIN_TEXT) -> None:
    """Print a table: the first column is text and gets the room that is left, the rest is numbers.

    Columns that do not fit are dropped from the right, so a narrow terminal shows fewer figures
    rather than broken lines. `least` is the room that the first column is to have at least, if it
    needs so much.
    """
    lines = [list(row) for row in rows]
    widths = [
        max(len(header), *(len(line[column]) for line in lines), 0)
        for column, header in enumerate(headers)
    ]
    room = terminal_width()
    shown = len(headers)
    least = min(least, widths[0]) if least > _MIN_TEXT else least
    while shown > 2 and sum(widths[1:shown]) + 2 * (shown - 1) + least > room:
        shown -= 1
    first = min(widths[0], room - sum(widths[1:shown]) - 2 * (shown - 1))
    click.secho(_line(headers[:shown], first, widths), dim=True)
    for line in lines:
        click.echo(_line(line[:shown], first, widths))


def _line(cells: Sequence[str], first: int, widths: Sequence[int]) -> str:
    texts = [shorten(cells[0], first).ljust(first)]
    texts += [plain(cell).rjust(widths[column]) for column, cell in enumerate(cells) if column]
    return "  ".join(texts).rstrip()
