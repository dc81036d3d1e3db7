"""Undoes the compression of a download. The bytes decide whether there is one: servers send wrong Content-Encodings."""

from __future__ import annotations

import os
import re
import tempfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from shared.domain.recording_reasons import Reason
from shared.domain.wav import FORMS
from worker.download.failures import FetchError
from worker.download.sniffing import SNIFF_BYTES, starts_like_audio

_GZIP_HEAD = b"\x1f\x8b\x08"
_ZLIB_METHOD, _ZLIB_MODULUS = 8, 31
_HEAD_BYTES = 4
_CONTENT_BYTES = 4096
_PIECE_BYTES = 16 << 10  # decompresses to 16 MiB at most
# wbits of zlib: detect gzip or zlib by the header, or read raw deflate, which has none.
_ANY_HEADER, _RAW = 47, -15
# `gzip, gzip` occurs where a file was compressed before it was stored.
_MAX_LAYERS = 3
_NAMES = re.compile(r"[^,\s]+")
_DEFLATE = frozenset({"deflate", "x-deflate", "zlib"})
# What these produce looks like any other bytes, and cannot be decompressed here.
_UNSUPPORTED = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi", "pack200-gzip", "bzip2", "xz", "lzma"})


def open_content(file: BinaryIO, encoding: str, directory: Path, max_bytes: int) -> BinaryIO:
    """Return the content of a download, decompressed as often as its bytes show. The download itself is not changed.

    `encoding` is Content-Encoding in lower case. It decides only what the bytes leave open.
    A decompressed copy is in `directory`, without a name.

    Raises:
        FetchError: the compression is not supported, damaged or incomplete, or more than `max_bytes` are in it.
    """
    content: BinaryIO = os.fdopen(os.dup(file.fileno()), "rb")
    names = set(_NAMES.findall(encoding))
    try:
        for _ in range(_MAX_LAYERS):
            bits = _compression_of(content, names)
            if bits is None:
                break
            content = _decompressed(content, bits, directory, max_bytes)
        _check_supported(content, names)
    except BaseException:
        content.close()
        raise
    return content


def content_head(file: BinaryIO, encoding: str) -> bytes:
    """Return the beginning of the content of a download, also if the rest cannot be decompressed. Empty if nothing can."""
    bits = _compression_of(file, _NAMES.findall(encoding))
    file.seek(0)
    piece = file.read(_PIECE_BYTES)
    if bits is None:
        return piece[:_CONTENT_BYTES]
    try:
        return zlib.decompressobj(bits).decompress(piece, _CONTENT_BYTES)
    except zlib.error:
        return b""


def may_be_compressed(head: bytes, encoding: str) -> bool:
    """Return whether a body that starts with `head` may be a compressed recording."""
    return head.startswith(_GZIP_HEAD) or _is_zlib(head) or not _DEFLATE.isdisjoint(_NAMES.findall(encoding))


def _compression_of(content: BinaryIO, names: Collection[str]) -> int | None:
    """Return the `wbits` that decompress a file, or None if it is not compressed."""
    content.seek(0)
    head = content.read(_HEAD_BYTES)
    if head.startswith(_GZIP_HEAD):
        return _ANY_HEADER
    is_named = not _DEFLATE.isdisjoint(names)
    # Two bytes prove little, and raw deflate has no header: then what comes out decides.
    if _is_zlib(head) and (is_named or _starts_audio(content, _ANY_HEADER)):
        return _ANY_HEADER
    return _RAW if is_named and head not in FORMS and _starts_audio(content, _RAW) else None


def _check_supported(content: BinaryIO, names: Collection[str]) -> None:
    content.seek(0)
    unsupported = sorted(_UNSUPPORTED.intersection(names))
    if unsupported and not starts_like_audio(content.read(SNIFF_BYTES)):
        raise FetchError(Reason.COMPRESSED, f"Content-Encoding {unsupported[0]!r} is not supported")


def _is_zlib(head: bytes) -> bool:
    """Return whether a file starts like a zlib stream (RFC 1950, 2.2)."""
    return len(head) > 1 and head[0] & 15 == _ZLIB_METHOD and int.from_bytes(head[:2], "big") % _ZLIB_MODULUS == 0


def _starts_audio(content: BinaryIO, bits: int) -> bool:
    content.seek(0)
    try:
        return zlib.decompressobj(bits).decompress(content.read(_PIECE_BYTES), _HEAD_BYTES) in FORMS
    except zlib.error:
        return False


def _decompressed(compressed: BinaryIO, bits: int, directory: Path, max_bytes: int) -> BinaryIO:
    plain: BinaryIO = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - returned
    try:
        _decompress(compressed, plain, bits, max_bytes)
    except BaseException:
        plain.close()
        raise
    compressed.close()
    return plain


def _decompress(compressed: BinaryIO, plain: BinaryIO, bits: int, max_bytes: int) -> None:
    """Decompress every member of a body; gzip allows several (RFC 1952, 2.2). Bytes after them that are no member are ignored."""
    compressed.seek(0)
    decompressor = zlib.decompressobj(bits)
    try:
        while piece := compressed.read(_PIECE_BYTES):
            while piece:
                if decompressor.eof:
                    piece = piece.lstrip(b"\0")
                    if not piece:
                        break
                    if not _GZIP_HEAD.startswith(piece[: len(_GZIP_HEAD)]):
                        return
                    decompressor = zlib.decompressobj(bits)
                plain.write(decompressor.decompress(piece))
                if plain.tell() > max_bytes:
                    raise FetchError(Reason.TOO_LARGE, f"more than {max_bytes} bytes (CALLFOLD_RECORDING_MAX_BYTES)")
                piece = decompressor.unused_data
    except zlib.error as error:
        raise FetchError(Reason.COMPRESSED, "the body cannot be decompressed") from error
    if not decompressor.eof:
        raise FetchError(Reason.TRUNCATED, "the compressed body is incomplete")
