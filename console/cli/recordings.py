"""`callfold recordings get|redrive|backfill|verify|refused|accept`, `callfold retention` and `callfold hold`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.cli.common import AsJson, DryRun, NamedSource, Panel, Source, example, read_settings, run
from console.cli.dead_letters import Ids, Reason, Since, read_settings_for, require_match
from console.dead_letters.names import DeadLetterQueue

recordings = typer.Typer(help="Get, redrive, backfill, verify or accept recordings.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(recordings, name="recordings", rich_help_panel=Panel.RECORDINGS)
    retention_example = example("callfold retention --older-than 365d --source acme --dry-run")
    app.command(rich_help_panel=Panel.RECORDINGS, epilog=retention_example)(retention)
    app.command(rich_help_panel=Panel.RECORDINGS, epilog=example('callfold hold acme 513 --reason "case 2026-17"'))(hold)


@recordings.command("get", epilog=example("callfold recordings get acme 513"))
def get(
    source: NamedSource,
    what: Annotated[str | None, typer.Argument(help="RequestID, call-<CallID>, or the GUID of a recording.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Output file or directory, or - for stdout (default: the current directory)."),
    ] = None,
    identity: Annotated[
        Path | None,
        typer.Option(help="age identity file that decrypts recordings (default: CALLFOLD_ARCHIVE_IDENTITY)."),
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    as_json: AsJson = False,
) -> None:
    """Get recordings from the archive, decrypted and verified."""
    from console.commands.common import split_name
    from console.commands.recordings_get import Target
    from console.commands.recordings_get import get as run_get

    source, what = split_name(source, what)
    if what is None:
        raise typer.BadParameter("Name a call or a recording, as in `callfold recordings get acme 513`.")
    run(run_get(read_settings(), source, what, Target(output, identity, force), as_json=as_json))


@recordings.command("redrive", epilog=example("callfold recordings redrive --reason not_allowed"))
def redrive(
    ids: Ids = None,
    reason: Reason = None,
    source: Source = None,
    since: Since = None,
    *,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Retry failed recordings, starting from the first attempt."""
    from console.commands import dead_letters as commands
    from console.dead_letters.queue import Filter

    query = Filter(tuple(ids or ()), reason, source, since)
    work = commands.redrive(read_settings_for(source), DeadLetterQueue.RECORDINGS, query, dry_run=dry_run, as_json=as_json)
    run(require_match(work, query, DeadLetterQueue.RECORDINGS))


@recordings.command("backfill", epilog=example("callfold recordings backfill --since 7d --dry-run"))
def backfill(
    since: Annotated[str, typer.Option(help="Maximum age of the calls, by publication, e.g. 2h, 30d.")],
    source: Source = None,
    *,
    again: Annotated[
        bool, typer.Option("--again", help="Include stored recordings; different content is kept next to the first.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Download recordings that the archive lacks.

    Call records and sidecars show what was recorded. Workers do the downloads.
    """
    from console.commands.recordings_backfill import BackfillRequest
    from console.commands.recordings_backfill import backfill as run_backfill

    run(run_backfill(read_settings(), BackfillRequest(since, source, again, dry_run), as_json=as_json))


@recordings.command("verify", epilog=example("callfold recordings verify --since 30d"))
def verify(
    source: Source = None,
    since: Annotated[str | None, typer.Option(help="Maximum age of the calls, by day, e.g. 30d (default: no limit).")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Compare the files in the archive with their sidecars.

    Exit code 1 if a file differs.
    """
    from console.commands.recordings_verify import verify as run_verify

    run(run_verify(read_settings(), source, since, as_json=as_json))


@recordings.command("refused", epilog=example("callfold recordings refused --source acme"))
def refused(source: Source = None, *, as_json: AsJson = False) -> None:
    """List the files that were refused as recordings and kept.

    To store one of them, use `callfold recordings accept`.
    """
    from console.commands.recordings_refused import list_refused

    run(list_refused(read_settings(), source, as_json=as_json))


@recordings.command("accept", epilog=example("callfold recordings accept acme/bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff"))
def accept(
    what: Annotated[str, typer.Argument(help="<source>/<guid> as `callfold recordings refused` prints it.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Store a refused file as the recording of its leg, with the flag `accepted`."""
    from console.commands.recordings_refused import accept as run_accept

    run(run_accept(read_settings(), what, as_json=as_json))


def retention(
    older_than: Annotated[str | None, typer.Option(help="Minimum age, e.g. 365d (default: CALLFOLD_RETENTION_DAYS).")] = None,
    source: Source = None,
    *,
    with_records: Annotated[
        bool, typer.Option("--with-records", help="Also delete the sidecars, which hold the call records.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Delete old recordings, except those on hold."""
    from console.commands.retention import RetentionRequest, default_age, retain

    settings = read_settings(quiet=False)
    request = RetentionRequest(older_than or default_age(settings), source, with_records, dry_run)
    run(retain(settings, request, as_json=as_json))


def hold(
    source: NamedSource,
    call: Annotated[
        str | None,
        typer.Argument(help="RequestID, call-<CallID>, or the GUID of a recording (default: list all holds)."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Reason for the hold, recorded in the audit log.")] = "",
    *,
    release: Annotated[bool, typer.Option("--release", help="Release the hold.")] = False,
    ahead: Annotated[bool, typer.Option("--ahead", help="Hold a call that is not known yet.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hold a call's recordings, or list holds.

    Retention does not delete recordings on hold.
    """
    from console.commands.common import split_name
    from console.commands.hold import HoldRequest, list_holds
    from console.commands.hold import hold as run_hold

    source, call = split_name(source, call)
    if call is None:
        run(list_holds(read_settings(), source, as_json=as_json))
    else:
        run(run_hold(read_settings(), HoldRequest(source, call, reason, release, ahead), as_json=as_json))
