"""The command line `callfold`. Exit codes are 0 (done), 1 (failed), 2 (wrong usage or settings) and those a command documents."""

from __future__ import annotations

import errno
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from console.cli import calls, check, dead_letters, quarantine, recordings, services
from console.cli.common import Panel
from console.commands.hints import with_hint
from console.safe_text import plain
from shared.errors import CallfoldError, ConfigError
from shared.runtime.process import EXIT_CONFIG, EXIT_FAILURE, leaf_errors

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_EPILOG = """\
Try it without FocalScope: `callfold demo`

Find calls: `callfold calls --since 2h`

Watch events: `callfold tail 'call.completed.#'`

Settings are environment variables, listed by `callfold settings`. Every command has an example in its `--help`.
"""


class _CommandsByPanel(TyperGroup):
    """Lists commands in the order of their panels; Typer alone lists groups of commands first."""

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002 - the signature is Typer's
        panels = list(Panel)
        return sorted(self.commands, key=lambda name: panels.index(getattr(self.commands[name], "rich_help_panel", Panel.RUN)))


app = typer.Typer(
    name="callfold",
    cls=_CommandsByPanel,
    help="Turn FocalScope call callbacks into one trustworthy record per call, publish it, and archive its recordings.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals can hold secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _module in (services, calls, recordings, dead_letters, quarantine, check):
    _module.add_to(app)


def _print_version(is_requested: bool) -> None:  # noqa: FBT001 - the shape of an option's callback
    if is_requested:
        typer.echo(f"callfold {version('callfold')}")
        raise typer.Exit


@app.callback()
def root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that come before a command."""


def _run_and_flush() -> None:
    try:
        app(prog_name="callfold")  # the same name under `python -m`
    finally:
        sys.stdout.flush()  # here, an error still has its sentence


def _full_disk(group: BaseExceptionGroup[OSError]) -> str:
    """Return the reason if what happened is that the output cannot be written; any other error is a fault and is raised."""
    for error in leaf_errors(group):
        if error.errno not in _FULL:
            raise error
    return str(leaf_errors(group)[0].strerror)


def _discard_output() -> None:
    """Let what is buffered go nowhere. The interpreter writes it at exit, and would fail again."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def main() -> None:
    """Run the command line; a CallfoldError becomes one sentence on stderr and an exit code."""
    failures: list[CallfoldError] = []
    try:
        _run_and_flush()
    except* CallfoldError as group:
        failures = leaf_errors(group)
    except* BrokenPipeError:  # the reader of the output, such as `head`, has enough
        _discard_output()
        sys.exit(EXIT_FAILURE)
    except* OSError as group:
        _discard_output()
        failures = [CallfoldError(f"Cannot write: {_full_disk(group)}.")]
    if failures:
        sys.stderr.write(f"callfold: {plain(with_hint(failures[0]))}\n")
        sys.exit(EXIT_CONFIG if isinstance(failures[0], ConfigError) else EXIT_FAILURE)
