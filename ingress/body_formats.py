"""The bodies that a POST can have, each as the query string with the same meaning: form, JSON, multipart form.

A body comes from a stranger until its secret is found, so that search reads no more of it than it needs. The Content-Type names
the format. Between a form and JSON the bytes decide, since clients often name the wrong one of the two.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from email.message import Message
from email.parser import HeaderParser
from enum import Enum
from itertools import islice
from urllib.parse import quote_from_bytes

from ingress.targets import is_odd, tidied
from shared.domain.adapter_link import SECRET_PARAMETER
from shared.percent_encoding import bytes_of

FORM_TYPE = "application/x-www-form-urlencoded"
_JSON_TYPES = frozenset({"application/json", "text/json", "application/x-json", "text/x-json"})
_MULTIPART_TYPE = "multipart/form-data"
_BOM = b"\xef\xbb\xbf"
_PERCENT_ENCODED = {byte: f"%{byte:02X}" for byte in range(0x80, 0x100)}
_LOOKS_LIKE_FORM = re.compile(rb"[^\s=&{\[\"]{1,256}=")
# Other charsets are not asked for: some take far more time than the length of the text.
_CHARSETS = frozenset({"iso-8859-1", "latin-1", "latin1", "iso-8859-15", "windows-1252", "cp1252"})
_LONGEST_TYPE = 512
_LOOKED_AT = 1024
_MAX_PARTS, _PART_HEAD_BYTES = 1024, 1024
# Parts of a stranger's multipart form that are searched, as parameters of a form are: more than a callback may have.
_MAX_SEARCHED = 256
# How a JSON object begins in UTF-16 or UTF-32, with and without a byte order mark.
_WIDE_JSON = tuple(
    mark + "{".encode(codec)
    for codec, *marks in (
        ("utf-16-le", b"\xff\xfe"),
        ("utf-16-be", b"\xfe\xff"),
        ("utf-32-le", b"\xff\xfe\0\0"),
        ("utf-32-be", b"\0\0\xfe\xff"),
    )
    for mark in (b"", *marks)
)
_LARGEST_EXPONENT = 30


class BodyFormat(Enum):
    FORM = "form"
    JSON = "JSON"
    MULTIPART = "multipart form"


class UnreadableBodyError(Exception):
    """A body that cannot be understood, is too large or too slow. `detail` says what to do, and quotes nothing of it."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail


class UnknownFormatError(UnreadableBodyError):
    """A body that is none of the formats. Each is a new error: one that is raised again keeps the frames of every time."""

    def __init__(self) -> None:
        super().__init__(415, "Unsupported Media Type", f"The body of a POST must be {FORM_TYPE}, JSON or {_MULTIPART_TYPE}.")


def format_of(content_type: str, body: bytes) -> BodyFormat | None:
    """Return the format of a body, given the value of its Content-Type ('' without one); None if it is of no known format."""
    media_type = content_type.partition(";")[0].strip().lower()
    is_json = media_type in _JSON_TYPES or media_type.endswith("+json")
    if media_type == _MULTIPART_TYPE:
        return BodyFormat.MULTIPART
    if not (is_json or media_type in {FORM_TYPE, ""}):
        return None
    seems = _seems(_stripped(body[:_LOOKED_AT]))
    if seems and (seems is not BodyFormat.MULTIPART or media_type == ""):
        return seems
    if is_json:
        return BodyFormat.JSON
    return BodyFormat.FORM if media_type else None


def _seems(start: bytes) -> BodyFormat | None:
    """Return the format that the first bytes of a body seem to have."""
    if start.startswith((b"{", *_WIDE_JSON)):
        return BodyFormat.JSON
    if start.startswith(b"--") and b"content-disposition:" in start.lower():
        return BodyFormat.MULTIPART
    return BodyFormat.FORM if _LOOKS_LIKE_FORM.match(start) else None


def find_body_secret(content_type: str, body: bytes) -> str | None:
    """Find the first parameter `token` of JSON or a multipart form, which `to_query` would return too; None in a form.

    It reads the body in the same way, but encodes no other parameter. What is found is not trusted but compared.

    Raises:
        UnreadableBodyError: the body is not valid in its format.
    """
    match format_of(content_type, body):
        case BodyFormat.JSON:
            values = (_value(value) for name, value in _members(content_type, body) if name == SECRET_PARAMETER)
            secret = next(values, None)
            return None if secret is None else bytes_of(secret).decode("utf-8", "replace")
        case BodyFormat.MULTIPART:
            parts = islice(_parts(content_type, body), _MAX_SEARCHED)
            secrets = (value.decode("utf-8", "replace") for name, value in parts if name == SECRET_PARAMETER.encode())
            return next(secrets, None)
        case BodyFormat.FORM:
            return None
        case None:
            raise UnknownFormatError


def to_query(content_type: str, body: bytes) -> str:
    """Return the query string with the meaning of a body.

    Raises:
        UnreadableBodyError: the body is of no known format, or not valid in it.
    """
    body_format = format_of(content_type, body)
    match body_format:
        case BodyFormat.FORM:
            query = percent_encoded(_stripped(body))
            return tidied(query) if query and is_odd(query) else query
        case BodyFormat.JSON:
            return _joined((bytes_of(name), bytes_of(_value(value))) for name, value in _members(content_type, body))
        case BodyFormat.MULTIPART:
            return _joined(_parts(content_type, body))
        case None:
            raise UnknownFormatError


