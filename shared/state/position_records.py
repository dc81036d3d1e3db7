"""The messages of the stream `state.journal`: the numbers of writes of one process, and full maps of what one process knows.

A record has the numbers of one process: `{"v": 1, "writer": ..., "at": ms, "positions": {partition: [generation, writes]}}`.
A full map has the numbers of all writers, and says which records it may lack: `{"v": 1, "writer": ..., "at": ms, "upto": offset,
"positions": {partition: [generation, {writer: [writes, at]}]}}`. A message with `sync` marks how far a process has read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from shared.state.keys import PARTITIONS
from shared.state.stored_position import Known, Writers

VERSION = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One message of the stream.

    Attributes:
        upto: of a full map the offset of the last message that it includes, or -1. None for other messages.
    """

    writer: str
    positions: Mapping[int, tuple[int, Writers]] = field(default_factory=dict)
    upto: int | None = None
    sync: str = ""


def encode_record(writer: str, rows: Mapping[int, tuple[int, int]], at_ms: int) -> bytes:
    """Encode generation and number of writes of one process, by partition."""
    return orjson.dumps(
        {"v": VERSION, "writer": writer, "at": at_ms, "positions": {str(number): row for number, row in rows.items()}}
    )


def encode_map(writer: str, known: Mapping[int, Known], upto: int, at_ms: int) -> bytes:
    """Encode all that a process knows; `upto` is the offset of the last message that it has read, -1 if it has read none."""
    positions = {str(number): (each.generation, each.writers) for number, each in known.items()}
    return orjson.dumps({"v": VERSION, "writer": writer, "at": at_ms, "upto": upto, "positions": positions})


def encode_sync(writer: str, sync: str, at_ms: int) -> bytes:
    return orjson.dumps({"v": VERSION, "writer": writer, "at": at_ms, "sync": sync, "positions": {}})


def decode(body: bytes) -> Record | None:
    """Decode a message; None if it is of another version, or none of Callfold's."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    match message:
        case {"v": 1, "writer": str(writer), "at": int(at_ms), "positions": dict(rows)}:
            positions = {int(number): _row(row, writer, at_ms) for number, row in rows.items() if number in _NUMBERS}
            if all(row is not None for row in positions.values()):
                known = {number: row for number, row in positions.items() if row is not None}
                upto, sync = message.get("upto"), message.get("sync", "")
                return Record(writer, known, upto if isinstance(upto, int) else None, sync if isinstance(sync, str) else "")
    return None


_NUMBERS = frozenset(map(str, range(PARTITIONS)))


def _row(row: object, writer: str, at_ms: int) -> tuple[int, Writers] | None:
    match row:
        case [int(generation), int(writes)]:
            return generation, {writer: (writes, at_ms)}
        case [int(generation), dict(writers)]:
            known: dict[str, tuple[int, int]] = {}
            for name, each in writers.items():
                match each:
                    case [int(writes), int(alive_ms)]:
                        known[name] = writes, alive_ms
                    case _:
                        return None
            return generation, known
    return None
