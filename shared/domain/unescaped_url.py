"""Puts a RecordingURL together that the sender did not escape, so that the query cut it at its first `&`.

    CallID=7&RecordingURL=https://pbx/_cros_/master/?uid=form_faster_downloadcall&target=self&nId=7&CallerID=1001

Its pieces are the parameters after it that the adapter does not explain. They are escaped here, as they should have been.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from urllib.parse import quote, unquote_plus

from shared.domain.adapter_link import SECRET_PARAMETER, Adapter, Placeholder
from shared.percent_encoding import bytes_of

_RECORDING_URL = Placeholder.RECORDING_URL.value
_MAX_BYTES = 8 * 1024
# A program that escapes what no URL has, but not its separators, escapes `%` too.
_ESCAPED_TWICE = re.compile(r"%25(?=[0-9A-Fa-f]{2})")
_ESCAPED_SEPARATORS = re.compile("%(?:26|3[Dd])")
# Blanks, line ends, quotes and angle brackets around the URL.
_WRAPPER = r"(?:\+|%(?:20|09|0[ADad]|22|27|3[CcEe]))+"
_WRAPPERS = re.compile(rf"^{_WRAPPER}|{_WRAPPER}$")


def with_whole_url(adapter: Adapter, parts: list[str]) -> list[str]:
    """Return the parts of a query, with the RecordingURL and its pieces as one escaped part."""
    start = next((number for number, part in enumerate(parts) if _meaning(adapter, part) == _RECORDING_URL), None)
    if start is None:
        return parts
    name, equals, url = parts[start].partition("=")
    if not equals or ("://" not in url and "?" not in url):
        return parts
    end = start + 1
    if "?" in url:
        end += _count_of_pieces(adapter, _name(parts[start]), {_name(part) for part in parts[:start]}, parts[end:])
        if end == start + 1 and _ESCAPED_SEPARATORS.search(url.partition("?")[2]):
            return parts  # it is whole, and escaped where a query needs it
    whole = "&".join((url, *parts[start + 1 : end]))
    content = bytes_of(_WRAPPERS.sub("", _ESCAPED_TWICE.sub("%", whole)))
    if len(content) > _MAX_BYTES:
        return parts
    return [*parts[:start], f"{name}={quote(content, safe='')}", *parts[end:]]


def _count_of_pieces(adapter: Adapter, own: str, before: Collection[str], following: Sequence[str]) -> int:
    """Return how many of the parts that follow a RecordingURL belong to it.

    FocalScope sends parameters in the order of the adapter link. If the last parts are exactly those that the link has after the
    RecordingURL, all before them are pieces, whatever their names. Otherwise the pieces end at the first name of the adapter that
    was not sent before.
    """
    names = [_name(part) for part in following]
    expected = list(adapter.order[adapter.order.index(own) + 1 :]) if own in adapter.order else []
    count = len(names) - len(expected)
    if expected and count >= 0 and names[count:] == expected:
        return count
    own_names = {*adapter.meanings, *adapter.constants, SECRET_PARAMETER}.difference(before)
    return next((number for number, name in enumerate(names) if name in own_names), len(names))


def _name(part: str) -> str:
    name = part.partition("=")[0]
    return unquote_plus(name) if "%" in name or "+" in name else name


def _meaning(adapter: Adapter, part: str) -> str | None:
    name = _name(part)
    return adapter.meanings.get(name) or adapter.folded_meanings.get(name.casefold())
