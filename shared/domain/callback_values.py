"""The values of a callback that have a meaning, in every spelling in which they can be recognised without doubt.

A reader returns None for what it cannot recognise. The usual spellings are read in `callback.py`, which is faster.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import TypeVar

from shared.domain.adapter_link import Placeholder
from shared.percent_encoding import decode_repeatedly
from shared.phone_numbers import with_plus

MAX_DIGITS = 18
"""As many as always fit a signed 64-bit integer."""
MAX_WAIT_DIGITS = 9
_MAX_NUMBER_CHARACTERS = 64
# Around a value that a program has quoted, padded or begun with a byte order mark.
_AROUND = "\0\"'`\ufeff\u200b\u200c\u200d\u200e\u200f\u2060 \t\r\n\v\f\u00a0"
_QUOTES = "\u201c\u201d\u2018\u2019\xab\xbb"
# Around a value of a known form, such as what ends a link in a text. None of it is part of a number. A dot or comma before
# one would be, and so would a minus. Round brackets on both sides can mean a negative number.
_BEFORE = f"{_AROUND}{_QUOTES}{{[<#=:$"
_BEHIND = f"{_AROUND}{_QUOTES}}}]>)#/?,;:!|\\"
# A number that a program has formatted as one with decimals is whole if these are zero.
_WHOLE = re.compile(r"\+?0*([0-9]+?)(?:\.0*)?", re.ASCII)
_GUID_PARTS = re.compile(
    r"[^0-9a-z]*(?:urn:)?(?:[ug]uid:)?[^0-9a-z]*"
    r"([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})[^0-9a-z]*"
)
NO_GUIDS = frozenset({f"{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}" for digit in "0f"})
"""GUIDs that name nothing: of zeros, or of ones."""
_TRUE = frozenset({"1", "true", "yes", "y", "on", "t"})
_FALSE = frozenset({"0", "false", "no", "n", "off", "f"})
# What a program writes that has no value. A name or a queue can be called "None" or "-".
_NULLS = frozenset({"null", "NULL", "(null)", "<null>", "[null]", "undefined", "nil", "NaN", "N/A", "n/a", "[object Object]"})
_PLACEHOLDER = re.compile(r"\{\{\s*[A-Za-z]\w*\s*\}\}", re.ASCII)
# What is left of one that was cut off, without its braces. An escape can be cut off too.
_CUT = re.compile(r"(?:[A-Za-z]\w*)?(?:%[0-9A-Fa-f]?)?", re.ASCII)
_BRACES = "{}$ \t\r\n\u00a0"

_Known = TypeVar("_Known")


def tidied(text: str) -> str:
    """Return a value without the blanks, quotes and invisible characters around it, and without a second encoding."""
    return decode_repeatedly(text).strip(_AROUND).strip()


def core(text: str) -> str:
    """Return a value of a known form without what is around it: braces, and what ends or begins a link in a text."""
    return decode_repeatedly(text).lstrip(_BEFORE).rstrip(_BEHIND).strip()


def read_whole(text: str, max_digits: int = MAX_DIGITS) -> int | None:
    """Read a whole number from 0, also one written as `+7`, `007`, `7.0` or `{7}`."""
    plain = core(text)
    match = _WHOLE.fullmatch(plain) if len(plain) <= _MAX_NUMBER_CHARACTERS else None
    return int(match[1]) if match is not None and len(match[1]) <= max_digits else None


def read_call_id(text: str) -> str | None:
    """Read a CallID. Whatever its spelling, one leg has one name."""
    number = read_whole(text)
    return None if number is None else str(number)


def read_guid(text: str) -> str | None:
    """Read a GUID: in any case, with or without hyphens, in braces, after `urn:uuid:`, and among any punctuation."""
    match = _GUID_PARTS.fullmatch(decode_repeatedly(text).lower())
    guid = "" if match is None else "-".join(match.groups())
    return None if guid in NO_GUIDS else guid or None


def read_bit(text: str) -> bool | None:
    """Read a yes or no."""
    plain = core(text).removesuffix(".").casefold()
    return True if plain in _TRUE else False if plain in _FALSE else None


def read_wait_ms(text: str) -> int | None:
    """Read TotalWaitTimeMs."""
    return read_whole(text, MAX_WAIT_DIGITS)


def read_name(text: str, known: Mapping[str, _Known]) -> _Known | None:
    """Read a name or a code in any letter case; `known` has them in lower case."""
    plain = core(text).removesuffix(".").lower()
    if plain in known:
        return known[plain]
    # Full-width characters, and the I of a Turkish program.
    plain = unicodedata.normalize("NFKC", plain).casefold().replace("\u0131", "i").replace("\u0307", "")
    return known.get(plain.lstrip("0") or "0" if plain.isdecimal() else plain)


def is_null(text: str) -> bool:
    """Return whether a name or a number is a word that stands for none."""
    return text in _NULLS


def is_unreplaced(placeholder: str, text: str) -> bool:
    """Return whether a value is a placeholder that arrived unreplaced, whole or in part. A GUID in braces is none."""
    plain = decode_repeatedly(text).strip()
    inner = plain.strip(_BRACES)
    if not inner:
        return "{" in plain or "}" in plain
    if plain.startswith("{{") or plain.endswith("}}"):
        return _CUT.fullmatch(inner) is not None or _PLACEHOLDER.search(plain) is not None
    return inner == placeholder or _PLACEHOLDER.search(plain) is not None


def are_some_null(values: Mapping[str, str]) -> bool:
    """Return whether any of the values is a word that stands for none."""
    return not _NULLS.isdisjoint(values.values())


def as_number(placeholder: str, text: str) -> str:
    """Return a value with a `+` for the blank that begins it, if it is a number. In a URL, an unescaped `+` is a blank.

    CallerID and DID are numbers whatever their length. Of other placeholders, only what has the length of a phone number is one.
    """
    if placeholder in _NO_NUMBERS:
        return text
    number = with_plus(text)
    is_long = sum(character.isdigit() for character in text) in _PHONE_NUMBER_DIGITS
    return number if is_long or placeholder in _NUMBERS else text


_NUMBERS = frozenset({Placeholder.CALLER_ID.value, Placeholder.DID.value})
_NO_NUMBERS = frozenset({Placeholder.USER_ID.value, Placeholder.TOTAL_WAIT_MS.value, Placeholder.IS_ANSWERED.value})
_PHONE_NUMBER_DIGITS = range(7, 16)
TEXTS = frozenset(
    {
        Placeholder.CALLER_ID.value,
        Placeholder.DID.value,
        Placeholder.AGENT_EXTENSION.value,
        Placeholder.AGENT.value,
        Placeholder.USER_ID.value,
        Placeholder.USER_NAME.value,
        Placeholder.QUEUE.value,
    }
)
"""Placeholders whose value is a name or a number, in the record too."""
