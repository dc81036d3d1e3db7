"""Several values of one placeholder in a callback: which of them counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from shared.domain.adapter_link import TIMESTAMPS, Adapter, Placeholder
from shared.domain.callback_query import NEEDED
from shared.domain.callback_values import (
    TEXTS,
    core,
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
from shared.domain.ignored import IgnoredValue, Reason
from shared.domain.leg_event import CALL_TYPES, EVENTS
from shared.domain.recording_link import read_link
from shared.errors import InvalidCallbackError

_READERS: Mapping[str, Callable[[str], object]] = {
    Placeholder.CALL_ID.value: read_call_id,
    Placeholder.REQUEST_ID.value: lambda text: read_whole(text) or None,
    Placeholder.GUID.value: read_guid,
    Placeholder.IS_RECORDED.value: read_bit,
    Placeholder.IS_ANSWERED.value: read_bit,
    Placeholder.TOTAL_WAIT_MS.value: read_wait_ms,
    Placeholder.RECORDING_URL.value: read_link,
    **dict.fromkeys(TIMESTAMPS, lambda text: text if core(text)[:1].isdecimal() and core(text).strip("0") else None),
    **dict.fromkeys(
        (Placeholder.CALL_TYPE_NAME.value, Placeholder.CALL_TYPE_CODE.value), lambda text: read_name(text, CALL_TYPES)
    ),
    **dict.fromkeys((Placeholder.EVENT_NAME.value, Placeholder.EVENT_CODE.value), lambda text: read_name(text, EVENTS)),
    **dict.fromkeys(TEXTS, lambda text: None if is_null(text) or not tidied(text) else text),
}
"""Reads a value, or returns None. It chooses between several values of one placeholder."""


def choose(adapter: Adapter, values: dict[str, str], others: Sequence[tuple[str, str]], ignored: list[IgnoredValue]) -> None:
    """Leave one value of each placeholder: the first that is usable. The others are ignored.

    Raises:
        InvalidCallbackError: call type, event or CallID was sent twice with different values, and both can be read.
    """
    for name in list(values):
        candidates = dict.fromkeys([values[name], *(value for other, value in others if other == name)])
        read = _READERS.get(name, _not_blank)
        has_form = name in _READERS and name not in TEXTS
        unreplaced = [value for value in candidates if not (has_form and read(value) is not None) and is_unreplaced(name, value)]
        ignored.extend(IgnoredValue(name, value, Reason.PLACEHOLDER) for value in unreplaced)
        replaced = [value for value in candidates if value not in unreplaced]
        if not replaced:
            if name != Placeholder.CALL_ID.value:  # its error needs the value
                del values[name]
            continue
        chosen = next((value for value in replaced if read(value) is not None), replaced[0])
        values[name] = chosen
        not_used: list[str] = []
        for other in replaced:
            if other == chosen or (read(other) is not None and read(other) == read(chosen)):
                continue
            if name in NEEDED and read(other) is not None:
                raise InvalidCallbackError(adapter.name_of(name), other, "was sent twice with different values")
            if tidied(other):
                not_used.append(other)
        if not_used:  # one value, since they become one fact
            ignored.append(IgnoredValue(name, ", ".join(not_used), Reason.SENT_TWICE))


def _not_blank(text: str) -> str | None:
    return text if tidied(text) else None
