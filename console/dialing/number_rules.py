"""The numbers that a source may dial, judged as the PBX may read them.

A PBX can read `+4590...`, `004590...`, `9004590...` (9 for an outside line) and `+45 90...` as one number. So a rule looks at
each plausible reading of a number. One reading is enough to deny it; to be allowed it must be allowed in each.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatchcase

from shared.config.sources import Source

_FEATURE_CODES = re.compile(r"[*#]+")
_NOT_DIALED = re.compile(r"[^0-9+*#]")
_SEPARATORS = re.compile(r"[\s().\-/]")
_INTERNATIONAL = "00"
# What dials an outside line at most PBXs. It is assumed only in front of a whole international number.
_USUAL_OUTSIDE = re.compile(r"[09]{1,3}(?=(?:00|\+)[1-9][0-9]{7})")
# A shorter number without + or 00 is a national one, although its first digits can be those of a country.
_LEAST_INTERNATIONAL_DIGITS = 10
_MOST_EXTENSION_DIGITS = 6


def has_feature_code(text: str) -> bool:
    """Return whether a PBX may take a part of the text as a code, such as `*21*` for forwarding all calls."""
    return _FEATURE_CODES.search(unicodedata.normalize("NFKC", text)) is not None


def is_number_allowed(source: Source, number: str, queue_prefix: str) -> bool:
    """Return whether the rules of a source allow a number behind a prefix."""
    return _is_listed(source, number, queue_prefix) and not _is_denied(source, number, queue_prefix)


def is_agent_denied(source: Source, agent: str) -> bool:
    """Return whether an agent is a denied number. FocalScope calls the agent first, whatever it is."""
    return len(_plain(agent)) > _MOST_EXTENSION_DIGITS and _is_denied(source, agent, "")


def _is_listed(source: Source, number: str, queue_prefix: str) -> bool:
    if not source.allow_numbers:
        return True
    # Behind a queue prefix, the PBX looks for no further one.
    prefixes = {*source.outside_prefixes, *(() if queue_prefix else source.queue_prefixes)}
    readings = {_international(reading) for reading in _readings(_plain(number), prefixes)}
    if _NOT_DIALED.search(_SEPARATORS.sub("", number)):
        readings.add(number)
    return all(_matches(reading, source.allow_numbers) for reading in readings)


def _is_denied(source: Source, number: str, queue_prefix: str) -> bool:
    if not source.deny_numbers:
        return False
    prefixes = {*source.outside_prefixes, *source.queue_prefixes, queue_prefix}
    texts = {number, queue_prefix + number}
    readings = {reading for text in texts for part in _parts(_plain(text)) for reading in _readings(part, prefixes)}
    readings |= {_USUAL_OUTSIDE.sub("", reading, count=1) for reading in readings if _USUAL_OUTSIDE.match(reading)}
    readings |= {_international(reading) for reading in readings}
    # A trunk may take international numbers without `+`.
    readings |= {f"+{reading}" for reading in readings if reading.isdigit() and len(reading) >= _LEAST_INTERNATIONAL_DIGITS}
    return any(_matches(reading, source.deny_numbers) for reading in texts | readings)


def _plain(number: str) -> str:
    """Return a number with what is dialed alone: ASCII digits, `+`, `*` and `#`."""
    normal = unicodedata.normalize("NFKC", number)
    return _NOT_DIALED.sub("", "".join(str(unicodedata.digit(character, character)) for character in normal))


def _parts(number: str) -> Iterator[str]:
    """Yield a number, and the numbers in it between feature codes."""
    yield number
    yield from filter(None, _FEATURE_CODES.split(number))


def _readings(number: str, prefixes: Collection[str]) -> set[str]:
    """Return a number with and without each prefix, also behind another one."""
    readings, waiting = set[str](), [number]
    while waiting:
        text = waiting.pop()
        if text not in readings:
            readings.add(text)
            waiting += [text.removeprefix(prefix) for prefix in prefixes if prefix and text.startswith(prefix) and text != prefix]
    return readings


def _international(number: str) -> str:
    """Return a number with `+` for `00`, and with one `+`."""
    digits = number.lstrip("+")
    if digits.startswith(_INTERNATIONAL):
        return "+" + digits.lstrip("0")
    return f"+{digits}" if number.startswith("+") else number


def _matches(number: str, rules: Iterable[str]) -> bool:
    """Return whether a rule matches, as written or with `+` for its `00`."""
    return any(fnmatchcase(number, rule) or fnmatchcase(number, _international(rule)) for rule in rules)
