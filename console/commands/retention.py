"""`callfold retention`: delete old recordings, except those on hold."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import orjson

from console.commands.common import cli_user, select_sources
from console.counts import counted
from console.durations import ago
from console.safe_text import plain_line
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.errors import ConfigError
from shared.retention.expiry import Expired
from shared.retention.retention import Retention, audited
from shared.runtime.audit import Audit
from shared.runtime.broker import create_publisher
from shared.runtime.process import background
from shared.runtime.store import open_store
from shared.streams.connections import wait_until_connected


@dataclass(frozen=True, slots=True)
class RetentionRequest:
    older_than: str
    source: str | None
    with_records: bool
    is_dry_run: bool


def default_age(settings: Settings) -> str:
    """Return the minimum age that the settings give.

    Raises:
        ConfigError: the settings have none.
    """
    if not settings.retention_days:
        raise ConfigError("No minimum age given. Use --older-than, e.g. 365d, or set CALLFOLD_RETENTION_DAYS.")
    return f"{settings.retention_days}d"


async def retain(settings: Settings, request: RetentionRequest, *, as_json: bool) -> int:
    """Delete recordings; returns 1 if some could not be deleted, and prints why."""
    sources = select_sources(settings, request.source)
    publisher = create_publisher(settings, "retention")
    archive, before = Archive(settings.archive_url), ago(request.older_than)
    async with open_store(settings) as store, background(publisher.run()):
        await wait_until_connected(publisher)
        retention = Retention(archive, publisher, store, before, request.with_records, request.is_dry_run)
        query = {"older_than": request.older_than, "with_records": request.with_records}
        audit_lines = audited(Audit(publisher), cli_user(), retention.done, query, source=request.source)
        async with nullcontext() if request.is_dry_run else audit_lines:
            done = await retention.run(sources, lambda day: sys.stderr.write(f"{day}\n"))
    for problem in done.problems:
        sys.stderr.write(f"{plain_line(problem)}\n")
    counts = asdict(done) | {"problems": len(done.problems)}
    if not done.refused:
        del counts["refused"]
    sys.stdout.write((orjson.dumps(counts).decode() if as_json else _text(done, request)) + "\n")
    return 1 if done.problems else 0


def _text(done: Expired, request: RetentionRequest) -> str:
    deleted = f"{counted(done.recordings, 'recording')} ({counted(done.bytes, 'byte')})"
    records = f" and {counted(done.records, 'record')}" if request.with_records else ""
    refused = f" and {counted(done.refused, 'refused file')}" if done.refused else ""
    would = "would be " if request.is_dry_run else ""
    waiting = f"; {done.waiting} in progress, left for a later run" if done.waiting else ""
    return f"{deleted}{records}{refused} {would}deleted; {done.held} kept on hold{waiting}"
