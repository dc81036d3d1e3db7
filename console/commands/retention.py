"""`callfold retention`: what is older is deleted, what is held stays."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import orjson

from console.commands.common import cli_user, wanted_sources
from console.commands.output import counted
from console.durations import ago
from console.safe_text import plain_line
from console.streams.connections import wait_until_connected
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.errors import ConfigError
from shared.retention.expiry import Expired
from shared.retention.retention import Retention, audited
from shared.runtime.audit import Audit
from shared.runtime.broker import create_publisher
from shared.runtime.process import background
from shared.runtime.store import open_store


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be deleted."""

    older_than: str
    source: str | None
    with_records: bool
    is_dry_run: bool


def age(settings: Settings) -> str:
    """Take the age from which recordings are deleted from the settings.

    Raises:
        ConfigError: they tell none.
    """
    if not settings.retention_days:
        raise ConfigError("How old? Give --older-than, like 365d, or set CALLFOLD_RETENTION_DAYS.")
    return f"{settings.retention_days}d"


async def retain(settings: Settings, wanted: Wanted, *, as_json: bool) -> int:
    """Delete; exit code 1 where something could not be done, and is said why."""
    sources = wanted_sources(settings, wanted.source)
    publisher = create_publisher(settings, "retention")
    archive, before = Archive(settings.archive_url), ago(wanted.older_than)
    async with open_store(settings) as store, background(publisher.run()):
        await wait_until_connected(publisher)
        retention = Retention(archive, publisher, store, before, wanted.with_records, wanted.is_dry_run)
        asked = {"older_than": wanted.older_than, "with_records": wanted.with_records}
        telling = audited(Audit(publisher), cli_user(), retention.done, asked, source=wanted.source)
        async with nullcontext() if wanted.is_dry_run else telling:
            done = await retention.run(sources, lambda day: sys.stderr.write(f"{day}\n"))
    for problem in done.problems:
        sys.stderr.write(f"{plain_line(problem)}\n")
    printed = asdict(done) | {"problems": len(done.problems)}
    sys.stdout.write((orjson.dumps(printed).decode() if as_json else _text(done, wanted)) + "\n")
    return 1 if done.problems else 0


def _text(done: Expired, wanted: Wanted) -> str:
    deleted = f"{counted(done.recordings, 'recording')} ({counted(done.bytes, 'byte')})"
    records = f" and {counted(done.records, 'record')}" if wanted.with_records else ""
    would = "would be " if wanted.is_dry_run else ""
    waiting = f"; {done.waiting} on their way, left to a later run" if done.waiting else ""
    return f"{deleted}{records} {would}deleted; {done.held} kept by a hold{waiting}"
