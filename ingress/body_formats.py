"""The bodies that a POST can have, each as the query string with the same meaning: form, JSON, multipart form.

A body comes from a stranger until its secret is found, so that search looks at few bytes more than once. The Content-Type names
the format. Between a form and JSON the bytes decide, since clients often name the wrong one of the two.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from email.message import Message
from email.parser import BytesHeaderParser
from email.utils import collapse_rfc2231_value
from enum import Enum
from urllib.parse import quote_from_bytes

from ingress.targets import is_odd, tidied
from shared.domain.adapter_link import SECRET_PARAMETER, find_secret

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
_LARGEST_EXPONENT = 30
_JSON_SECRET = re.compile(rb'"%s"\s*:\s*(?:"((?:[^"\\]|\\.){0,1024})"|([-+.\deE]{1,64}))' % SECRET_PARAMETER.encode(), re.DOTALL)
_PART_SECRET = re.compile(
    rb'\bname="?%s"?[^\r\n]{0,100}(?:\r?\n[^\r\n]{1,100}){0,8}\r?\n\r?\n([^\r\n]*)' % SECRET_PARAMETER.encode(), re.IGNORECASE
)


class BodyFormat(Enum):
    FORM = "form"
    JSON = "JSON"
    MULTIPART = "multipart form"


class UnreadableBodyError(Exception):
    """A body that cannot be understood, is too large or too slow. `detail` says what to do, and quotes nothing of it."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail


UNKNOWN_FORMAT = UnreadableBodyError(
    415, "Unsupported Media Type", f"The body of a POST must be {FORM_TYPE}, JSON or {_MULTIPART_TYPE}."
)


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
    if start.startswith(b"{"):
        return BodyFormat.JSON
    if start.startswith(b"--") and b"content-disposition:" in start.lower():
        return BodyFormat.MULTIPART
    return BodyFormat.FORM if _LOOKS_LIKE_FORM.match(start) else None


def find_body_secret(body_format: BodyFormat, body: bytes) -> str | None:
    """Find the parameter `token` of a body, in time by its length. What is found is not trusted but compared."""
    match body_format:
        case BodyFormat.FORM:
            return find_secret(_stripped(body))
        case BodyFormat.JSON:
            member = _JSON_SECRET.search(body)
            return _json_text(member) if member else None
        case BodyFormat.MULTIPART:
            part = _PART_SECRET.search(body)
            return part[1].decode("utf-8", "replace") if part else None


def _json_text(member: re.Match[bytes]) -> str | None:
    if member[1] is None:
        return member[2].decode()
    try:
        return str(json.loads(b'"%s"' % member[1]))
    except ValueError:
        return None


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
            return _from_json(content_type, body)
        case BodyFormat.MULTIPART:
            return _joined(_parts(_parameter(content_type, "boundary"), body))
        case None:
            raise UNKNOWN_FORMAT


def percent_encoded(form: bytes) -> str:
    """Return a form as text. Bytes that are not ASCII are kept, percent-encoded."""
    return form.decode("latin-1").translate(_PERCENT_ENCODED)


def _stripped(body: bytes) -> bytes:
    return body.removeprefix(_BOM).strip()


def _joined(pairs: Iterable[tuple[bytes, bytes]]) -> str:
    return "&".join(f"{quote_from_bytes(name, safe='')}={quote_from_bytes(value, safe='')}" for name, value in pairs)


def _parameter(content_type: str, name: str) -> str | None:
    """Return a parameter of a Content-Type. Reading a very long one would take far more time than its length."""
    if len(content_type) > _LONGEST_TYPE:
        return None
    message = Message()
    message["Content-Type"] = content_type
    value = message.get_param(name)
    return None if value is None else collapse_rfc2231_value(value)


class _Members(list[tuple[str, object]]):
    """The members of a JSON object, those of the same name included."""


def _from_json(content_type: str, body: bytes) -> str:
    try:
        parsed = json.loads(
            _text(body, _parameter(content_type, "charset")), object_pairs_hook=_Members, parse_int=str, parse_float=_number
        )
        if isinstance(parsed, _Members):
            return _joined((_bytes(name), _bytes(_value(value))) for name, value in parsed)
    except (ValueError, RecursionError) as error:
        raise UnreadableBodyError(400, "Bad Request", "The body is not valid JSON.") from error
    raise UnreadableBodyError(400, "Bad Request", "The JSON body is no object with the parameters as its members.")


def _text(body: bytes, charset: str | None) -> str:
    """Decode JSON. Bytes that are none of its encoding stay in the values, and are read like those of a form."""
    encoding = json.detect_encoding(body)
    try:
        return body.decode(encoding)
    except UnicodeDecodeError:
        if charset and charset.lower() in _CHARSETS:
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


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _parts(boundary: str | None, body: bytes) -> Iterator[tuple[bytes, bytes]]:
    body = _stripped(body)
    mark = body.partition(b"\n")[0].rstrip() if boundary is None else b"--" + boundary.encode("utf-8", "surrogateescape")
    pieces = (b"\n" + body).split(b"\n" + mark, _MAX_PARTS + 1) if len(mark) > len("--") else []
    parts = pieces[1:-1]
    if not parts or len(parts) > _MAX_PARTS or not pieces[-1].startswith(b"--"):
        raise UnreadableBodyError(400, "Bad Request", f"The body is not valid {_MULTIPART_TYPE}.")
    return map(_part, parts)


def _part(part: bytes) -> tuple[bytes, bytes]:
    """Return name and value of a field."""
    head, end, value = part.partition(b"\r\n\r\n" if b"\r\n" in part[:_PART_HEAD_BYTES] else b"\n\n")
    if end and len(head) <= _PART_HEAD_BYTES:
        headers = BytesHeaderParser().parsebytes(head.lstrip())
        name = headers.get_param("name", header="Content-Disposition")
        if name is not None:
            value = _transferred(str(headers["Content-Transfer-Encoding"] or "").lower(), value.removesuffix(b"\r"))
            return _bytes(collapse_rfc2231_value(name)), value
    raise UnreadableBodyError(400, "Bad Request", f"A part of the body has no name, so it is not valid {_MULTIPART_TYPE}.")


def _transferred(encoding: str, value: bytes) -> bytes:
    try:
        if encoding == "base64":
            return binascii.a2b_base64(value)
        return binascii.a2b_qp(value) if encoding == "quoted-printable" else value
    except binascii.Error:
        return value
