"""`callfold endpoints list|show|add|remove|enable|disable|test|attempts|rotate`: webhooks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from console.cli.common import AsJson, Panel, endpoint_names, example, read_settings, run

endpoints = typer.Typer(help="List, add, change and test webhooks.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the webhook.", autocompletion=endpoint_names)]
NewName = Annotated[str, typer.Argument(help="Name of the new webhook: a-z, 0-9 and hyphens.")]
SecretFile = Annotated[
    Path | None, typer.Option("--secret-file", help="File with the signing secret, whsec_... (default: a new one is made).")
]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(endpoints, name="endpoints", rich_help_panel=Panel.CALLS)


@endpoints.command("list", epilog=example("callfold endpoints list"))
def endpoints_list(*, as_json: AsJson = False) -> None:
    """List webhooks with their state."""
    from console.commands import endpoints as commands

    run(commands.show_all(read_settings(), as_json=as_json))


@endpoints.command("show", epilog=example("callfold endpoints show crm"))
def endpoints_show(name: Name, *, as_json: AsJson = False) -> None:
    """Show the settings and the state of a webhook, without its credentials."""
    from console.commands import endpoints as commands

    run(commands.show(read_settings(), name, as_json=as_json))


@endpoints.command(
    "add", epilog=example("callfold endpoints add crm --url https://crm.example.com/calls --filter 'call.completed.#'")
)
def endpoints_add(
    name: NewName,
    *,
    url: Annotated[str, typer.Option(help="Address of the receiver, or env:NAME or file:PATH.")],
    patterns: Annotated[list[str] | None, typer.Option("--filter", help="Topic pattern, repeatable (default: call.#).")] = None,
    where: Annotated[
        str | None, typer.Option(help="Condition on an event, e.g. 'talk_seconds > 60' (default: every event).")
    ] = None,
    headers: Annotated[
        list[str] | None,
        typer.Option("--header", help="Fixed header, e.g. 'X-Key: 7', repeatable. The value may be env:NAME or file:PATH."),
    ] = None,
    networks: Annotated[
        list[str] | None,
        typer.Option("--network", help="Network that may be reached, e.g. 10.0.0.0/8, repeatable (default: public addresses)."),
    ] = None,
    order: Annotated[
        Literal["none", "call"], typer.Option(help="Order of events: none, or those of a call one after the other.")
    ] = "none",
    max_in_flight: Annotated[int, typer.Option(min=1, max=100, help="Requests at a time.")] = 8,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, max=60, help="Seconds for one request.")] = 15,
    secret_file: SecretFile = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Deliver nothing until `enable` (default: deliver).")] = False,
    as_json: AsJson = False,
) -> None:
    """Add a webhook, and print the secret that was made for it, once."""
    from console.commands import endpoints as commands

    options = commands.Options(
        url=url,
        filters=patterns or ["call.#"],
        where=where,
        headers=headers or [],
        networks=networks or [],
        order=order,
        max_in_flight=max_in_flight,
        timeout_s=timeout_s,
        enabled=not disabled,
        secret_file=secret_file,
    )
    run(commands.add(read_settings(), name, options, as_json=as_json))


@endpoints.command("remove", epilog=example("callfold endpoints remove crm --yes"))
def endpoints_remove(
    name: Name, *, yes: Annotated[bool, typer.Option("--yes", help="No confirmation prompt.")] = False, as_json: AsJson = False
) -> None:
    """Remove a webhook. Events that wait for it are not delivered any more."""
    from console.commands import endpoints as commands

    if not yes:
        typer.confirm(f"Remove the webhook {name}? Its secret cannot be restored.", abort=True, err=True)
    run(commands.remove(read_settings(), name, as_json=as_json))


@endpoints.command("enable", epilog=example("callfold endpoints enable crm"))
def endpoints_enable(name: Name, *, as_json: AsJson = False) -> None:
    """Enable a webhook, also one that has answered 410."""
    from console.commands import endpoints as commands

    run(commands.switch(read_settings(), name, is_on=True, as_json=as_json))


@endpoints.command("disable", epilog=example("callfold endpoints disable crm"))
def endpoints_disable(name: Name, *, as_json: AsJson = False) -> None:
    """Disable a webhook. Its events wait in its queue."""
    from console.commands import endpoints as commands

    run(commands.switch(read_settings(), name, is_on=False, as_json=as_json))


@endpoints.command("test", epilog=example("callfold endpoints test crm"))
def endpoints_test(name: Name, *, as_json: AsJson = False) -> None:
    """Send a signed test event now, from this machine.

    Exit code 1 if it was not delivered.
    """
    from console.commands import endpoints as commands

    run(commands.test(read_settings(), name, as_json=as_json))


@endpoints.command("attempts", epilog=example("callfold endpoints attempts crm --failed"))
def endpoints_attempts(
    name: Name,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="Only attempts that failed (default: all).")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Maximum number of attempts to print.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the attempts at a webhook from the history, newest first."""
    from console.commands import endpoints as commands

    run(commands.attempts(read_settings(), name, limit=limit, failed=failed, as_json=as_json))


@endpoints.command("rotate", epilog=example("callfold endpoints rotate crm"))
def endpoints_rotate(
    name: Name,
    *,
    secret_file: SecretFile = None,
    finish: Annotated[bool, typer.Option("--finish", help="Remove the previous secrets instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set a new secret, and print it once if it was made.

    The present secret signs too, until `--finish` removes it.
    """
    from console.commands import endpoints as commands

    run(commands.rotate(read_settings(), name, secret_file, finish=finish, as_json=as_json))
