"""Reading AMQP properties without end of the connection: what the library cannot read is None, not an error.

The library decodes headers while it reads the wire. An error there ends the connection, every message in hand is given out again,
and after some rounds of that the broker buries good ones beside the bad. Source: RabbitMQ's errata to AMQP 0-9-1 for the types.
"""

from __future__ import annotations

from datetime import datetime

from pamqp import decode
from pamqp.common import FieldTable, Struct

_TIMESTAMP_BYTES = 8


def timestamp(value: bytes) -> tuple[int, datetime | None]:
    """Read a timestamp; one beyond the year 9999, as microseconds are taken for, is None."""
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return _TIMESTAMP_BYTES, None


def short_str(value: bytes) -> tuple[int, str]:
    """Read a short string; bytes that are not UTF-8 are replaced."""
    length = Struct.byte.unpack(value[0:1])[0]
    return length + 1, value[1 : length + 1].decode("utf-8", "replace")


def field_table(value: bytes) -> tuple[int, FieldTable]:
    """Read a table; one with a name or a value that cannot be read is empty, since nothing tells where the next name begins."""
    try:
        return decode.field_table(value)
    except (ValueError, RecursionError):
        return Struct.integer.unpack(value[0:4])[0] + Struct.integer.size, {}


def install() -> None:
    """Have the library read with these. Safe to repeat."""
    decode.METHODS |= {"timestamp": timestamp, "shortstr": short_str, "table": field_table}
    decode.TABLE_MAPPING |= {b"T": timestamp, b"F": field_table}
