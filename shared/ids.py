"""The names that tell sources and calls apart."""

from __future__ import annotations

import re
from typing import NamedTuple, NewType

SourceName = NewType("SourceName", str)
"""A FocalScope system, as named in the sources file: `acme`."""

CallRef = NewType("CallRef", str)
"""A call within its source: the RequestID (`513`), or `call-<CallID>` where the dial API did not start it."""


SOURCE_PATTERN = r"[a-z0-9][a-z0-9_-]{0,62}"
CALL_PATTERN = r"([0-9]{1,20}|call-[0-9]{1,20})"


def is_call_ref(text: str) -> bool:
    """Tell whether a text can be the name of a call: `513`, `call-<CallID>`."""
    return re.fullmatch(CALL_PATTERN, text) is not None


class CallKey(NamedTuple):
    """One call of one source; written `acme/513`."""

    source: SourceName
    call: CallRef

    def __str__(self) -> str:
        return f"{self.source}/{self.call}"
