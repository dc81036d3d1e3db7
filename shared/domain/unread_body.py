"""A callback whose body could not be understood, as a dead letter keeps it: with the bytes of its body.

It is an element of a message like a raw event, of a kind that no fold knows. So a worker of any version keeps it as it is.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from shared.domain.ids import SourceName
from shared.domain.raw_event import VERSION
from shared.domain.raw_types import UnreadBody

KIND: Final = "unread"


@dataclass(frozen=True, slots=True)
class UnreadCallback:
    """A callback with its raw query and body, both without the secret.

    Attributes:
        content_type: the header, '' without one.
        encoding: the Content-Encoding, '' without one.
        is_cut: whether the body had more bytes.
    """

    source: SourceName
    received_at: str
    query: str
    body: bytes
    content_type: str
    encoding: str = ""
    is_cut: bool = False

    def encode(self) -> bytes:
        """Return a JSON object, the body as base64 so that no byte of it changes."""
        fields: UnreadBody = {
            "v": VERSION,
            "kind": KIND,
            "source": self.source,
            "received_at": self.received_at,
            "query": self.query,
            "content_type": self.content_type,
            "content_encoding": self.encoding,
            "is_cut": self.is_cut,
            "body_base64": b64encode(self.body).decode(),
        }
        return orjson.dumps(fields)


def readable(message: bytes) -> bytes:
    """Return a message with each base64 body as text, under the name `body`; any other message as it is."""
    try:
        elements = orjson.loads(message)
    except orjson.JSONDecodeError:
        return message
    if not isinstance(elements, list) or not any(map(_is_unread, elements)):
        return message
    return orjson.dumps([_readable(element) if _is_unread(element) else element for element in elements])


def _is_unread(element: object) -> bool:
    return isinstance(element, dict) and element.get("kind") == KIND


def _readable(element: Mapping[str, object]) -> Mapping[str, object]:
    shown = {name: value for name, value in element.items() if name != "body_base64"}
    try:
        return shown | {"body": b64decode(str(element.get("body_base64"))).decode("utf-8", "backslashreplace")}
    except ValueError:
        return element
