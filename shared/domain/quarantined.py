"""The messages of the stream `callbacks.quarantine`: callbacks that were refused, and counts of refusals.

A stranger can have sent any of them. The secret of no source is in them, however it is spelled.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum

import orjson

from callfold_client.envelope import is_time
from shared.domain.raw_event import VERSION

_CALLBACK, _COUNTS = "quarantined", "refusals"


class Refusal(StrEnum):
    """Why ingress refused a request and kept no callback of it. The names are those of the metric, so they never change."""

    WRONG_SECRET = "wrong_secret"  # noqa: S105 - a reason, no secret
    UNKNOWN_SOURCE = "unknown_source"
    WRONG_METHOD = "wrong_method"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TOO_SLOW = "body_too_slow"
    BODY_UNREADABLE = "body_unreadable"
    LINE_TOO_LONG = "line_too_long"
    HEADERS_TOO_LONG = "headers_too_long"
    NOT_HTTP = "not_http"
    LIMITED = "limited"
    UNAVAILABLE = "unavailable"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class QuarantinedCallback:
    """A callback with a wrong secret or an unknown source.

    Attributes:
        id: unique, so that it is redriven once.
        reason: WRONG_SECRET or UNKNOWN_SOURCE.
        source: the name in its path, '' if the path has none.
        peer: address of the sender.
        query: its parameters, those of a readable body included, without the secret.
        secret_of: the source whose secret it had, '' if of none that was configured.
        body: a body that could not be read as parameters; empty if there was none.
    """

    id: str
    reason: str
    source: str
    peer: str
    received_at: str
    query: str
    secret_of: str = ""
    content_type: str = ""
    body: bytes = b""

    def encode(self) -> bytes:
        fields: dict[str, object] = {"v": VERSION, "kind": _CALLBACK, **asdict(self)}
        del fields["body"]
        return orjson.dumps(fields | ({"body_base64": b64encode(self.body).decode()} if self.body else {}))


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """A number of requests refused for one reason. `source` is '' unless it is configured; `peer` sent the last of them."""

    reason: str
    source: str
    count: int
    peer: str


@dataclass(frozen=True, slots=True)
class RefusalCounts:
    """The refusals of one ingress since its last message."""

    received_at: str
    counts: tuple[RefusalCount, ...]


def encode_counts(received_at: str, counts: Iterable[RefusalCount]) -> bytes:
    fields = {"v": VERSION, "kind": _COUNTS, "received_at": received_at, "counts": [asdict(each) for each in counts]}
    return orjson.dumps(fields)


def may_be_counts(body: bytes) -> bool:
    """Return whether a message may be counts, which is known much sooner than decoding it."""
    return b'"refusals"' in body[:64]


def decode_quarantined(body: bytes) -> QuarantinedCallback | RefusalCounts | None:
    """Read a message; None if it is of another kind, as of a later release. It never raises."""
    try:
        fields = orjson.loads(body)
        if not is_time(fields["received_at"]):
            return None
        if fields["kind"] == _CALLBACK:
            texts = {name: str(fields[name]) for name in _TEXTS}
            return QuarantinedCallback(**texts, body=b64decode(fields.get("body_base64", "")))
        if fields["kind"] == _COUNTS:
            return RefusalCounts(fields["received_at"], tuple(_count(each) for each in fields["counts"]))
    except (ValueError, TypeError, KeyError):
        return None
    return None


_TEXTS = ("id", "reason", "source", "peer", "received_at", "query", "secret_of", "content_type")


def _count(fields: dict[str, object]) -> RefusalCount:
    return RefusalCount(str(fields["reason"]), str(fields["source"]), int(str(fields["count"])), str(fields["peer"]))
