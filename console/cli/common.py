"""Parts that all commands share: help panels, running a coroutine, reading the settings, common options."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from shared.config.settings import Settings
    from shared.runtime.process import Main

EXIT_INTERRUPTED = 130  # what shells return for SIGINT


class Panel(StrEnum):
    """The groups of commands in `callfold --help`, in this order."""

    RUN = "Run"
    CALLS = "Calls"
    RECORDINGS = "Recordings"
    RECOVERY = "Dead letters and recovery"
    CHECK = "Check and try"


def run(work: Coroutine[object, object, int | None], *, interrupted: int = EXIT_INTERRUPTED, cut_off: str = "") -> None:
    """Run a command's coroutine and exit with its code.

    After Ctrl-C, or when its terminal closes, the exit code is `interrupted`, and `cut_off` is printed if given.
    """
    import uvloop

    gc.enable()
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not under nohup
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        code = uvloop.run(work)
    except KeyboardInterrupt:
        if cut_off:
            typer.echo(f"callfold: {cut_off}", err=True)
        code = interrupted
    raise typer.Exit(code or 0)


def run_service(name: str, serve: Main) -> None:
    """Run a process until SIGTERM or SIGINT, and exit with its code."""
    from shared.runtime.process import run_process

    gc.enable()
    raise typer.Exit(run_process(name, serve))


def read_settings(*, quiet: bool = True) -> Settings:
    from shared.config.settings import load_settings
    from shared.log import configure

    settings = load_settings()
    configure(settings.log_format, "error" if quiet else settings.log_level, process="cli")
    return settings


def source_names() -> list[str]:
    """List the configured sources for shell completion. It only parses the file, since to check it would take long."""
    path = os.environ.get("CALLFOLD_SOURCES")
    return _tables(path, "sources") if path else ["default"]


def endpoint_names() -> list[str]:
    """List the webhooks of the endpoints file for shell completion. Those made by API are in RabbitMQ, which would take long."""
    path = os.environ.get("CALLFOLD_ENDPOINTS")
    return _tables(path, "endpoints") if path else []


def _tables(path: str, name: str) -> list[str]:
    import tomllib

    try:
        tables = tomllib.loads(Path(path).read_text("utf-8")).get(name)
    except (OSError, ValueError):
        return []  # completion cannot show an error; the command itself will
    return [str(each) for each in tables] if isinstance(tables, dict) else []


def example(command: str) -> str:
    """Return the epilog that shows an example of a command."""
    return f"Example: `{command}`"


AsJson = Annotated[bool, typer.Option("--json", help="JSON output, one object per line.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count only; change nothing.")]
Source = Annotated[str | None, typer.Option(help="Source name (default: all sources).", autocompletion=source_names)]
SourceArgument = Annotated[str, typer.Argument(help="Source name.", autocompletion=source_names)]
NamedSource = Annotated[str, typer.Argument(help="Source name, or the whole name, e.g. acme/513.", autocompletion=source_names)]
