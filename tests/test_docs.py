"""Every command that the documents show is understood, and run where nothing foreign is needed.

A page is read from the top, in a folder that has the files which the pages speak of. Commands that
watch a process, serve or reach out are only parsed here; what they do has tests of its own.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import polars as pl
import pytest
from click.testing import CliRunner

from perfkit.capture import CaptureWriter
from perfkit.cli.main import COMMANDS, main
from tests.analysis import shop
from tests.report.build import write_capture

ROOT = Path(__file__).resolve().parent.parent
GENERATED = {"commands.md", "tables.md", "metrics.md", "rule-list.md", "formats.md"}
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if page.name not in GENERATED
]
READ_FIRST = {"README.md", "on-call.md"}
MIDDLE = "2026-11-23T06:46:36.500Z"
"""A moment inside the captures below."""

ONLY_PARSED = {"record", "demo", "alert"}
"""They need a process, a port or a server for as long as they run."""
FOREIGN = re.compile(r"^--pid$|^--watch$|^--confirm$|^--map$|^exports|://|\bdask\b")
"""Words of commands that need a process, a cluster or a store which is not here."""


@dataclass(frozen=True)
class Shown:
    """A command in a document."""

    line: int
    words: tuple[str, ...]
    to: str | None
    """File that its output goes to."""


def shown(page: Path) -> Iterator[Shown]:
    """Yield the perfkit commands in the code blocks of a page, in order."""
    fenced = continued = False
    pending = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
            continue
        text = line.strip().removeprefix("$ ") if fenced or line.startswith("    ") else ""
        text = f"{pending} {text}".strip() if continued else text
        continued = text.endswith("\\")
        if continued:
            pending = text.rstrip("\\").strip()
            continue
        for part in text.split(" && "):
            if re.match(r"([A-Z_]+=\S* )*perfkit [a-z-]", part):
                yield _command(number, part)


def _command(number: int, text: str) -> Shown:
    words = [word for word in shlex.split(text, comments=True) if word != "|"]
    words = words[words.index("perfkit") + 1 :]
    to = None
    if ">" in words:
        at = words.index(">")
        to = words[at + 1]
        words = words[:at]
    return Shown(number, tuple(words), to)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the documents speak of."""
    made = tmp_path_factory.mktemp("docs")
    write_capture(made / "slow.perfkit", requests=40)
    slower = shop.slower("GET /stock", 5)
    names = {"good": None, "run": slower, "after": None, "large": None}
    names |= {f"main-{n}": None for n in (1, 2)}
    names |= {f"{side}-{n}": slower for side in ("run", "change") for n in (1, 2)}
    names |= {f"history/night-{n}": None for n in range(6)}
    for seed, (name, change) in enumerate(names.items()):
        spans = shop.capture(40, seed=seed, change=change).table("spans").collect()
        tools = {"GET /cart": "POST /tools/invoke"}
        with CaptureWriter(made / f"{name}.perfkit", command=["test"]) as writer:
            writer.append("spans", spans.with_columns(pl.col("endpoint", "name").replace(tools)))
    for n in range(6):
        night = made / "history" / f"night-{n}.perfkit"
        when = ["--branch", "main", "--commit", f"{n}" * 40]
        added = CliRunner().invoke(main, ["history", "add", str(night), str(night.parent), *when])
        assert added.exit_code == 0, added.output
        shutil.rmtree(night)
    (made / "day").mkdir()
    (made / "day" / "traces.json").write_text(TRACE, encoding="utf-8")
    (made / "traces.json").write_text(TRACE, encoding="utf-8")
    (made / "profile.txt").write_text("main;work 12\nmain;wait 3\n", encoding="utf-8")
    return made


@pytest.fixture
def folder(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files for one page, as the working directory."""
    monkeypatch.chdir(shutil.copytree(files, tmp_path / "here"))
    return tmp_path / "here"


TRACE = (
    '{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":'
    '"shop"}}]},"scopeSpans":[{"scope":{"name":"t"},"spans":[{"traceId":"5b8efff798038103d269b633'
    '813fc60c","spanId":"eee19b7ec3c1b174","name":"GET /cart","kind":2,"startTimeUnixNano":'
    '"1795416395000000000","endTimeUnixNano":"1795416395100000000"}]}]}]}'
)


def understood(words: list[str]) -> None:
    """Parse a command to its leaf. Raises click.UsageError for what does not exist."""
    command: click.Command = main
    context = main.make_context("perfkit", list(words))
    while isinstance(command, click.Group):
        left = [*context._protected_args, *context.args]
        name, found, rest = command.resolve_command(context, left)
        assert found is not None
        command, context = found, found.make_context(name, rest, parent=context)


def for_real(words: tuple[str, ...], folder: Path) -> list[str]:
    """Put in what a reader would: names for patterns, a moment and a fingerprint that exist."""
    real: list[str] = []
    for word in words:
        if "*" in word and word.endswith(".perfkit"):
            real += sorted(path.name for path in folder.glob(word))
        elif word == "10:04:30":
            real.append(MIDDLE)
        elif word == "3f2a9c":
            real.append(fingerprint(folder))
        else:
            real.append(word)
    return real


@cache
def fingerprint(folder: Path) -> str:
    """Return the beginning of one finding's fingerprint, the same for a whole page."""
    listed = CliRunner().invoke(main, ["advice", "list", str(folder / "slow.perfkit"), "--json"])
    found = re.search(r'"fingerprint": "([0-9a-f]{6})', listed.stdout)
    assert found, listed.output
    return found[1]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[] if page.name in READ_FIRST else pytest.mark.slow)
        for page in PAGES
    ],
)
def test_the_commands_of_a_page(page: Path, folder: Path) -> None:
    for command in shown(page):
        words = for_real(command.words, folder)
        where = f"{page.name}:{command.line}: perfkit {shlex.join(words)}"
        if words[0] in ONLY_PARSED or any(FOREIGN.search(word) for word in words):
            try:
                understood(words)
            except click.ClickException as error:
                pytest.fail(f"{where}\n{error.format_message()}")
            continue
        result = CliRunner().invoke(main, words)
        assert result.exception is None or result.exit_code in (0, 3), (
            f"{where}\n{result.exception}\n{result.output}"
        )
        if command.to:
            (folder / command.to).write_text(result.stdout, encoding="utf-8")


def leaves(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield context.command_path, command
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found, click.Context(found, info_name=name, parent=context))


def test_every_command_has_an_example_that_is_understood(folder: Path) -> None:
    (folder / "perf" / "rules").mkdir(parents=True)
    for path, command in leaves(main, click.Context(main, info_name="perfkit")):
        text = f"{command.help or ''}\n{command.epilog or ''}"
        shape = rf"(?:^ *|Example: )(perfkit (?:{'|'.join(COMMANDS)})\b.*?)(?:   .*)?$"
        examples = re.findall(shape, text, re.MULTILINE)
        assert examples, f"{path} has no example"
        for example in examples:
            check(path, example, folder)


def check(path: str, example: str, folder: Path) -> None:
    words = for_real(_command(0, example).words, folder)
    try:
        understood(words)
    except click.ClickException as error:
        pytest.fail(f"{path}: {example}\n{error.format_message()}")
