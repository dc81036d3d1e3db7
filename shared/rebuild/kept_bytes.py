"""Bytes that a rebuild keeps until it needs them: in memory, and beyond some size in a file that has no name."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Self

_IN_MEMORY_BYTES = 64 << 20
_BLOCK_BYTES = 256 << 10
_LENGTH_BYTES = 4


class KeptBytes:
    """Keeps texts, each of which is found by its position."""

    def __init__(self, directory: Path | None = None) -> None:
        """Prepare; `directory` is where a file is made."""
        self._file = SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=None if directory is None else str(directory))  # noqa: SIM115
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, text: bytes) -> int:
        """Keep a text; returns its position."""
        position = self._end
        self._file.seek(position)
        self._file.write(len(text).to_bytes(_LENGTH_BYTES, "big") + text)
        self._end += _LENGTH_BYTES + len(text)
        return position

    def get(self, position: int) -> bytes:
        """Return the text at a position."""
        self._file.seek(position)
        return self._file.read(int.from_bytes(self._file.read(_LENGTH_BYTES), "big"))

    def __iter__(self) -> Iterator[bytes]:
        """Return all texts in the order in which they were added."""
        position = 0
        while position < self._end:
            text = self.get(position)
            yield text
            position += _LENGTH_BYTES + len(text)


class KeptMessages:
    """Keeps the bodies of messages in their order, compressed."""

    def __init__(self, directory: Path | None = None) -> None:
        self._blocks = KeptBytes(directory)
        self._open: list[bytes] = []
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._blocks.__exit__(kind, error, trace)

    def add(self, body: bytes) -> None:
        self._open.append(len(body).to_bytes(_LENGTH_BYTES, "big") + body)
        self._size += len(body)
        if self._size >= _BLOCK_BYTES:
            self._close_block()

    def __iter__(self) -> Iterator[bytes]:
        self._close_block()
        for block in self._blocks:
            text = zlib.decompress(block)
            at = 0
            while at < len(text):
                length = int.from_bytes(text[at : at + _LENGTH_BYTES], "big")
                yield text[at + _LENGTH_BYTES : at + _LENGTH_BYTES + length]
                at += _LENGTH_BYTES + length

    def _close_block(self) -> None:
        if self._open:
            self._blocks.add(zlib.compress(b"".join(self._open), 1))
            self._open, self._size = [], 0
