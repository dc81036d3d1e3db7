"""`callfold show`: one call, from Redis or the history. Prints its record, its timeline and the reason for its state."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from itertools import chain
from typing import Any, NoReturn

import orjson

from console.call_query import CallRow, row_of
from console.commands.common import call_key, select_sources
from console.counts import counted, either
from console.dead_letters.of_call import find_of_call
from console.ignored_values import why_ignored
from console.lookup.lookup import open_lookup
from console.safe_text import plain_line
from shared.config.settings import Settings
from shared.domain.call import Status
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.parties import EndedBy
from shared.errors import CallfoldError, ConfigError, HistoryUnavailableError

_MAX_LINE_CHARACTERS = 100
_MAX_VALUE_CHARACTERS = 400
_DEAD_LETTERS_S = 10


async def show(settings: Settings, source: str, call: str | None, *, as_json: bool) -> int:
    """Print a call.

    Raises:
        ConfigError: neither the call nor its source is known.
        CallfoldError: the call is unknown, or the history that could have it is unavailable.
    """
    key = await find_key(settings, source, call)
    async with open_lookup(settings) as lookup:
        try:
            detail = await lookup.detail(key)
        except HistoryUnavailableError as error:
            raise CallfoldError(f"Call {key} is not in Redis, and the history cannot be read. {error}") from error
        is_rebuilding = await lookup.is_rebuilding(key)
    if is_rebuilding:
        sys.stderr.write("Redis has lost state. Until a worker has rebuilt it, this call can be incomplete.\n")
    if detail is None:
        await _refuse_unknown(settings, key, has_history=lookup.has_history)
    if not detail.facts:
        sys.stderr.write(f"{key} has expired from Redis; this is its record in the history.\n")
    fields = detail.to_json()
    sys.stdout.write(orjson.dumps(fields).decode() + "\n" if as_json else _text(fields))
    return 0


async def find_key(settings: Settings, source: str, call: str | None) -> CallKey:
    """Read the name of a call: `acme 513`, `acme/513` as printed by `calls`, or an event id as printed by `tail`.

    Raises:
        ConfigError: a call is named without its source, and it is not clear which source it is of.
    """
    if call is None and "/" not in source:
        return await _only_key(settings, CallRef(source.strip()))
    return call_key(source, call)


async def _only_key(settings: Settings, call: CallRef) -> CallKey:
    async with open_lookup(settings) as lookup:
        rows = await lookup.find_by_ref(call)
    if len(rows) == 1:
        return CallKey(SourceName(rows[0].source), call)
    names = " and ".join(f"{row.source}/{row.call}" for row in rows)
    problem = f"There are {names}" if rows else f"No source has a call {call}"
    raise ConfigError(f"{problem}. Name the call with its source, as in `callfold show acme 513`.")


async def _refuse_unknown(settings: Settings, key: CallKey, *, has_history: bool) -> NoReturn:
    """Raise an error that names the reason: perhaps all callbacks of the call are dead letters.

    Raises:
        CallfoldError: always.
    """
    unread = ""
    try:
        async with asyncio.timeout(_DEAD_LETTERS_S):
            dead = await find_of_call(settings, key)
    except (CallfoldError, TimeoutError):
        unread = " Whether its callbacks are dead letters is not known: RabbitMQ could not be read."
    else:
        if dead.dead_letters:
            dead_letters = len(dead.dead_letters)
            count = f"{counted(dead_letters, 'dead letter')} {either(dead_letters, 'holds', 'hold')} its callbacks"
            raise CallfoldError(f"Call {key} has no record. {count}: {dead.in_words()}")
    select_sources(settings, key.source)
    if has_history:
        raise CallfoldError(f"Unknown call {key}: not in Redis or in the history.{unread}")
    raise CallfoldError(
        f"Unknown call {key}: not in Redis, which keeps calls for CALLFOLD_RETAIN_SECONDS. No history is configured.{unread}"
    )


def _text(fields: Mapping[str, Any]) -> str:
    """Return a call as lines. Control characters in callback values are escaped, so they cannot break a line."""
    known = {name: value for name, value in fields["record"].items() if name != "annotations"}
    record = orjson.dumps(known, option=orjson.OPT_INDENT_2).decode().split("\n")
    why = fields["why"].removeprefix(f"{fields['status']}: ")  # the line before it says so already
    row = row_of(fields["record"], fields["call"].partition("/")[2], Status(fields["status"]))
    lines = [f"{fields['call']}  {fields['status']}", why, who(row), "", *record, ""]
    if ignored := fields["record"].get("ignored"):
        lines += ["ignored values", *(_ignored(row) for row in ignored)]
    if annotations := fields["record"].get("annotations"):
        lines += ["annotations", *chain.from_iterable(map(_annotation, annotations))]
    lines += ["recordings", *(f"  {row['leg']:<8}{row['guid'] or row['name']}  {row['state']}" for row in fields["recordings"])]
    lines += ["timeline (as received)"]
    for row in fields["timeline"]:
        leg = f"  leg {row['leg']}" if "leg" in row else ""
        lines.append(f"  {row['received_at']}  {row['kind']:<8}  {row.get('event', '')}{leg}".rstrip())
        lines += [f"      {part}" for part in wrapped(row["what"])]
    if fields["timeline_problem"]:
        lines.append(f"  {fields['timeline_problem']}")
    elif fields["facts"] and not fields["is_timeline_whole"]:
        lines.append("  ... the journal is long: callbacks received much later are not shown")
    if fields["other_uses"]:
        lines += [f"  RequestID used again, see {', '.join(fields['other_uses'])}"]
    width = max(map(len, fields["facts"]), default=0)
    lines += ["facts", *(f"  {name:<{width}}  {value}" for name, value in fields["facts"].items())]
    return "".join(f"{plain_line(line)}\n" for line in lines)


def who(row: CallRow) -> str:
    """Return a line that says what kind of call it is, and who took part, as far as that is known."""
    ended_by = None if row.ended_by is EndedBy.UNKNOWN else row.ended_by
    agent = row.agent if row.agent_name in {None, row.agent} else f"{row.agent} {row.agent_name}"
    known = {
        "agent": agent,
        "number": row.number,
        "queue": row.queue,
        "ended by": ended_by,
    }
    return ", ".join([row.call_type or "unknown type", *(f"{name} {value}" for name, value in known.items() if value)])


def _ignored(row: Mapping[str, Any]) -> str:
    where = f"leg {row['call_id']}" + (f" {row['event']}" if row["event"] else "")
    return f"  {row['placeholder']}={row['value']}  {why_ignored(row['reason'])} ({where})"


def _annotation(annotation: Mapping[str, Any]) -> list[str]:
    """Return an annotation as lines; of a long value only the beginning."""
    lines = [f"  {annotation['at']}  {annotation['type']}  {annotation['id']}  by {annotation['by']}"]
    for name, value in annotation["body"].items():
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        rest = len(text) - _MAX_VALUE_CHARACTERS
        lines.append(f"      {name}: {text[:_MAX_VALUE_CHARACTERS]}" + (f" ... {rest} more characters" if rest > 0 else ""))
    return lines


def wrapped(query: str) -> list[str]:
    """Wrap a query string between its parameters; the joined lines are the query."""
    lines = [""]
    for part in re.findall(r"[^&]*&|[^&]+", query):
        if lines[-1] and len(lines[-1]) + len(part) > _MAX_LINE_CHARACTERS:
            lines.append("")
        lines[-1] += part
    return lines
