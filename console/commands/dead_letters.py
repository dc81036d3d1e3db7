"""`callfold dead-letters`: list, show, redrive and drop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import orjson
import typer

from console.commands.common import cli_user
from console.counts import counted, either
from console.dead_letters import waiting_redrive
from console.dead_letters.listing import LookRequest, find
from console.dead_letters.prospects import Prospects, foresee, in_words
from console.dead_letters.queue import DeadLetterQueue, Filter
from console.dead_letters.redrive_or_drop import Settled, SettleRequest, oldest_redrivable, settle
from console.dead_letters.waiting_redrive import Returned, redrive_and_wait
from console.endpoints.known import known_endpoints
from console.safe_text import plain_line
from shared.config.settings import Settings
from shared.errors import CallfoldError
from shared.runtime.audit import Action

_PROGRESS_EVERY = 500
_WHY_SKIPPED = (
    "Redis may no longer have {calls}, which would then be published a second time. "
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
        were = either(listing.scanned, "was", "were")
        sys.stderr.write(
            f"At least {count} in {queue.queue_name}: {listing.scanned} of {listing.total} {were} read. "
            "`--all` reads all of them, and others wait for that long.\n"
        )
    elif not as_json or shown < listing.count:
        sys.stderr.write(f"{count} in {queue.queue_name}\n")
    if shown < listing.count:
        first = either(shown, "The first is", f"The first {shown} are")
        sys.stderr.write(f"{first} listed. `--limit` lists more.\n")
    return 1 if request.query.ids and not listing.count else 0


@dataclass(frozen=True, slots=True)
class Manner:
    """Options of a redrive or drop.

    Attributes:
        is_sure: ask nothing; else ask before a drop, and on a terminal before a redrive of what would come back.
        is_forced: redrive those too that are older than Redis can know.
        is_waiting: wait until workers have folded the callbacks, and look which ones came back.
    """

    is_dry_run: bool = False
    as_json: bool = False
    is_sure: bool = True
    is_forced: bool = False
    is_waiting: bool = False


async def redrive(
    settings: Settings, queue: DeadLetterQueue, query: Filter, *, dry_run: bool, as_json: bool, manner: Manner | None = None
) -> int:
    """Redrive dead letters, and print how many and which came back; returns the exit code."""
    manner = replace(manner or Manner(), is_dry_run=dry_run, as_json=as_json)
    oldest = "" if manner.is_forced else oldest_redrivable(settings, queue)
    endpoints = await known_endpoints(settings) if queue is DeadLetterQueue.FORWARD else None
    request = SettleRequest(Action.REDRIVE, cli_user(), is_dry_run=False, oldest=oldest, endpoints=endpoints)
    prospects = await foresee(settings, queue, query, request, settings.load_sources())
    if prospects.coming_back:
        sys.stderr.write(_coming_back(prospects, manner))
        if not (manner.is_dry_run or manner.is_sure) and sys.stdin.isatty():
            typer.confirm("Redrive them nevertheless?", abort=True, err=True)
    returned = None
    if manner.is_dry_run:
        settled = prospects.settled
    elif manner.is_waiting and queue is DeadLetterQueue.CALLBACKS:
        settled, returned = await redrive_and_wait(settings, query, request, progress=_progress("redriven"))
    else:
        settled = await settle(settings, queue, query, request, progress=_progress("redriven"))
    if settled.skipped:
        skipped = f"{counted(settled.skipped, 'matching dead letter')} not redriven: "
        skipped += _why_skipped(queue, settled.skipped)
        if query.ids and not settled.done:
            raise CallfoldError(skipped)
        sys.stderr.write(f"{skipped}\n")
    more: dict[str, object] = {}
    if manner.is_dry_run and prospects.coming_back:
        more = {"would_come_back": prospects.coming_back.total(), "reasons": dict(prospects.coming_back)}
    elif returned is not None and settled.done:
        more = {"came_back": returned.count, "reasons": dict(returned.reasons), "not_folded": returned.not_folded}
        more |= {"unknown": returned.unknown} if returned.unknown else {}
    code = _print_count(query, settled, "redriven", more, manner)
    if returned is not None and settled.done:
        sys.stderr.write(_came_back(returned))
    return code


def _why_skipped(queue: DeadLetterQueue, count: int) -> str:
    if queue is DeadLetterQueue.FORWARD:
        return f"{either(count, 'its webhook does', 'their webhooks do')} not exist."
    return _WHY_SKIPPED.format(calls=either(count, "its call", "their calls"))


async def drop(
    settings: Settings, queue: DeadLetterQueue, query: Filter, *, dry_run: bool, as_json: bool, manner: Manner | None = None
) -> int:
    """Drop dead letters and print how many; returns the exit code. It counts them before it asks."""
    manner = replace(manner or Manner(), is_dry_run=dry_run, as_json=as_json)
    request = SettleRequest(Action.DROP, cli_user(), manner.is_dry_run)
    if not (manner.is_dry_run or manner.is_sure):
        matching = (await foresee(settings, queue, query, request, settings.load_sources())).settled
        if matching.done or not matching.is_complete:
            count = f"{'' if matching.is_complete else 'at least '}{counted(matching.done, 'dead letter')}"
            exist = "It exists" if matching.done == 1 else "They exist"
            typer.confirm(f"Delete {count} of {queue.queue_name} permanently? {exist} nowhere else.", abort=True, err=True)
    settled = await settle(settings, queue, query, request, progress=_progress("dropped"))
    return _print_count(query, settled, "dropped", {}, manner)


def _coming_back(prospects: Prospects, manner: Manner) -> str:
    count, total = prospects.coming_back.total(), prospects.settled.done
    which = "It" if (count, total) == (1, 1) else f"{count} of {total}"
    what = either(count, "as it is, and would be a dead letter", "as they are, and would be dead letters")
    least = "" if prospects.settled.is_complete else "At least: "
    reasons = "; ".join(map(plain_line, in_words(prospects.coming_back)))
    hint = "" if manner.is_dry_run else " Correct the cause first: the adapter link, the sources file, or what sends them."
    return f"{least}{which} cannot be understood {what} again. {reasons}.{hint}\n"


def _came_back(returned: Returned) -> str:
    if not returned.has_worker:
        return "No worker consumes callbacks.fold, so they are not folded yet. Start a worker.\n"
    least = "" if returned.is_complete else "At least "
    text = "None came back."
    if returned.count:
        text = f"{least}{returned.count} came back: {'; '.join(map(plain_line, in_words(returned.reasons)))}."
    if returned.not_folded:
        were = either(returned.not_folded, "was", "were")
        text += f" {returned.not_folded} {were} not reported as folded within {waiting_redrive.WAIT_S:g} s: check the workers."
    if returned.unknown:
        were = either(returned.unknown, "was", "were")
        text += f" Whether {returned.unknown} {were} folded is unknown: the connection for the reports was lost."
    return f"{text}\n"


def _text(fields: Mapping[str, object]) -> str:
    line = (
        plain_line(
            f"{fields['id']}  {fields['first_seen']:<27}  {_sources(fields):<12}  {fields['reason']:<20}  {fields['detail']}"
        )
        + "\n"
    )
    return line + f"    {plain_line(fields['body'])}\n" if "body" in fields else line


def _sources(fields: Mapping[str, object]) -> str:
    sources = fields["sources"]
    return ",".join(map(str, sources)) if isinstance(sources, list) and sources else "-"


def _progress(done: str) -> Callable[[int], None]:
    def write(settled: int) -> None:
        if settled % _PROGRESS_EVERY == 0:
            sys.stderr.write(f"{settled} {done}\n")

    return write


def _print_count(query: Filter, settled: Settled, done: str, more: Mapping[str, object], manner: Manner) -> int:
    """Print the count; returns 1 if ids were given and none matched."""
    least = "" if settled.is_complete else "at least "
    text = f"{least}{settled.done} {'would be ' if manner.is_dry_run else ''}{done}"
    fields = {done: settled.done, "dry_run": manner.is_dry_run, **({"at_least": True} if least else {}), **more}
    sys.stdout.write((orjson.dumps(fields).decode() if manner.as_json else text) + "\n")
    return 1 if query.ids and not settled.done else 0
