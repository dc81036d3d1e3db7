"""UUIDs of version 8 (RFC 9562), which anyone can calculate from the host, the source, the call and its revision.

The draft has the layout of version 7, with a hash of a DNS name in place of the random bits. The name may be a subdomain, so that
UUIDs can be made in several places. Here it has one label for each part: `2.513.acme.calls.example.com`. One vCon has one name.

First come 48 bits of time, the start of the call in milliseconds. The 4 bits of the version and the bits 63 to 74 of the SHA-1 of
the name follow. Last come the 2 bits of the variant, and the first 62 bits of the SHA-1, as in the draft.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta

from shared.domain.ids import CallKey

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_SHA1_BITS = 160
_HIGH_BITS, _NEXT_BITS, _TIME_BITS = 62, 12, 48
_VERSION, _VARIANT = 8, 0b10


def vcon_uuid(host: str, key: CallKey, revision: int, started_at: str) -> str:
    """Return the UUID of the vCon of a revision that began at `started_at` (RFC 3339)."""
    name = f"{revision}.{key.call}.{key.source}.{host}"
    digest = int.from_bytes(hashlib.sha1(name.encode(), usedforsecurity=False).digest())
    high = digest >> (_SHA1_BITS - _HIGH_BITS)
    following = digest >> (_SHA1_BITS - _HIGH_BITS - _NEXT_BITS) & (1 << _NEXT_BITS) - 1
    at_ms = (datetime.fromisoformat(started_at) - _EPOCH) // _MILLISECOND & (1 << _TIME_BITS) - 1
    return str(uuid.UUID(int=at_ms << 80 | _VERSION << 76 | following << 64 | _VARIANT << 62 | high))


def person_uuid(host: str, source: str, user_id: str) -> str:
    """Return the UUID of an agent, which is the same in all calls."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{user_id}.agent.{source}.{host}"))
