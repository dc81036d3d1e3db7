"""One parsed callback: call type, event, ids and all other values of the adapter, each of them checked."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, TypeVar

from shared.domain.adapter_link import Adapter, Placeholder
from shared.domain.callback_query import read_query
from shared.domain.ids import GUID
from shared.errors import InvalidCallbackError


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
_CALL_TYPE_NAMES: Mapping[str, CallType] = {name: kind for kind in CallType for name in (kind.value, kind.value.lower())}
_EVENT_NAMES: Mapping[str, LegEvent] = {name: e for e in LegEvent for name in (e.value, e.value.upper(), e.value.title())}
_BITS: Mapping[str, bool] = {"1": True, "0": False}

_MAX_DIGITS = 18  # fits a signed 64-bit integer

# Plain strings, because hashing an enum member runs Python code and this is the hot path of ingress.
_CALL_ID = Placeholder.CALL_ID.value
_REQUEST_ID = Placeholder.REQUEST_ID.value
_GUID_NAME = Placeholder.GUID.value
_IS_RECORDED = Placeholder.IS_RECORDED.value
_CALL_TYPE = ((Placeholder.CALL_TYPE_NAME.value, _CALL_TYPE_NAMES), (Placeholder.CALL_TYPE_CODE.value, CALL_TYPE_CODES))
_EVENT = ((Placeholder.EVENT_NAME.value, _EVENT_NAMES), (Placeholder.EVENT_CODE.value, EVENT_CODES))

UNDERSTOOD = frozenset({_CALL_ID, _REQUEST_ID, _GUID_NAME, _IS_RECORDED, *dict(_CALL_TYPE), *dict(_EVENT)})
"""Placeholders that have an attribute in `Callback`; all others are its `extras`."""

_Known = TypeVar("_Known")


class Callback(NamedTuple):
    """A callback that can be folded. `extras` holds every other value that was sent, by placeholder name."""

    call_type: CallType
    event: LegEvent
    call_id: str
    request_id: int | None
    guid: str | None
    recorded: bool
    extras: Mapping[str, str]


def parse_callback(adapter: Adapter, query: str) -> Callback:
    """Parse and check the query string of a callback, without the secret.

    Raises:
        InvalidCallbackError: names the parameter that cannot be folded.
    """
    values = read_query(adapter, query)
    call_id = values.get(_CALL_ID)
    if call_id is None:
        raise _missing(adapter, _CALL_ID)
    request_id = values.get(_REQUEST_ID)
    guid = values.get(_GUID_NAME)
    return Callback(
        call_type=_named(adapter, values, _CALL_TYPE),
        event=_named(adapter, values, _EVENT),
        call_id=str(_integer(adapter, _CALL_ID, call_id)),
        # 0 is not a RequestID. As one, it would merge all calls that the dial API did not start into one call.
        request_id=None if request_id is None else _integer(adapter, _REQUEST_ID, request_id) or None,
        guid=None if guid is None else _guid(adapter, guid),
        recorded=_bit(adapter, _IS_RECORDED, values),
        extras={name: value for name, value in values.items() if name not in UNDERSTOOD},
    )


def _named(adapter: Adapter, values: Mapping[str, str], choices: tuple[tuple[str, Mapping[str, _Known]], ...]) -> _Known:
    """Return the value of a name, or else of a code; if both are sent, the name counts."""
    for placeholder, known in choices:
        text = values.get(placeholder)
        if text is None:
            continue
        value = known.get(text)
        if value is None:
            problem = f"is not one of {', '.join(dict.fromkeys(map(str, known.values())))}"
            raise InvalidCallbackError(_name(adapter, placeholder), text, problem, is_name=True)
        return value
    raise _missing(adapter, next(placeholder for placeholder, _ in choices if adapter.parameter(placeholder)))


def _integer(adapter: Adapter, placeholder: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > _MAX_DIGITS:
        raise InvalidCallbackError(_name(adapter, placeholder), text, f"is not a whole number of at most {_MAX_DIGITS} digits")
    return int(text)


def _guid(adapter: Adapter, text: str) -> str:
    guid = text.lower()
    if not GUID.fullmatch(guid):
        raise InvalidCallbackError(_name(adapter, _GUID_NAME), text, "is not a GUID (8-4-4-4-12 hex digits)")
    return guid


def _bit(adapter: Adapter, placeholder: str, values: Mapping[str, str]) -> bool:
    text = values.get(placeholder)
    if text is None:
        return False
    if text not in _BITS:
        raise InvalidCallbackError(_name(adapter, placeholder), text, "is not 0, 1 or empty")
    return _BITS[text]


def _missing(adapter: Adapter, placeholder: str) -> InvalidCallbackError:
    return InvalidCallbackError(_name(adapter, placeholder), "", "is missing or empty")


def _name(adapter: Adapter, placeholder: str) -> str:
    return adapter.parameter(placeholder) or placeholder
