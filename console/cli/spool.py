"""`callfold spool status|drain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.cli.common import AsJson, Panel, example, read_settings, run

spool = typer.Typer(help="Show or publish the callbacks that an ingress left in its spool.", no_args_is_help=True)

Directory = Annotated[
    Path | None, typer.Option("--dir", file_okay=False, help="Directory of the spool (default: CALLFOLD_SPOOL_DIR).")
]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(spool, name="spool", rich_help_panel=Panel.RECOVERY)


@spool.command("status", epilog=example("callfold spool status --dir /var/lib/callfold/spool"))
def spool_status(directory: Directory = None, *, as_json: AsJson = False) -> None:
    """Show what a spool holds: callbacks, bytes, sources, the oldest receipt, and who uses it.

    Exits with 1 if a file cannot be read. Nothing is changed.
    """
    from console.commands.spool import status

    settings = read_settings()
    raise typer.Exit(status(directory or settings.spool_dir, as_json=as_json))


@spool.command("drain", epilog=example("callfold spool drain --dir /mnt/spool-of-a-lost-machine"))
def spool_drain(
    directory: Directory = None,
    wait: Annotated[float, typer.Option(min=1, help="Maximum seconds without progress, as while RabbitMQ is away.")] = 30,
) -> None:
    """Publish the callbacks of an ingress that is gone, and delete its empty files.

    It also publishes the readable rows of damaged files that were set aside. Timers wait for these callbacks as for those of
    an ingress. Exits with 1 if callbacks are left, or if an ingress uses the directory.
    """
    from console.commands.spool import drain

    settings = read_settings()
    run(drain(settings, directory or settings.spool_dir, wait), cut_off="the drain was interrupted. Run it again to continue.")
