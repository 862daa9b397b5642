"""Run the gateway: an MCP-style tool service in which performance problems are planted."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from perfkit.demo.problems import PROBLEMS, select
from perfkit.demo.processes import end_on_signals
from perfkit.demo.requirements import demo_extra


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal comes."""
    options = _parse(arguments)
    with demo_extra():
        from perfkit.demo import serving, telemetry
        from perfkit.demo.app import create_app
        from perfkit.demo.database import DatabaseError

    end_on_signals()
    with ExitStack() as stack:
        stack.callback(telemetry.configure("tool-gateway"))
        if options.database_url is None:
            _enter_data_directory(options.data_dir, stack)
        database_url = options.database_url or "sqlite:///gateway.db"
        try:
            app = create_app(options.problems, database_url, options.backend_url)
        except DatabaseError as error:
            sys.exit(f"cannot use the database: {error}")
        telemetry.instrument_app(app)
        serving.serve(app, options.port, options.ready_file)


def _enter_data_directory(directory: Path | None, stack: ExitStack) -> None:
    """Work in `directory`, by default one that is removed in the end.

    So the name of the SQLite file, which is part of every span's name, is the same in every run.
    """
    if directory is None:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="tool-gateway-")))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        stack.enter_context(chdir(directory))
    except OSError as error:
        sys.exit(f"cannot use the data directory {directory}: {error.strerror}")


def _absolute(path: str) -> Path:
    return Path(path).absolute()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m perfkit.demo.gateway",
        description=__doc__,
        epilog="problems:\n" + "\n".join(f"  {each.name:<12}{each.wrong}" for each in PROBLEMS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="0, the default, takes a free one")
    add("--backend-url", required=True, help="where the second service is")
    add("--ready-file", type=_absolute, help="where to write the URL when serving")
    add("--data-dir", type=Path, help="where the SQLite file is kept; default: removed at the end")
    for name, help_text in (
        ("database-url", "a PostgreSQL database to use instead; it must be empty"),
        ("mend", "the problems to mend: NAME[,NAME...], all, or none (the default)"),
        ("only", "the one problem to leave"),
    ):
        variable = f"GATEWAY_{name.replace('-', '_').upper()}"
        default = os.environ.get(variable)
        add(f"--{name}", default=default, help=f"{help_text} [environment: {variable}]")
    options = parser.parse_args(arguments)
    try:
        options.problems = select(options.mend, options.only)
    except ValueError as error:
        parser.error(str(error))
    return options


if __name__ == "__main__":
    main()
