"""The command `perfkit`: a group that loads a command's module only when it is used."""

from __future__ import annotations

import importlib
import os
import sys

import click

from perfkit import __version__
from perfkit.errors import PerfkitError

# Name -> one line of help, in the order of a user's needs. The module has the same name.
COMMANDS: dict[str, str] = {
    "record": "Capture a live process: stacks, metrics, and spans sent over OTLP.",
    "import": "Make a capture from files that other tools wrote.",
    "report": "Write the self-contained HTML report of a capture.",
    "show": "Say in the terminal what is wrong and what to do first.",
    "rules": "List, explain, check and test the rules.",
    "demo": "Capture, analyse and report a real workload with planted problems.",
    "doctor": "Check whether this machine can record a process, and how to mend it if not.",
}

MODULES = {"import": "import_"}
"""Modules whose name cannot be that of their command."""


class LazyGroup(click.Group):
    """A click group whose commands are modules, imported when they run or show their help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module("perfkit.cli." + MODULES.get(cmd_name, cmd_name))
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with: perfkit record --pid PID --otlp --duration 30s -o slow.perfkit",
)
@click.version_option(__version__, prog_name="perfkit")
def main() -> None:
    """Turn "it is slow" into one file that says why and what to do."""


def run() -> None:
    """Run the command line: the one place where errors become a line and an exit code."""
    try:
        code = main.main(standalone_mode=False)
        sys.stdout.flush()
    except PerfkitError as error:
        _complain(error.message, error.hint)
        code = error.exit_code
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away: nothing to say, and nowhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        _complain(_os_error(error), None)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str, hint: str | None) -> None:
    click.echo(f"perfkit: error: {_printable(message)}", err=True)
    if hint:
        click.echo(f"  what to do: {_printable(hint)}", err=True)


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _printable(text: str) -> str:
    """Keep control characters of foreign input out of the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
