"""The types and events of a leg, and the names and codes by which FocalScope sends them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class CallType(StrEnum):
    """Type of a leg (`CallTypeName`)."""

    INCOMING = "Incoming"
    OUTGOING = "Outgoing"
    INTERNAL = "Internal"
    LOGIN = "Login"
    API = "API"
    CONFERENCE = "Conference"


class LegEvent(StrEnum):
    """Event of a leg (`DialApiEventName`)."""

    START = "start"
    HANGUP = "hangup"
    PICKUP = "pickup"
    MISSED = "missed"


CALL_TYPE_CODES: Mapping[str, CallType] = {str(code): kind for code, kind in enumerate(CallType, start=1)}
EVENT_CODES: Mapping[str, LegEvent] = {str(code): event for code, event in enumerate(LegEvent)}
# The usual spellings, and those in lower case, by which `read_name` finds any other. A name can arrive as a code.
CALL_TYPES: Mapping[str, CallType] = {n: kind for kind in CallType for n in (kind.value, kind.value.lower())} | dict(
    CALL_TYPE_CODES
)
EVENTS: Mapping[str, LegEvent] = {event.value: event for event in LegEvent} | dict(EVENT_CODES)
