"""One recording as its sidecar describes it: its state, the fields of its event, and the marks of retention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.domain.event_types import Encryption, RecordingOutcome
from shared.domain.recording import RecordingState

RECORDING_EVENT_FIELDS = ("uri", "bytes", "sha256", "seconds", "channels", "sample_rate", "encryption", "attempts", "reason")
"""Fields of a recording's event, besides those that identify its call and leg."""
SCHEMA = 1
"""Version of the schema that events of recordings name."""
HASH_DIGITS = 8
"""Length of the SHA-256 prefix that distinguishes the contents of one leg in file names and event ids."""
OTHER_CONTENT = "other_content"
"""`reason` of a further recording of a leg, whose content differs from the first."""
UNLISTED = "found"
"""`reason` of a file that was in the archive, but in no sidecar."""

_STATES = frozenset(RecordingState)
_FIELD_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("state", "at", "uri", "sha256", "sha512", "reason", "stored_sha256", "stored_sha512", "suffix"), str),
    **dict.fromkeys(("bytes", "channels", "sample_rate", "attempts", "stored_bytes", "schema"), int),
    "seconds": (int, float),
    "encryption": dict,
    **dict.fromkeys(("was", "expired_at", "record_expired_at", "kept"), str),
    **dict.fromkeys(("missing", "flags"), list),
}


@dataclass(frozen=True, slots=True)
class RecordingInfo:
    """One recording of a leg. Attributes have the names of the JSON fields; a field that is None is not written.

    Attributes:
        state: None only for a further recording of a leg, which is then stored.
        at: time of the recording's event, or of the last attempt.
        bytes, sha256, sha512: of the audio; `stored_bytes`, `stored_sha256` and `stored_sha512` of the encrypted file. Sidecars
            of previous releases have no SHA-512.
        suffix: end of the event id, if it is not the usual one; see `event_suffix`.
        was: state before retention set `expiring`.
        missing: names of files that retention did not find in the archive.
        flags: what is unusual about the recording, see `recording_flags.py`. None in sidecars of previous releases.
        kept: URI of the file that was refused, if it was kept.
        schema: version of the schema that its event names. None in sidecars of previous releases, whose events name none.
        is_complete: the JSON has all of `RECORDING_EVENT_FIELDS`, null if unknown.
        other_fields: fields with an unknown name or a wrong type, kept as they are.
    """

    state: RecordingState | None = None
    at: str | None = None
    uri: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    seconds: float | None = None
    channels: int | None = None
    sample_rate: int | None = None
    encryption: Encryption | None = None
    attempts: int | None = None
    reason: str | None = None
    stored_bytes: int | None = None
    stored_sha256: str | None = None
    suffix: str | None = None
    was: RecordingState | None = None
    expired_at: str | None = None
    record_expired_at: str | None = None
    missing: tuple[str, ...] | None = None
    flags: tuple[str, ...] | None = None
    kept: str | None = None
    sha512: str | None = None
    stored_sha512: str | None = None
    schema: int | None = None
    is_complete: bool = False
    other_fields: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RecordingInfo:
        """Read an entry of a sidecar, whichever version of Callfold wrote it."""
        known = {name: value for name, value in data.items() if _is_known(name, value)}
        is_complete = data.keys() >= set(RECORDING_EVENT_FIELDS)
        nulls = set(RECORDING_EVENT_FIELDS) if is_complete else set()
        other_fields = {
            name: value for name, value in data.items() if name not in known and not (value is None and name in nulls)
        }
        for name in {"state", "was"} & known.keys():
            known[name] = RecordingState(known[name])
        for name in {"missing", "flags"} & known.keys():
            known[name] = tuple(known[name])
        return cls(**known, is_complete=is_complete, other_fields=other_fields)

    def to_json(self) -> dict[str, object]:
        nulls = dict.fromkeys(RECORDING_EVENT_FIELDS) if self.is_complete else {}
        known = {name: getattr(self, name) for name in _FIELD_TYPES}
        return {**nulls, **self.other_fields, **{name: value for name, value in known.items() if value is not None}}

    def event_data(self) -> RecordingOutcome:
        """Return the fields of the event. One of a previous release has no flags or no SHA-512, and keeps its body."""
        data: RecordingOutcome = {
            "uri": self.uri,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "seconds": self.seconds,
            "channels": self.channels,
            "sample_rate": self.sample_rate,
            "encryption": self.encryption,
            "attempts": self.attempts,
            "reason": self.reason,
        }
        if self.sha512 is not None:
            data["sha512"] = self.sha512
        if self.flags is not None:
            data["flags"] = self.flags
        if self.kept is not None:
            data["kept"] = self.kept
        return data

    @property
    def is_stored(self) -> bool:
        return self.state is RecordingState.STORED or (self.state is None and "state" not in self.other_fields)

    @property
    def event_suffix(self) -> str:
        """Return the end of the id of the `stored` event: one id never has two bodies."""
        if self.suffix is not None:
            return self.suffix
        return f"/{self.sha256}"[: 1 + HASH_DIGITS] if self.reason == OTHER_CONTENT else ""

    @property
    def file_bytes(self) -> int | None:
        """Return the size of the file, encrypted or not."""
        return self.bytes if self.stored_bytes is None else self.stored_bytes

    @property
    def file_sha256(self) -> str | None:
        """Return the SHA-256 of the file, encrypted or not."""
        return self.sha256 if self.stored_sha256 is None else self.stored_sha256

    @property
    def file_sha512(self) -> str | None:
        """Return the SHA-512 of the file, encrypted or not. None if a previous release stored it."""
        return self.sha512 if self.stored_bytes is None else self.stored_sha512


def _is_known(name: str, value: object) -> bool:
    kind = _FIELD_TYPES.get(name)
    return kind is not None and isinstance(value, kind) and (name not in {"state", "was"} or value in _STATES)