def percent_encoded(form: bytes) -> str:
    """Return a form as text. Bytes that are not ASCII are kept, percent-encoded."""
    return form.decode("latin-1").translate(_PERCENT_ENCODED)


def _stripped(body: bytes) -> bytes:
    return body.removeprefix(_BOM).strip()


def _joined(pairs: Iterable[tuple[bytes, bytes]]) -> str:
    return "&".join(f"{quote_from_bytes(name, safe='')}={quote_from_bytes(value, safe='')}" for name, value in pairs)


def _type_parameter(content_type: str, name: str) -> bytes | None:
    """Return a parameter of a Content-Type. Reading a very long one would take far more time than its length."""
    if len(content_type) > _LONGEST_TYPE:
        return None
    message = Message()
    message["Content-Type"] = content_type
    return _parameter(message, "Content-Type", name)


def _parameter(headers: Message, header: str, name: str) -> bytes | None:
    """Return a parameter of a header whose characters are its bytes; None without one.

    RFC 2231 lets the sender name any codec of Python. Only known ones are used, and for others the bytes stay as they are.

    Raises:
        UnreadableBodyError: its continuations or its bytes are not valid.
    """
    try:
        value = headers.get_param(name, header=header)
        if not isinstance(value, tuple):
            return None if value is None else value.encode("latin-1")
        content = value[2].encode("latin-1")
        is_known = (value[0] or "").lower() in _CHARSETS
        return content.decode(str(value[0])).encode() if is_known else content
    except (ValueError, TypeError) as error:  # the library sorts numbered continuations with others
        raise UnreadableBodyError(400, "Bad Request", f"The parameter {name} of a header cannot be read.") from error


class _Members(list[tuple[str, object]]):
    """The members of a JSON object, those of the same name included."""


def _members(content_type: str, body: bytes) -> _Members:
    """Parse a JSON object."""
    charset = (_type_parameter(content_type, "charset") or b"").decode("latin-1")
    try:
        parsed = json.loads(_text(body, charset), object_pairs_hook=_Members, parse_int=str, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise UnreadableBodyError(400, "Bad Request", "The body is not valid JSON.") from error
    if isinstance(parsed, _Members):
        return parsed
    raise UnreadableBodyError(400, "Bad Request", "The JSON body is no object with the parameters as its members.")


def _text(body: bytes, charset: str) -> str:
    """Decode JSON. Bytes that are none of its encoding stay in the values, and are read like those of a form."""
    encoding = json.detect_encoding(body)
    try:
        return body.decode(encoding)
    except UnicodeDecodeError:
        if charset.lower() in _CHARSETS:
            return body.decode(charset)
        return body.decode(encoding, "surrogateescape")


def _number(text: str) -> str:
    """Return a number with a fraction or exponent as FocalScope would write it: a whole number has neither."""
    try:
        number = Decimal(text)
    except ArithmeticError:  # its exponent has more digits than any number
        return text
    if abs(number.adjusted()) <= _LARGEST_EXPONENT and number == number.to_integral_value():
        return str(int(number))
    return text


def _value(value: object) -> str:
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "1" if value else "0"
        case _ if not value:
            return ""
        case _:
            return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, _Members):
        return {name: _plain(member) for name, member in value}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _parts(content_type: str, body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Return name and value of each field of a multipart form. Without a boundary in its type, its first line is one."""
    body, boundary = _stripped(body), _type_parameter(content_type, "boundary")
    mark = body.partition(b"\n")[0].rstrip() if boundary is None else b"--" + boundary
    pieces = (b"\n" + body).split(b"\n" + mark, _MAX_PARTS + 1) if len(mark) > len("--") else []
    parts = pieces[1:-1]
    if not parts or len(parts) > _MAX_PARTS or not pieces[-1].startswith(b"--"):
        raise UnreadableBodyError(400, "Bad Request", f"The body is not valid {_MULTIPART_TYPE}.")
    return map(_part, parts)


def _part(part: bytes) -> tuple[bytes, bytes]:
    """Return name and value of a field."""
    head, end, value = part.partition(b"\r\n\r\n" if b"\r\n" in part[:_PART_HEAD_BYTES] else b"\n\n")
    if end and len(head) <= _PART_HEAD_BYTES:
        headers = HeaderParser().parsestr(head.lstrip().decode("latin-1"))
        name = _parameter(headers, "Content-Disposition", "name")
        if name is not None:
            value = _transferred(str(headers["Content-Transfer-Encoding"] or "").lower(), value.removesuffix(b"\r"))
            return name, value
    raise UnreadableBodyError(400, "Bad Request", f"A part of the body has no name, so it is not valid {_MULTIPART_TYPE}.")


def _transferred(encoding: str, value: bytes) -> bytes:
    try:
        if encoding == "base64":
            return binascii.a2b_base64(value)
        return binascii.a2b_qp(value) if encoding == "quoted-printable" else value
    except binascii.Error:
        return value
