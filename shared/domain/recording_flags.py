"""Flags of a recording: what is unusual about one that is stored, or where the file of one that is not stored was put."""

from __future__ import annotations

from enum import StrEnum


class Flag(StrEnum):
    """Facts about a recording that are unusual. Its event and its sidecar list them, sorted."""

    ACCEPTED = "accepted"
    CHUNK_SIZES = "chunk_sizes"
    HEADER_CHANGED = "header_changed"
    LEADING_BYTES = "leading_bytes"
    MORE_AUDIO = "more_audio"
    RIFF_SIZE = "riff_size"
    SHORTER_THAN_CALL = "shorter_than_call"
    SIZES_OUTDATED = "sizes_outdated"
    SIZE_UNKNOWN = "size_not_told"
    TRAILING_BYTES = "trailing_bytes"
