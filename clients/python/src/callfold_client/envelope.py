"""The envelope of published events, and which messages are events: every user of RabbitMQ may publish to an exchange."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from callfold_client.errors import NotAnEventError

try:
    from orjson import loads
except ImportError:  # it is only faster
    from callfold_client.strict_json import loads  # type: ignore[assignment]

Json = Mapping[str, Any]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
# Arithmetic with a year outside this range could overflow.
_YEARS = range(2000, 9000)
_SHOWN_CHARACTERS = 80


def is_time(text: str) -> bool:
    """Return whether a text is a time in Callfold's form with a plausible year."""
    if not _TIME.fullmatch(text):
        return False
    try:
        return datetime.fromisoformat(text).year in _YEARS  # month 13 has the form but is not a time
    except ValueError:
        return False


def read_event(body: bytes) -> Json:
    """Read the event of a call or a recording.

    Raises:
        NotAnEventError: it is no such event.
    """
    event = _read_json(body)
    match event:
        case {
            "id": str(),
            "subject": str(),
            "time": str(),
            "type": str(kind),
            "data": {"source": str(), "request_id": _} as data,
        }:
            is_call = kind.startswith("callfold.call.")
            if kind.startswith("callfold.recording.") or (is_call and _is_record(data)):
                return cast("Json", event)
            if is_call:
                raise NotAnEventError(f"The record of the event {_shown(event)} is incomplete or has values of other types.")
    raise NotAnEventError(f"The message is no event of a call or recording: {_shown(event)}.")


def read_ops_event(body: bytes) -> Json:
    """Read an operator event.

    Raises:
        NotAnEventError: it is no such event.
    """
    event = _read_json(body)
    match event:
        case {"id": str(), "subject": str(), "time": str(), "type": str(kind), "data": dict()} if kind.startswith(
            "callfold.ops."
        ):
            return cast("Json", event)
    raise NotAnEventError(f"The message is no operator event: {_shown(event)}.")


def one_line(body: bytes) -> bytes:
    """Return the JSON of a published event on one line. Line ends occur only between its tokens."""
    return body.replace(b"\r", b" ").replace(b"\n", b" ")


def _read_json(body: bytes) -> object:
    try:
        return loads(body)
    except (ValueError, RecursionError) as error:
        raise NotAnEventError(f"The message is no JSON: {error}.") from None


def _shown(event: object) -> str:
    """Name an event by its id and type. Other values can be personal data."""
    if not isinstance(event, dict):
        return f"a JSON {type(event).__name__}"
    named = {name: event.get(name) for name in ("id", "type") if isinstance(event.get(name), str)}
    return str(named)[:_SHOWN_CHARACTERS]


def _is_record(data: Mapping[str, object]) -> bool:
    match data:
        case {
            "revision": int(revision),
            "started_at": str(started_at),
            "outcome": str(),
            "close_reason": str(),
            "complete": bool(),
            "talk_seconds": float() | int() | None,
            "agent": agent,
            "dialed": dialed,
            "other_legs": list(others),
        }:
            legs = [leg for leg in (agent, dialed, *others) if leg is not None]
            return revision > 0 and is_time(started_at) and all(map(_is_leg, legs))
    return False


def _is_leg(leg: object) -> bool:
    match leg:
        case {
            "call_id": str(),
            "guid": str() | None,
            "state": str(),
            "recorded": bool(),
            "picked_up_at": str() | None,
            "missed_at": str() | None,
            "hung_up_at": str() | None,
        }:
            return True
    return False
