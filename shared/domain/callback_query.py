"""Reading the query of a callback, within limits.

A value is decoded, merged, published, shown and masked many times, so its size and its nested encoding are limited where it comes
in. The longest callback of FocalScope is far below every limit.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus, unquote_to_bytes

from shared.domain.adapter_link import Adapter, Placeholder
from shared.domain.ignored import IgnoredValue, Reason
from shared.domain.recording_link import decode_link
from shared.domain.unescaped_url import with_whole_urls
from shared.errors import InvalidCallbackError
from shared.partial_values import shorten_name
from shared.percent_encoding import bytes_of

MAX_QUERY_CHARACTERS = 128 * 1024
MAX_PARAMETERS = 100
MAX_NAME_BYTES = 256
# As long as a request line, so that no value of a GET is refused for its length. Parameters that the adapter does not have are
# kept in the query, and not read; for them it is the same.
MAX_VALUE_BYTES = 8 * 1024
# A URL in the parameter of a URL in a parameter is encoded three times.
MAX_ENCODINGS = 5
NEEDED = frozenset(
    {
        Placeholder.CALL_ID.value,
        Placeholder.CALL_TYPE_NAME.value,
        Placeholder.CALL_TYPE_CODE.value,
        Placeholder.EVENT_NAME.value,
        Placeholder.EVENT_CODE.value,
    }
)
"""Placeholders that a callback needs; of type and event, one of two."""
_RECORDING_URL = Placeholder.RECORDING_URL.value

# A part with a second `=`: a value that was not escaped.
_TWO_EQUALS = re.compile("=[^&]*=")
# No character has more bytes, and no byte is encoded with more characters.
_BYTES_PER_CHARACTER, _CHARACTERS_PER_BYTE = 4, 3

# A fragment, or a separator with a parameter behind it.
_END_OF_ID = re.compile(r"(?<=.)(?:#|[?;](?=[^=&;?#]*[A-Za-z][^=&;?#]*=))")


def _as_latin_1(error: UnicodeError) -> tuple[str, int]:
    """Decode the five bytes that cp1252 does not define."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error("callfold.latin-1", _as_latin_1)


class QueryValues(NamedTuple):
    """The parameters of an adapter in a query.

    Attributes:
        values: decoded values by placeholder name, without empty ones; the first of each.
        others: further, different values of the same placeholders.
        ignored: what could not be read as it was sent.
        has_braces: whether a value can have a brace, as a placeholder has.
    """

    values: dict[str, str]
    others: list[tuple[str, str]]
    ignored: list[IgnoredValue]
    has_braces: bool


def read_query(adapter: Adapter, query: str) -> QueryValues:
    """Read a raw query string, without empty and unknown parameters. A value that is not UTF-8 is read as cp1252.

    Raises:
        InvalidCallbackError: a parameter exceeds a limit.
    """
    parts = query.split("&", MAX_PARAMETERS)
    if len(parts) > MAX_PARAMETERS or len(query) > MAX_QUERY_CHARACTERS:
        raise _too_much(query)
    values: dict[str, str] = {}
    others: list[tuple[str, str]] = []
    ignored: list[IgnoredValue] = []
    # What the whole query does not have, none of its parts has, unless they are changed.
    is_short = query.isascii() and len(query) <= MAX_VALUE_BYTES // _BYTES_PER_CHARACTER
    if "://" in query or "?" in query or _TWO_EQUALS.search(query):
        is_short = False
        parts, in_doubt = with_whole_urls(adapter, parts)
        ignored += _ignored_pieces(adapter, in_doubt)
    unknown: list[tuple[str, str]] = []
    meanings = adapter.meanings
    has_braces = "{" in query or "}" in query
    for part in parts:
        name, _, value = part.partition("=")
        is_encoded = "%" in part or "+" in part
        if is_encoded and ("%" in name or "+" in name):
            name = unquote_plus(name)
        meaning = meanings.get(name)
        if meaning is None:
            if len(part) > MAX_NAME_BYTES // _BYTES_PER_CHARACTER:
                _check_unknown(name, value)
            unknown.append((name, value))
            continue
        if not value:
            continue
        if is_encoded or not is_short:
            value = _decode(name, meaning, value, ignored)
            # A brace can be encoded once more.
            has_braces = has_braces or "{" in value or "}" in value or "%" in value
        if values.setdefault(meaning, value) != value:
            others.append((meaning, value))
    sent = QueryValues(values, others, ignored, has_braces)
    return _with_misspelled(adapter, unknown, sent) if unknown else sent


def _ignored_pieces(adapter: Adapter, parts: Sequence[str]) -> Iterator[IgnoredValue]:
    """Read the parameters that may be pieces of a RecordingURL. What is only known to be possible is not used."""
    for part in parts:
        name, _, value = part.partition("=")
        meaning = adapter.meaning(unquote_plus(name))
        if meaning is not None and value:
            yield IgnoredValue(meaning, _decode(name, meaning, value, []), Reason.IN_URL)


