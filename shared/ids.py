"""The names that tell sources and calls apart."""

from __future__ import annotations

from typing import NamedTuple, NewType

SourceName = NewType("SourceName", str)
"""A FocalScope system, as named in the sources file: `acme`."""

CallRef = NewType("CallRef", str)
"""A call within its source: the RequestID (`513`), or `call-<CallID>` where the dial API did not start it."""


class CallKey(NamedTuple):
    """One call of one source; written `acme/513`."""

    source: SourceName
    call: CallRef

    def __str__(self) -> str:
        return f"{self.source}/{self.call}"
