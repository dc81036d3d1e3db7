"""`callfold show`: one call - its record, its raw timeline, and why it is in its state."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import orjson

from console.command import wanted_sources
from console.detail import detail_of
from shared.archive import Archive
from shared.errors import CallfoldError
from shared.ids import CallKey, CallRef, SourceName
from shared.settings import Settings
from shared.store import Store

_QUERY_CHARACTERS = 100


async def show(settings: Settings, source: str, call: str, *, as_json: bool) -> int:
    """Print a call; exit code 1 where Redis has none of that name."""
    found = wanted_sources(settings, source)[SourceName(source)]
    key = CallKey(found.name, CallRef(call))
    async with aclosing(Store(settings.redis_url.get_secret_value())) as store:
        state = await store.read(key)
    if state is None:
        raise CallfoldError(f"Redis has no call {key}: it was never seen, or expired (CALLFOLD_RETAIN_SECONDS).")
    told = (await detail_of(settings, Archive(settings.archive_url), found, key, state)).told()
    sys.stdout.write(orjson.dumps(told).decode() + "\n" if as_json else _text(told))
    return 0


def _text(told: Mapping[str, Any]) -> str:
    lines = [f"{told['call']}  {told['status']}", f"{told['why']}", ""]
    lines += [orjson.dumps(told["record"], option=orjson.OPT_INDENT_2).decode(), ""]
    lines += ["recordings", *(f"  {row['leg']:<8}{row['guid'] or row['name']}  {row['state']}" for row in told["recordings"])]
    lines += ["timeline (as received)"]
    for row in told["timeline"]:
        leg = f"  leg {row['leg']}" if "leg" in row else ""
        lines.append(f"  {row['received_at']}  {row['kind']:<8}  {row.get('event', '')}{leg}".rstrip())
        lines += [f"      {part}" for part in folded(row["what"])]
    if told["timeline_problem"]:
        lines.append(f"  {told['timeline_problem']}")
    elif not told["is_timeline_whole"]:
        lines.append("  ... the journal is long: what came much later is not shown")
    width = max(map(len, told["facts"]), default=0)
    lines += ["facts", *(f"  {name:<{width}}  {value}" for name, value in told["facts"].items())]
    return "\n".join(lines) + "\n"


def folded(query: str) -> list[str]:
    """Fold a query between its parameters; put together, the lines are the query."""
    lines = [""]
    for part in re.findall(r"[^&]*&|[^&]+", query):
        if lines[-1] and len(lines[-1]) + len(part) > _QUERY_CHARACTERS:
            lines.append("")
        lines[-1] += part
    return lines
