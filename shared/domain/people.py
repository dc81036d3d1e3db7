"""The people on a call, as far as the adapter or the dial request names them. What is unknown is None, never guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from shared.domain.adapter_link import Placeholder
from shared.domain.call import Call
from shared.domain.leg import Leg
from shared.domain.leg_event import CallType
from shared.masking import mask_value

_EXTENSION = re.compile(r"[0-9]{1,15}")
_MAX_CHARACTERS = 256
# Where FocalScope names the far party of a leg. DID is the line of an incoming call, and so our own number. The far party of an
# API leg is the dialed one, which has another leg. A login has no far party, and a conference has many.
_FAR_PARTY: Mapping[CallType, tuple[Placeholder, ...]] = {
    CallType.INCOMING: (Placeholder.CALLER_ID,),
    CallType.OUTGOING: (Placeholder.CALLER_ID, Placeholder.DID),
    CallType.INTERNAL: (Placeholder.CALLER_ID,),
}


class Person(NamedTuple):
    """The person on a leg.

    Attributes:
        extension, name, user_id: of the agent. None for a dialed leg.
        number: phone number of the far party.
    """

    extension: str | None = None
    name: str | None = None
    user_id: str | None = None
    number: str | None = None


def person_of(call: Call, leg: Leg) -> Person:
    """Return the person on a leg of a call. Credentials are masked."""
    number = _first(leg, *_FAR_PARTY.get(leg.call_type, ()))
    if call.is_pair and leg.call_type is CallType.OUTGOING:
        return Person(number=_dialed_number(call) or number)
    person = _responder(leg, number)
    if not call.is_pair or leg.call_type is not CallType.API:
        return person
    extension = _dialing_extension(call)
    if person == Person() and leg is call.agent and call.dialed is not None:
        # On the dialed leg FocalScope names the agent who dials.
        dialing = _responder(call.dialed)
        person = dialing if extension in {None, dialing.extension or extension} else person
    return person if person.extension else person._replace(extension=extension)


def _responder(leg: Leg, number: str | None = None) -> Person:
    """Return the agent that FocalScope names on a leg."""
    if not leg.fields:
        return Person(number=number)
    return Person(
        _first(leg, Placeholder.AGENT_EXTENSION), _first(leg, Placeholder.AGENT), _first(leg, Placeholder.USER_ID), number
    )


def queue_of(call: Call) -> str | None:
    """Return the name of the queue, by the legs that represent the sides."""
    return next((name for leg in (call.dialed, call.agent) if leg and (name := _first(leg, Placeholder.QUEUE))), None)


def _dialing_extension(call: Call) -> str | None:
    """Return the extension of the dial request. If several agents were called, it is unknown which of them has it."""
    extension = call.dial.get("agent", "")
    return extension if _EXTENSION.fullmatch(extension) and _is_only_one(call, CallType.API) else None


def _dialed_number(call: Call) -> str | None:
    """Return the number of the dial request. If several legs were dialed, it is unknown which of them has it."""
    number = call.dial.get("number", "")
    return mask_value("number", number) if number and _is_only_one(call, CallType.OUTGOING) else None


def _is_only_one(call: Call, kind: CallType) -> bool:
    return [leg.call_type for leg in call.legs].count(kind) == 1


def _first(leg: Leg, *placeholders: Placeholder) -> str | None:
    """Return the first of these values that the leg has. A long one is no name and no number; it is in the leg's `fields`."""
    for name in placeholders:
        value = leg.fields.get(name, "").strip()
        if 0 < len(value) <= _MAX_CHARACTERS:
            return mask_value(name, value)
    return None
