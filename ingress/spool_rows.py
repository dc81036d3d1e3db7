"""Rows of the spool as messages. A row that Callfold could not have written is returned as damaged."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from ingress.outgoing_message import OutgoingMessage
from shared.amqp.dead_letters import DeadLetterReason, dead_letter_headers
from shared.amqp.topology import CALLBACKS, CALLBACKS_DEAD
from shared.domain.raw_event import receipt_times

# Any other route would close the channel, and be attempted for ever.
_ROUTES = frozenset({(CALLBACKS, ""), ("", CALLBACKS_DEAD)})
# RabbitMQ routes by these headers too, and closes the channel if they are not lists.
_ROUTING_HEADERS = frozenset({"CC", "BCC"})
# Headers must fit in one frame (128 KiB), and a name in a short string.
_HEADERS_BYTES, _NAME_BYTES, _LARGEST = 64 << 10, 128, 1 << 63


@dataclass(frozen=True, slots=True)
class DamagedRow:
    """A row that cannot be published as it is."""

    body: bytes
    problem: str

    def dead_letter(self) -> OutgoingMessage:
        """Return the message that dead-letters the row."""
        first_seen = next(iter(receipt_times(self.body)), "")
        return OutgoingMessage(
            "", CALLBACKS_DEAD, dead_letter_headers(DeadLetterReason.DAMAGED_IN_SPOOL, self.problem, first_seen), self.body
        )


def read_row(exchange: bytes, routing_key: bytes, headers: bytes, body: bytes) -> OutgoingMessage | DamagedRow:
    """Decode a row as SQLite returned it."""
    to, key = exchange.decode(errors="replace"), routing_key.decode(errors="replace")
    if (to, key) not in _ROUTES:
        return DamagedRow(body, f"no message of ingress goes to exchange {to[:50]!r} with routing key {key[:50]!r}")
    try:
        table = _header_table(headers)
        if to == CALLBACKS:
            _check_events(body)
    except ValueError as error:
        return DamagedRow(body, str(error))
    return OutgoingMessage(to, key, table, body)


def _header_table(headers: bytes) -> dict[str, str | int]:
    """Decode headers.

    Raises:
        ValueError: they are not a table of names, texts and whole numbers.
    """
    try:
        table = orjson.loads(headers)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the headers are not JSON: {error}") from None
    if not isinstance(table, dict) or len(headers) > _HEADERS_BYTES:
        raise ValueError("the headers are not an object of at most 64 KiB")
    for name, value in table.items():
        is_number = isinstance(value, int) and not isinstance(value, bool) and -_LARGEST <= value < _LARGEST
        if len(name.encode()) > _NAME_BYTES or not (is_number or isinstance(value, str)):
            raise ValueError(f"the header {name[:50]!r} is neither text nor a whole number")
        if name in _ROUTING_HEADERS:
            raise ValueError(f"the header {name} is not one of ingress")
    return table


def _check_events(body: bytes) -> None:
    """Check that a body is a JSON array: batches are joined by their text, so one damaged body would spoil others.

    Raises:
        ValueError: it is not.
    """
    try:
        events = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(events, list) or not events or not body.startswith(b"[") or not body.endswith(b"]"):
        raise ValueError("the body is not a JSON array of events")
