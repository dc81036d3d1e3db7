"""Reads the answer to a dial request: the RequestID however it is written, and what the answer says otherwise.

FocalScope writes `{RequestID:513}`, which is not JSON. Gateways in front of it can add marks, fields, tags and compression.
A RequestID that is overlooked costs the reference of the call. One that is guessed would give the reference to another call.
So the spelling may differ, but a name must say RequestID. No pattern may need more time than the answer has characters.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from itertools import pairwise

from console.safe_text import plain_line
from shared.masking import mask_credentials

_COMPRESSED = (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")  # gzip and zlib
_ANY_HEADER = 47  # of zlib: detect gzip or zlib
_MAX_BYTES = 64 * 1024
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]")
_TOKEN = re.compile(
    r""""(?:\\.|[^"\\])*+(?:"|\\?$)|'(?:\\.|[^'\\])*+(?:'|\\?$)|[{}\[\]:=,;]|[^\s{}\[\]:=,;"'][^\s{}\[\]:=,;]*""", re.DOTALL
)
_INTEGER = re.compile(r"([0-9]{1,18})(?:\.0+)?")
_NAME = "requestid"
_OPENING, _CLOSING = {"}": "{", "]": "["}, ("{", "[")
_TAG, _CODE = re.compile(r"<[^<>]*>"), re.compile(r"<\s*(?:script|style)\b", re.IGNORECASE)
_ELEMENT = re.compile(
    r"<(?:[\w.-]+:)?RequestID(?:\s[^<>]*)?>\s*(?:<!\[CDATA\[\s*)?([0-9]{1,18})\s*(?:\]\]>\s*)?</", re.IGNORECASE
)
_ATTRIBUTE = re.compile(r"<[\w:.-]+\s(?:[^<>]*\s)?RequestID\s*=\s*[\"']\s*([0-9]{1,18})\s*[\"']", re.IGNORECASE)
_TITLE = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE)
_ERRORS = (
    "error",
    "errormessage",
    "errortext",
    "errordescription",
    "errors",
    "message",
    "msg",
    "reason",
    "description",
    "detail",
)
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """The content of an answer.

    Attributes:
        request_ids: the distinct positive RequestIDs; exactly one is certain.
        text: the error that it names, else the title of a page, else its text. Credentials are masked, and it is short.
        is_page: it begins with a tag, and its RequestID is none.
    """

    request_ids: Sequence[int]
    text: str
    is_page: bool


def read_answer(body: bytes, charset: str | None = None) -> Answer:
    """Read the body of an answer. `charset` is what its Content-Type says."""
    texts = [_INVISIBLE.sub("", text).strip() for text in _decodings(_decompressed(body), charset)]
    for text in texts:
        if ids := sorted(set(_request_ids(text)) - {0}):
            return Answer(ids, _said(text), is_page=False)
    return Answer((), _said(texts[0]), is_page=texts[0].startswith("<"))


def _decompressed(body: bytes) -> bytes:
    """Decompress a body whose first bytes say that it is, as far as it can be."""
    if not body.startswith(_COMPRESSED):
        return body
    try:
        return zlib.decompressobj(wbits=_ANY_HEADER).decompress(body, _MAX_BYTES)
    except zlib.error:
        return body


def _decodings(body: bytes, charset: str | None) -> Iterator[str]:
    """Yield the texts that a body may be, the likeliest first: charsets are often declared wrong."""
    marked = next((encoding for mark, encoding in _BOMS if body.startswith(mark)), None)
    try:
        yield body.decode(marked or "utf-8")
    except UnicodeDecodeError:
        yield body.decode("cp1252", "replace")
    if b"\0" in body:
        yield body.decode("utf-16-le", "replace")
        yield body.decode("utf-16-be", "replace")
    if charset:
        try:
            yield body.decode(charset, "replace")
        except (LookupError, ValueError):  # a charset that does not exist, or is none of text
            return


def _request_ids(text: str) -> Iterator[int]:
    if text.startswith("<"):
        for pattern in (_ELEMENT, _ATTRIBUTE):
            yield from (int(match[1]) for match in pattern.finditer(text))
        inner = unescape(_TAG.sub("", text)).strip()
        if _CODE.search(text) or inner[:1] not in _CLOSING or inner[-1:] not in _OPENING:
            return
        text = inner
    elif text.startswith(('"{', '"[')) and text.endswith('"'):
        text = text[1:-1].replace('\\"', '"')
    tokens = _TOKEN.findall(text)
    for name, values, is_outer in _members(tokens):
        if is_outer and _plain_name(name) == _NAME and len(values) == 1 and (match := _INTEGER.fullmatch(_unquoted(values[0]))):
            yield int(match[1])


def _members(tokens: Sequence[str]) -> Iterator[tuple[str, Sequence[str], bool]]:
    """Yield each name with the tokens of its value, and whether it is a member of an outermost object.

    A value ends at `,`, `;` or `}`; one that is cut off is none. The whole text may also be `RequestID=513`.
    """
    if len(tokens) == len(("name", "=", "value")) and tokens[1] in {":", "="}:
        yield tokens[0], tokens[2:], True
    open_brackets: list[str] = []
    for at, (token, after) in enumerate(pairwise(tokens)):
        if token in _CLOSING:
            open_brackets.append(token)
        elif token in _OPENING and open_brackets and open_brackets[-1] == _OPENING[token]:
            open_brackets.pop()
        elif after in {":", "="} and open_brackets[-1:] == ["{"] and tokens[at - 1] in {"{", ",", ";"}:
            yield token, _value(tokens[at + 2 : at + 6]), open_brackets.count("{") == 1


def _value(tokens: Sequence[str]) -> Sequence[str]:
    match list(tokens):
        case [value, "," | ";" | "}", *_] if value not in _OPENING:
            return [value]
        case ["[", value, "]", "," | ";" | "}"]:
            return [value]
    return []


def _plain_name(token: str) -> str:
    return re.sub(r"[\s_-]", "", _unquoted(token)).casefold()


def _unquoted(token: str) -> str:
    return (token[1:-1] if token[:1] in {'"', "'"} else token).strip()


def _said(text: str) -> str:
    """Return what an answer says, for a sentence."""
    if text.startswith("<"):
        title = _TITLE.search(text)
        said = unescape(title[1]) if title else ""
    else:
        members = [
            (_plain_name(name), _unquoted(value)) for name, values, _ in _members(_TOKEN.findall(text)) for value in values
        ]
        said = next((value for error in _ERRORS for name, value in members if name == error and value), text)
    said = mask_credentials(" ".join(said.split()))
    return plain_line(said if len(said) <= _SHOWN_CHARACTERS else f"{said[:_SHOWN_CHARACTERS]}...")
