"""The spellings of the numbers of a call, by which a search finds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shared.phone_numbers import national, plain_digits, with_plus


def international_forms(numbered: Iterable[Mapping[str, Any] | None]) -> dict[str, str]:
    """Return the international form of each number that has one, from the legs and the dial request of a record."""
    known = ((each.get("number"), each.get("number_e164")) for each in numbered if each)
    return {with_plus(number): form for number, form in known if number and form}


def spelled(numbers: Iterable[str | None], international: Mapping[str, str]) -> tuple[str, ...]:
    """Return numbers in the spellings by which `number_patterns` finds them."""
    return tuple(dict.fromkeys(form for number in numbers if number for form in _spelled(with_plus(number), international)))


def _spelled(number: str, international: Mapping[str, str]) -> Iterator[str]:
    yield number
    if digits := plain_digits(number):
        yield digits
    if form := international.get(number):
        yield form
        yield form.removeprefix("+")
        yield from filter(None, [national(form)])


def number_patterns(pattern: str) -> tuple[str, ...]:
    """Return the patterns of a search for a number: as it is written, and as digits without prefix and separators."""
    digits = plain_digits(pattern)
    return (pattern,) if digits in {None, pattern} else (pattern, str(digits))
