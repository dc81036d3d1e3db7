"""`callfold forward`: run a forwarder, or deliver events of the journal again."""

from __future__ import annotations

import typer

from console.cli.common import Panel, example, run_service

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
