"""Trace contexts: which ids the spans of a call have, and how contexts travel in headers.

Every span of a call is in one trace, whose id follows from the source and the call. So every process knows it, and a sampler
that decides by the trace id takes all spans of a call, or none. The ids of the call's own span and of its events follow from
their names too. A worker that takes over a publication thus repeats its bytes.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple, NewType

TraceId = NewType("TraceId", int)
SpanId = NewType("SpanId", int)

TRACEPARENT = "traceparent"
"""Name of the header of a message, and of the CloudEvents extension attribute (W3C Trace Context)."""

CREATION_CONTEXTS = "creation_contexts"
"""Header of a message of callbacks: the contexts of those that are traced. See `pack`."""

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f][13579bdf]", re.ASCII)
_ENTRY = Struct(">H16s8s")
# The header of a message must fit in a frame. Callfold writes at most 500 entries.
_MAX_ENTRIES = 1000


class TraceContext(NamedTuple):
    """A span as its successors know it. Only spans that are sampled have one."""

    trace_id: TraceId
    span_id: SpanId

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"


def parse_context(text: object) -> TraceContext | None:
    """Read a `traceparent`; None if it is none, or is not sampled."""
    match = _TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    context = TraceContext(TraceId(int(match[1], 16)), SpanId(int(match[2], 16)))
    return context if all(context) else None


def trace_of(call: str) -> TraceId:
    """Return the trace of a call, such as `acme/513`."""
    return TraceId(_hashed(call, 16))


def span_of(name: str) -> SpanId:
    """Return the span whose name is unique, such as that of an event by its id."""
    return SpanId(_hashed(name, 8))


def root_of(call: str) -> TraceContext:
    """Return the span of a call itself."""
    return TraceContext(trace_of(call), span_of(call))


def _hashed(name: str, size: int) -> int:
    # Zero is no valid id.
    return int.from_bytes(blake2b(name.encode(), digest_size=size, person=b"callfold-trace").digest()) or 1


def pack(contexts: Mapping[int, TraceContext]) -> str:
    """Encode the contexts of events by their position in a message: 26 bytes each, in Base64."""
    rows = (
        _ENTRY.pack(position, context.trace_id.to_bytes(16), context.span_id.to_bytes(8))
        for position, context in contexts.items()
    )
    return b64encode(b"".join(rows)).decode()


def unpack(header: object) -> dict[int, TraceContext]:
    """Decode the contexts of a message; none if the header is missing or damaged."""
    if not isinstance(header, str):
        return {}
    try:
        packed = b64decode(header, validate=True)
    except (binascii.Error, ValueError):
        return {}
    if len(packed) % _ENTRY.size or len(packed) > _MAX_ENTRIES * _ENTRY.size:
        return {}
    return {
        position: TraceContext(TraceId(int.from_bytes(trace_id)), SpanId(int.from_bytes(span_id)))
        for position, trace_id, span_id in _ENTRY.iter_unpack(packed)
        if any(trace_id) and any(span_id)
    }


def pack_joined(parts: Mapping[int, object]) -> str:
    """Join the headers of messages whose events become one message, by the position of the first event of each."""
    contexts = {first + position: context for first, header in parts.items() for position, context in unpack(header).items()}
    return pack(contexts) if contexts else ""
