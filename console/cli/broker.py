"""`callfold broker move`."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.common import AsJson, Panel, example, read_settings, run

broker = typer.Typer(help="Move to another RabbitMQ.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(broker, name="broker", rich_help_panel=Panel.RECOVERY)


@broker.callback()
def _group() -> None:
    """Keep the command `move` below `broker`, which has no other one."""


@broker.command("move", epilog=example("callfold broker move --to env:NEW_AMQP_URL"))
def broker_move(
    to: Annotated[str, typer.Option(help="URLs of the new broker, separated by commas, or env:NAME of a variable with them.")],
    *,
    finish: Annotated[bool, typer.Option("--finish", help="End the move: every process uses the new broker.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move from the RabbitMQ of CALLFOLD_AMQP_URL to another one, while Callfold runs.

    Copies the streams, then holds all timers and moves the queues. Runs until Ctrl-C; with --finish until everything is moved.

    It can be stopped and run again at any time. Workers forget the hold an hour after it was stopped.
    """
    from console.commands.broker_move import move

    run(move(read_settings(), to, is_finishing=finish, as_json=as_json))
