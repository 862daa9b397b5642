"""Run the second service: a few upstream tools that the gateway calls."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from perfkit.demo.processes import end_on_signals
from perfkit.demo.requirements import demo_extra


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m perfkit.demo.backend", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--ready-file", type=Path, help="where to write the URL when serving")
    options = parser.parse_args(arguments)
    with demo_extra():
        from perfkit.demo import serving, telemetry
        from perfkit.demo.backend_app import create_app

    end_on_signals()
    shutdown_telemetry = telemetry.configure("tool-backend")
    try:
        app = create_app()
        telemetry.instrument_app(app)
        serving.serve(app, options.port, options.ready_file)
    finally:
        shutdown_telemetry()


if __name__ == "__main__":
    main()
