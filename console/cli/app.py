"""The commands of `callfold`, in panels."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from console.cli import (
    broker,
    calls,
    check,
    dead_letters,
    endpoints,
    forward,
    quarantine,
    quick_start,
    recordings,
    schema,
    services,
    sources,
    spool,
)
from console.cli.common import Panel

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

quick_start.install()
for _module in (services, forward, calls, recordings, endpoints, dead_letters, quarantine, spool, broker, check, sources, schema):
    _module.add_to(app)


def _print_version(is_requested: bool) -> None:  # noqa: FBT001 - the shape of an option's callback
    if is_requested:
        from importlib.metadata import version

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
