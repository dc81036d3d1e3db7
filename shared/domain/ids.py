"""Names of sources, calls and recordings. No other text becomes part of a path, a key or an id."""

from __future__ import annotations

import re
from typing import NamedTuple, NewType

SourceName = NewType("SourceName", str)
"""Name of a FocalScope system in the sources file, such as `acme`."""

CallRef = NewType("CallRef", str)
"""Name of a call within its source: the RequestID (`513`), or `call-<CallID>` if the dial API did not start the call.

Later calls with the same RequestID or CallID, of a PBX that was reset, are `513.2`, `513.3` (see `uses.py`). If an id is used
again long after, the history renames the old call to `513~20261123` (`console/history/writes.py`).
"""

SOURCE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
CALL_ID = re.compile(r"[0-9]{1,20}")
CALL_REF = re.compile(r"(?:call-)?[0-9]{1,20}(?:\.(?:[2-9]|[1-9][0-9]{1,4}))?(?:~[0-9]{8})?")
# GUIDs of FocalScope have no RFC 4122 version, so only their shape is checked, in lower case.
GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Name of a leg's files: its GUID, or its CallID if it has no GUID, or both if two legs have the same GUID.
RECORDING_NAME = re.compile(r"[0-9A-Za-z-]{1,80}(\.[0-9]{1,20})?")


def is_call_ref(text: str) -> bool:
    """Return whether a text can be the name of a call: `513`, `call-<CallID>`, `513.2`."""
    return CALL_REF.fullmatch(text) is not None


def use_number(call: str) -> int:
    """Return which use of its RequestID or CallID a call is: 1 for `513`, 2 for `513.2`."""
    return int(call.partition(".")[2] or 1)


def first_use(call: str) -> CallRef:
    """Return the call at which the facts of all uses arrive: `513` for `513.2`."""
    return CallRef(call.partition(".")[0])


def later_use(call: str, number: int) -> CallRef:
    """Return a use of the RequestID or CallID of a call: `513.2`."""
    return CallRef(f"{first_use(call)}.{number}") if number > 1 else first_use(call)


def is_request_id(call: str) -> bool:
    """Return whether a call is named by a RequestID of the dial API, and not by a CallID."""
    request_id = call.partition(".")[0]
    return request_id.isascii() and request_id.isdigit()


class CallKey(NamedTuple):
    """One call of one source; written `acme/513`."""

    source: SourceName
    call: CallRef

    def __str__(self) -> str:
        return f"{self.source}/{self.call}"
