"""`callfold forward`: run a forwarder, or deliver events of the journal again."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.common import DryRun, Panel, example, read_settings, run, run_service

forward = typer.Typer(invoke_without_command=True, epilog=example("CALLFOLD_ENDPOINTS=endpoints.toml callfold forward"))


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(forward, name="forward", rich_help_panel=Panel.RUN)


@forward.callback()
def serve(context: typer.Context) -> None:
    """Run a forwarder: post events to webhook endpoints.

    Any number of forwarders can run. Each endpoint is served by one of them at a time.
    """
    if context.invoked_subcommand is None:
        from worker.forwarding.service import serve as serve_endpoints

        run_service("forward", serve_endpoints)


@forward.command("replay", epilog=example("callfold forward replay crm --since 2h"))
def replay(
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint.")],
    since: Annotated[str, typer.Option(help="RFC 3339 time, or age of the first event, e.g. 90s, 2h, 7d.")],
    until: Annotated[str | None, typer.Option(help="RFC 3339 time or age at which to end (default: now).")] = None,
    *,
    dry_run: DryRun = False,
) -> None:
    """Deliver events of the journal to one endpoint again.

    The endpoint gets those that its filters select, also those that it has. Their `webhook-id` is the same as before.
    """
    from console.commands.forward_replay import replay as run_replay
    from console.commands.tail import Span

    span = Span.of(since, until)
    if span.since is not None:
        run(run_replay(read_settings(), endpoint, span.since, span.until, is_dry_run=dry_run))
