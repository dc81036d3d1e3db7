"""`callfold dead-letters list|show|redrive|drop`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated

import typer

from console.cli.common import AsJson, DryRun, Source, read_settings, run
from console.commands import dead_letters as letters
from console.commands.common import tell_if_unknown
from console.commands.list_dead_letters import show
from console.dead_letters.queue import Filter, Which
from shared.config.settings import Settings
from shared.errors import CallfoldError

dead_letters = typer.Typer(help="What could not be understood or done: see it, put it back, or drop it.", no_args_is_help=True)

Queue = Annotated[Which, typer.Option("--queue", help="Whose dead letters.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids, or how they begin; none: all that the options leave.")]
Reason = Annotated[str | None, typer.Option(help="Only those with this reason.")]
Since = Annotated[str | None, typer.Option(help="Only those first seen so long ago or later: 90s, 15m, 2h, 7d.")]


def settings_for(source: str | None) -> Settings:
    """Read the settings; a source that is not configured can have dead letters all the same."""
    settings = read_settings()
    tell_if_unknown(settings, source)
    return settings


async def found(work: Awaitable[int], wanted: Filter, queue: Which) -> int:
    """Do what is wanted of letters.

    Raises:
        CallfoldError: ids were given, and no letter has one of them.
    """
    code = await work
    if code and wanted.ids:
        raise CallfoldError(
            f"No dead letter in {queue.queue} has an id that begins with {' or '.join(wanted.ids)}: "
            f"`callfold dead-letters list --queue {queue}` lists them."
        )
    return code


@dead_letters.command("list")
def dead_letters_list(
    queue: Queue = Which.CALLBACKS, reason: Reason = None, source: Source = None, since: Since = None, *, as_json: AsJson = False
) -> None:
    """List dead letters: `callfold dead-letters list --reason invalid_callback --since 2h`."""
    run(show(settings_for(source), queue, Filter((), reason, source, since), as_json=as_json, with_body=False))


@dead_letters.command("show")
def dead_letters_show(
    ids: Annotated[list[str], typer.Argument(help="Ids, or how they begin, as `list` prints them.")],
    queue: Queue = Which.CALLBACKS,
    *,
    as_json: AsJson = False,
) -> None:
    """Print dead letters with what they hold: `callfold dead-letters show 3f9a`."""
    wanted = Filter(tuple(ids))
    run(found(show(read_settings(), queue, wanted, as_json=as_json, with_body=True), wanted, queue))


@dead_letters.command("redrive")
def dead_letters_redrive(
    ids: Ids = None,
    queue: Queue = Which.CALLBACKS,
    reason: Reason = None,
    source: Source = None,
    since: Since = None,
    *,
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Also those so old that Redis may have forgotten their calls.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put dead letters back after a corrected adapter link: `callfold dead-letters redrive --source acme --dry-run`."""
    wanted = Filter(tuple(ids or ()), reason, source, since)
    work = letters.redrive(settings_for(source), queue, wanted, dry_run=dry_run, as_json=as_json, force=force)
    run(found(work, wanted, queue))


@dead_letters.command("drop")
def dead_letters_drop(
    ids: Ids = None,
    queue: Queue = Which.CALLBACKS,
    reason: Reason = None,
    source: Source = None,
    since: Since = None,
    *,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove dead letters for good: `callfold dead-letters drop 3f9a --yes`."""
    if not dry_run and not yes:
        typer.confirm("They exist nowhere else. Drop them?", abort=True, err=True)
    wanted = Filter(tuple(ids or ()), reason, source, since)
    run(found(letters.drop(settings_for(source), queue, wanted, dry_run=dry_run, as_json=as_json), wanted, queue))
