"""Values of callbacks that could not be used, and why. They cost no call, and the record lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from shared.domain.adapter_link import TIMESTAMPS, Placeholder

FACT = "ignored."
"""Relative to its leg, the name of a fact is `ignored.<event>.<Placeholder>.<reason>`, and its value is the value as received."""
OLD_FACT = "nonsense."
"""The same of an earlier version, for timestamps alone: `nonsense.<Placeholder>`."""
_FACTS = (FACT, OLD_FACT)

WITH_FORM = frozenset(TIMESTAMPS) | {
    Placeholder.CALL_ID.value,
    Placeholder.REQUEST_ID.value,
    Placeholder.GUID.value,
    Placeholder.IS_RECORDED.value,
    Placeholder.IS_ANSWERED.value,
    Placeholder.TOTAL_WAIT_MS.value,
    Placeholder.CALL_TYPE_NAME.value,
    Placeholder.CALL_TYPE_CODE.value,
    Placeholder.EVENT_NAME.value,
    Placeholder.EVENT_CODE.value,
}
"""Placeholders whose values have a known form, and no separator of parameters in it."""


class Reason(StrEnum):
    """Why a value was not used as it was sent."""

    PLACEHOLDER = "placeholder"
    NOT_UTF8 = "not_utf8"
    SENT_TWICE = "sent_twice"
    NO_VALUE = "no_value"
    NOT_A_CALL_TYPE = "not_a_call_type"
    NOT_AN_EVENT = "not_an_event"
    NOT_A_REQUEST_ID = "not_a_request_id"
    NOT_A_GUID = "not_a_guid"
    NOT_A_BIT = "not_a_bit"
    NOT_A_TIME = "not_a_time"
    NOT_MILLISECONDS = "not_milliseconds"
    NOT_A_URL = "not_a_url"
    IN_URL = "in_url"
    CONTRADICTS = "contradicts"


class IgnoredValue(NamedTuple):
    """A value of one callback, decoded; for `not_utf8` it is still percent-encoded."""

    placeholder: str
    value: str
    reason: Reason


class IgnoredOfLeg(NamedTuple):
    """A value of one leg. `event` is None if several events can have sent it."""

    event: str | None
    placeholder: str
    value: str
    reason: str


def ignored_fact(event: str, ignored: IgnoredValue) -> tuple[str, str]:
    """Return the fact of an ignored value, relative to its leg. A RecordingURL is a credential, so its value is not kept."""
    value = "" if ignored.placeholder == Placeholder.RECORDING_URL else ignored.value
    return f"{FACT}{event}.{ignored.placeholder}.{ignored.reason}", value


def split_fact(name: str) -> tuple[str, str, str]:
    """Split `<event>.<Placeholder>.<reason>`."""
    event, _, rest = name.partition(".")
    placeholder, _, reason = rest.rpartition(".")
    return event, placeholder, reason


def read_ignored(facts: Mapping[str, str], contradicted: Iterable[tuple[str, str]]) -> tuple[IgnoredOfLeg, ...]:
    """Return what was ignored of one leg.

    `facts` have names relative to the leg. `contradicted` are timestamps that other facts of the leg contradict, by placeholder.
    """
    ignored = [IgnoredOfLeg(None, placeholder, at, Reason.CONTRADICTS) for placeholder, at in contradicted]
    for name in [name for name in facts if name.startswith(_FACTS)]:
        if name.startswith(FACT):
            event, placeholder, reason = split_fact(name.removeprefix(FACT))
            ignored.append(IgnoredOfLeg(event, placeholder, facts[name], reason))
        else:
            ignored.append(IgnoredOfLeg(None, name.removeprefix(OLD_FACT), facts[name], Reason.NOT_A_TIME))
    return tuple(sorted(ignored, key=_order))


def _order(ignored: IgnoredOfLeg) -> tuple[str, str, str, str]:
    return ignored.event or "", ignored.placeholder, ignored.reason, ignored.value
