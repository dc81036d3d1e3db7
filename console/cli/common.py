"""What every command needs: running a coroutine, reading the settings, options that many commands have."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Annotated

import typer
import uvloop

from shared.config.settings import Settings, load_settings
from shared.errors import CallfoldError
from shared.log import configure

EXIT_INTERRUPTED = 130  # what shells tell of SIGINT


def run(work: Coroutine[object, object, int | None], *, interrupted: int = EXIT_INTERRUPTED, cut_off: str = "") -> None:
    """Run a command's coroutine. Ctrl-C is the ordinary way to end one that watches; any other was cut off in its work."""
    try:
        code = uvloop.run(work)
    except KeyboardInterrupt:
        if cut_off:
            typer.echo(f"callfold: {cut_off}", err=True)
        code = interrupted
    raise typer.Exit(code or 0)


def read_settings(*, quiet: bool = True) -> Settings:
    settings = load_settings()
    configure(settings.log_format, "error" if quiet else settings.log_level, process="cli")
    return settings


def source_names() -> list[str]:
    try:
        return [str(name) for name in load_settings().load_sources()]
    except CallfoldError:
        return []  # completion has no way to tell an error; the command itself will


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell how many it would be.")]
Source = Annotated[str | None, typer.Option(help="Only those of this source.", autocompletion=source_names)]
SourceArgument = Annotated[str, typer.Argument(help="The source's name.", autocompletion=source_names)]
CallArgument = Annotated[str, typer.Argument(help="RequestID, or call-<CallID> where there is none.")]
