"""Phone numbers: the international form (E.164), and the spellings by which a search finds a number.

The library is loaded at the first use, since most commands need none of this.
"""

from __future__ import annotations

import re
from functools import lru_cache

_NUMBER = re.compile(r"\+?\(?[0-9][0-9 ().\-/\u00a0]*")
_BETWEEN = re.compile(r"[ ().\-/\u00a0]+")
_PREFIX = re.compile(r"^(?:\+|00)(?=[0-9*#]*[0-9])")
_PATTERN = re.compile(r"\+?[0-9*#]*[0-9][0-9*#]*")
# A shorter number without a country code is an extension or a service, even where some national numbers are as short.
_SHORTEST_NATIONAL = 7
_CACHED = 4096
_MAX_CHARACTERS = 64


def is_country(code: str) -> bool:
    """Return whether a text is the code of a country with phone numbers, such as `DK`."""
    import phonenumbers  # noqa: PLC0415 - see above

    return code in phonenumbers.SUPPORTED_REGIONS


def with_plus(text: str) -> str:
    """Return a number that begins with a blank with a `+` instead: a `+` that is not escaped arrives as a blank."""
    number = text.strip()
    return f"+{number}" if text[:1] == " " and _NUMBER.fullmatch(number) and number[0].isdigit() else text


@lru_cache(maxsize=_CACHED)
def e164(text: str, country: str) -> str | None:
    """Return the international form of a number as it is dialed in a country (`DK`), or None if it is no such number."""
    import phonenumbers  # noqa: PLC0415 - see above

    number = with_plus(text).strip()
    if len(number) > _MAX_CHARACTERS or not _NUMBER.fullmatch(number):
        return None
    if number[0] != "+" and sum(character.isdigit() for character in number) < _SHORTEST_NATIONAL:
        return None
    try:
        parsed = phonenumbers.parse(number, country)
    except phonenumbers.NumberParseException:
        return None
    if phonenumbers.is_possible_number_with_reason(parsed) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


@lru_cache(maxsize=_CACHED)
def national(international: str) -> str | None:
    """Return the digits of an international number as they are dialed within its country; None if it is no such number."""
    import phonenumbers  # noqa: PLC0415 - see above

    try:
        parsed = phonenumbers.parse(international)
    except phonenumbers.NumberParseException:
        return None
    return "".join(filter(str.isdigit, phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)))


def plain_digits(text: str) -> str | None:
    """Return a number, or a pattern with `*`, as digits without prefix and separators; None if it is neither.

    `+45 12*`, `004512*` and ` 4512*` are all `4512*`.
    """
    if len(text) > _MAX_CHARACTERS:
        return None
    plain = _BETWEEN.sub("", text)
    return _PREFIX.sub("", plain, count=1) if _PATTERN.fullmatch(plain) else None


def spellings(digits: str) -> tuple[str, ...]:
    """Return how a number with these digits can have been received."""
    return (digits, f"+{digits}", f"00{digits}", f" {digits}")
