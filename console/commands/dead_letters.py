"""`callfold dead-letters`: list, show, redrive and drop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import orjson

from console.commands.common import cli_user
from console.commands.output import counted
from console.dead_letters.listing import LookRequest, find
from console.dead_letters.queue import DeadLetterQueue, Filter
from console.dead_letters.redrive_or_drop import Settled, SettleRequest, oldest_redrivable, settle
from console.safe_text import plain_line
from shared.config.settings import Settings
from shared.errors import CallfoldError
from shared.runtime.audit import Action

_PROGRESS_EVERY = 500
_WHY_SKIPPED = (
    "Redis may no longer have their calls, which would then be published a second time. "
    "`--force` redrives those that are only old, but never an `expired_call`. "
    "An `unreadable_body` cannot be understood as it is: `show` prints it, and what it says can be sent again."
)


async def show(settings: Settings, queue: DeadLetterQueue, request: LookRequest, *, as_json: bool) -> int:
    """Print the dead letters that match; returns 1 if ids were given and none matched."""
    listing = await find(settings, queue, request)
    for fields in listing.dead_letters:
        sys.stdout.write(orjson.dumps(fields).decode() + "\n" if as_json else _text(fields))
    shown, count = len(listing.dead_letters), counted(listing.count, "dead letter")
    if not listing.is_complete:
        sys.stderr.write(
            f"At least {count} in {queue.queue_name}: the first {listing.scanned} of {listing.total} were read. "
            "`--all` reads all of them, and others wait for that long.\n"
        )
    elif not as_json or shown < listing.count:
        sys.stderr.write(f"{count} in {queue.queue_name}\n")
    if shown < listing.count:
        sys.stderr.write(f"The first {shown} are listed. `--limit` lists more.\n")
    return 1 if request.query.ids and not listing.count else 0


async def redrive(
    settings: Settings, queue: DeadLetterQueue, query: Filter, *, dry_run: bool, as_json: bool, force: bool = False
) -> int:
    """Redrive dead letters and print how many; returns the exit code. `force` includes those older than Redis can know."""
    request = SettleRequest(Action.REDRIVE, cli_user(), dry_run, "" if force else oldest_redrivable(settings, queue))
    settled = await settle(settings, queue, query, request, progress=_progress("redriven"))
    if settled.skipped:
        skipped = f"{counted(settled.skipped, 'matching dead letter')} not redriven: {_WHY_SKIPPED}"
        if query.ids and not settled.done:
            raise CallfoldError(skipped)
        sys.stderr.write(f"{skipped}\n")
    return _print_count(query, settled, "redriven", dry_run=dry_run, as_json=as_json)


async def drop(settings: Settings, queue: DeadLetterQueue, query: Filter, *, dry_run: bool, as_json: bool) -> int:
    """Drop dead letters and print how many; returns the exit code."""
    request = SettleRequest(Action.DROP, cli_user(), dry_run)
    settled = await settle(settings, queue, query, request, progress=_progress("dropped"))
    return _print_count(query, settled, "dropped", dry_run=dry_run, as_json=as_json)


def _text(fields: Mapping[str, object]) -> str:
    line = plain_line(f"{fields['id']}  {fields['first_seen']:<27}  {fields['reason']:<20}  {fields['detail']}") + "\n"
    return line + f"    {plain_line(fields['body'])}\n" if "body" in fields else line


def _progress(done: str) -> Callable[[int], None]:
    def write(settled: int) -> None:
        if settled % _PROGRESS_EVERY == 0:
            sys.stderr.write(f"{settled} {done}\n")

    return write


def _print_count(query: Filter, settled: Settled, done: str, *, dry_run: bool, as_json: bool) -> int:
    """Print the count; returns 1 if ids were given and none matched."""
    least = "" if settled.is_complete else "at least "
    text = f"{least}{settled.done} {'would be ' if dry_run else ''}{done}"
    fields = {done: settled.done, "dry_run": dry_run} | ({"at_least": True} if least else {})
    sys.stdout.write((orjson.dumps(fields).decode() if as_json else text) + "\n")
    return 1 if query.ids and not settled.done else 0
