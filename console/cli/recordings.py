"""`callfold recordings get|redrive|backfill|verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.cli.common import AsJson, DryRun, Source, SourceArgument, read_settings, run
from console.cli.dead_letters import Ids, Reason, Since, found, settings_for
from console.commands import dead_letters as letters
from console.dead_letters.queue import Filter, Which

recordings = typer.Typer(help="The archive: get a recording, fetch what is missing, check what is there.", no_args_is_help=True)


@recordings.command("get")
def get(
    source: SourceArgument,
    what: Annotated[str, typer.Argument(help="RequestID, call-<CallID>, or the GUID of a recording.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File, or directory; - is standard output. Default: here, by its name.")
    ] = None,
    identity: Annotated[
        Path | None,
        typer.Option(help="Identity file of age-keygen that opens sealed recordings; default: CALLFOLD_ARCHIVE_IDENTITY."),
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Get recordings out of the archive, opened and checked: `callfold recordings get acme 513`."""
    from console.commands.recordings_get import Target  # noqa: PLC0415
    from console.commands.recordings_get import get as run_get  # noqa: PLC0415

    run(run_get(read_settings(), source, what, Target(output, identity, force), as_json=as_json))


@recordings.command("redrive")
def redrive(
    ids: Ids = None,
    reason: Reason = None,
    source: Source = None,
    since: Since = None,
    *,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Try failed recordings again, with a whole new schedule: `callfold recordings redrive --reason not_allowed`."""
    wanted = Filter(tuple(ids or ()), reason, source, since)
    work = letters.redrive(settings_for(source), Which.RECORDINGS, wanted, dry_run=dry_run, as_json=as_json)
    run(found(work, wanted, Which.RECORDINGS))


@recordings.command("backfill")
def backfill(
    since: Annotated[str, typer.Option(help="Calls that were published so long ago or later: 2h, 30d.")],
    source: Source = None,
    *,
    again: Annotated[bool, typer.Option("--again", help="Fetch what is stored too: what differs is kept beside it.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Fetch what the call records list and the archive lacks: `callfold recordings backfill --since 7d --dry-run`."""
    from console.commands.recordings_backfill import Wanted  # noqa: PLC0415
    from console.commands.recordings_backfill import backfill as run_backfill  # noqa: PLC0415

    run(run_backfill(read_settings(), Wanted(since, source, again, dry_run), as_json=as_json))


@recordings.command("verify")
def verify(
    source: Source = None,
    since: Annotated[str | None, typer.Option(help="Only days of calls so long ago or later: 30d.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Read the archive again and hold it against its sidecars: `callfold recordings verify`; exit code 1 if something differs."""
    from console.commands.recordings_verify import verify as run_verify  # noqa: PLC0415

    run(run_verify(read_settings(), source, since, as_json=as_json))
