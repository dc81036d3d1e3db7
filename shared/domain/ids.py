"""The names that tell sources, calls and recordings apart; what is none of these goes into no path, no key and no id."""

from __future__ import annotations

import re
from typing import NamedTuple, NewType

SourceName = NewType("SourceName", str)
"""A FocalScope system, as named in the sources file: `acme`."""

CallRef = NewType("CallRef", str)
"""A call within its source: the RequestID (`513`), or `call-<CallID>` where the dial API did not start it."""

SOURCE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
CALL_ID = re.compile(r"[0-9]{1,20}")
CALL_REF = re.compile(r"(?:call-)?[0-9]{1,20}")
# FocalScope's GUIDs carry no RFC 4122 version, so only their shape counts; in lower case.
GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Of the files of a leg: its GUID, or its CallID where it has none, or both where two legs have one GUID.
RECORDING_NAME = re.compile(r"[0-9A-Za-z-]{1,80}(\.[0-9]{1,20})?")


def is_call_ref(text: str) -> bool:
    """Tell whether a text can be the name of a call: `513`, `call-<CallID>`."""
    return CALL_REF.fullmatch(text) is not None


class CallKey(NamedTuple):
    """One call of one source; written `acme/513`."""

    source: SourceName
    call: CallRef

    def __str__(self) -> str:
        return f"{self.source}/{self.call}"
