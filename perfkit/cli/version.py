"""The versions that matter when something does not work."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import click

from perfkit import __version__

_PACKAGES = ("polars", "numpy", "sqlglot", "plotly", "pandas", "click", "py-spy")
"""Those whose versions change what perfkit answers. Read from their metadata, none is loaded."""


def show(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    """Print the versions and end."""
    if not wanted or ctx.resilient_parsing:
        return
    click.echo(f"perfkit {__version__}")
    click.echo(f"{platform.python_implementation()} {platform.python_version()}")
    click.echo(platform.platform())
    click.echo(", ".join(f"{name} {_version(name)}" for name in _PACKAGES))
    ctx.exit()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
