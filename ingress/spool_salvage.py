"""Moves the readable rows of damaged files, which were set aside, back into the spool, so that they are drained as all others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ingress.outgoing_message import OutgoingMessage
from ingress.spool import Spool
from ingress.spool_contents import set_aside_files
from ingress.spool_paths import SET_ASIDE, SpoolPaths
from ingress.spool_reader import SpoolReader
from ingress.spool_rows import DamagedRow
from ingress.spools import Spools
from ingress.waiting import source_of

# A callback has some kilobytes at most, and a message of the spool 500 of them.
_ROWS = 50


@dataclass(frozen=True, slots=True)
class Salvaged:
    """Result for one file: the messages that were moved, and where the rest is kept, and why it cannot be read."""

    file: Path
    messages: int
    kept: Path | None
    problem: str


async def salvage(spools: Spools) -> list[Salvaged]:
    """Move the rows of all files that were set aside. If it is interrupted, some messages are published twice.

    Raises:
        SpoolUnavailableError: the spool cannot be written.
        sqlite3.Error: a file cannot be read now.
    """
    return [await _salvage_file(spools, path) for path in await asyncio.to_thread(set_aside_files, spools.directory)]


async def _salvage_file(spools: Spools, path: Path) -> Salvaged:
    source = source_of(path.name.partition(SET_ASIDE)[0])
    target: Spool = spools.spool if source is None else await spools.waiting.spool_of(source)
    reader = SpoolReader(path)
    rows = reader.rows()
    messages = 0
    while batch := await asyncio.to_thread(_next, rows):
        await target.add(batch)
        messages += len(batch)
    is_there: bool = await asyncio.to_thread(path.exists)  # else another process has moved its rows
    if reader.problem and is_there:
        return Salvaged(path, messages, await asyncio.to_thread(SpoolPaths(path).keep), reader.problem)
    await asyncio.to_thread(SpoolPaths(path).delete)
    return Salvaged(path, messages, None, "")


def _next(rows: Iterator[OutgoingMessage | DamagedRow]) -> Sequence[OutgoingMessage]:
    return [row.dead_letter() if isinstance(row, DamagedRow) else row for row in islice(rows, _ROWS)]
