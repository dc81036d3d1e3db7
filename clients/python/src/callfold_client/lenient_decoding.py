"""Decodes AMQP properties leniently: an unreadable value becomes None or empty instead of an error.

The library decodes headers while it reads the socket, and an error there closes the connection. Every unacked message is then
redelivered, and after some repetitions the broker dead-letters the good messages together with the bad one.
Source of the types: RabbitMQ's errata to AMQP 0-9-1.
"""

from __future__ import annotations

from datetime import datetime

from pamqp import decode
from pamqp.common import FieldTable, Struct

_TIMESTAMP_BYTES = 8


def timestamp(value: bytes) -> tuple[int, datetime | None]:
    """Decode a timestamp; one beyond the year 9999 is None (some clients send microseconds)."""
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return _TIMESTAMP_BYTES, None


def short_str(value: bytes) -> tuple[int, str]:
    """Decode a short string; bytes that are not UTF-8 are replaced."""
    length = Struct.byte.unpack(value[0:1])[0]
    return length + 1, value[1 : length + 1].decode("utf-8", "replace")


def field_table(value: bytes) -> tuple[int, FieldTable]:
    """Decode a table; with an unreadable name or value it is empty, since the start of the next name is unknown."""
    try:
        return decode.field_table(value)
    except (ValueError, RecursionError):
        return Struct.integer.unpack(value[0:4])[0] + Struct.integer.size, {}


def install() -> None:
    """Replace the decoders of the library. Safe to repeat."""
    decode.METHODS |= {"timestamp": timestamp, "shortstr": short_str, "table": field_table}
    decode.TABLE_MAPPING |= {b"T": timestamp, b"F": field_table}
