"""Reading the query of a callback, within limits.

A value is decoded, merged, published, shown and masked many times, so its size and its nested encoding are limited where it comes
in. The longest callback of FocalScope is far below every limit.
"""

from __future__ import annotations

from urllib.parse import unquote, unquote_plus, unquote_to_bytes

from shared.domain.adapter_link import Adapter
from shared.errors import InvalidCallbackError
from shared.partial_values import shorten_name

MAX_QUERY_CHARACTERS = 128 * 1024
MAX_PARAMETERS = 100
MAX_NAME_BYTES = 256
# As long as a request line, so that no value of a GET is refused for its length. Parameters that the adapter does not have are
# kept in the query, and not read; for them it is the same.
MAX_VALUE_BYTES = 8 * 1024
# A URL in the parameter of a URL in a parameter is encoded three times.
MAX_ENCODINGS = 5

# No character has more bytes, and no byte is encoded with more characters.
_BYTES_PER_CHARACTER, _CHARACTERS_PER_BYTE = 4, 3


def read_query(adapter: Adapter, query: str) -> dict[str, str]:
    """Return the decoded values of a raw query string by placeholder name, without empty and unknown parameters.

    Raises:
        InvalidCallbackError: a parameter exceeds a limit, was sent twice with different values, or is not UTF-8.
    """
    parts = query.split("&", MAX_PARAMETERS)
    if len(parts) > MAX_PARAMETERS or len(query) > MAX_QUERY_CHARACTERS:
        raise _too_much(query)
    values: dict[str, str] = {}
    meanings = adapter.meanings
    for part in parts:
        name, _, value = part.partition("=")
        if "%" in name or "+" in name:
            name = unquote_plus(name)
        meaning = meanings.get(name)
        if meaning is None:
            if len(part) > MAX_NAME_BYTES // _BYTES_PER_CHARACTER:
                _check_unknown(name, value)
            continue
        if not value:
            continue
        if len(value) > MAX_VALUE_BYTES // _BYTES_PER_CHARACTER:
            value = _read_long(name, value)
        elif "%" in value or "+" in value:
            value = _decode(name, value)
        if values.setdefault(meaning, value) != value:
            raise InvalidCallbackError(name, value, "was sent twice with different values")
    return values


def _read_long(name: str, value: str) -> str:
    """Decode a value that may be too long. What is too long in any case is not decoded."""
    if len(value) <= _CHARACTERS_PER_BYTE * MAX_VALUE_BYTES:
        value = _decode(name, value)
        if len(value.encode("utf-8", "surrogatepass")) <= MAX_VALUE_BYTES:
            return value
    raise _too_long(name, value)


def _decode(name: str, value: str) -> str:
    try:
        decoded = unquote_plus(value, errors="strict")
    except UnicodeDecodeError:
        raise InvalidCallbackError(name, value, "is not percent-encoded UTF-8") from None
    if "%" in decoded:
        _check_encodings(name, decoded)
    return decoded


def _check_encodings(name: str, decoded: str) -> None:
    """Check how often a value was encoded; it is decoded once already."""
    plain = decoded[: MAX_VALUE_BYTES + 1]
    for _ in range(MAX_ENCODINGS):
        encoded, plain = plain, unquote(plain)
        if plain == encoded:
            return
    raise InvalidCallbackError(name, decoded, f"is percent-encoded more than {MAX_ENCODINGS} times")


def _too_long(name: str, value: str) -> InvalidCallbackError:
    return InvalidCallbackError(name, value, f"is longer than {MAX_VALUE_BYTES} bytes")


def _check_unknown(name: str, value: str) -> None:
    """Check a parameter that the adapter does not have."""
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise InvalidCallbackError(shorten_name(name[:MAX_NAME_BYTES]), "", f"has a name longer than {MAX_NAME_BYTES} bytes")
    if len(value) > MAX_VALUE_BYTES:
        is_too_long = len(value) > _CHARACTERS_PER_BYTE * MAX_VALUE_BYTES or len(unquote_to_bytes(value)) > MAX_VALUE_BYTES
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
