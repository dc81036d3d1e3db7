"""`callfold broker definitions|declare|move`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.cli.common import AsJson, Panel, example, read_settings, run

broker = typer.Typer(help="Prepare RabbitMQ, or move to another one.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(broker, name="broker", rich_help_panel=Panel.RECOVERY)


@broker.command("definitions", epilog=example("callfold broker definitions > definitions.json"))
def broker_definitions(
    users: Annotated[
        Path | None,
        typer.Option(help="Directory of passwords, one file for each user. Missing ones are created (default: no users)."),
    ] = None,
    subscriber: Annotated[
        list[str] | None,
        typer.Option(help="One more user, which may read one source, e.g. billing=acme, or all: billing=*. Repeatable."),
    ] = None,
    operator: Annotated[
        list[str] | None, typer.Option(help="One more user, which may read operator events, e.g. noc. Repeatable.")
    ] = None,
) -> None:
    """Print the policies of RabbitMQ with the sizes and ages of queues, as JSON for `rabbitmqctl import_definitions`."""
    from console.commands.broker_definitions import definitions

    raise typer.Exit(definitions(read_settings(), users, subscriber or [], operator or []))


@broker.command("subscriber", epilog=example("callfold broker subscriber billing=acme"))
def broker_subscriber(
    subscriber: Annotated[str, typer.Argument(help="Name and source, e.g. billing=acme, or billing=* for all sources.")],
    *,
    leave: Annotated[bool, typer.Option("--leave", help="Print the commands that delete the user and its queues.")] = False,
) -> None:
    """Print the commands of `rabbitmqctl` for the user of a subscriber. `add_user` reads the password from standard input."""
    from console.commands.broker_definitions import subscriber_commands

    raise typer.Exit(subscriber_commands(read_settings(), subscriber, is_leaving=leave))


@broker.command("declare", epilog=example("callfold broker declare"))
def broker_declare() -> None:
    """Declare queues, exchanges and bindings once, for processes with `CALLFOLD_AMQP_DECLARE=false`."""
    from console.commands.broker_definitions import declare

    run(declare(read_settings()))


@broker.command("move", epilog=example("callfold broker move --to env:NEW_AMQP_URL"))
def broker_move(
    to: Annotated[str, typer.Option(help="URLs of the new broker, separated by commas, or env:NAME of a variable with them.")],
    *,
    finish: Annotated[bool, typer.Option("--finish", help="End the move: every process uses the new broker.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move from the RabbitMQ of CALLFOLD_AMQP_URL to another one, while Callfold runs.

    First import policies and users on the new broker: they are not copied.

    Copies the streams, then holds all timers and moves the queues. Runs until Ctrl-C; with --finish until everything is moved.

    It can be stopped and run again at any time. Workers forget the hold an hour after it was stopped.
    """
    from console.commands.broker_move import move

    run(move(read_settings(), to, is_finishing=finish, as_json=as_json))
