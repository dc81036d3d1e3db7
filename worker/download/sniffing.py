"""Guesses from its first bytes whether an answer is a recording, a web page or another text."""

from __future__ import annotations

import re
from typing import BinaryIO

from shared.domain.wav import FORMS, LEADING

PAGE = "a web page instead of a recording. The token may be wrong or expired"
SNIFF_BYTES = 64
_ID3 = b"ID3"
_BLANKS = b" \t\r\n\f\v"
_UTF_8_BOM = b"\xef\xbb\xbf"
_UTF_16_BOMS = (b"\xff\xfe", b"\xfe\xff")
# A tag, comment or declaration, in bytes or in UTF-16. Zeros alone are silence, and not the beginning of a page.
_PAGE = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?(?:\0?[ \t\r\n\f\v]\0?)*\0?<\0?[A-Za-z!?/]")
_READ_BYTES, _TEXT_BYTES = 4096, 512
_PRINTABLE = frozenset(range(0x20, 0x7F)) | frozenset(_BLANKS)
_CONTROLS = frozenset(range(0x20)) - frozenset(_BLANKS) | {0x7F}
# Of a text in Latin-1 or another code page. Telephone audio of any loudness has far fewer.
_MOST = 0.75
# Quiet audio in A-law or mu-law can be printable. A text has blanks, digits or punctuation between them.
_BETWEEN = frozenset(range(0x20, 0x40)) | frozenset(_BLANKS)
_LONGEST_WORD = 48


def starts_like_audio(head: bytes) -> bool:
    """Return whether a file begins like a recording, perhaps after white space or with a tag of music players."""
    return head.lstrip(LEADING).startswith((*FORMS, _ID3))


def is_page(head: bytes) -> bool:
    """Return whether a file starts like HTML or XML, after any byte order mark and white space."""
    return _PAGE.match(head) is not None


def is_text_file(file: BinaryIO) -> bool:
    """Return whether a file is a text, such as an error in JSON, and so no audio of any kind."""
    file.seek(0)
    return is_text(file.read(_READ_BYTES))


def is_text(head: bytes) -> bool:
    """Return whether a file begins like a text: in UTF-8, in UTF-16 with a byte order mark, or in a code page like Latin-1."""
    if head.startswith(_UTF_16_BOMS):
        text = head.decode("utf-16", "ignore").lstrip()[:_TEXT_BYTES]
        return bool(text) and _is_ascii(text.encode())
    head = head.removeprefix(_UTF_8_BOM).lstrip(_BLANKS)[:_TEXT_BYTES]
    if not _CONTROLS.isdisjoint(head):
        return False
    return (_is_utf_8(head) and not head.isascii()) or (_is_ascii(head) and _has_words(head))


def _is_utf_8(head: bytes) -> bool:
    """Return whether bytes are UTF-8, of which the last character may be cut."""
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True


def _is_ascii(head: bytes) -> bool:
    """Return whether most bytes are printable ASCII."""
    return sum(byte in _PRINTABLE for byte in head) >= _MOST * len(head)


def _has_words(head: bytes) -> bool:
    return sum(byte in _BETWEEN for byte in head) >= len(head) // _LONGEST_WORD
