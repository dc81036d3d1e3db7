"""The messages of the stream `endpoints.journal`: what the API manages, and which endpoints are disabled.

The console publishes the complete state after each change, under a lock. A forwarder that is answered 410 publishes a mark, which
holds until a later complete state is without it. The state is that of the last complete message, with the marks after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, cast

import orjson

from shared.config.endpoint_options import DEFAULT_FILTER

Table = Mapping[str, object]
"""An endpoint as it was given to the API, with its secrets."""

_STATE: Final = "state"
_DISABLED: Final = "disabled"


@dataclass(frozen=True, slots=True)
class DisabledMark:
    """An endpoint that has answered 410. The mark has no effect once the endpoint has another URL."""

    at: str
    detail: str
    url_digest: str


@dataclass(frozen=True, slots=True)
class ManagedEndpoints:
    """The state that the stream holds.

    Attributes:
        revision: number of the last complete state, 0 before the first one.
        tables: the endpoints that the API manages, by name.
        disabled: marks by name, also of endpoints of the file.
        patterns: every topic pattern that each name ever had, also of endpoints that were removed since.
    """

    revision: int = 0
    tables: Mapping[str, Table] = field(default_factory=dict)
    disabled: Mapping[str, DisabledMark] = field(default_factory=dict)
    patterns: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def removed(self) -> Mapping[str, frozenset[str]]:
        """The endpoints that were removed, with their patterns."""
        return {name: patterns for name, patterns in self.patterns.items() if name not in self.tables}

    def encode(self) -> bytes:
        """Encode this state as a complete message."""
        return orjson.dumps(
            {
                "v": 1,
                "kind": _STATE,
                "revision": self.revision,
                "endpoints": dict(self.tables),
                "disabled": {name: _as_json(mark) for name, mark in self.disabled.items()},
            }
        )

    def after(self, body: bytes) -> ManagedEndpoints:
        """Return the state after a message.

        Raises:
            ValueError: it is no message of this stream.
        """
        message = orjson.loads(body)
        match message:
            case {"v": 1, "kind": "state", "revision": int(revision), "endpoints": dict(tables), "disabled": dict(marks)}:
                if not all(isinstance(table, dict) for table in tables.values()):
                    raise ValueError("an endpoint is no object")
                disabled = {str(name): _mark(mark) for name, mark in marks.items()}
                named = cast("Mapping[str, Table]", tables)
                patterns = {name: self.patterns.get(name, frozenset()) | _patterns(table) for name, table in named.items()}
                return ManagedEndpoints(revision, named, disabled, {**self.patterns, **patterns})
            case {"v": 1, "kind": "disabled", "name": str(name), "mark": mark}:
                return replace(self, disabled={**self.disabled, name: _mark(mark)})
        raise ValueError("the message is no change of endpoints")


def encode_disabled(name: str, mark: DisabledMark) -> bytes:
    """Encode the mark of one endpoint as a message."""
    return orjson.dumps({"v": 1, "kind": _DISABLED, "name": name, "mark": _as_json(mark)})


def _as_json(mark: DisabledMark) -> Mapping[str, str]:
    return {"at": mark.at, "detail": mark.detail, "url_digest": mark.url_digest}


def _mark(value: object) -> DisabledMark:
    match value:
        case {"at": str(at), "detail": str(detail), "url_digest": str(url_digest)}:
            return DisabledMark(at, detail, url_digest)
    raise ValueError("the mark of a disabled endpoint cannot be read")


def _patterns(table: Table) -> frozenset[str]:
    """Return the topic patterns of an endpoint as it was given. Without a filter it has the default."""
    match table.get("filter"):
        case None:
            return frozenset(DEFAULT_FILTER)
        case str(pattern):
            return frozenset({pattern})
        case list() as patterns:
            return frozenset(map(str, patterns))
    return frozenset()