def _with_misspelled(adapter: Adapter, unknown: Sequence[tuple[str, str]], sent: QueryValues) -> QueryValues:
    """Read the parameters whose names differ from those of the adapter in letter case, blanks, or an HTML-escaped `&`.

    They count only if the adapter's own spelling was not sent, or has no usable value. For what a callback needs, they count only
    if its own spelling was not sent at all: then there is no doubt.
    """
    values, others, ignored, has_braces = sent
    own = set(values)
    for name, value in unknown:
        if not value or name in adapter.constants:
            continue
        meaning = adapter.meaning(name)
        if meaning is not None and not (meaning in NEEDED and meaning in own):
            decoded = _decode(name, meaning, value, ignored)
            has_braces = True  # it may have
            if values.setdefault(meaning, decoded) != decoded:
                others.append((meaning, decoded))
    return QueryValues(values, others, ignored, has_braces)


def _decode(name: str, meaning: str, value: str, ignored: list[IgnoredValue]) -> str:
    """Decode a value. What is too long in any case is not decoded."""
    if "%" not in value and value.isascii() and len(value) <= MAX_VALUE_BYTES:
        return value.replace("+", " ")
    if len(value) > _CHARACTERS_PER_BYTE * MAX_VALUE_BYTES:
        raise _too_long(name, value)
    raw = unquote_to_bytes(bytes_of(value).replace(b"+", b" "))
    if len(raw) > MAX_VALUE_BYTES:
        raise _too_long(name, value)
    try:
        decoded = raw.decode()
    except UnicodeDecodeError:
        if meaning == _RECORDING_URL:  # a link of other bytes would be another link
            decoded = decode_link(value)
        else:
            decoded = raw.decode("cp1252", "callfold.latin-1")
            ignored.append(IgnoredValue(meaning, _as_text(value), Reason.NOT_UTF8))
    if "%" in decoded:
        _check_encodings(name, decoded)
    return decoded


def _as_text(value: str) -> str:
    """Return a raw value without half surrogate pairs, which cannot be stored."""
    return value if value.isascii() else bytes_of(value).decode("utf-8", "backslashreplace")


def _check_encodings(name: str, decoded: str) -> None:
    """Check how often a value was encoded; it is decoded once already."""
    plain = decoded[: MAX_VALUE_BYTES + 1]
    for _ in range(MAX_ENCODINGS):
        encoded, plain = plain, unquote(plain)
        if plain == encoded:
            return
    raise InvalidCallbackError(name, decoded, f"is percent-encoded more than {MAX_ENCODINGS} times")


def repaired(query: str) -> Iterator[str]:
    """Return a query as it may have been meant, if a program has changed the characters between its parameters."""
    if has_semicolons(query):
        yield query.replace("&amp;", "&").replace(";", "&")
    if "#" in query:
        yield query.partition("#")[0]
        yield query.rpartition("#")[0]
    if is_escaped(query):
        yield unquote(query)


def with_ids_alone(adapter: Adapter, query: str, unread: Collection[str]) -> str | None:
    """Return a query with the unread values of some placeholders cut at a fragment, or split at another separator of parameters.

    They have a known form, so neither can belong to them. None if no value has any.
    """
    parts = query.split("&")
    for number, part in enumerate(parts):
        name, _, value = part.partition("=")
        plain = unquote_plus(name)
        end = _END_OF_ID.search(value) if adapter.meaning(plain) in unread else None
        if end is not None:
            rest = "" if end[0] == "#" else f"&{value[end.end() :].replace(';', '&')}"
            parts[number] = f"{name}={value[: end.start()]}{rest}"
    changed = "&".join(parts)
    return changed if changed != query else None


def has_semicolons(query: str) -> bool:
    """Return whether semicolons separate the parameters. Where `&` does, a semicolon belongs to a value."""
    plain = query.replace("&amp;", ";")
    return ";" in plain and "&" not in plain


def is_escaped(query: str) -> bool:
    """Return whether a query was percent-encoded as a whole."""
    return "=" not in query and "%3d" in query.lower()


def _too_long(name: str, value: str) -> InvalidCallbackError:
    return InvalidCallbackError(name, value, f"is longer than {MAX_VALUE_BYTES} bytes")


def _check_unknown(name: str, value: str) -> None:
    """Check a parameter that the adapter does not have."""
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise InvalidCallbackError(shorten_name(name[:MAX_NAME_BYTES]), "", f"has a name longer than {MAX_NAME_BYTES} bytes")
    if len(value) > MAX_VALUE_BYTES:
        is_too_long = (
            len(value) > _CHARACTERS_PER_BYTE * MAX_VALUE_BYTES or len(unquote_to_bytes(bytes_of(value))) > MAX_VALUE_BYTES
        )
        if is_too_long:
            raise _too_long(shorten_name(name), value)


def _too_much(query: str) -> InvalidCallbackError:
    """Name the first parameter too many, or else the longest one."""
    parts = query.split("&", MAX_PARAMETERS)
    if len(parts) > MAX_PARAMETERS:
        part, problem = parts[-1], f"is one too many: a callback has at most {MAX_PARAMETERS} parameters"
    else:
        part, problem = max(parts, key=len), f"is in a query longer than {MAX_QUERY_CHARACTERS} characters"
    name = part.partition("&")[0].partition("=")[0]
    return InvalidCallbackError(shorten_name(name[:MAX_NAME_BYTES]), "", problem)
