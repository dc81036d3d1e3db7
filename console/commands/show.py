"""`callfold show`: one call, from Redis or the history. Prints its record, its timeline and the reason for its state."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import orjson

from console.commands.common import select_sources
from console.ignored_values import why_ignored
from console.lookup.lookup import open_lookup
from console.safe_text import plain_line
from shared.config.settings import Settings
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.errors import CallfoldError, HistoryUnavailableError

_MAX_LINE_CHARACTERS = 100


async def show(settings: Settings, source: str, call: str, *, as_json: bool) -> int:
    """Print a call.

    Raises:
        ConfigError: neither the call nor its source is known.
        CallfoldError: the call is unknown, or the history that could have it is unavailable.
    """
    key = CallKey(SourceName(source), CallRef(call))
    async with open_lookup(settings) as lookup:
        try:
            detail = await lookup.detail(key)
        except HistoryUnavailableError as error:
            raise CallfoldError(f"Call {key} is not in Redis, and the history cannot be read. {error}") from error
    if detail is None:
        select_sources(settings, source)
        if lookup.has_history:
            raise CallfoldError(f"Unknown call {key}: not in Redis or in the history.")
        raise CallfoldError(
            f"Unknown call {key}: not in Redis, which keeps calls for CALLFOLD_RETAIN_SECONDS. No history is configured."
        )
    if not detail.facts:
        sys.stderr.write(f"{key} has expired from Redis; this is its record in the history.\n")
    fields = detail.to_json()
    sys.stdout.write(orjson.dumps(fields).decode() + "\n" if as_json else _text(fields))
    return 0


def _text(fields: Mapping[str, Any]) -> str:
    """Return a call as lines. Control characters in callback values are escaped, so they cannot break a line."""
    record = orjson.dumps(fields["record"], option=orjson.OPT_INDENT_2).decode().split("\n")
    why = fields["why"].removeprefix(f"{fields['status']}: ")  # the line before it says so already
    lines = [f"{fields['call']}  {fields['status']}", why, "", *record, ""]
    if ignored := fields["record"].get("ignored"):
        lines += ["ignored values", *(_ignored(row) for row in ignored)]
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
    width = max(map(len, fields["facts"]), default=0)
    lines += ["facts", *(f"  {name:<{width}}  {value}" for name, value in fields["facts"].items())]
    return "".join(f"{plain_line(line)}\n" for line in lines)


def _ignored(row: Mapping[str, Any]) -> str:
    where = f"leg {row['call_id']}" + (f" {row['event']}" if row["event"] else "")
    return f"  {row['placeholder']}={row['value']}  {why_ignored(row['reason'])} ({where})"


def wrapped(query: str) -> list[str]:
    """Wrap a query string between its parameters; the joined lines are the query."""
    lines = [""]
    for part in re.findall(r"[^&]*&|[^&]+", query):
        if lines[-1] and len(lines[-1]) + len(part) > _MAX_LINE_CHARACTERS:
            lines.append("")
        lines[-1] += part
    return lines
