"""`callfold dead-letters list|show|redrive|drop`, and `callfold rebuild`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.common import AsJson, DryRun, Panel, Source, endpoint_names, example, read_settings, run
from console.dead_letters.names import DeadLetterQueue
from shared.errors import CallfoldError

if TYPE_CHECKING:
    from console.dead_letters.queue import Filter
    from shared.config.settings import Settings

_LIMIT = 1000
dead_letters = typer.Typer(help="List, show, redrive or drop dead letters.", no_args_is_help=True)

Queue = Annotated[DeadLetterQueue, typer.Option("--queue", help="Queue of dead letters.")]
Ids = Annotated[
    list[str] | None, typer.Argument(help="Message ids or id prefixes (default: every message that matches the options).")
]
Reason = Annotated[str | None, typer.Option(help="Reason of the dead letter, e.g. invalid_callback or not_found (default: all).")]
Limit = Annotated[int, typer.Option(min=1, help="Maximum number of dead letters to print.")]
All = Annotated[bool, typer.Option("--all", help="Search the whole queue, however long (default: about the first 20,000).")]
Yes = Annotated[bool, typer.Option("--yes", help="No confirmation prompt.")]
Endpoint = Annotated[
    str | None,
    typer.Option(help="Name of a webhook, with --queue forward (default: all).", autocompletion=endpoint_names),
]
Since = Annotated[str | None, typer.Option(help="Maximum age, e.g. 90s, 15m, 2h, 7d (default: no limit).")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(dead_letters, name="dead-letters", rich_help_panel=Panel.RECOVERY)
    app.command(rich_help_panel=Panel.RECOVERY, epilog=example("callfold rebuild --since 2h --dry-run"))(rebuild)


def read_settings_for(source: str | None) -> Settings:
    """Read the settings, and warn if the source is not configured: its dead letters can still exist."""
    from console.commands.common import warn_if_unknown

    settings = read_settings()
    warn_if_unknown(settings, source)
    return settings


async def require_match(work: Awaitable[int], query: Filter, queue: DeadLetterQueue) -> int:
    """Await a command and return its exit code.

    Raises:
        CallfoldError: ids were given and no dead letter has one of them.
    """
    code = await work
    if code and query.ids:
        raise CallfoldError(
            f"No dead letter in {queue.queue_name} has an id that begins with {' or '.join(query.ids)}. "
            f"`callfold dead-letters list --queue {queue}` lists them."
        )
    return code


@dead_letters.command("list", epilog=example("callfold dead-letters list --reason invalid_callback --since 2h"))
def dead_letters_list(
    queue: Queue = DeadLetterQueue.CALLBACKS,
    reason: Reason = None,
    source: Source = None,
    since: Since = None,
    limit: Limit = _LIMIT,
    *,
    endpoint: Endpoint = None,
    reads_all: All = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters, those first that are first in the queue."""
    from console.commands import dead_letters as commands
    from console.dead_letters.listing import LookRequest
    from console.dead_letters.queue import Filter

    request = LookRequest(Filter((), reason, source, since, endpoint), limit, with_body=False, reads_all=reads_all)
    run(commands.show(read_settings_for(source), queue, request, as_json=as_json))


@dead_letters.command("show", epilog=example("callfold dead-letters show 3f9a"))
def dead_letters_show(
    ids: Annotated[list[str], typer.Argument(help="Message ids or id prefixes, as printed by `list`.")],
    queue: Queue = DeadLetterQueue.CALLBACKS,
    limit: Limit = _LIMIT,
    *,
    reads_all: All = False,
    as_json: AsJson = False,
) -> None:
    """Print dead letters with their bodies."""
    from console.commands import dead_letters as commands
    from console.dead_letters.listing import LookRequest
    from console.dead_letters.queue import Filter

    request = LookRequest(Filter(tuple(ids)), limit, reads_all=reads_all)
    run(require_match(commands.show(read_settings(), queue, request, as_json=as_json), request.query, queue))


@dead_letters.command("redrive", epilog=example("callfold dead-letters redrive --source acme --dry-run"))
def dead_letters_redrive(
    ids: Ids = None,
    queue: Queue = DeadLetterQueue.CALLBACKS,
    reason: Reason = None,
    source: Source = None,
    since: Since = None,
    *,
    endpoint: Endpoint = None,
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Include old messages, whose calls Redis may no longer have.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait up to 15 s to report which callbacks came back.")] = True,
    as_json: AsJson = False,
    yes: Yes = False,
) -> None:
    """Redrive dead letters: publish them again, and remove them once confirmed.

    On a terminal it asks first if some cannot be understood as they are.
    """
    from console.commands import dead_letters as commands
    from console.dead_letters.queue import Filter

    query = Filter(tuple(ids or ()), reason, source, since, endpoint)
    manner = commands.Manner(is_sure=yes, is_forced=force, is_waiting=wait)
    work = commands.redrive(read_settings_for(source), queue, query, dry_run=dry_run, as_json=as_json, manner=manner)
    run(require_match(work, query, queue))


@dead_letters.command("drop", epilog=example("callfold dead-letters drop 3f9a --yes"))
def dead_letters_drop(
    ids: Ids = None,
    queue: Queue = DeadLetterQueue.CALLBACKS,
    reason: Reason = None,
    source: Source = None,
    since: Since = None,
    *,
    endpoint: Endpoint = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    yes: Yes = False,
) -> None:
    """Delete dead letters permanently.

    It counts them and asks first.
    """
    from console.commands import dead_letters as commands
    from console.dead_letters.queue import Filter

    query = Filter(tuple(ids or ()), reason, source, since, endpoint)
    manner = commands.Manner(is_sure=yes)
    work = commands.drop(read_settings_for(source), queue, query, dry_run=dry_run, as_json=as_json, manner=manner)
    run(require_match(work, query, queue))


def rebuild(
    since: Annotated[str, typer.Option(help="Age from which to replay, e.g. 90s, 15m, 2h, 7d.")],
    source: Source = None,
    *,
    dry_run: DryRun = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Also have the workers publish complete calls that were never published.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Start even if workers are running.")] = False,
    as_json: AsJson = False,
) -> None:
    """Rebuild Redis from the callback journal after data loss.

    Stop all workers first.
    """
    from console.commands.rebuild import Mode
    from console.commands.rebuild import rebuild as run_rebuild

    run(run_rebuild(read_settings(), since, source, Mode(dry_run, publish, force, as_json)))
