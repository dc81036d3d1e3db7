"""`callfold quarantine`: list and redrive callbacks that were refused for their secret or source."""

from __future__ import annotations

import sys
from collections import deque

import orjson

from console.commands.common import cli_user
from console.counts import counted, either
from console.dead_letters.quarantine import (
    QuarantineFilter,
    QuarantineRedrive,
    describe,
    read_quarantine,
    redrive_quarantined,
    redriven_ids,
)
from console.dead_letters.queue import DeadLetterQueue
from console.dead_letters.redrive_or_drop import oldest_redrivable
from console.safe_text import plain_line
from shared.config.settings import Settings
from shared.config.sources import unknown_source_message
from shared.domain.ids import SourceName
from shared.domain.quarantined import QuarantinedCallback
from shared.errors import ConfigError, StoreUnavailableError


async def show(settings: Settings, query: QuarantineFilter, limit: int, *, as_json: bool) -> int:
    """Print the newest matching callbacks, the oldest of them first; returns 1 if ids were given and none matched."""
    newest: deque[QuarantinedCallback] = deque(maxlen=limit)
    count = 0
    async with read_quarantine(settings, query) as matching:
        async for callback in matching:
            newest.append(callback)
            count += 1
    try:
        redriven = await redriven_ids(settings, [each.id for each in newest])
    except StoreUnavailableError:
        redriven = None
    for each in newest:
        fields = describe(each) | {"redriven": None if redriven is None else each.id in redriven}
        sys.stdout.write(orjson.dumps(fields).decode() + "\n" if as_json else _text(fields))
    if not as_json or count > limit:
        sys.stderr.write(f"{counted(count, 'callback')} in the quarantine\n")
    if count > limit:
        newest_are = either(limit, "The newest is", f"The newest {limit} are")
        sys.stderr.write(f"{newest_are} listed. `--limit` lists more.\n")
    return 1 if query.ids and not count else 0


async def redrive(
    settings: Settings, query: QuarantineFilter, as_source: str | None, *, unverified: bool, dry_run: bool, as_json: bool
) -> int:
    """Redrive callbacks and print how many, and why others are not; returns the exit code.

    Raises:
        ConfigError: `as_source` is not configured.
    """
    sources = settings.load_sources()
    if as_source is not None and as_source not in sources:
        raise ConfigError(unknown_source_message(as_source, sources))
    request = QuarantineRedrive(
        cli_user(),
        None if as_source is None else SourceName(as_source),
        is_unverified=unverified,
        is_dry_run=dry_run,
        oldest=oldest_redrivable(settings, DeadLetterQueue.CALLBACKS),
    )
    result = await redrive_quarantined(settings, query, request)
    if as_json:
        skipped = {why.several: count for why, count in result.skipped.items()}
        fields = {"redriven": result.redriven, "dry_run": dry_run, "skipped": skipped}
        sys.stdout.write(orjson.dumps(fields).decode() + "\n")
    else:
        sys.stdout.write(f"{result.redriven} {'would be ' if dry_run else ''}redriven\n")
        for why, count in sorted(result.skipped.items()):
            reason = either(count, f"it {why.one}", f"they {why.several}")
            sys.stderr.write(plain_line(f"{count} not redriven: {reason}.") + "\n")
    return 1 if query.ids and not result.redriven else 0


def _text(fields: dict[str, object]) -> str:
    marks = ", redriven" if fields["redriven"] else ""
    if fields["secret_of"]:
        marks = f", with the secret of {fields['secret_of']}{marks}"
    head = f"{fields['id']}  {fields['received_at']}  {fields['reason']:<14}  {fields['source'] or '-'}  from {fields['peer']}"
    shown = [head + marks, *(f"    {fields[name]}" for name in ("query", "body") if fields.get(name))]
    return "".join(plain_line(line) + "\n" for line in shown)
