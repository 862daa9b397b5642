"""`perfkit compact`: many small parts of a capture become few that filters can skip."""

from __future__ import annotations

from pathlib import Path

import click

from perfkit.cli.options import CapturePath
from perfkit.cli.progress import Progress
from perfkit.units import size


@click.command(epilog="Example: perfkit compact fleet.perfkit")
@click.argument("capture", type=CapturePath())
def command(capture: Path) -> None:
    """Merge the small parts of CAPTURE, and lay out its spans by trace, time and endpoint.

    Afterwards --since, --until and --endpoint read only what they need, and shards are read where
    they are. It happens as a whole or not at all, also when it is killed. It needs as much free
    disk as the capture has. Commands that read the capture meanwhile are not disturbed: the old
    parts stay until they have ended.
    """
    from perfkit.merge_parts import compact

    with Progress() as progress:
        done = compact(capture, lambda text: progress.show(text, force=True))
    click.echo(
        f"{done.parts_before} parts of {size(done.bytes_before)} are now {done.parts_after} "
        f"of {size(done.bytes_after)}"
    )
    if done.waits:
        click.echo(
            "another perfkit reads the capture: both stay on the disk, and the new parts take the "
            "place of the old ones at the first opening after that has ended",
            err=True,
        )
