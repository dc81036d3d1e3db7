"""One parsed callback: call type, event, ids and all other values of the adapter, each of them checked.

Only call type, event and CallID are needed. Any other value that cannot be read is ignored, and noted with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from operator import contains
from typing import NamedTuple, TypeVar

from shared.domain.adapter_link import Adapter, Placeholder
from shared.domain.callback_choice import choose
from shared.domain.callback_query import NEEDED, read_query, repaired, with_ids_alone
from shared.domain.callback_values import (
    MAX_DIGITS,
    MAX_WAIT_DIGITS,
    NO_GUIDS,
    TEXTS,
    are_some_null,
    is_null,
    is_unreplaced,
    read_bit,
    read_call_id,
    read_guid,
    read_name,
    read_wait_ms,
    read_whole,
    tidied,
)
from shared.domain.ids import GUID
from shared.domain.ignored import IgnoredValue, Reason
from shared.domain.leg_event import CALL_TYPES, EVENTS, CallType, LegEvent
from shared.domain.recording_link import is_link
from shared.errors import InvalidCallbackError

# Plain strings, because hashing an enum member runs Python code and this is the hot path of ingress.
_CALL_ID = Placeholder.CALL_ID.value
_REQUEST_ID = Placeholder.REQUEST_ID.value
_GUID_NAME = Placeholder.GUID.value
_IS_RECORDED = Placeholder.IS_RECORDED.value
_IS_ANSWERED = Placeholder.IS_ANSWERED.value
_TOTAL_WAIT_MS = Placeholder.TOTAL_WAIT_MS.value
_RECORDING_URL = Placeholder.RECORDING_URL.value
_CALL_TYPE = (Placeholder.CALL_TYPE_NAME.value, Placeholder.CALL_TYPE_CODE.value)
_EVENT = (Placeholder.EVENT_NAME.value, Placeholder.EVENT_CODE.value)
_BITS = frozenset({"0", "1"})
_UNREAD = frozenset({Reason.NOT_A_REQUEST_ID, Reason.NOT_A_GUID, Reason.NOT_A_BIT, Reason.NOT_MILLISECONDS})
_UNREPLACED = "arrived unreplaced: FocalScope sent the placeholder instead of its value"

_Known = TypeVar("_Known")


class Callback(NamedTuple):
    """A callback that can be folded.

    Attributes:
        recorded: False also if that is not known.
        extras: every other value that was sent, by placeholder name.
        ignored: the values that were not used as they were sent.
    """

    call_type: CallType
    event: LegEvent
    call_id: str
    request_id: int | None
    guid: str | None
    recorded: bool
    extras: Mapping[str, str]
    ignored: Sequence[IgnoredValue] = ()


def parse_callback(adapter: Adapter, query: str) -> Callback:
    """Parse and check the query string of a callback, without the secret.

    Raises:
        InvalidCallbackError: names the parameter that cannot be folded.
    """
    try:
        callback = _parse(adapter, query)
    except InvalidCallbackError:
        for each in (*repaired(query), with_ids_alone(adapter, query, NEEDED)):
            if each is None:
                continue
            with suppress(InvalidCallbackError):
                return _completed(adapter, each, _parse(adapter, each))
        raise
    return _completed(adapter, query, callback) if callback.ignored else callback


def _completed(adapter: Adapter, query: str, callback: Callback) -> Callback:
    """Return a callback with the ids that a fragment or another separator made unreadable: a call is found by them."""
    unread = {placeholder for placeholder, _, reason in callback.ignored if reason in _UNREAD}
    changed = with_ids_alone(adapter, query, unread) if unread else None
    if changed is not None:
        with suppress(InvalidCallbackError):  # what is behind the separator may contradict it
            completed = _parse(adapter, changed)
            if not any(placeholder in unread and reason in _UNREAD for placeholder, _, reason in completed.ignored):
                return completed
    return callback


def _parse(adapter: Adapter, query: str) -> Callback:
    """Parse a callback. This is the hot path of ingress: a usual value is recognised here, any other one by a function."""
    values, others, ignored, has_braces = read_query(adapter, query)
    if others or has_braces:
        choose(adapter, values, others, ignored)
    take = values.pop  # what is left has no attribute
    call_id = take(_CALL_ID, None)
    if call_id is None:
        raise _missing(adapter, _CALL_ID)
    if not (call_id.isdecimal() and call_id.isascii()) or len(call_id) > MAX_DIGITS:
        call_id = _call_id(adapter, call_id)
    name, code = take(_CALL_TYPE[0], ""), take(_CALL_TYPE[1], "")
    call_type = CALL_TYPES.get(name) or _named(adapter, _CALL_TYPE, (name, code), CALL_TYPES, ignored)
    if code and CALL_TYPES.get(code) is not call_type:
        _check_code(_CALL_TYPE, code, call_type, CALL_TYPES, ignored)
    name, code = take(_EVENT[0], ""), take(_EVENT[1], "")
    event = EVENTS.get(name) or _named(adapter, _EVENT, (name, code), EVENTS, ignored)
    if code and EVENTS.get(code) is not event:
        _check_code(_EVENT, code, event, EVENTS, ignored)
    request_id = take(_REQUEST_ID, None)
    guid = take(_GUID_NAME, None)
    recorded = take(_IS_RECORDED, "0")
    if len(values) > 0:
        _check_extras(values, ignored)
    return Callback(
        call_type,
        event,
        str(int(call_id)),
        None if request_id is None else _request_id(request_id, ignored),
        None if guid is None else _guid(guid, ignored),
        recorded == "1" if recorded in _BITS else _bit(recorded, ignored),
        values,
        ignored,
    )


def _call_id(adapter: Adapter, text: str) -> str:
    call_id = read_call_id(text)
    if call_id is not None:
        return call_id
    problem = f"is not a whole number of at most {MAX_DIGITS} digits"
    raise InvalidCallbackError(adapter.name_of(_CALL_ID), text, _UNREPLACED if is_unreplaced(_CALL_ID, text) else problem)


def _named(
    adapter: Adapter,
    placeholders: tuple[str, str],
    texts: tuple[str, str],
    known: Mapping[str, _Known],
    ignored: list[IgnoredValue],
) -> _Known:
    """Return the value of a name, or else of a code. If both are sent, the name counts, unless it cannot be read."""
    sent = [(placeholder, text) for placeholder, text in zip(placeholders, texts, strict=True) if text]
    read = [known.get(text) or read_name(text, known) for _, text in sent]
    value = next((each for each in read if each is not None), None)
    if value is not None:
        ignored += [_unread(*each, _unknown(placeholders)) for each in sent[: read.index(value)] if tidied(each[1])]
        return value
    if sent:
        problem = f"is not one of {', '.join(dict.fromkeys(map(str, known.values())))}"
        problem = _UNREPLACED if is_unreplaced(*sent[0]) else problem
        raise InvalidCallbackError(adapter.name_of(sent[0][0]), sent[0][1], problem, is_name=True)
    for placeholder, text, _ in ignored:
        if placeholder in placeholders:
            raise InvalidCallbackError(adapter.name_of(placeholder), text, _UNREPLACED, is_name=True)
    raise _missing(adapter, next(placeholder for placeholder in placeholders if adapter.parameter(placeholder)))


def _check_code(
    placeholders: tuple[str, str], code: str, counts: object, known: Mapping[str, object], ignored: list[IgnoredValue]
) -> None:
    """Record that a code is not that of the name, which counts."""
    value = read_name(code, known)
    if value is None and tidied(code):
        ignored.append(_unread(placeholders[1], code, _unknown(placeholders)))
    elif value is not None and value is not counts:
        ignored.append(IgnoredValue(placeholders[1], code, Reason.CONTRADICTS))


def _unread(placeholder: str, text: str, reason: Reason) -> IgnoredValue:
    """Return a value that its reader could not read, with the reason: it is a placeholder, or else the one given."""
    return IgnoredValue(placeholder, text, Reason.PLACEHOLDER if is_unreplaced(placeholder, text) else reason)


def _unknown(placeholders: tuple[str, str]) -> Reason:
    return Reason.NOT_A_CALL_TYPE if placeholders is _CALL_TYPE else Reason.NOT_AN_EVENT


def _request_id(text: str, ignored: list[IgnoredValue]) -> int | None:
    """Return the RequestID. 0 is none: as one, it would merge all calls that the dial API did not start into one call."""
    is_plain = text.isdecimal() and text.isascii() and len(text) <= MAX_DIGITS
    number = int(text) if is_plain else read_whole(text)
    if not number and tidied(text):
        ignored.append(_unread(_REQUEST_ID, text, Reason.NOT_A_REQUEST_ID))
    return number or None


def _guid(text: str, ignored: list[IgnoredValue]) -> str | None:
    guid = text.lower()
    if GUID.fullmatch(guid) and guid not in NO_GUIDS:
        return guid
    read = read_guid(text)
    if read is None and tidied(text):
        ignored.append(_unread(_GUID_NAME, text, Reason.NOT_A_GUID))
    return read


def _bit(text: str, ignored: list[IgnoredValue]) -> bool:
    bit = read_bit(text)
    if bit is None and tidied(text):
        ignored.append(_unread(_IS_RECORDED, text, Reason.NOT_A_BIT))
    return bit is True


def _check_extras(values: dict[str, str], ignored: list[IgnoredValue]) -> None:
    """Take out the values without an own attribute that cannot be read. Timestamps need the time of receipt: see `facts.py`."""
    answered = values.get(_IS_ANSWERED)
    if answered is not None and answered not in _BITS and read_bit(answered) is None:
        _take_out(values, _IS_ANSWERED, Reason.NOT_A_BIT, ignored)
    wait = values.get(_TOTAL_WAIT_MS)
    if (
        wait is not None
        and not (wait.isdecimal() and wait.isascii() and len(wait) <= MAX_WAIT_DIGITS)
        and read_wait_ms(wait) is None
    ):
        _take_out(values, _TOTAL_WAIT_MS, Reason.NOT_MILLISECONDS, ignored)
    url = values.get(_RECORDING_URL)
    if url is not None and not is_link(url):
        _take_out(values, _RECORDING_URL, Reason.NOT_A_URL, ignored)
    if any(map(contains, values.values(), values)):  # a placeholder that has lost its braces
        for name in [name for name, value in values.items() if is_unreplaced(name, value)]:
            _take_out(values, name, Reason.PLACEHOLDER, ignored)
    if are_some_null(values):
        for name in TEXTS.intersection(values):
            if is_null(values[name]):
                _take_out(values, name, Reason.NO_VALUE, ignored)


def _take_out(values: dict[str, str], name: str, reason: Reason, ignored: list[IgnoredValue]) -> None:
    value = values.pop(name)
    if tidied(value):
        ignored.append(_unread(name, value, reason))


def _missing(adapter: Adapter, placeholder: str) -> InvalidCallbackError:
    return InvalidCallbackError(adapter.name_of(placeholder), "", "is missing or empty")
