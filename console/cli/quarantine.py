"""`callfold quarantine list|redrive`."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.common import AsJson, DryRun, Panel, example, read_settings, run, source_names
from shared.errors import ConfigError

quarantine = typer.Typer(help="List or redrive callbacks with a wrong secret or an unknown source.", no_args_is_help=True)

Ids = Annotated[list[str] | None, typer.Argument(help="Message ids or id prefixes (default: every callback that matches).")]
Source = Annotated[str | None, typer.Option(help="Name in the path of the callbacks, also an unknown one (default: all).")]
Reason = Annotated[str | None, typer.Option(help="wrong_secret or unknown_source (default: both).")]
Since = Annotated[str | None, typer.Option(help="Maximum age, e.g. 90s, 15m, 2h, 7d (default: no limit).")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(quarantine, name="quarantine", rich_help_panel=Panel.RECOVERY)


@quarantine.command("list", epilog=example("callfold quarantine list --source acmee --since 2h"))
def quarantine_list(
    ids: Ids = None,
    source: Source = None,
    reason: Reason = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of callbacks to print, the newest.")] = 1000,
    *,
    as_json: AsJson = False,
) -> None:
    """List refused callbacks, the oldest first."""
    from console.commands.quarantine import show
    from console.dead_letters.quarantine import QuarantineFilter

    run(show(read_settings(), QuarantineFilter(tuple(ids or ()), reason, source, since), limit, as_json=as_json))


@quarantine.command("redrive", epilog=example("callfold quarantine redrive --source acmee --as acme"))
def quarantine_redrive(
    ids: Ids = None,
    source: Source = None,
    reason: Reason = None,
    since: Since = None,
    as_source: Annotated[
        str | None,
        typer.Option(
            "--as", help="Configured source that the callbacks are of (default: that of their path).", autocompletion=source_names
        ),
    ] = None,
    *,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Include callbacks without the secret of the source, as after a wrong secret.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    yes: Annotated[bool, typer.Option("--yes", help="No confirmation prompt.")] = False,
) -> None:
    """Publish refused callbacks that belong to a configured source now, each once."""
    from console.commands.quarantine import redrive
    from console.dead_letters.quarantine import QuarantineFilter

    if unverified and not (ids or source):
        raise ConfigError("`--unverified` takes callbacks of anybody. Name them with --source or their ids.")
    if unverified and not dry_run and not yes:
        typer.confirm("Anybody may have sent these callbacks, and they will count as true. Redrive them?", abort=True, err=True)
    query = QuarantineFilter(tuple(ids or ()), reason, source, since)
    run(redrive(read_settings(), query, as_source, unverified=unverified, dry_run=dry_run, as_json=as_json))
