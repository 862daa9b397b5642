"""Run the gateway: an MCP-style tool service in which performance problems are planted."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from perfkit.demo.problems import PROBLEMS, select
from perfkit.demo.requirements import demo_extra


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal comes."""
    options = _parse(arguments)
    with demo_extra():
        from perfkit.demo import serving, telemetry
        from perfkit.demo.app import create_app
        from perfkit.demo.database import DatabaseError

    serving.end_on_signals()
    with ExitStack() as stack:
        stack.callback(telemetry.configure("tool-gateway"))
        database_url = options.database_url or _sqlite_url(options.data_dir, stack)
        try:
            app = create_app(options.problems, database_url, options.backend_url)
        except DatabaseError as error:
            sys.exit(f"cannot use the database: {error}")
        telemetry.instrument_app(app)
        serving.serve(app, options.port, options.ready_file)


def _sqlite_url(directory: Path | None, stack: ExitStack) -> str:
    """Return the URL of a file in `directory`, by default one that is removed in the end."""
    if directory is None:
        temporary = tempfile.TemporaryDirectory(prefix="tool-gateway-")
        directory = Path(stack.enter_context(temporary))
    return f"sqlite:///{directory.resolve() / 'gateway.db'}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m perfkit.demo.gateway",
        description=__doc__,
        epilog="problems: " + "; ".join(f"{each.name}: {each.wrong}" for each in PROBLEMS),
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="0, the default, takes a free one")
    add("--backend-url", required=True, help="where the second service is")
    add("--ready-file", type=Path, help="where to write the URL when serving")
    add("--data-dir", type=Path, help="where the SQLite file is kept; default: removed at the end")
    add("--database-url", default=os.environ.get("DATABASE_URL"), help="PostgreSQL instead")
    add("--mend", default=os.environ.get("GATEWAY_MEND"), help="NAME[,NAME...], all or none")
    add("--only", default=os.environ.get("GATEWAY_ONLY"), help="leave only this problem")
    options = parser.parse_args(arguments)
    try:
        options.problems = select(options.mend, options.only)
    except ValueError as error:
        parser.error(str(error))
    return options


if __name__ == "__main__":
    main()
