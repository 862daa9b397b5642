"""The command `perfkit`: a group that loads a command's module only when it is used."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from perfkit.cli.options import RULE_OPTIONS
from perfkit.ending import end_on_signals
from perfkit.errors import NO_ROOM, PerfkitError, system_error

# Name -> one line of help, in the order of a user's needs. The module has the same name.
COMMANDS: dict[str, str] = {
    "record": "Capture a live process: stacks, metrics, and spans sent over OTLP.",
    "import": "Make a capture from files that other tools wrote.",
    "report": "Write the self-contained HTML report of a capture.",
    "show": "Say in the terminal what is wrong and what to do first.",
    "query": "Run SQL over every table of a capture, captured and derived.",
    "compact": "Merge the small parts of a capture, so that filters read only what they need.",
    "compare": "Say what changed between two captures or populations, and what made it.",
    "export": "Write a capture for another tool: speedscope, pprof, Perfetto, spreadsheets …",
    "check": "Gate a CI job: budgets, rules, and regressions against a baseline.",
    "alert": "Send what is wrong to Alertmanager, a webhook, Slack, PagerDuty or by e-mail.",
    "history": "Keep the figures of many runs, and find the commit that made them worse.",
    "rules": "List, explain, check and test the rules.",
    "advice": "Keep the status of recommendations, and measure what came of them.",
    "doctor": "Check whether this machine can record a process, and how to mend it if not.",
    "completion": "Print what bash, zsh or fish needs to complete commands and captures.",
    "demo": "Capture, analyse and report a real workload with planted problems.",
}

MODULES = {"import": "import_"}
"""Modules whose name cannot be that of their command."""

_ANALYSE = ("report", "show", "query", "compare", "export", "history")
"""Commands that look at large tables and run no program of the user's."""


class LazyGroup(click.Group):
    """A click group whose commands are modules, imported when they run or show their help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in _ANALYSE:
            from perfkit import freed

            freed.keep_in_polars()
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
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=lambda *words: _show_version(*words),
    help="Show the versions that matter for a report of a bug.",
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Turn "it is slow" into one file that says why and what to do."""
    ctx.default_map = _configured_defaults(ctx)


def _show_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    from perfkit.cli import version

    version.show(ctx, param, wanted)


def _configured_defaults(ctx: click.Context) -> dict[str, Any]:
    """Return what the nearest perfkit.yaml says, as click's map of defaults."""
    from perfkit import config

    path = config.find(Path.cwd())
    if path is None:
        return {}
    options = _options(ctx)
    values = config.load(path, _schemas(options)).values
    shared: dict[str, Any] = dict(values.get("rules", {}))
    # A folder in the file lies beside the file, wherever the command is run.
    shared["rules"] = [str(path.parent / folder) for folder in shared.get("rules", ())]
    defaults: dict[str, Any] = {
        command: {
            option.name: {**shared, **values.get(command, {})}[name]
            for name, option in known.items()
            if name in values.get(command, {}) or name in shared
        }
        for command, known in options.items()
        if command != "rules"
    }
    defaults["rules"] = dict.fromkeys(("list", "show", "test"), shared)
    defaults["advice"] = dict.fromkeys(
        ("list", "accept", "dismiss", "done", "reopen", "verify"), shared
    )
    return defaults


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of perfkit.yaml, made from the commands' own options."""
    from perfkit import config

    return config.schema(_schemas(_options(click.Context(main))))


def _options(ctx: click.Context) -> dict[str, dict[str, click.Option]]:
    """Return command -> name on the command line -> option."""
    group = ctx.command
    assert isinstance(group, LazyGroup)
    commands = {name: group.get_command(ctx, name) for name in COMMANDS}
    options = {
        name: {
            max(option.opts, key=len).lstrip("-"): option
            for option in command.params
            if isinstance(option, click.Option)
        }
        for name, command in commands.items()
        if command is not None and not isinstance(command, click.Group)
    }
    options["rules"] = {name: options["report"][name] for name in RULE_OPTIONS}
    return options


def _schemas(options: dict[str, dict[str, click.Option]]) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        command: {name: _option_schema(option) for name, option in section.items()}
        for command, section in options.items()
    }


def _option_schema(option: click.Option) -> dict[str, Any]:
    kinds = {"integer": "integer", "float": "number", "boolean": "boolean"}
    value: dict[str, Any]
    if isinstance(option.type, click.Choice):
        value = {"enum": list(option.type.choices)}
    elif option.is_flag:
        value = {"type": "boolean"}
    else:
        value = {"type": kinds.get(option.type.name.split(" ")[0], "string")}
    if option.multiple:
        value = {"type": "array", "items": value}
    return {**value, "description": option.help or ""}


def run() -> None:
    """Run the command line: the one place where errors become a line and an exit code."""
    code: object
    end_on_signals()
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
        _complain(*_os_error(error))
        code = 1
    except Exception as error:
        refused = system_error(error)
        if refused is None:
            raise
        _complain(*_os_error(refused))
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str, hint: str | None) -> None:
    click.echo(f"perfkit: error: {_printable(message)}", err=True)
    if hint:
        click.echo(f"  what to do: {_printable(hint)}", err=True)


def _os_error(error: OSError) -> tuple[str, str | None]:
    if isinstance(error, FileNotFoundError):
        from perfkit.replacement import part_is_gone

        gone = part_is_gone(error)
        if gone is not None:
            return gone.message, gone.hint
    reason = error.strerror or str(error)
    hint = "free some space, or take another disk (-o, TMPDIR)" if error.errno in NO_ROOM else None
    return f"{error.filename}: {reason}" if error.filename else reason, hint


def _printable(text: str) -> str:
    """Keep control characters of foreign input out of the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
