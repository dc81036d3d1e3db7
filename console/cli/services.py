"""`callfold up|ingress|worker|console|history`: run Callfold's processes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.cli.common import Panel, example, read_settings, run, run_service
from shared.exit_codes import EXIT_OK


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    panel = Panel.RUN
    app.command(rich_help_panel=panel, epilog=example("callfold up --worker 2"))(up)
    app.command(rich_help_panel=panel, epilog=example("CALLFOLD_SOURCES=sources.toml callfold ingress"))(ingress)
    app.command(rich_help_panel=panel, epilog=example("callfold worker"))(worker)
    app.command(rich_help_panel=panel, epilog=example("CALLFOLD_CONSOLE_KEY=... callfold console"))(console)
    app.command(rich_help_panel=panel, epilog=example("callfold history"))(history)


def up(
    directory: Annotated[Path, typer.Option(help="Directory for data, logs and sockets of the private servers.")] = Path(
        ".callfold"
    ),
    ingress_processes: Annotated[int, typer.Option("--ingress", min=1, max=32, help="Number of ingress processes.")] = 1,
    worker_processes: Annotated[int, typer.Option("--worker", min=1, max=32, help="Number of worker processes.")] = 1,
) -> None:
    """Run everything on this machine until Ctrl-C.

    Starts a private RabbitMQ and Redis, then ingress, worker, console, history and forwarder.

    If CALLFOLD_AMQP_URL or CALLFOLD_REDIS_URL is set, Callfold uses that server instead of a private one.
    """
    from console.local.up import up as run_up

    run(run_up(read_settings(quiet=False), directory, ingress_processes, worker_processes), interrupted=EXIT_OK)


def ingress() -> None:
    """Run an ingress: receive callbacks over HTTP.

    It answers 200 only after a callback is stored durably.
    """
    from ingress.service import serve

    run_service("ingress", serve)


def worker() -> None:
    """Run a worker: fold callbacks into calls, archive recordings."""
    from worker.service import serve

    run_service("worker", serve)


def console() -> None:
    """Run the console: private HTTP API and web page."""
    from console.service import serve

    run_service("console", serve)


def history(
    *,
    migrate_only: Annotated[
        bool, typer.Option("--migrate-only", help="Migrate the tables to this release and exit (default: migrate and run).")
    ] = False,
) -> None:
    """Run the history: copy calls and events into a SQL database.

    It writes calls, recording events and audit lines. CALLFOLD_HISTORY_URL names the database.
    """
    from console.history.service import migrate, serve

    if migrate_only:
        run(migrate(read_settings()))

    run_service("history", serve)
