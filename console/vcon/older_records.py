"""Records of previous releases, completed with the names that are new since. What they did not say is null."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from shared.domain.event_types import CallRecord, LegRecord
from shared.domain.leg_event import CallType

_LISTS = frozenset({"other_legs", "ignored", "annotations"})
_MAPPINGS = frozenset({"metadata", "fields"})


def completed(record: Mapping[str, Any]) -> CallRecord:
    """Return a record with every name of this release."""
    of_call = {**_empty(CallRecord), **record}
    kind = of_call["call_type"] or (None if of_call["request_id"] is None else CallType.API)
    dialed = {"call_type": CallType.OUTGOING, "number": (of_call["dial"] or {}).get("number")}
    of_call["agent"] = _leg(of_call["agent"], {"call_type": kind})
    of_call["dialed"] = _leg(of_call["dialed"], dialed)
    of_call["other_legs"] = [_leg(leg, {}) for leg in of_call["other_legs"]]
    return cast(CallRecord, of_call)


def _leg(leg: Mapping[str, Any] | None, follows: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a leg with every name; `follows` are values that the call has, if the leg has not."""
    return None if leg is None else {**_empty(LegRecord), **follows, **leg}


def _empty(kind: type) -> dict[str, Any]:
    return {name: [] if name in _LISTS else {} if name in _MAPPINGS else None for name in kind.__annotations__}
