"""`callfold sources check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.cli.common import AsJson, Panel, example, read_settings

sources = typer.Typer(help="Check a sources file before it takes force.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(sources, name="sources", rich_help_panel=Panel.CHECK)


@sources.command("check", epilog=example("callfold sources check new.toml"))
def check(
    file: Annotated[Path, typer.Argument(help="The sources file to check.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Check a sources file as the processes do, and print what it would change.

    It is compared with the file of CALLFOLD_SOURCES, not with running processes. Of secrets and links, only that they change is
    printed.

    Exit code 2 if the file has a fault. Up to 10 faults are printed.
    """
    from console.commands.sources_check import check_file

    raise typer.Exit(check_file(read_settings(), file, as_json=as_json))
