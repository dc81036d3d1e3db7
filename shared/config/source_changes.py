"""What differs between two states of the sources, without any secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import SecretStr

from shared.config.sources import Source, Sources
from shared.domain.adapter_link import Adapter

_CHANGED = "changed"
# It comes from `recording_origin`, or else from `recording_url`.
_LOGIN, _ORIGIN, _URL = "recording_login", "recording_origin", "recording_url"


@dataclass(frozen=True, slots=True)
class SourceChanges:
    """The differences between two states.

    Attributes:
        changed: by source and key what differs, such as `"DK" -> "SE"`; of secrets and links only that they changed.
    """

    added: list[str] = field(default_factory=list)
    changed: dict[str, dict[str, str]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def keys_by_source(self) -> Mapping[str, str]:
        """Return the keys that changed of each source, without their values.

        They are one text: the log would take a list that begins with `secret` for a name and its value, and mask the second key.
        """
        return {source: ", ".join(keys) for source, keys in self.changed.items()}


def changes_between(before: Sources, after: Sources) -> SourceChanges:
    """Compare two states of the sources."""
    differences = {str(name): _of_source(before[name], source) for name, source in after.items() if name in before}
    return SourceChanges(
        added=[str(name) for name in after if name not in before],
        changed={name: keys for name, keys in differences.items() if keys},
        removed=[str(name) for name in before if name not in after],
    )


def _of_source(before: Source, after: Source) -> dict[str, str]:
    pairs = {key: (getattr(before, key), getattr(after, key)) for key in Source.model_fields}
    changed = {key: _described(old, new) for key, (old, new) in pairs.items() if old != new}
    if changed.pop(_LOGIN, None) and _URL not in changed:
        changed[_ORIGIN] = _CHANGED
    return changed


def _described(old: object, new: object) -> str:
    return _CHANGED if _is_secret(old) or _is_secret(new) else f"{_shown(old)} -> {_shown(new)}"


def _is_secret(value: object) -> bool:
    return isinstance(value, (SecretStr, Adapter)) or (isinstance(value, tuple) and any(map(_is_secret, value)))


def _shown(value: object) -> str:
    """Return a value as the file could have it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value:g}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, frozenset):
        return _shown(tuple(sorted(value)))
    return f'"{value}"'
