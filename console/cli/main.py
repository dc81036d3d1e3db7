"""The command line `callfold`. Exit codes are 0 (done), 1 (failed), 2 (wrong usage or settings) and those a command documents."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from typer.core import TyperGroup

from console.cli import calls, check, dead_letters, recordings, services
from console.cli.common import Panel
from console.commands.hints import with_hint
from console.safe_text import plain
from shared.errors import CallfoldError, ConfigError
from shared.runtime.process import EXIT_CONFIG, EXIT_FAILURE, leaf_errors

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

for _module in (services, calls, recordings, dead_letters, check):
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


def main() -> None:
    """Run the command line; a CallfoldError becomes one sentence on stderr and an exit code."""
    failures: list[CallfoldError] = []
    try:
        app(prog_name="callfold")  # the same name under `python -m`
    except* CallfoldError as group:
        failures = leaf_errors(group)
    if failures:
        sys.stderr.write(f"callfold: {plain(with_hint(failures[0]))}\n")
        sys.exit(EXIT_CONFIG if isinstance(failures[0], ConfigError) else EXIT_FAILURE)
