"""What a worker writes in the headers of a call event, so that a rebuild need not derive the call again.

A rebuild restores the summary of the last revision. If the replayed facts are those from which the revision was made, it is the
one in the header. Otherwise, and for an event without these headers, it comes from the record and the derived call.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

import orjson

FACTS_HEADER = "callfold-facts"
SUMMARY_HEADER = "callfold-summary"
# All headers of a message are in one frame, of 128 KiB.
_MAX_SUMMARY_CHARACTERS = 16 << 10
_DIGEST_BYTES = 16


class RevisionProof(NamedTuple):
    """The digest of the facts from which a revision was made, and its summary."""

    digest: str
    summary: str

    def holds_for(self, facts: Mapping[str, str]) -> bool:
        """Return whether the revision was made from exactly these facts."""
        return self.digest == digest_of(facts)

    def headers(self) -> dict[str, str]:
        """Return the headers of the revision's event."""
        if not self.digest or len(self.summary) > _MAX_SUMMARY_CHARACTERS:
            return {}
        return {FACTS_HEADER: self.digest, SUMMARY_HEADER: self.summary}


def digest_of(facts: Mapping[str, str]) -> str:
    """Return a digest of all facts of a call; '' if there is none."""
    try:
        return blake2b(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS), digest_size=_DIGEST_BYTES).hexdigest()
    except orjson.JSONEncodeError:  # half of a surrogate pair
        return ""


def read_proof(headers: Mapping[str, object]) -> RevisionProof | None:
    """Read the headers of a call event."""
    digest, summary = headers.get(FACTS_HEADER), headers.get(SUMMARY_HEADER)
    return RevisionProof(digest, summary) if isinstance(digest, str) and digest and isinstance(summary, str) else None
