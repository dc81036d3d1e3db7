"""`callfold show`: one call - its record, its raw timeline, and why it is in its state; out of Redis, or of the history."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import orjson

from console.commands.common import wanted_sources
from console.lookup.lookup import open_lookup
from console.safe_text import plain_line
from shared.config.settings import Settings
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.errors import CallfoldError, HistoryUnavailableError

_QUERY_CHARACTERS = 100


async def show(settings: Settings, source: str, call: str, *, as_json: bool) -> int:
    """Print a call.

    Raises:
        ConfigError: there is neither such a call nor such a source.
        CallfoldError: there is no such call, or what could know it is away.
    """
    key = CallKey(SourceName(source), CallRef(call))
    async with open_lookup(settings) as lookup:
        try:
            detail = await lookup.detail(key)
        except HistoryUnavailableError as error:
            raise CallfoldError(f"Redis has no call {key}, and older ones cannot be asked for. {error}") from error
    if detail is None:
        wanted_sources(settings, source)
        if lookup.has_history:
            raise CallfoldError(f"There is no call {key}, neither in Redis nor in the history: it was never seen.")
        raise CallfoldError(f"Redis has no call {key}: it was never seen, or expired (CALLFOLD_RETAIN_SECONDS).")
    if not detail.facts:
        sys.stderr.write(f"From the history: Redis no longer has {key}.\n")
    told = detail.to_json()
    sys.stdout.write(orjson.dumps(told).decode() + "\n" if as_json else _text(told))
    return 0


def _text(told: Mapping[str, Any]) -> str:
    """Write a call as lines, none of which a value of a callback can end or turn into something else."""
    record = orjson.dumps(told["record"], option=orjson.OPT_INDENT_2).decode().split("\n")
    lines = [f"{told['call']}  {told['status']}", f"{told['why']}", "", *record, ""]
    lines += ["recordings", *(f"  {row['leg']:<8}{row['guid'] or row['name']}  {row['state']}" for row in told["recordings"])]
    lines += ["timeline (as received)"]
    for row in told["timeline"]:
        leg = f"  leg {row['leg']}" if "leg" in row else ""
        lines.append(f"  {row['received_at']}  {row['kind']:<8}  {row.get('event', '')}{leg}".rstrip())
        lines += [f"      {part}" for part in folded(row["what"])]
    if told["timeline_problem"]:
        lines.append(f"  {told['timeline_problem']}")
    elif told["facts"] and not told["is_timeline_whole"]:
        lines.append("  ... the journal is long: what came much later is not shown")
    width = max(map(len, told["facts"]), default=0)
    lines += ["facts", *(f"  {name:<{width}}  {value}" for name, value in told["facts"].items())]
    return "".join(f"{plain_line(line)}\n" for line in lines)


def folded(query: str) -> list[str]:
    """Fold a query between its parameters; put together, the lines are the query."""
    lines = [""]
    for part in re.findall(r"[^&]*&|[^&]+", query):
        if lines[-1] and len(lines[-1]) + len(part) > _QUERY_CHARACTERS:
            lines.append("")
        lines[-1] += part
    return lines
